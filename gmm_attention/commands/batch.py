"""What encoder and decoder share: their arguments, start-up, and the walk over many files."""

import argparse
import contextlib
import functools
import logging
import os
import sys
import time

from gmm_attention.commands.pipeline import in_steps
from gmm_attention.commands.summary import SUFFIXES
from gmm_attention.commands.workers import Workers, deaths_told
from gmm_attention.errors import BitstreamError, CodecError
from gmm_attention.images import MAX_PIXELS
from gmm_attention.training.options import number

_AHEAD_ON_GPU = 16

MODELS = "models"
DEFAULT_MODEL = os.path.join(MODELS, "mse-0.0032-n48")
MODEL_HELP = (
    "exported model, training checkpoint, or prefix of a TF1 checkpoint such as "
    "models/model-1399000"
)


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
    add_device_and_quiet(add)
    return result


def _summary_path(text):
    if not text.endswith(SUFFIXES):
        raise argparse.ArgumentTypeError(f"{text!r} ends neither with {' nor '.join(SUFFIXES)}")
    return text


def add_device_and_quiet(add):
    """Adds --device and --quiet; `add` is a parser's or a group's add_argument."""
    add(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="where the transforms run; auto takes a GPU if TensorFlow sees one (auto)",
    )
    add("--quiet", action="store_true", help="print nothing but errors")


def start(model, device, precision="float32"):
    """Imports TensorFlow, chooses the device and loads the codec: an ImageCodec.

    Raises:
      CodecError: no GPU where one is asked for, no such model, or no such precision there.
    """
    choose_device(device)
    import numpy as np

    from gmm_attention.codec import image_codec

    codec = image_codec.load(model, precision)
    # TensorFlow makes its plan of each transform at its first run.
    codec.decompress(codec.compress(np.zeros([64, 64, 3], np.uint8)))
    return codec


@functools.lru_cache
def choose_device(device):
    """Imports TensorFlow and chooses what it computes on, once.

    Raises:
      CodecError: no GPU where one is asked for.
    """
    # TensorFlow reports its own start on stderr, where our errors belong.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise CodecError(
            "--device gpu: TensorFlow sees no GPU; install '.[gpu]' and a CUDA 11.8 driver, or "
            "leave --device away"
        )
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")


def divide_cores(jobs, num_images, device):
    """Divides the cores between the transforms and other processes, before TensorFlow computes.

    Args:
      jobs: how many images are to be at work at a time, or None for what the cores allow.
      num_images: that there are.
      device: see `choose_device`.

    Returns:
      the number of other processes.

    Raises:
      CodecError: see `choose_device`.
    """
    choose_device(device)
    import tensorflow as tf

    cores = len(os.sched_getaffinity(0))
    on_gpu = bool(tf.config.get_visible_devices("GPU"))
    if jobs is None:
        # One core takes a sixth of what all of an image takes to encode, and a quarter to decode.
        jobs = cores if on_gpu else 1 + (cores + 1) // 3
    others = max(min(jobs, num_images) - 1, 0)
    if others and not on_gpu:
        # One more than what is left, since the others wait at times.
        with contextlib.suppress(RuntimeError):  # of a program that has computed already
            tf.config.threading.set_intra_op_parallelism_threads(
                max(cores - others + 1, cores // 2 + 1)
            )
    return others


def _progress_bar(done, total, begin):
    left = (time.monotonic() - begin) / done * (total - done) if done else 0
    bar = "#" * (30 * done // total)
    sys.stderr.write(f"\r\033[K[{bar:<30}] {done}/{total}, {left:.0f} s left")
    sys.stderr.flush()


def process_all(jobs, process, quiet, total=None):
    """Calls process(job) for each job; an error in one is printed and the others go on.

    Args:
      jobs: list, or an iterator with its total.
      process: function of a job to the text to print for it, and what is to be returned.
      quiet: print errors only.

    Returns:
      list of what process returned, without the failed ones.
    """
    total = len(jobs) if total is None else total
    results, begin = [], time.monotonic()
    bar = sys.stderr.isatty() and not quiet
    for done, job in enumerate(jobs):
        if bar:
            _progress_bar(done, total, begin)
        text = error_text = None
        try:
            text, result = process(job)
            results.append(result)
        except CodecError as error:
            error_text = str(error)
        if bar:
            sys.stderr.write("\r\033[K")
        if error_text:
            print(error_text, file=sys.stderr, flush=True)
        elif not quiet:
            print(f"[{done + 1}/{total}] {text}", flush=True)
    return results


# The integers' codec of this process.
_latent_codec = None


def latent_codec():
    """The LatentCodec of the codec that `run_all` was given, in any of its processes."""
    return _latent_codec


def _keep_latent_codec(*arguments):
    from gmm_attention.codec.latent_codec import LatentCodec

    global _latent_codec
    _latent_codec = LatentCodec(*arguments)


def run_all(codec, items, others, steps, args, summary, existing, text):
    """Takes images through the steps of encoder or decoder.

    Args:
      codec: ImageCodec.
      items: list of what has a name.
      others: number of other processes, see `divide_cores`.
      steps: before, transform, after, together; see `pipeline.in_steps`. `after` returns a dict of
        figures.
      args: skip_existing and quiet, see `parser`.
      summary: Summary.
      existing: function of an item to its figures, or None, if it is not done already.
      text: function of an item and its figures to what is to be printed.

    Returns:
      list of figures, and list of the items that failed; what was done already is in neither.

    Raises:
      CodecError: a process has died.
    """
    if args.skip_existing:
        items, all_items = [], items
        for item in all_items:
            figures = existing(item)
            if figures is None:
                items.append(item)
            else:
                summary.add_existing({"name": item.name, **figures})
        if not args.quiet:
            print(f"{len(all_items) - len(items)} of {len(all_items)} images are done already")
    failed = []

    def finish(outcome):
        item, result = outcome
        try:
            figures = result()
        except CodecError as error:
            failed.append(item)
            summary.add({"name": item.name, "error": str(error)})
            raise
        summary.add({"name": item.name, **figures})
        return text(item, figures), figures

    global _latent_codec
    _latent_codec = codec.latent_codec
    others = min(others, len(items))
    # A GPU is to find several images of one size.
    ahead = max(others, _AHEAD_ON_GPU) if others and codec.on_gpu else others
    arguments = codec.exported, codec.fingerprint, codec.name
    with Workers(others, prepare=_keep_latent_codec, arguments=arguments) as workers:
        with deaths_told("--skip-existing goes on from here"):
            outcomes = in_steps(items, *steps, workers, ahead)
            return process_all(outcomes, finish, args.quiet, len(items)), failed


def count_text(done, total):
    """`3 images, 1 failed`."""
    failed = f", {total - done} failed" if done < total else ""
    return f"{done} image{'' if done == 1 else 's'}{failed}"


def is_newer(files, sources):
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
    return [_read(path) for path in coded_names(stem)]


def coded_names(stem):
    return f"{stem}.npz", f"{stem}.bin"


def _read(path):
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


@contextlib.contextmanager
def about(path):
    """Puts a file's name before errors of the codec that do not know it."""
    try:
        yield
    except BitstreamError:
        raise
    except CodecError as error:
        raise type(error)(f"{path}: {error}") from error


def guarded(main, quiet):
    """Runs main(); the exit status is 1, with one line on stderr, after a CodecError."""
    logging.basicConfig(format="%(message)s", level=logging.ERROR if quiet else logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        return main()
    except CodecError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
