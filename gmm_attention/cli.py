"""What all programs share on the command line: argument types, options, progress, exit codes."""

from __future__ import annotations

import argparse
import errno
import logging
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TextIO, TypeVar

from gmm_attention.errors import CodecError, printable

DEFAULT_MODEL = "mse-0.0075-n64"  # a name, which `checkpoints.locate` finds from any folder
MODEL_HELP = (
    "exported model, given by its path or by its name in ./models or the installed "
    "gmm-attention-models; training checkpoint; or prefix of a TF1 checkpoint such as "
    "models/model-1399000"
)

_Number = TypeVar("_Number", int, float)
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def number(kind: type[_Number], least: float, most: float = math.inf) -> Callable[[str], _Number]:
    """Returns an argparse type: an int or float within bounds.

    Args:
      kind: int or float.
      least, most: bounds, both allowed themselves.
    """

    def parse(text: str) -> _Number:
        value = kind(text)
        if not least <= value <= most:
            raise ValueError
        return value

    limits = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
    parse.__name__ = f"number {limits}"  # argparse names the type in its error message
    return parse


def positive(text: str) -> float:
    """Argparse type: a finite float above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def add_device_and_quiet(add: Callable[..., argparse.Action]) -> None:
    """Adds --device and --quiet; `add` is the add_argument method of a parser or a group."""
    add(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="where the transforms run; auto takes a GPU if the runtime sees one (auto)",
    )
    add("--quiet", action="store_true", help="print nothing but errors")


_WIPE = "\r\033[K"  # what has a terminal forget its last line

# Columns of the bar where the terminal has room for it, and of a terminal that does not say.
_BAR_WIDTH, _TERMINAL_WIDTH = 30, 80


class _ProgressBar:
    """Keeps a progress bar on the last line of a terminal and wipes it before other output."""

    def __init__(self, total: int, shown: bool):
        self._total, self._done = total, 0
        self._shown = shown and is_terminal(sys.stderr)
        self._begin = time.monotonic()
        self._count = ""

    def draw(self, done: int) -> None:
        if not self._shown or done >= self._total:
            return
        self._done, self._count = done, f"{done}/{self._total}"
        if done:
            left = (time.monotonic() - self._begin) / done * (self._total - done)
            self._count += f", {left:.0f} s left"
        self.show_beside("")

    def show_beside(self, text: str) -> None:
        if not self._shown:
            return
        # The bar gives way to the text: a line that the terminal breaks could not be wiped.
        text, room = f"{self._count}{text}", _columns() - 1
        width = min(_BAR_WIDTH, room - len(text) - len("[] "))
        if width > 0:
            text = f"[{'#' * (width * self._done // self._total):<{width}}] {text}"
        sys.stderr.write(f"{_WIPE}{text[:room]}")
        sys.stderr.flush()

    def wipe(self) -> None:
        if self._shown:
            sys.stderr.write(_WIPE)
            sys.stderr.flush()


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream, if there is one at all, is read by a person as it is written."""
    return stream is not None and stream.isatty()


def _columns() -> int:
    """Width of the terminal that standard error is."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _TERMINAL_WIDTH
    except (OSError, ValueError):  # it is only said to be one
        return _TERMINAL_WIDTH


_bar: _ProgressBar | None = None  # of the `process_all` that is under way


def show_beside_bar(text: str) -> None:
    """Shows how far the image under way has come, if there is a progress bar in this process."""
    if _bar:
        _bar.show_beside(f", {text}")


def process_all(
    jobs: Iterable[_Job],
    process: Callable[[_Job], tuple[str, _Result]],
    quiet: bool,
    total: int,
) -> list[_Result]:
    """Calls process(job) for each job; prints the error of a failed job and goes on with the next.

    Args:
      jobs: iterable; an iterator may do the work of a job before it yields it.
      process: function from a job to a pair: the text to print, and the result. It may raise a
        CodecError, which is printed.
      quiet: whether to print errors only.
      total: number of jobs.

    Returns:
      list of the results of the jobs that succeeded.
    """
    global _bar
    results = []
    _bar = bar = _ProgressBar(total, not quiet)
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
                print(printable(error_text), file=sys.stderr, flush=True)
            elif not quiet:
                print(f"[{done}/{total}] {text}", flush=True)
            bar.draw(done)
    finally:
        bar.wipe()
        _bar = None
    return results


def count_text(done: int, total: int) -> str:
    """Says how many images succeeded and how many failed, such as `3 images, 1 failed`."""
    failed = f", {total - done} failed" if done < total else ""
    return f"{done} image{'' if done == 1 else 's'}{failed}"


class _OneLine(logging.Formatter):
    """Shows a message in one line, whatever the name of a file in it holds.

    Args:
      terminal: whether a progress bar may be where the message is to be, perhaps that of the
        process which started this one.
    """

    def __init__(self, terminal: bool):
        super().__init__()
        self._before = _WIPE if terminal else ""

    def format(self, record: logging.LogRecord) -> str:
        return self._before + printable(record.getMessage())


def set_up_messages(level: int) -> None:
    """Has the process show this project's own warnings and errors, and nothing else.

    What libraries have to say of an image, by Python's warnings or by their own loggers, names no
    file and is no help to who runs a program on a folder. Python's option -W brings most of its
    warnings back.

    Args:
      level: of `logging`, the lowest that is shown.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(is_terminal(handler.stream)))
    handler.addFilter(logging.Filter("gmm_attention"))
    logging.basicConfig(level=level, handlers=[handler])
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def run_main(main: Callable[[], int], quiet: bool) -> int:
    """Runs main() and returns the exit status: 1, with one line on stderr, after a CodecError.

    Ctrl-C and SIGTERM raise an exception in main(), so that it can remove half-written files and
    end its worker processes.

    Args:
      main: function that returns the exit status.
      quiet: whether to log errors only, no warnings.
    """
    signal.signal(signal.SIGTERM, _exit_after_signal)
    set_up_messages(logging.ERROR if quiet else logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name may not fit the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        return main()
    except CodecError as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output has gone. Python would print a second error when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"standard output: cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _exit_after_signal(signal_number: int, _: Any) -> None:
    sys.exit(128 + signal_number)
