"""What encoder and decoder share: their arguments, start-up, and the walk over many files."""

import argparse
import contextlib
import functools
import logging
import os
import sys
import time

from gmm_attention.errors import BitstreamError, CodecError
from gmm_attention.images import MAX_PIXELS
from gmm_attention.training.options import number

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
    add_device_and_quiet(add)
    return result


def add_device_and_quiet(add):
    """Adds --device and --quiet; `add` is a parser's or a group's add_argument."""
    add(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="where the transforms run; auto takes a GPU if TensorFlow sees one (auto)",
    )
    add("--quiet", action="store_true", help="print nothing but errors")


def start(model, device):
    """Imports TensorFlow, chooses the device and loads the codec.

    Returns:
      an ImageCodec, and the seconds that it took.

    Raises:
      CodecError: no GPU where one is asked for, or no such model.
    """
    begin = time.monotonic()
    choose_device(device)
    import numpy as np

    from gmm_attention.codec import image_codec

    codec = image_codec.load(model)
    # TensorFlow makes its plan of each transform at its first run.
    codec.decompress(codec.compress(np.zeros([64, 64, 3], np.uint8)))
    return codec, time.monotonic() - begin


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


def count_text(done, total):
    """`3 images, 1 failed`."""
    failed = f", {total - done} failed" if done < total else ""
    return f"{done} image{'' if done == 1 else 's'}{failed}"


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
