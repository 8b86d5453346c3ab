"""The options that encoder and decoder share."""

from __future__ import annotations

import argparse

from gmm_attention.cli import add_device_and_quiet, number
from gmm_attention.images import MAX_PIXELS
from gmm_attention.pipeline.summary import SUFFIXES


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
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="number format of the transforms; bfloat16 is faster on processors that compute in "
        "it (AVX512-BF16, AMX) and changes the picture a little; files written with one can be "
        "decoded with the other (float32)",
    )
    add(
        "--jobs",
        type=number(int, 1),
        metavar="COUNT",
        help="images in flight; 1 uses a single process and the least memory (depends on the "
        "number of cores)",
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
    add_device_and_quiet(add)
    return result


def _summary_path(text: str) -> str:
    """Argparse type: a path with one of the suffixes of a summary."""
    if not text.endswith(SUFFIXES):
        raise argparse.ArgumentTypeError(f"{text!r} ends neither with {' nor '.join(SUFFIXES)}")
    return text
