"""Function calls in worker processes, or in this one; a worker's death is a CodecError."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool
from types import FrameType
from typing import Any, TypeVar

from gmm_attention.cli import set_up_messages
from gmm_attention.errors import CodecError

# Calls that are under way for each worker: one that it works on, and one that waits.
_CALLS_EACH = 2

# Pixels of all images that are under way, for each worker.
PIXELS_EACH = 2**25

# Python's pool waits for all its workers at once, which Windows can do for no more.
_MOST_ON_WINDOWS = 61

# Seconds that a call has to clean up after SIGTERM, before its worker is killed.
_SECONDS_TO_UNWIND = 2

# Seconds from one look to the next at whether an import that SIGTERM met is finished.
_SECONDS_TO_IMPORT = 0.05

_Result = TypeVar("_Result")


class Workers:
    """A pool of worker processes; a context manager that ends them.

    Args:
      count: number of workers; with 0, `submit` itself calls the function, in this process.
      threads: number of threads that numerical libraries may use in each worker.

    Attributes: count, window, most_pixels: see `run.Processes`.
    """

    def __init__(self, count: int, threads: int = 1):
        self.count = min(count, _MOST_ON_WINDOWS) if sys.platform == "win32" else count
        self.window = max(_CALLS_EACH * self.count, 1)
        self.most_pixels = PIXELS_EACH * self.count if count else math.inf
        # numpy's libraries read these variables once, when they are imported.
        self._environment = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS")}
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None
        if count:
            # Spawned, because a forked process may hang if its parent has threads, as TensorFlow
            # does.
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self.count,
                multiprocessing.get_context("spawn"),
                initializer=_prepare_worker,
                initargs=(logging.getLogger().level,),
            )
            # Before Python 3.11.5 the pool may wait for ever for the thread that writes to a dead
            # worker (CPython's gh-94777).
            queue = self._pool._call_queue  # type: ignore[attr-defined]  # private, so not in stubs
            queue.cancel_join_thread()
            self._given_up, self._ended = threading.Event(), threading.Event()
            pool = self._pool._processes, self._pool._result_queue
            self._watcher = threading.Thread(target=self._watch, args=pool, daemon=True)
            self._watcher.start()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._pool:
            return
        if not kind:
            self._ended.set()
            self._pool.shutdown()
            self._watcher.join()
            return
        # After an exception the calls in flight are stopped, and their results are lost. A second
        # Ctrl-C must not interrupt this, or the workers would be left behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._given_up.set()
        self._pool.shutdown(cancel_futures=True)
        self._ended.set()
        # It may hold the pool's last semaphores, which must be freed when Python exits.
        self._watcher.join()
        signal.signal(signal.SIGINT, before)

    def _watch(self, processes: Mapping[int, Any], results: Any) -> None:
        """Terminates the workers when the pool is given up or one of them has died.

        By itself the pool would wait for ever if a worker died while it held a lock or wrote a
        message. Windows knows no SIGTERM that a call could clean up after: there a pool that is
        given up waits for the calls that have begun.

        Args:
          processes: dict of the pool's processes; it grows as they are started.
          results: the pool's queue of results.
        """
        while not self._ended.wait(0.2):
            children = list(processes.values())
            died = any(child.exitcode for child in children)
            if died or (self._given_up.is_set() and sys.platform != "win32"):
                for child in children:
                    child.terminate()  # in every round, because calls may still be queued
            if died:
                time.sleep(_SECONDS_TO_UNWIND)
                for child in children:
                    child.kill()
                results._writer.close()  # the last open writing end; closing it wakes the reader
                return

    def submit(
        self, function: Callable[..., _Result], *arguments: Any
    ) -> concurrent.futures.Future[_Result]:
        """Calls a function in a worker; see `run.Processes`.

        A SIGTERM to the worker ends the call with a CodecError.
        """
        if self._pool is None:
            future: concurrent.futures.Future[_Result] = concurrent.futures.Future()
            try:
                future.set_result(function(*arguments))
            except (CodecError, MemoryError) as error:
                future.set_exception(error)
            return future
        # This may start a worker, which inherits the environment and the signal mask.
        with _interrupts_delayed(), _added_to_environment(self._environment):
            return self._pool.submit(_call_in_worker, function, *arguments)


@contextlib.contextmanager
def report_lost_processes(advice: str) -> Iterator[None]:
    """Turns a BrokenExecutor into a CodecError, whose message ends with the advice."""
    try:
        yield
    except BrokenExecutor as error:
        cause: object = error
        if isinstance(error, BrokenProcessPool):
            cause = "a worker died, most likely because memory ran out; give fewer --jobs"
        raise CodecError(f"{cause}: {advice}") from error


@contextlib.contextmanager
def _interrupts_delayed() -> Iterator[None]:
    """Delays Ctrl-C to the end of the block; workers started in the block never receive it.

    Windows has no signal masks: there workers ignore Ctrl-C by themselves once they have started.
    """
    received: list[tuple[Any, ...]] = []
    before = signal.signal(signal.SIGINT, lambda *arguments: received.append(arguments))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
        if received and callable(before):
            before(*received[0])


@contextlib.contextmanager
def _added_to_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Adds variables to the environment for the block, except those that are set already."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


# The functions below run in the workers.

_orphaned = False  # whether the parent process has died


class _Terminated(BaseException):
    """Ends a call after SIGTERM; not an Exception, so that the function's handlers let it pass."""


def _terminate(number: int, frame: FrameType | None) -> None:
    # An import that an exception ends may print a traceback, as numpy's does, and leaves half a
    # module behind, so it is finished first.
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            again = threading.Timer(_SECONDS_TO_IMPORT, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        frame = frame.f_back
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing may interrupt the unwinding
    raise _Terminated


def _prepare_worker(level: int) -> None:
    """Sets up logging at this level, signals, and a watch over the parent process."""
    set_up_messages(level)
    # Between calls a worker may be writing a result, and half a message would block the parent,
    # so only calls can be terminated.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _call_in_worker(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Calls the function; SIGTERM raises an exception in it, so it removes half-written files."""
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


def _exit_with_parent() -> None:
    global _orphaned
    parent = multiprocessing.parent_process()
    assert parent is not None  # this process is a worker
    multiprocessing.connection.wait([parent.sentinel])
    _orphaned = True
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_UNWIND)
    os._exit(1)
