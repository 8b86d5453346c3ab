"""Calls in this process, or in several others; what happens to them is told without a traceback."""

import concurrent.futures
import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from concurrent.futures.process import BrokenProcessPool

from gmm_attention.errors import CodecError


class Workers:
    """Calls functions in other processes; a context manager.

    Args:
      count: number of processes; 0 to call in this one, before `submit` returns.
      threads: that libraries may use in each.
      prepare, arguments: function that each process calls first, and what it takes; or None.

    Attributes: count.
    """

    def __init__(self, count, threads=1, prepare=None, arguments=()):
        self.count = count
        self._pool, self._on_interrupt = None, signal.getsignal(signal.SIGINT)
        # Libraries look at these once, when they are imported.
        names = ("TF_NUM_INTRAOP", "OMP_NUM", "OPENBLAS_NUM")
        self._environment = {f"{name}_THREADS": str(threads) for name in names}
        self._environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        if count:
            self._pool = concurrent.futures.ProcessPoolExecutor(
                count,
                # A fork of a process with threads, such as TensorFlow's, may hang.
                multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(logging.getLogger().level, prepare, arguments),
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

    def submit(self, function, *arguments):
        """Has a function called.

        Returns:
          concurrent.futures.Future; in this process, it holds a result, or a CodecError.
        """
        if self._pool is None:
            return _done(function, *arguments)
        # This may start a process, which inherits what a signal does: Ctrl-C is for the parent.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with _added(self._environment):
                return self._pool.submit(function, *arguments)
        finally:
            signal.signal(signal.SIGINT, self._on_interrupt)


def _done(function, *arguments):
    """A Future of what a function returns now, or of the CodecError that it raises."""
    future = concurrent.futures.Future()
    try:
        future.set_result(function(*arguments))
    except CodecError as error:
        future.set_exception(error)
    return future


@contextlib.contextmanager
def deaths_told(advice):
    """Turns the death of a process into a CodecError, which ends with the advice."""
    try:
        yield
    except BrokenProcessPool as error:
        raise CodecError(
            f"a process has died, most likely for want of memory; give fewer --jobs: {advice}"
        ) from error


@contextlib.contextmanager
def _added(variables):
    """Variables of the environment, where the user has not set them."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def _begin(level, prepare, arguments):
    logging.basicConfig(format="%(message)s", level=level)
    # So that files that are half written are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare:
        prepare(*arguments)


def _end_with_parent():
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
