"""Images through the steps of a task: order, memory, batches and failures."""

import weakref

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gmm_attention.errors import CodecError, ImageError
from gmm_attention.pipeline.run import run as run_task
from gmm_attention.pipeline.workers import Workers


class Steps:
    """A task made of functions."""

    def __init__(self, load, transform, finish, batch=lambda _: (1, 0), size=lambda _: 1):
        self.load, self.transform, self.finish = load, transform, finish
        self.batch, self.size = batch, size


def test_one_image_of_a_batch_that_fails_leaves_the_others(tiny_codec, photograph):
    images = [photograph[:20, :30].copy() for _ in range(3)]

    def transform(items, loaded):
        if 1 in items:
            raise ImageError("of no use")
        return tiny_codec.analyse(loaded)

    task = Steps(images.__getitem__, transform, lambda i, _: i, lambda _: (8, 0))
    with Workers(0) as workers:
        results = []
        for item, result in run_task(task, range(3), workers, 3):
            try:
                results.append(result())
            except CodecError as error:
                results.append(f"{item}: {error}")
    assert results == [0, "1: of no use", 2]


@given(
    st.lists(st.sampled_from("abx"), max_size=9), st.integers(0, 4), st.integers(1, 3), st.data()
)
def test_every_item_goes_through_its_steps_in_order(kinds, ahead, most, data):
    failing = {
        step: data.draw(st.sets(st.integers(0, 8)), step)
        for step in ("load", "transform", "finish")
    }
    pixels = data.draw(
        st.lists(st.sampled_from([0, 1, 2**25, 2**27, 2**28]), min_size=9, max_size=9), "pixels"
    )
    at_work = []

    def step(name, item):
        if item in failing[name]:
            raise CodecError(f"{name} {item}")

    def load(item):
        at_work.append(item)
        sizes = [pixels[item] for item in at_work]
        assert sum(sizes) - max(sizes) <= 2**27 and len(at_work) <= 2 + 2 * ahead
        step("load", item)
        return kinds[item]

    def transform(items, values):
        assert values == [kinds[item] for item in items]
        assert len(set(values)) == 1 and len(items) <= most
        for item in items:
            step("transform", item)
        return [value.upper() for value in values]

    def finish(item, value):
        step("finish", item)
        return item, value

    outcomes = []
    batch, size = (lambda kind: (most, kind)), pixels.__getitem__
    task = Steps(load, transform, finish, batch, size)
    with Workers(0) as workers:
        for item, result in run_task(task, range(len(kinds)), workers, ahead):
            at_work.remove(item)
            try:
                outcomes.append(result())
            except CodecError as error:
                outcomes.append(str(error))
    for item, outcome in enumerate(outcomes):
        expected = [f"{name} {item}" for name in failing if item in failing[name]]
        assert outcome == (expected[0] if expected else (item, kinds[item].upper()))
    assert len(outcomes) == len(kinds)


def test_an_image_is_not_held_while_it_is_coded():
    alive = []

    def transform(items, values):
        alive.append(weakref.ref(values[0]))
        return [values[0].shape]

    task = Steps(
        lambda item: np.zeros([item, 9]), transform, lambda item, shape: alive[-1]() is None
    )
    with Workers(0) as workers:
        for _, result in run_task(task, range(3), workers, 0):
            assert result()
