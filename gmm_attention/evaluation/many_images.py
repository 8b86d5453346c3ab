"""Models, formats and images -> rows of results, in this process or in several workers."""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from loky import cpu_count
from PIL import __version__ as pillow_version

from gmm_attention import cli
from gmm_attention.checkpoints.locate import ModelPath
from gmm_attention.codec import efforts
from gmm_attention.errors import naming, printable, within_memory
from gmm_attention.evaluation import codecs, one_image, results
from gmm_attention.evaluation.results import Results, Row
from gmm_attention.files import make_folder
from gmm_attention.images import read_image
from gmm_attention.pipeline.workers import Workers, report_lost_processes
from gmm_attention.start_up import Setup

if TYPE_CHECKING:
    from gmm_attention.evaluation.bits import Bits

_Finished = TypeVar("_Finished")


class Task(NamedTuple):
    """A measurement of one image, as a call, and the row that its result belongs to.

    Attributes:
      path: of the image.
      identity: dict of the columns that tell the result's row from others.
      function, arguments: the call, which may run in a worker. It returns a dict of the row's
        figures, or Bits.
    """

    path: str
    identity: dict[str, str]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


# The calls.


def _measure(setup: Setup, estimate: bool, path: str) -> dict[str, Any]:
    codec, image = setup.codec(), read_image(path)
    with naming(path):
        if estimate:
            figures = one_image.estimate(codec, image)
        else:
            figures, _ = one_image.measure(codec, image, setup.effort)
    return {**figures, "runtime": codec.runtime.title}


def _measure_format(name: str, bpp: float, path: str) -> dict[str, Any]:
    codecs.check(name)
    image = read_image(path)
    with naming(path):
        return one_image.measure_format(name, image, bpp)[0]


def _take_bits_apart(setup: Setup, path: str, picture: str, title: str) -> Bits:
    """Counts the bits of an image, and draws their map into the file `picture`."""
    from gmm_attention.evaluation import bits, plots

    codec, image = setup.codec(), read_image(path)
    with naming(path):
        result = bits.bits_of(codec, image)
    make_folder(os.path.dirname(picture))
    plots.bits_map(picture, image, result, title)
    return result


def start_workers(jobs: int) -> Workers:
    """Starts workers for a number of simultaneous tasks; for one, this process is enough."""
    threads = max(1, cpu_count() // jobs)
    return Workers(jobs if jobs > 1 else 0, threads)


def finish_all(
    workers: Workers,
    tasks: Sequence[Task],
    finish: Callable[[Task, Any], tuple[str, _Finished]],
    quiet: bool,
) -> list[_Finished]:
    """Runs tasks and prints a text about each; see `cli.process_all`.

    Args:
      workers: Workers.
      tasks: list of Task.
      finish: function of a task and its result, which returns the text to print, and a value.
      quiet: whether to print errors only.

    Returns:
      list of the values of the tasks that succeeded, as they were done.

    Raises:
      CodecError: a worker died.
    """

    def process(outcome: tuple[Task, Callable[[], Any]]) -> tuple[str, _Finished]:
        task, result = outcome
        with within_memory(task.path):
            return finish(task, result())

    with report_lost_processes("the same command goes on from here"):
        return cli.process_all(_outcomes(workers, tasks), process, quiet, len(tasks))


def _outcomes(workers: Workers, tasks: Sequence[Task]) -> Iterator[tuple[Task, Callable[[], Any]]]:
    """Yields each task, as soon as it is done, with a function that returns its result."""
    if not workers.count:
        for task in tasks:
            yield task, functools.partial(task.function, *task.arguments)
        return
    futures = {workers.submit(task.function, *task.arguments): task for task in tasks}
    for future in concurrent.futures.as_completed(futures):
        yield futures[future], future.result


def model_tasks(
    image_set: str,
    found: Iterable[tuple[Path, str]],
    name: str,
    model: ModelPath,
    setup: Setup,
    estimate: bool,
) -> list[Task]:
    """Makes the tasks that measure a model on images.

    Args:
      image_set: name of the image set.
      found: list of (path, name), see `image_folders.find_images`.
      name: what rows call the model.
      model: ModelPath.
      setup: Setup of its codec, with the effort.
      estimate: whether to measure the cross-entropy instead of coded files.
    """
    # Latents may differ between runtimes, if rarely.
    inputs = [results.METHOD, setup.runtime, _digest_of_files(model.weight_files)]
    if setup.effort:
        # The search depends on its own code, and weighs what the model was trained for.
        searched_for = (model.settings.get(key) for key in ("metric", "lambda"))
        inputs += [efforts.METHOD, *map(str, searched_for)]
    return [
        Task(
            str(path),
            {
                "set": image_set,
                "codec": results.OWN,
                "model": name,
                "rate": results.ESTIMATE if estimate else results.FILES,
                "effort": str(setup.effort),
                "image": image,
                "inputs": results.digest(*inputs, _digest_of_files([path])),
            },
            _measure,
            (setup, estimate, str(path)),
        )
        for path, image in found
    ]


def format_tasks(found: Iterable[tuple[Path, str]], rows: Sequence[Row], name: str) -> list[Task]:
    """Makes the tasks that measure a format on images, at a model's rate on each of them.

    Args:
      found: list of (path, name), see `image_folders.find_images`.
      rows: the model's rows, at least one; images without a row are left out.
      name: of the format, a key of `codecs.FORMATS`.
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
                "effort": rows[0]["effort"],
                "image": image,
                # The inputs of the model's row cover the image, so no file is read again.
                "inputs": results.digest(
                    image_format,
                    pillow_version,
                    by_image[image]["bpp"],
                    by_image[image]["inputs"],
                ),
            },
            _measure_format,
            (name, by_image[image]["bpp"], str(path)),
        )
        for path, image in found
        if image in by_image
    ]


def bits_tasks(
    found: Iterable[tuple[Path, str]], model: str, setup: Setup, folder: str
) -> list[Task]:
    """Makes the tasks that count the bits of images, and draw a map of each into a folder.

    Args:
      found: list of (path, name), see `image_folders.find_images`.
      model: what titles call the model.
      setup: Setup of its codec.
      folder: of the maps.
    """
    return [
        Task(
            str(path),
            {"model": model, "image": name},
            _take_bits_apart,
            (setup, str(path), map_path(folder, name), f"{name}, {model}"),
        )
        for path, name in found
    ]


def map_path(folder: str, name: str) -> str:
    """The file of an image's map of bits."""
    return os.path.join(folder, f"{name}.png")


def rows_of(tasks: Sequence[Task], measured: Results, workers: Workers, quiet: bool) -> list[Row]:
    """Runs the tasks that have no row yet.

    Args:
      tasks: list of Task.
      measured: Results, to which each new row is added at once.
      workers: Workers.
      quiet: whether to print errors only.

    Returns:
      list of rows, in the order of the tasks; those that failed are left out.
    """

    def finish(task: Task, figures: Mapping[str, Any]) -> tuple[str, Row]:
        row = measured.add(**task.identity, **figures, jobs=max(workers.count, 1))
        return _text(row), row

    new = [task for task in tasks if not measured.get(task.identity)]
    if len(new) < len(tasks) and not quiet:
        print(f"{len(tasks) - len(new)} of {len(tasks)} images are in {measured.path} already")
    finish_all(workers, new, finish, quiet)
    rows = [measured.get(task.identity) for task in tasks]
    # A row may have been measured under another path of the model.
    return [{**row, **task.identity} for task, row in zip(tasks, rows) if row]


def _digest_of_files(paths: Iterable[str | os.PathLike[str]]) -> str:
    parts = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                parts.append(file.read())
        except OSError:
            parts.append(b"")  # the code that needs its content reports the error
    return results.digest(*parts)


def _text(row: Row) -> str:
    """What is printed about a row."""
    title = row["codec"]
    if title == results.OWN:
        title = results.model_title(row["model"], int(row["effort"]))
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
    return printable(", ".join(parts))
