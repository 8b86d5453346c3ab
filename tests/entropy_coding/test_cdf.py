"""Mixtures to integer tables: from their definition, and against real Gaussians."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_attention.entropy_coding import cdf, quantization

EXTREMES = [0, 1, -1, 31, 32, 511, 512, 513, 1024, 5000, 2**16, 2**21, 2**25, -(2**25), -(2**20)]
integers = st.one_of(st.sampled_from(EXTREMES), st.integers(-4096, 4096),
                     st.integers(-(2**25), 2**25))  # fmt: skip


@st.composite
def mixtures(draw):
    num_mixtures = draw(st.integers(1, 5))
    elements = draw(st.integers(1, 4))
    size = 3 * num_mixtures * elements
    values = draw(st.lists(integers, min_size=size, max_size=size))
    return np.array(values, np.int32).reshape(3, num_mixtures, elements)


def full_table(model, element):
    """C(t) of one element from its definition, in Python's integers; and the first t."""
    phi = quantization.gaussian_table().tolist()
    weights, a, b = (array[:, element].tolist() for array in (model.weights, model.a, model.b))
    below, above = int(model.below[element]), int(model.above[element])
    assert sum(weights) == 2**16 - 2 - (below + above + 1) and min(weights) >= 0
    table = []
    for t in range(-below, above + 2):
        places = [min(max((x * t + y) >> 7, 0), 2305) for x, y in zip(a, b)]
        total = sum(w * phi[place] for w, place in zip(weights, places))
        assert total < 2**31 and all(abs(x * t + y) < 2**31 for x, y in zip(a, b))
        table.append(t + below + 1 + (total >> 15))
    return [0, *table, 2**16], -below


@settings(max_examples=30, deadline=None)
@given(mixtures())
def test_tables_and_intervals_are_those_of_the_definition(mixture):
    phi = quantization.gaussian_table()
    model = cdf.counts(mixture, quantization.exp_table())
    first_tables = cdf.first_tables(model, phi)
    tail_tables = {
        side: cdf.tail_tables(model, np.full(mixture.shape[2], side, np.int32), phi)
        for side in (1, -1)
    }
    for element in range(mixture.shape[2]):
        counts, first = full_table(model, element)
        assert counts[0] == 0 and counts[-1] == 2**16 and np.all(np.diff(counts) > 0)
        table = first_tables[element].tolist()
        assert table[0] == 0 and table[-1] == 2**16 and np.all(np.diff(table) > 0)

        # Every offset of the window, and some beyond.
        last = first + len(counts) - 4
        offsets = np.arange(first - 3, last + 4, dtype=np.int32)
        offsets = np.append(offsets, np.array([-(2**16), 2**16], np.int32))
        one = model.take(np.full(len(offsets), element))
        widths = np.zeros(len(counts) - 1)
        intervals = zip(
            offsets.tolist(), *(x.tolist() for x in cdf.first_intervals(one, offsets, phi))
        )
        for offset, low, high in intervals:
            symbol = table.index(low)
            assert table[symbol + 1] == high
            assert cdf.first_offsets(symbol) == np.clip(offset, -4, 4)
            if abs(offset) <= 3:
                place = offset - first + 1
                assert high - low == counts[place + 1] - counts[place]
                widths[place] = high - low
        tails = np.flatnonzero(abs(offsets) > 3)
        one = model.take(np.full(len(tails), element))
        for offset, low, high, total, excess in zip(
            offsets[tails].tolist(),
            *(x.tolist() for x in cdf.tail_intervals(one, offsets[tails], phi)),
        ):
            table = tail_tables[1 if offset > 0 else -1][element]
            assert table[0] == 0 and table[-1] == total and np.all(np.diff(table) > 0)
            symbol = table.index(low)
            assert table[symbol + 1] == high
            assert excess == (offset - last if offset > 0 else first - offset)
            assert symbol == min(abs(offset) - 4, len(table) - 2)
            assert (symbol == len(table) - 2) == (excess > 0)
            place = min(max(offset - first + 1, 0), len(counts) - 2)
            assert high - low == counts[place + 1] - counts[place]
            widths[place] = high - low
        np.testing.assert_array_equal(widths, np.diff(counts))


def test_counts_follow_the_mixture():
    mixture = np.array([[[0], [-300]], [[700], [-2048]], [[1500], [-800]]], np.int32)
    model = cdf.counts(mixture, quantization.exp_table())
    counts, first = full_table(model, 0)
    middle = int(model.middle[0])

    def normal(x, mean, scale):
        return 0.5 + 0.5 * math.erf((x - mean / 1024) / (scale / 1024) / math.sqrt(2))

    share = 1 / (1 + math.exp(-300 / 256))
    for place, count in enumerate(counts[1:-1]):
        edge = middle + first + place - 0.5
        expected = share * normal(edge, 700, 1500) + (1 - share) * normal(edge, -2048, 800)
        assert abs(count / 2**16 - expected) < 1e-3


@pytest.mark.parametrize("side", [-1, 1])
def test_components_far_from_the_window_count_on_their_side(side):
    mixture = np.zeros([3, 2, 1], np.int32)
    mixture[0] = [[512], [0]]
    mixture[1] = [[-side * 2**25], [side * 2**25]]
    model = cdf.counts(mixture, quantization.exp_table())
    counts, first = full_table(model, 0)
    share = (2**16 - len(counts)) / (1 + math.exp(2))  # of the second component
    below, above = counts[1], counts[-1] - counts[-2]
    assert abs((above if side > 0 else below) - share) < 8
    assert (below if side > 0 else above) < 8


def test_the_window_is_cut_around_the_likeliest_component():
    mixture = np.array([[[100], [0]], [[-(2**25)], [2**25]], [[2**21], [5]]], np.int32)
    model = cdf.counts(mixture, quantization.exp_table())
    assert model.middle[0] == -(2**15)
    assert model.below[0] == model.above[0] == 500
