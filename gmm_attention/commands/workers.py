"""Calls in this process, or in several others; what happens to them is told without a traceback."""

import concurrent.futures
import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool

from gmm_attention.errors import CodecError

# A call that is given up unwinds for so long at most, when another process has died.
_SECONDS_TO_UNWIND = 2


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
        # Libraries look at these once, when they are imported.
        names = ("TF_NUM_INTRAOP", "OMP_NUM", "OPENBLAS_NUM")
        self._environment = {f"{name}_THREADS": str(threads) for name in names}
        self._environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        self._pool = None
        if count:
            # A fork of a process with threads, such as TensorFlow's, may hang.
            self._pool = concurrent.futures.ProcessPoolExecutor(
                count,
                multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(logging.getLogger().level, prepare, arguments),
            )
            # Before Python 3.11.5 the pool may wait for ever for what writes to a process that has
            # died (CPython's gh-94777).
            self._pool._call_queue.cancel_join_thread()
            self._given_up, self._ended = threading.Event(), threading.Event()
            pool = self._pool._processes, self._pool._result_queue
            threading.Thread(target=self._watch, args=pool, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if not self._pool:
            return
        if not kind:
            self._ended.set()
            self._pool.shutdown()
            return
        # Nothing is lost but the images at hand. And not to be interrupted once more, which would
        # leave the processes behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._given_up.set()
        self._pool.shutdown(cancel_futures=True)
        self._ended.set()
        signal.signal(signal.SIGINT, before)

    def _watch(self, processes, results):
        """Ends the calls of a pool that is given up, and a pool of which a process has died.

        The pool by itself would wait for ever for the rest of a message, or for a lock, of a
        process that died in the middle of it.
        """
        while not self._ended.wait(0.2):
            children = list(processes.values())
            died = any(child.exitcode for child in children)
            if died or self._given_up.is_set():
                for child in children:
                    child.terminate()  # again and again, for some calls may still be waiting
            if died:
                time.sleep(_SECONDS_TO_UNWIND)
                for child in children:
                    child.kill()
                results._writer.close()  # the last one that is open, so that its reader wakes
                return

    def submit(self, function, *arguments):
        """Has a function called.

        Returns:
          concurrent.futures.Future of what it returns, or of the CodecError or MemoryError it
          raises; CodecError also if somebody ends the call by SIGTERM.
        """
        if self._pool is None:
            future = concurrent.futures.Future()
            try:
                future.set_result(function(*arguments))
            except (CodecError, MemoryError) as error:
                future.set_exception(error)
            return future
        # This may start a process.
        with _uninterrupted(), _added(self._environment):
            return self._pool.submit(_call, function, *arguments)


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
def _uninterrupted():
    """Ctrl-C comes afterwards; processes that start meanwhile inherit that it is not for them."""
    came = []
    before = signal.signal(signal.SIGINT, lambda *arguments: came.append(arguments))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(*came[0])


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


# In the other processes.

_orphaned = False


class _Terminated(BaseException):
    pass


def _terminate(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what unwinds is not to be interrupted
    raise _Terminated


def _begin(level, prepare, arguments):
    logging.basicConfig(format="%(message)s", level=level)
    # Between calls a process may be writing a result: half of one would stop the parent.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare:
        prepare(*arguments)


def _call(function, *arguments):
    """Calls the function; SIGTERM makes it unwind, so that files that are half written go."""
    try:
        if _orphaned:
            raise _Terminated
        signal.signal(signal.SIGTERM, _terminate)
        try:
            return function(*arguments)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except _Terminated:
        raise CodecError(
            f"{arguments[0]}: ended by a signal; give the same command again"
        ) from None


def _end_with_parent():
    global _orphaned
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    _orphaned = True
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_UNWIND)
    os._exit(1)
