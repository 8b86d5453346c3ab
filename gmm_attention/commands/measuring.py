"""Models, formats and images to rows of results, in this process or in several others."""

import concurrent.futures
import functools
import glob
import os
from typing import Callable, NamedTuple

from loky import cpu_count
from PIL import __version__ as pillow_version

from gmm_attention import __version__, checkpoints
from gmm_attention.commands import batch
from gmm_attention.commands.workers import Workers, deaths_told
from gmm_attention.evaluation import codecs, results
from gmm_attention.files import make_folder
from gmm_attention.images import read_image


class Task(NamedTuple):
    """A call, and where its result belongs.

    Attributes:
      path: the image's.
      identity: dict of the columns that tell the result's row from others.
      function, arguments: what a process is to call; it returns a dict of the row's figures.
    """

    path: str
    identity: dict
    function: Callable
    arguments: tuple


# What the processes do. TensorFlow is imported there alone.


@functools.lru_cache(maxsize=1)
def load_codec(model, device):
    """An ImageCodec; each process keeps the last one it was asked for. See `batch.start`."""
    return batch.start(model, device)


def _load(model, device):
    load_codec(model, device)


def _measure(model, device, estimate, path):
    from gmm_attention.evaluation import measurement

    codec, image = load_codec(model, device), read_image(path)
    with batch.about(path):
        if estimate:
            return measurement.estimate(codec, image)
        return measurement.measure(codec, image)[0]


def _measure_format(name, bpp, device, path):
    from gmm_attention.evaluation import measurement

    batch.choose_device(device)
    codecs.check(name)
    image = read_image(path)
    with batch.about(path):
        return measurement.measure_format(name, image, bpp)[0]


def _take_bits_apart(model, device, path, picture, title):
    from gmm_attention.evaluation import bits, plots

    codec, image = load_codec(model, device), read_image(path)
    with batch.about(path):
        result = bits.bits_of(codec, image)
    make_folder(os.path.dirname(picture))
    plots.bits_map(picture, image, result, title)
    return result


def start_workers(jobs):
    """Workers for a number of tasks at a time; for one, this process is enough."""
    threads = max(1, cpu_count() // jobs)
    return Workers(jobs if jobs > 1 else 0, threads)


def load(workers, model, device):
    """Loads a model in one of the processes, so that what is wrong with it is told once.

    Raises:
      CodecError: see `batch.start`, or a process has died.
    """
    with _deaths_told(), batch.within_memory(model):
        workers.submit(_load, model, device).result()


def finish_all(workers, tasks, finish, quiet):
    """Runs tasks, see `batch.process_all`.

    Args:
      workers: Workers.
      tasks: list of Task.
      finish: function of a task and its result to the text to print, and what to return.
      quiet: print errors only.

    Returns:
      list of what finish returned, without the failed ones.

    Raises:
      CodecError: a process has died.
    """

    def process(outcome):
        task, result = outcome
        with batch.within_memory(task.path):
            return finish(task, result())

    with _deaths_told():
        return batch.process_all(_outcomes(workers, tasks), process, quiet, len(tasks))


def _outcomes(workers, tasks):
    """Yields each task, as soon as it is done, and a function that returns its result."""
    if not workers.count:
        for task in tasks:
            yield task, functools.partial(task.function, *task.arguments)
        return
    futures = {workers.submit(task.function, *task.arguments): task for task in tasks}
    for future in concurrent.futures.as_completed(futures):
        yield futures[future], future.result


def _deaths_told():
    return deaths_told("the same command goes on from here")


# What there is to do.


def weight_files(model):
    """The files that hold a model's weights; none where there is no model.

    Args:
      model: path of a directory, or prefix of a TF1 checkpoint.
    """
    if os.path.isdir(model):
        return [os.path.join(model, checkpoints.WEIGHTS_FILE)]
    prefix = glob.escape(model[: -len(".index")] if model.endswith(".index") else model)
    return sorted(glob.glob(f"{prefix}.index") + glob.glob(f"{prefix}.data-*"))


def model_tasks(image_set, found, model, device, estimate):
    """Tasks that measure a model on images.

    Args:
      image_set: what the images are called.
      found: list of (path, name), see `images.find_images`.
      model: path.
      device: "auto", "cpu" or "gpu".
      estimate: whether to take the cross-entropy in place of files.
    """
    weights = _digest_of_files(weight_files(model))
    return [
        Task(
            str(path),
            {
                "set": image_set,
                "codec": results.OWN,
                "model": model,
                "rate": results.ESTIMATE if estimate else results.FILES,
                "image": name,
                "inputs": results.digest(__version__, weights, _digest_of_files([path])),
            },
            _measure,
            (model, device, estimate, str(path)),
        )
        for path, name in found
    ]


def format_tasks(found, rows, name, device):
    """Tasks that code images in a format, each at the rate that a model has there.

    Args:
      found: list of (path, name), see `images.find_images`.
      rows: list of the model's rows.
      name: of the format.
      device: for MS-SSIM.
    """
    by_image = {row["image"]: row for row in rows}
    image_format = codecs.FORMATS[name]
    return [
        Task(
            str(path),
            {
                "set": rows[0]["set"],
                "codec": image_format.title,
                "model": rows[0]["model"],
                "rate": results.FILES,
                "image": image,
                # The model's own inputs tell the image; no file is read again.
                "inputs": results.digest(
                    image_format,
                    pillow_version,
                    by_image[image]["bpp"],
                    by_image[image]["inputs"],
                ),
            },
            _measure_format,
            (name, by_image[image]["bpp"], device, str(path)),
        )
        for path, image in found
        if image in by_image
    ]


def bits_tasks(found, model, device, folder):
    """Tasks that take coded images apart, and draw a picture of each into a folder."""
    return [
        Task(
            str(path),
            {"model": model, "image": name},
            _take_bits_apart,
            (model, device, str(path), os.path.join(folder, f"{name}.png"), f"{name}, {model}"),
        )
        for path, name in found
    ]


def rows_of(tasks, measured, workers, quiet):
    """Runs the tasks that have no row yet.

    Args:
      tasks: list of Task.
      measured: Results; new rows are added as soon as they are there.
      workers: Workers.
      quiet: print errors only.

    Returns:
      list of rows, in the order of the tasks; those that failed are left out.
    """

    def finish(task, figures):
        row = measured.add(**task.identity, **figures, jobs=max(workers.count, 1))
        return _text(row), row

    new = [task for task in tasks if not measured.get(task.identity)]
    if len(new) < len(tasks) and not quiet:
        print(f"{len(tasks) - len(new)} of {len(tasks)} images are in {measured.path} already")
    finish_all(workers, new, finish, quiet)
    rows = [measured.get(task.identity) for task in tasks]
    # A row may have been measured when the model had another path.
    return [{**row, **task.identity} for task, row in zip(tasks, rows) if row]


def _digest_of_files(paths):
    parts = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                parts.append(file.read())
        except OSError:
            parts.append(b"")  # whoever reads it for its content will complain
    return results.digest(*parts)


def _text(row):
    title = row["model"] if row["codec"] == results.OWN else row["codec"]
    parts = [f"{title}: {row['image']}: {row['bpp']:.4f} bpp"]
    if row["rate"] == results.ESTIMATE:
        parts[0] += " (estimated)"
    parts.append(f"PSNR {row['psnr']:.2f} dB")
    if row["ms_ssim"] is None:
        parts.append("no MS-SSIM: a side is under 161 pixels")
    else:
        parts.append(f"MS-SSIM {row['ms_ssim']:.4f}")
    if row["encode_seconds"] is not None:
        parts.append(f"{row['encode_seconds']:.3f} + {row['decode_seconds']:.3f} s")
    return ", ".join(parts)
