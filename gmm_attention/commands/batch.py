"""What the programs share: the device, the walk over many files, how they end."""

import contextlib
import functools
import logging
import os
import signal
import sys
import time

from gmm_attention.errors import BitstreamError, CodecError

MODELS = "models"
DEFAULT_MODEL = os.path.join(MODELS, "mse-0.0032-n48")
MODEL_HELP = (
    "exported model, training checkpoint, or prefix of a TF1 checkpoint such as "
    "models/model-1399000"
)


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


class _ProgressBar:
    """The last line of a terminal while there is work; wiped before anything else is printed."""

    def __init__(self, total, shown):
        self._total, self._shown = total, shown and sys.stderr.isatty()
        self._begin = time.monotonic()

    def draw(self, done):
        if not self._shown or done >= self._total:
            return
        text = f"[{'#' * (30 * done // self._total):<30}] {done}/{self._total}"
        if done:
            left = (time.monotonic() - self._begin) / done * (self._total - done)
            text += f", {left:.0f} s left"
        self._write(text)

    def wipe(self):
        if self._shown:
            self._write("")

    def _write(self, text):
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def process_all(jobs, process, quiet, total=None):
    """Calls process(job) for each job; an error in one is printed and the others go on.

    Args:
      jobs: list, or an iterator with its total, which may do the work that precedes a job.
      process: function of a job to the text to print for it, and what is to be returned.
      quiet: print errors only.

    Returns:
      list of what process returned, without the failed ones.
    """
    total = len(jobs) if total is None else total
    results, bar = [], _ProgressBar(total, not quiet)
    try:
        bar.draw(0)
        for done, job in enumerate(jobs, 1):
            text = error_text = None
            try:
                text, result = process(job)
                results.append(result)
            except CodecError as error:
                error_text = str(error)
            bar.wipe()
            if error_text:
                print(error_text, file=sys.stderr, flush=True)
            elif not quiet:
                print(f"[{done}/{total}] {text}", flush=True)
            bar.draw(done)
    finally:
        bar.wipe()
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


@contextlib.contextmanager
def within_memory(name):
    """Turns want of memory into a CodecError about what is named."""
    try:
        yield
    except MemoryError as error:
        raise CodecError(f"{name}: not enough memory; free some, or give --jobs 1") from error


def guarded(main, quiet):
    """Runs main(); the exit status is 1, with one line on stderr, after a CodecError.

    Ctrl-C and a cluster's SIGTERM leave no half-written file behind, and no other process.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
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
