"""Many images through the steps of a task: one is transformed while others are being coded."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from gmm_attention.errors import CodecError
from gmm_attention.pipeline.tasks import Task
from gmm_attention.pipeline.workers import Workers

# Pixel budget of the images in flight, which bounds memory; one larger image may exceed it.
PIXELS_IN_FLIGHT = 2**27

_Item = TypeVar("_Item", bound=Hashable)


def run(
    task: Task[_Item], items: Iterable[_Item], workers: Workers, ahead: int
) -> Iterator[tuple[_Item, Callable[[], Any]]]:
    """Takes images through the steps of a task.

    Args:
      task: Task.
      items: what the task works on, such as named pairs of paths.
      workers: Workers, which call `load` and `finish`.
      ahead: number of images that may be loaded in advance, and that may still be finishing;
        0 to finish one image before the next.

    Yields:
      item, function that returns the result of `task.finish`, or raises CodecError or MemoryError;
      in the order of the items.
    """
    images = _InFlight(task, items, workers, ahead)
    loading, finishing = images.loading, images.finishing
    images.load(1, 1)
    while loading:
        if loading[0][1].exception():
            finishing.append(loading.popleft())
        else:
            count, key = task.batch(loading[0][1].result())
            images.load(0, ahead + 1)
            batch = list(images.take(min(count, ahead + 1), key))
            images.load(0, ahead)
            finishing.extend(_transformed(task, batch, workers))
        while finishing and (
            len(finishing) > ahead or finishing[0][1].done() or images.exceed_budget()
        ):
            yield images.finish()
        images.load(1, 1)
    while finishing:
        yield images.finish()


class _InFlight(Generic[_Item]):
    """The images of a run that are being loaded, transformed or finished.

    Args: as for `run`.

    Attributes:
      loading, finishing: deques of (item, Future of the result of `task.load` or `task.finish`),
        in the order of the items.
    """

    def __init__(
        self, task: Task[_Item], items: Iterable[_Item], workers: Workers, ahead: int
    ) -> None:
        self.loading: collections.deque[tuple[_Item, Future[Any]]] = collections.deque()
        self.finishing: collections.deque[tuple[_Item, Future[Any]]] = collections.deque()
        self._task, self._workers, self._ahead = task, workers, ahead
        self._waiting = collections.deque(items)
        self._sizes: dict[_Item, int] = {}  # pixels of the images in flight

    def load(self, least: int, most: int) -> None:
        """Starts loading until `most` images are loaded or being loaded.

        The pixel budget may end this earlier, but not before `least` images.
        """
        while self._waiting and len(self.loading) < most:
            size = self._task.size(self._waiting[0]) if self._ahead else 0
            if len(self.loading) >= least and self._pixels() + size > PIXELS_IN_FLIGHT:
                return
            item = self._waiting.popleft()
            self._sizes[item] = size
            self.loading.append((item, self._workers.submit(self._task.load, item)))

    def take(self, count: int, key: Hashable) -> Iterator[tuple[_Item, Any]]:
        """Removes and yields up to `count` loaded images, as long as they share the key."""
        while count > 0 and self.loading and not self.loading[0][1].exception():
            if self._task.batch(self.loading[0][1].result())[1] != key:
                return
            item, future = self.loading.popleft()
            yield item, future.result()
            count -= 1

    def finish(self) -> tuple[_Item, Callable[[], Any]]:
        """Waits until the oldest image is finished, and removes it."""
        item, future = self.finishing.popleft()
        concurrent.futures.wait([future])
        del self._sizes[item]
        return item, future.result

    def exceed_budget(self) -> bool:
        return self._pixels() > PIXELS_IN_FLIGHT

    def _pixels(self) -> int:
        return sum(self._sizes.values())


def _transformed(
    task: Task[_Item], batch: list[tuple[_Item, Any]], workers: Workers
) -> Iterator[tuple[_Item, Future[Any]]]:
    """Yields each item with a Future of the result of `task.finish`; empties the list."""
    try:
        results = task.transform([item for item, _ in batch], [loaded for _, loaded in batch])
    except (CodecError, MemoryError) as error:
        if len(batch) > 1:  # some of them fail; one by one shows which
            while batch:
                yield from _transformed(task, [batch.pop(0)], workers)
            return
        failed: Future[Any] = Future()
        failed.set_exception(error)
        yield batch[0][0], failed
        return
    items = [item for item, _ in batch]
    batch.clear()  # frees the loaded images: they need not be held while they are coded
    for item in items:
        yield item, workers.submit(task.finish, item, results.pop(0))
