"""Images through a task: order, memory and failures."""

import math
from concurrent.futures import Future
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from gmm_attention.errors import CodecError
from gmm_attention.pipeline.run import run as run_task
from gmm_attention.pipeline.workers import PIXELS_EACH, Workers


class Task:
    """A task made of functions."""

    def __init__(self, process, size=lambda _: 1):
        self.process, self.size = process, size


class Simulated:
    """Processes whose calls end when a test wants it, in any order."""

    def __init__(self, window, most_pixels, sizes, draw):
        self.count, self.window, self.most_pixels = window, window, most_pixels
        self._sizes, self._draw = sizes, draw
        self.begun, self.under_way = [], {}

    def pixels(self, items):
        return sum(self._sizes[item] for item in items)

    def has_room(self, item):
        items = [*self.under_way, item]
        return len(items) == 1 or (
            len(items) <= self.window and self.pixels(items) <= self.most_pixels
        )

    def submit(self, function, item):
        assert self.has_room(item)
        self.begun.append(item)
        self.under_way[item] = future = Future()
        future.call = lambda: function(item)
        return future

    def wait(self, futures, return_when):
        """In place of concurrent.futures.wait: ends one of the calls at least."""
        assert set(futures) == set(self.under_way.values())
        following = len(self.begun)
        assert following == len(self._sizes) or not self.has_room(following)
        ending = self._draw(st.sets(st.sampled_from(sorted(self.under_way)), min_size=1))
        for item in ending:
            future = self.under_way.pop(item)
            try:
                future.set_result(future.call())
            except (CodecError, MemoryError) as error:
                future.set_exception(error)


@given(
    sizes=st.lists(st.integers(0, 6), max_size=9),
    window=st.integers(1, 4),
    most_pixels=st.one_of(st.integers(1, 9), st.just(math.inf)),
    failing=st.dictionaries(st.integers(0, 8), st.sampled_from([CodecError, MemoryError])),
    data=st.data(),
)
def test_every_item_in_order_within_bounds(sizes, window, most_pixels, failing, data):
    """At any time as many are under way as the bounds allow, and no more."""

    def process(item):
        if item in failing:
            raise failing[item](item)
        return f"done {item}"

    processes = Simulated(window, most_pixels, sizes, data.draw)
    outcomes = []
    with mock.patch("concurrent.futures.wait", processes.wait):
        task = Task(process, sizes.__getitem__)
        for item, result in run_task(task, range(len(sizes)), processes):
            try:
                outcomes.append((item, result()))
            except (CodecError, MemoryError) as error:
                outcomes.append((item, type(error)))
    assert outcomes == [(i, failing.get(i, f"done {i}")) for i in range(len(sizes))]
    assert processes.begun == list(range(len(sizes)))


def test_sizes_are_not_asked_for_without_a_bound():
    """They take the time of reading each image's header."""

    def size(item):
        raise AssertionError

    with Workers(0) as workers:
        assert [result() for _, result in run_task(Task(abs, size), [-1, -2], workers)] == [1, 2]


def test_in_this_process_an_image_begins_when_the_one_before_is_taken():
    log = []
    with Workers(0) as workers:
        for item, result in run_task(Task(log.append), [1, 2, 3], workers):
            assert result() is None and log == list(range(1, item + 1))


def test_the_bounds_of_memory_grow_with_the_processes():
    with Workers(2) as workers:
        assert (workers.count, workers.window, workers.most_pixels) == (2, 4, 2 * PIXELS_EACH)
