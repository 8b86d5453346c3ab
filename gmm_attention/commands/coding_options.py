"""The options that encoder and decoder share, and what their paths stand for."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from gmm_attention import start_up
from gmm_attention.checkpoints.locate import is_model
from gmm_attention.cli import add_device_and_quiet, is_terminal, number
from gmm_attention.errors import printable
from gmm_attention.files import is_stream
from gmm_attention.images import MAX_PIXELS
from gmm_attention.pipeline.run import Processes
from gmm_attention.pipeline.summary import SUFFIXES
from gmm_attention.pipeline.workers import Workers
from gmm_attention.runtimes.names import PRECISIONS, RUNTIMES
from gmm_attention.start_up import Setup, Started

STANDARD = "-"  # standard input or output

_logger = logging.getLogger(__name__)


def parser(
    description: str,
    default_input: str,
    default_output: str,
    input_help: str,
    one_file: str,
    no_folder: tuple[str, ...],
) -> argparse.ArgumentParser:
    """Returns a parser with the options that encoder and decoder share.

    Args:
      description: of the program.
      default_input, default_output: paths.
      input_help: what the inputs may be.
      one_file: suffix of the file that --output may be besides a folder.
      no_folder: suffixes of other files, by which nobody means to name a folder.
    """
    result = argparse.ArgumentParser(description=description)
    result.set_defaults(
        default_input=default_input,
        default_output=default_output,
        one_file=one_file,
        no_folder=no_folder,
        info=False,  # an option of the decoder alone
        effort=0,  # and one of the encoder
    )
    add = result.add_argument
    add("paths", metavar="PATH", nargs="*", help="the same as --input PATH")
    add(
        "--input",
        metavar="PATH",
        nargs="+",
        help=f"{input_help}; or - for standard input ({default_input})",
    )
    add(
        "--output",
        "-o",
        metavar="PATH",
        help=f"folder for the results, made if need be; or of one image a file NAME{one_file}, or "
        f"- for standard output ({default_output}; for standard input -)",
    )
    add(
        "--exclude",
        metavar="GLOB",
        action="append",
        default=[],
        help="pass over what matches in a folder, by a part of its path or all of it, such as "
        "'*_edited*' or 'raw/*'; may be repeated",
    )
    add(
        "--overwrite",
        action="store_true",
        help="replace files that these programs did not write, such as a photograph",
    )
    add(
        "--max-pixels",
        type=number(int, 1, MAX_PIXELS),
        default=MAX_PIXELS,
        metavar="COUNT",
        help=f"refuse larger images, from their headers alone ({MAX_PIXELS}, the format's limit)",
    )
    _add_processes(add)
    add(
        "--skip-existing",
        action="store_true",
        help="skip images that an earlier run has done with the same model: those whose outputs "
        "are whole, have the image's size, and the date of their source",
    )
    add(
        "--summary",
        type=_summary_path,
        metavar="FILE",
        help="write a row for each image to this CSV or JSON file",
    )
    add_runtime(add)
    add(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="number format of the transforms; bfloat16 is faster on processors that compute in "
        "it (AVX512-BF16, AMX) and changes the picture a little; files written with one can be "
        "decoded with the other (float32)",
    )
    add_device_and_quiet(add)
    return result


def _add_processes(add: Callable[..., argparse.Action]) -> None:
    add(
        "--jobs",
        type=number(int, 1),
        metavar="COUNT",
        help="images at a time, each in a process of its own with its share of the cores; 1 uses "
        "a single process and the least memory (one for each core, 16 at most)",
    )
    add(
        "--cluster",
        metavar="ADDRESS",
        help="let the workers of a dask cluster do the images; they need this program and the "
        "same file system (pip install 'gmm-attention[cluster]')",
    )


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line, and exits with status 2 if its options do not go together.

    Returns:
      args, with the list of all inputs as `input`.
    """
    args = parser.parse_intermixed_args(argv)
    inputs = args.paths + (args.input or [])
    # --model takes several, and so it also took the rest of `--model models/A photographs`.
    while args.model and len(args.model) > 1 and _is_input(args.model[-1]):
        inputs.append(args.model.pop())
    args.input = inputs or [args.default_input]
    if args.output is None:
        args.output = STANDARD if args.input == [STANDARD] else args.default_output
    streams = [path for path in (*args.input, args.output) if is_stream(path)]
    if args.cluster and streams:
        parser.error(f"--cluster cannot do {streams[0]}: only this machine has it")
    if args.cluster and args.jobs:
        parser.error("--jobs is for this machine, --cluster has as many as it has workers")
    if len(args.input) > 1 and takes_one(args):
        parser.error(f"--output {args.output} holds one image; give a folder for several")
    if args.input.count(STANDARD) > 1:
        parser.error("- stands for standard input, of which there is one")
    if args.output == STANDARD and not args.info and is_terminal(sys.stdout):
        parser.error("the result is no text for a terminal; give --output, or redirect it")
    suffix = os.path.splitext(args.output)[1].lower()
    if suffix in args.no_folder and not takes_one(args) and not os.path.exists(args.output):
        parser.error(f"--output {args.output}: give a folder, or a file NAME{args.one_file}")
    if args.cluster:  # whose workers have other working folders
        args.input = [os.path.abspath(path) for path in args.input]
        args.output = os.path.abspath(args.output)
    return args


def _is_input(path: str) -> bool:
    return path == STANDARD or (os.path.exists(path) and not is_model(path))


def takes_one(args: argparse.Namespace) -> bool:
    """Whether --output is a file or a stream, which holds one image, rather than a folder."""
    output = args.output
    named = output.lower().endswith(args.one_file) and not os.path.isdir(output)
    return is_stream(output) or named


def add_runtime(add: Callable[..., argparse.Action]) -> None:
    """Adds --runtime; `add` is the add_argument method of a parser or a group."""
    add(
        "--runtime",
        choices=RUNTIMES,
        default="auto",
        help="what computes the transforms; either decodes what the other encoded; auto takes "
        "ONNX Runtime for exported models in float32, where it is installed, and otherwise "
        "TensorFlow (auto)",
    )


def name_of_standard_input(found: Iterable[tuple[object, str]]) -> str:
    """The name of the output of standard input, beside those of (path, name)."""
    taken = {name.casefold() for _, name in found}
    name, number = "stdin", 1
    while name in taken:
        number += 1
        name = f"stdin-{number}"
    return name


def tell(notes: Sequence[str], failures: Sequence[str]) -> None:
    """Says what a listing passed over, and what it could not reach."""
    for note in notes:
        _logger.warning("%s", note)
    for failure in failures:
        print(printable(failure), file=sys.stderr, flush=True)


@contextlib.contextmanager
def printing_elsewhere(output: str) -> Iterator[None]:
    """Has what is printed go to standard error if standard output is to hold an image."""
    with contextlib.redirect_stdout(sys.stderr) if is_stream(output) else contextlib.nullcontext():
        yield


class Codecs(NamedTuple):
    """What a run's images are coded with.

    Attributes:
      setups: dict of a model's path, as it was given, to its Setup.
      started: of the first of them, None if there is none.
      processes: Processes.
    """

    setups: dict[str, Setup]
    started: Started | None
    processes: Processes


@contextlib.contextmanager
def start(args: argparse.Namespace, models: Sequence[str], num_images: int) -> Iterator[Codecs]:
    """Starts the processes that go through the images, and loads the first codec in them.

    Args:
      args: the arguments of encoder or decoder.
      models: paths or names; without any, nothing is started.
      num_images: number of images in the whole run.

    Yields:
      Codecs.

    Raises:
      CodecError: see `start_up.set_up`, `start_up.start` and `Cluster`.
    """
    choices = args.precision, args.runtime, args.device
    if not models:
        with Workers(0) as here:
            yield Codecs({}, None, here)
        return
    if args.cluster:
        from gmm_attention.pipeline.cluster import Cluster

        found = {model: start_up.set_up(model, *choices, effort=args.effort)[0] for model in models}
        with Cluster(args.cluster) as cluster:
            setups = {
                model: setup._replace(model=os.path.abspath(setup.model), threads=cluster.threads)
                for model, setup in found.items()
            }
            started = start_up.start(setups[models[0]], cluster)
            yield Codecs(setups, started, cluster)
        return
    first, jobs = start_up.set_up(models[0], *choices, args.jobs, num_images, args.effort)
    setups = {models[0]: first}
    for model in models[1:]:
        setups[model], _ = start_up.set_up(model, *choices, jobs, num_images, args.effort)
    with Workers(jobs if jobs > 1 else 0, first.threads) as workers:
        yield Codecs(setups, start_up.start(first, workers), workers)


def _summary_path(text: str) -> str:
    """Argparse type: a path with one of the suffixes of a summary."""
    if not text.endswith(SUFFIXES):
        raise argparse.ArgumentTypeError(f"{text!r} ends neither with {' nor '.join(SUFFIXES)}")
    return text
