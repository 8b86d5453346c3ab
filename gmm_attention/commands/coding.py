"""What encoder and decoder share: their options, and the way of many images through their steps."""

import argparse
import contextlib
import os
from typing import Callable, NamedTuple

from loky import cpu_count

from gmm_attention.commands import batch
from gmm_attention.commands.pipeline import in_steps
from gmm_attention.commands.summary import SUFFIXES
from gmm_attention.commands.workers import Workers, deaths_told
from gmm_attention.errors import BitstreamError, CodecError
from gmm_attention.images import MAX_PIXELS
from gmm_attention.training.options import number

# Images that are read, or decoded to latents, while a GPU transforms others.
_AHEAD_ON_GPU = 16

# Beside a GPU, unless more are asked for: each takes its memory, and some time to start.
_MOST_JOBS = 9


def parser(description, default_input, default_output, input_help):
    """An argument parser with the options that encoder and decoder have, but for the model."""
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
        help="of the transforms; bfloat16 is faster on processors that compute in it (AVX512-BF16, "
        "AMX) and changes the picture a little; files of one are decoded by the other (float32)",
    )
    add(
        "--jobs",
        type=number(int, 1),
        metavar="COUNT",
        help="images at a time; 1 uses a single process and the least memory (by the number of "
        "cores)",
    )
    add(
        "--skip-existing",
        action="store_true",
        help="leave away what an earlier run has done with the same model: files that are whole, "
        "of the image's size, and not older than what they are made of",
    )
    add(
        "--summary",
        type=_summary_path,
        metavar="FILE",
        help="write a row for each image to this CSV or JSON file",
    )
    batch.add_device_and_quiet(add)
    return result


def _summary_path(text):
    if not text.endswith(SUFFIXES):
        raise argparse.ArgumentTypeError(f"{text!r} ends neither with {' nor '.join(SUFFIXES)}")
    return text


def divide_cores(jobs, num_images, device):
    """Divides the cores between the transforms and other processes, before TensorFlow computes.

    Args:
      jobs: how many images are to be at work at a time, or None for what the cores allow.
      num_images: that there are.
      device: see `batch.choose_device`.

    Returns:
      the number of other processes.

    Raises:
      CodecError: see `batch.choose_device`.
    """
    batch.choose_device(device)
    import tensorflow as tf

    cores = cpu_count()
    on_gpu = bool(tf.config.get_visible_devices("GPU"))
    if jobs is None:
        # One core takes a sixth of what all of an image takes to encode, and a quarter to decode.
        jobs = min(cores, _MOST_JOBS) if on_gpu else 1 + (cores + 1) // 3
    others = max(min(jobs, num_images) - 1, 0)
    if not on_gpu:
        # One more than what is left, since the others wait at times. TensorFlow by itself does not
        # see a container's quota.
        threads = min(cores, max(cores - others + 1, cores // 2 + 1))
        with contextlib.suppress(RuntimeError):  # of a program that has computed already
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    return others


# The integers' codec of this process.
_latent_codec = None


def latent_codec():
    """The LatentCodec of the codec that `run_all` was given, in any of its processes."""
    return _latent_codec


def _keep_latent_codec(*arguments):
    from gmm_attention.codec.latent_codec import LatentCodec

    global _latent_codec
    _latent_codec = LatentCodec(*arguments)


class Direction(NamedTuple):
    """What encoder or decoder does.

    Attributes:
      pixels, before, transform, after, together: see `pipeline.in_steps`; `after` returns a dict of
        figures.
      existing: function of an item to its figures, or None, if it is not done already.
      text: function of an item and its figures to what is to be printed.
    """

    pixels: Callable
    before: Callable
    transform: Callable
    after: Callable
    together: Callable
    existing: Callable
    text: Callable


def run_all(codec, items, direction, others, summary, skip_existing, quiet):
    """Takes images through encoder or decoder.

    Args:
      codec: ImageCodec.
      items: list of what has a name.
      direction: Direction.
      others: number of other processes, see `divide_cores`.
      summary: Summary.
      skip_existing: whether to leave away what is done already.
      quiet: print errors only.

    Returns:
      list of figures, and list of the items that failed; what was done already is in neither.

    Raises:
      CodecError: a process has died.
    """
    if skip_existing:
        items, all_items = [], items
        for item in all_items:
            figures = direction.existing(item)
            if figures is None:
                items.append(item)
            else:
                summary.add_existing({"name": item.name, **figures})
        if not quiet:
            print(f"{len(all_items) - len(items)} of {len(all_items)} images are done already")
    failed = []

    def finish(outcome):
        item, result = outcome
        try:
            with batch.within_memory(item):
                figures = result()
        except CodecError as error:
            failed.append(item)
            summary.add({"name": item.name, "error": str(error)})
            raise
        summary.add({"name": item.name, **figures})
        return direction.text(item, figures), figures

    global _latent_codec
    _latent_codec = codec.latent_codec
    others = max(min(others, len(items) - 1), 0)
    # A GPU is to find several images of one size.
    ahead = max(others, _AHEAD_ON_GPU) if others and codec.on_gpu else others
    arguments = codec.exported, codec.fingerprint, codec.name
    with Workers(others, prepare=_keep_latent_codec, arguments=arguments) as workers:
        with deaths_told("--skip-existing goes on from here"):
            outcomes = in_steps(
                items,
                direction.pixels,
                direction.before,
                direction.transform,
                direction.after,
                direction.together,
                workers,
                ahead,
            )
            return batch.process_all(outcomes, finish, quiet, len(items)), failed


def figures_of(height, width, num_bytes):
    """The figures that encoder and decoder both have: pixels, bytes of both files, bpp."""
    return {
        "height": height,
        "width": width,
        "bytes": num_bytes,
        "bpp": 8 * num_bytes / (height * width),
    }


def existing(codec, stem, files, sources, fits):
    """Looks for what an earlier run has made.

    Args:
      codec: ImageCodec.
      stem: of the image's two coded files.
      files: what was made, and is to be whole by its checksums.
      sources: what it was made of.
      fits: function of the coded files' file_format.Coded to whether they are of the image's size.

    Returns:
      figures, or None where it is to be made.
    """
    try:
        if not _are_newer(files, sources):
            return None
        pair = read_coded(stem)
        coded = codec.latent_codec.unpack(*pair, coded_names(stem))
        if not fits(coded):
            return None
    except CodecError:
        return None  # to be told when it is made again, if that does not mend it
    return figures_of(coded.height, coded.width, sum(map(len, pair)))


def _are_newer(files, sources):
    """Whether files are there, and not older than what they are made of."""
    try:
        ages = [[os.stat(path).st_mtime_ns for path in paths] for paths in (files, sources)]
    except OSError:
        return False
    return min(ages[0]) >= max(ages[1])


def read_coded(stem):
    """The bytes of an image's two files.

    Raises:
      BitstreamError: one is missing or cannot be read.
    """
    return [read_bytes(path) for path in coded_names(stem)]


def coded_names(stem):
    return f"{stem}.npz", f"{stem}.bin"


def read_bytes(path):
    """The bytes of one of an image's two files; raises as `read_coded`."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise BitstreamError(
            f"{path}: missing; both files of an image are needed, copy it beside the other"
        ) from error
    except OSError as error:
        raise BitstreamError(
            f"{path}: cannot be read: {error.strerror}; check what it is and its permissions"
        ) from error
