"""The options that encoder and decoder share."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator

from gmm_attention import start_up
from gmm_attention.cli import add_device_and_quiet, number
from gmm_attention.images import MAX_PIXELS
from gmm_attention.pipeline.run import Processes
from gmm_attention.pipeline.summary import SUFFIXES
from gmm_attention.pipeline.workers import Workers
from gmm_attention.runtimes.names import PRECISIONS, RUNTIMES
from gmm_attention.start_up import Setup, Started


def parser(
    description: str, default_input: str, default_output: str, input_help: str
) -> argparse.ArgumentParser:
    """Returns a parser with the options that encoder and decoder share, all but --model.

    Args:
      description: of the program.
      default_input, default_output: paths.
      input_help: what --input may be.
    """
    result = argparse.ArgumentParser(description=description)
    add = result.add_argument
    add("--input", metavar="PATH", default=default_input, help=f"{input_help} ({default_input})")
    add(
        "--output",
        metavar="DIR",
        default=default_output,
        help=f"folder for the results, made if need be ({default_output})",
    )
    add(
        "--max-pixels",
        type=number(int, 1, MAX_PIXELS),
        default=MAX_PIXELS,
        metavar="COUNT",
        help=f"refuse larger images, from their headers alone ({MAX_PIXELS}, the format's limit)",
    )
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
    add(
        "--skip-existing",
        action="store_true",
        help="skip images that an earlier run has done with the same model: those whose outputs "
        "are whole, have the image's size, and are not older than their source",
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


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line, and exits with status 2 if its options do not go together."""
    args = parser.parse_args(argv)
    if args.cluster and args.jobs:
        parser.error("--jobs is for this machine, --cluster has as many as it has workers")
    if args.cluster:  # whose workers have other working folders
        args.input, args.output = os.path.abspath(args.input), os.path.abspath(args.output)
    return args


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


@contextlib.contextmanager
def start(
    args: argparse.Namespace, model: str, num_images: int
) -> Iterator[tuple[Setup, Started, Processes]]:
    """Starts the processes that go through the images, and loads the codec in them.

    Args:
      args: the arguments of encoder or decoder.
      model: path or name.
      num_images: number of images in the whole run.

    Yields:
      what the task of each image needs, and the processes.

    Raises:
      CodecError: see `start_up.set_up`, `start_up.start` and `Cluster`.
    """
    choices = args.precision, args.runtime, args.device
    if args.cluster:
        from gmm_attention.pipeline.cluster import Cluster

        setup, _ = start_up.set_up(model, *choices)
        with Cluster(args.cluster) as cluster:
            path = os.path.abspath(setup.model)
            setup = setup._replace(model=path, threads=cluster.threads)
            yield setup, start_up.start(setup, cluster), cluster
        return
    setup, jobs = start_up.set_up(model, *choices, args.jobs, num_images)
    with Workers(jobs if jobs > 1 else 0, setup.threads) as workers:
        yield setup, start_up.start(setup, workers), workers


def _summary_path(text: str) -> str:
    """Argparse type: a path with one of the suffixes of a summary."""
    if not text.endswith(SUFFIXES):
        raise argparse.ArgumentTypeError(f"{text!r} ends neither with {' nor '.join(SUFFIXES)}")
    return text
