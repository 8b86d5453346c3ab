"""Function calls in the workers of a dask cluster, which share a file system with this machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from typing import Any, TypeVar

from gmm_attention.errors import CodecError

_Result = TypeVar("_Result")

_logger = logging.getLogger(__name__)

# Seconds to wait for a scheduler and for its first worker, and before it is said that none is left.
_PATIENCE = 20

_INSTALL = "pip install 'gmm-attention[cluster]', of one version here and for the workers"


class Cluster:
    """The workers of a dask cluster; a context manager that leaves them running at its end.

    A call whose worker is lost is made again by another one; after the fourth loss (a setting of
    the scheduler) it fails.

    Args:
      address: of the scheduler, such as "tcp://host:8786".

    Attributes:
      count: number of workers that were there at the start; others may come and go.
      threads: number of threads that the smallest of them may use.
      window, most_pixels: see `run.Processes`.

    Raises:
      CodecError: dask is not installed, nobody answers, or there is no worker.
    """

    window = 1000  # more than the workers of most clusters, even if more of them come
    most_pixels = math.inf  # they do not share their memory

    def __init__(self, address: str):
        try:
            import cloudpickle
            import distributed
        except ImportError as error:
            raise CodecError(f"--cluster needs dask: {error}; {_INSTALL}") from error
        # Its own messages about lost workers and connections do not help our users.
        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._address, self._dumps = address, cloudpickle.dumps
        self._lost_workers = distributed.scheduler.KilledWorker
        _try_to_reach(address)
        self._client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
        with contextlib.suppress(distributed.TimeoutError):
            self._client.wait_for_workers(1, timeout=_PATIENCE)
        threads = self._client.nthreads().values()
        if not threads:
            self._client.close()
            raise CodecError(
                f"--cluster {address}: has no worker; start some: dask worker {address} "
                "--nworkers auto --nthreads 1"
            )
        self.count, self.threads = len(threads), min(threads)
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._client.close()  # cancels the calls that have not begun

    def _watch(self) -> None:
        """Says so when all workers are lost: the calls wait until others come."""
        told = False
        while not self._ended.wait(_PATIENCE):
            try:
                left = self._client.nthreads()
            except Exception:  # the connection is lost, which the calls report
                return
            if not left and not told:
                _logger.warning("--cluster %s: no worker is left; waiting for one", self._address)
            told = not left

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        """Calls a function in a worker; see `run.Processes`."""
        result: Future[Any] = Future()

        def finish(done: Any) -> None:
            if done.status == "cancelled":
                lost = f"--cluster {self._address}: the connection to its scheduler is lost"
                result.set_exception(BrokenExecutor(lost))
                return
            try:
                result.set_result(done.result())
            except BaseException as error:
                result.set_exception(self._error(error, arguments[0]))

        # Bytes: workers and schedulers without gmm-attention would lose their connections over
        # what they cannot unpickle themselves. Not pure: each call is to be made.
        data = self._dumps(_Call(function, arguments))
        self._client.submit(pickle.loads, data, pure=False).add_done_callback(finish)
        return result

    def _error(self, error: BaseException, item: Any) -> BaseException:
        if isinstance(error, (CodecError, MemoryError)):
            return error
        if isinstance(error, self._lost_workers):
            return CodecError(
                f"{item}: each worker that it was given to was lost, most likely because memory "
                "ran out; give them more"
            )
        if isinstance(error, (ImportError, AttributeError)):  # another version, or none
            return CodecError(f"{item}: {error} in a worker of the cluster; {_INSTALL}")
        return error


def _try_to_reach(address: str) -> None:
    """Raises CodecError if nobody answers; a Client that cannot connect would hold up the exit."""
    import distributed

    async def connect() -> None:
        security = distributed.Security().get_connection_args("client")
        comm = await distributed.comm.connect(address, timeout=_PATIENCE, **security)
        await comm.close()

    try:
        asyncio.run(connect())
    except Exception as error:  # of many kinds: addresses, names, networks, certificates
        raise CodecError(
            f"--cluster {address}: cannot be reached: {error}; give the address that `dask "
            "scheduler` prints, such as tcp://host:8786"
        ) from error


class _Call:
    """A call that is made where it is unpickled, and of which its result is all that comes out."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]):
        self._function, self._arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return _call, (self._function, *self._arguments)


_alone = threading.Lock()


def _call(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Calls the function; a worker of several threads gives all of them to one image at a time."""
    with _alone:
        return function(*arguments)
