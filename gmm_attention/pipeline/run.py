"""Many images through a task, several at a time, within bounds of memory."""

from __future__ import annotations

import collections
import concurrent.futures
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

_Item = TypeVar("_Item")
_Item_contra = TypeVar("_Item_contra", contravariant=True)
_Result = TypeVar("_Result")


class Task(Protocol[_Item_contra]):
    """What is done with each image. It is pickled for other processes."""

    def size(self, item: _Item_contra) -> int:
        """Number of pixels, by which memory is bounded; 0 if unknown. Raises nothing."""

    def process(self, item: _Item_contra) -> Any:
        """Reads an image, writes its results, and returns its figures.

        A CodecError or a MemoryError fails its image and no other.
        """


class Processes(Protocol):
    """What calls functions: `workers.Workers` or `cluster.Cluster`.

    Attributes:
      count: number of processes; 0 if `submit` itself calls the function, in this one.
      window: number of calls that may be under way, so that no process waits for its next one.
      most_pixels: sum of the pixels of all images that are under way, which bounds memory; one
        larger image may exceed it by itself. Infinity for no bound.
    """

    count: int
    window: int
    most_pixels: float

    def submit(self, function: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        """Calls a function in one of the processes.

        Args:
          function: can be pickled, as can its arguments, unless it is called in this process.
          arguments: for the function, at least one; a message about the call shows the first.

        Returns:
          Future of its result, or of the CodecError or MemoryError that it raises; or of a
          BrokenExecutor, if no call can be made any more.
        """


def run(
    task: Task[_Item], items: Iterable[_Item], processes: Processes
) -> Iterator[tuple[_Item, Callable[[], Any]]]:
    """Takes images through a task.

    Args:
      task: Task.
      items: what the task works on, such as named pairs of paths.
      processes: Processes.

    Yields:
      item, function that returns the result of `task.process`, or raises what it raised or a
      BrokenExecutor; in the order of the items.
    """
    waiting = collections.deque(items)
    begun: collections.deque[tuple[_Item, Future[Any]]] = collections.deque()
    sizes: dict[Future[Any], int] = {}  # pixels of the images that are under way
    while waiting or begun:
        while waiting and len(sizes) < processes.window:
            size = task.size(waiting[0]) if processes.most_pixels < math.inf else 0
            if sizes and sum(sizes.values()) + size > processes.most_pixels:
                break
            item = waiting.popleft()
            future = processes.submit(task.process, item)
            begun.append((item, future))
            sizes[future] = size
        concurrent.futures.wait(sizes, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in [future for future in sizes if future.done()]:
            del sizes[future]
        while begun and begun[0][1].done():
            item, future = begun.popleft()
            yield item, future.result
