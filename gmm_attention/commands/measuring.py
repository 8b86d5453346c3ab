"""Models, formats and images to rows of results, in this process or in several others."""

import concurrent.futures
import contextlib
import functools
import glob
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from concurrent.futures.process import BrokenProcessPool
from typing import Callable, NamedTuple

from PIL import __version__ as pillow_version

from gmm_attention import __version__, checkpoints
from gmm_attention.commands import batch
from gmm_attention.errors import CodecError
from gmm_attention.evaluation import codecs, results
from gmm_attention.files import make_folder
from gmm_attention.images import read_image


class Task(NamedTuple):
    """A call, and where its result belongs.

    Attributes:
      identity: dict of the columns that tell the result's row from others.
      function, arguments: what a process is to call; it returns a dict of the row's figures.
    """

    identity: dict
    function: Callable
    arguments: tuple


# What the processes do. TensorFlow is imported there alone.


@functools.lru_cache(maxsize=1)
def load_codec(model, device):
    """An ImageCodec; each process keeps the last one it was asked for. See `batch.start`."""
    return batch.start(model, device)[0]


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


class Workers:
    """Runs tasks in this process, or in several others; a context manager.

    Args:
      jobs: number of processes; 1 for this one.
    """

    def __init__(self, jobs):
        self.jobs = jobs
        self._pool, self._on_interrupt = None, signal.getsignal(signal.SIGINT)
        if jobs > 1:
            # Before they start, for libraries look at it once.
            threads = max(1, len(os.sched_getaffinity(0)) // jobs)
            for library in ("TF_NUM_INTRAOP", "OMP_NUM", "OPENBLAS_NUM"):
                os.environ.setdefault(f"{library}_THREADS", str(threads))
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
            self._pool = concurrent.futures.ProcessPoolExecutor(
                jobs,
                multiprocessing.get_context("spawn"),
                initializer=_begin_worker,
                initargs=(logging.getLogger().level,),
            )

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if not self._pool:
            return
        if kind:
            # Nothing is lost but the images at hand. And not to be interrupted once more, which
            # would leave the processes behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for process in multiprocessing.active_children():
                process.terminate()
        self._pool.shutdown(cancel_futures=True)
        if kind:
            signal.signal(signal.SIGINT, self._on_interrupt)

    def _submit(self, function, arguments):
        # This may start a process, which inherits what a signal does: Ctrl-C is for the parent.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return self._pool.submit(function, *arguments)
        finally:
            signal.signal(signal.SIGINT, self._on_interrupt)

    def load(self, model, device):
        """Loads a model, so that what is wrong with it is told once.

        Raises:
          CodecError: see `batch.start`.
        """
        if self._pool is None:
            load_codec(model, device)
        else:
            with _deaths_told():
                self._submit(_load, (model, device)).result()

    def outcomes(self, tasks):
        """Yields each task, as soon as it is done, and a function that returns its result."""
        if self._pool is None:
            for task in tasks:
                yield task, functools.partial(task.function, *task.arguments)
            return
        futures = {self._submit(task.function, task.arguments): task for task in tasks}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result

    def finish_all(self, tasks, finish, quiet):
        """Runs tasks, see `batch.process_all`.

        Args:
          tasks: list of Task.
          finish: function of a task and its result to the text to print, and what to return.
          quiet: print errors only.

        Returns:
          list of what finish returned, without the failed ones.

        Raises:
          CodecError: a process has died.
        """
        with _deaths_told():
            return batch.process_all(
                self.outcomes(tasks), lambda pair: finish(pair[0], pair[1]()), quiet, len(tasks)
            )


@contextlib.contextmanager
def _deaths_told():
    try:
        yield
    except BrokenProcessPool as error:
        raise CodecError(
            "a process has died, most likely for want of memory; give fewer --jobs: the same "
            "command goes on from here"
        ) from error


def _begin_worker(level):
    logging.basicConfig(format="%(message)s", level=level)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


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
        row = measured.add(**task.identity, **figures, jobs=workers.jobs)
        return _text(row), row

    new = [task for task in tasks if not measured.get(task.identity)]
    if len(new) < len(tasks) and not quiet:
        print(f"{len(tasks) - len(new)} of {len(tasks)} images are in {measured.path} already")
    workers.finish_all(new, finish, quiet)
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
