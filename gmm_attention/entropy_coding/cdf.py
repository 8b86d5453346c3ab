"""Integer mixtures to integer intervals and tables for the range coder, the same on every machine.

A mixture shares out T = 2^16 counts among all integers. C(t) of them lie below the lower edge of
the integer `middle + t`:

    C(t) = t + below + 1 + (sum_k w_k Phi[(b_k + a_k t) >> 7] >> 15).

The edges t run from -below to above + 1 and bound a window, in which every integer has at least
one count. At either end at least one count is left for all integers outside the window.

An element is coded first by one of nine symbols: `middle`, the three integers on either side of it,
'above' or 'below'. After 'above' or 'below' a tail symbol follows: one of the window's integers on
that side, or 'beyond'. After 'beyond' the distance from the window follows, in Elias gamma code. So
the decoder computes few counts for most elements.

In the first symbol's table 'middle' comes last, because range-coder gives its rounding remainder to
the last symbol: a rare symbol in that place would cost 0.0005 bits an element.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gmm_attention.entropy_coding.quantization import EXP_TOTAL, FRACTION_BITS, GAUSSIAN_HALF

TOTAL = 2**16  # T
CENTRAL = 3  # integers on either side of the middle that the first symbol tells apart
REACH = 500  # the window's largest extent on either side of the middle
SMALLEST_SCALE = 2**5  # 1/32 in units of 2^-10
LARGEST_SCALE = 2**21
OVERFLOW_GUARD = 2**30 - 1  # bound of b, so that a t + b fits int32
UNIT = 2**FRACTION_BITS
HALF_UNIT = UNIT // 2

# The first symbol's table: its edges in their order, and the offset that each symbol stands for.
_EDGES = np.r_[1 : CENTRAL + 2, -CENTRAL:1].astype(np.int32)[:, None]
_OFFSETS = np.r_[1 : CENTRAL + 1, CENTRAL + 1, -CENTRAL - 1, -CENTRAL:1].astype(np.int32)


class Counts(NamedTuple):
    """The terms of C(t) for E elements; all int32.

    Attributes:
      middle: [E], an integer near the likeliest component's mean.
      below, above: [E], extents of the window on either side of the middle, 3..500.
      weights: [K, E]. Their sum is T - 2 - (below + above + 1).
      a, b: [K, E]. Edge t lies at (a t + b) / 128 in the Gaussian table.
    """

    middle: np.ndarray
    below: np.ndarray
    above: np.ndarray
    weights: np.ndarray
    a: np.ndarray
    b: np.ndarray

    def take(self, elements: np.ndarray | slice) -> Counts:
        """Selects elements by their indices."""
        return Counts(*(array[..., elements] for array in self))


def counts(mixtures: np.ndarray, exp_table: np.ndarray) -> Counts:
    """Computes the terms of C(t) from mixtures.

    Args:
      mixtures: [3, K, E] int32, magnitude at most 2^25: logits in units of 2^-8, means and scales
        in units of 2^-10.
      exp_table: [2817] int32, see `quantization.exp_table`.

    Returns:
      Counts.
    """
    logits, means, scales = mixtures
    exp = exp_table.take(logits.max(axis=0) - logits, mode="clip")
    scales = np.abs(scales)
    np.minimum(scales, LARGEST_SCALE, out=scales)
    np.maximum(scales, SMALLEST_SCALE, out=scales)

    middle = means[-1].copy()
    for mean, e in zip(means[-2::-1], exp[-2::-1]):
        # Of several likeliest components the first one counts.
        np.copyto(middle, mean, where=e == EXP_TOTAL)
    extent = scales * 9
    extent >>= 1
    dropped = exp == 0
    below = np.where(dropped, middle, means - extent).min(axis=0)
    above = np.where(dropped, middle, means + extent).max(axis=0)
    middle, below, above = ((edge + HALF_UNIT) >> FRACTION_BITS for edge in (middle, below, above))
    below = np.minimum(np.maximum(middle - below, CENTRAL), REACH)
    above = np.minimum(np.maximum(above - middle, CENTRAL), REACH)

    # Of T, one count goes to each integer of the window and one to either end. The rest is shared
    # out among the components: differences of floor(partial sum * rest / sum), which add up to it.
    shares = exp.astype(np.float64)
    for previous, share in zip(shares[:-1], shares[1:]):
        share += previous
    total = shares[-1].copy()
    shares *= TOTAL - 3 - below - above
    shares /= total  # a quotient of integers below 2^53 never rounds up to an integer
    weights = np.floor(shares, out=shares).astype(np.int32)
    weights[1:] -= weights[:-1].copy()

    a = 2**25 // scales
    b = (middle * UNIT - HALF_UNIT - means) * a.astype(np.int64)
    b >>= FRACTION_BITS
    b += (GAUSSIAN_HALF + 1) << 7
    np.minimum(b, OVERFLOW_GUARD, out=b)
    np.maximum(b, -OVERFLOW_GUARD, out=b)
    return Counts(middle, below, above, weights, a, b.astype(np.int32))


def first_tables(counts: Counts, gaussian_table: np.ndarray) -> np.ndarray:
    """Makes the tables of the first symbols.

    Args:
      counts: Counts of E elements.
      gaussian_table: [2306] int32, see `quantization.gaussian_table`.

    Returns:
      [E, 10] int32, each row strictly increasing from 0 to 2^16. `first_offsets` says what the
      nine symbols stand for.
    """
    c = _counts_below(counts, _EDGES, gaussian_table)
    table = np.empty([len(_OFFSETS) + 1, c.shape[1]], np.int32)
    start = c[0]
    np.subtract(c[: CENTRAL + 1], start, out=table[: CENTRAL + 1])
    np.subtract(TOTAL, start, out=table[CENTRAL + 1])
    np.subtract(c[CENTRAL + 1 :], start - TOTAL, out=table[CENTRAL + 2 : -1])
    table[-1] = TOTAL
    return table.T


def first_offsets(symbols: np.ndarray) -> np.ndarray:
    """Turns first symbols into offsets from the middle; 4 and -4 stand for 'above' and 'below'."""
    return _OFFSETS[symbols]


def widths(tables: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """Looks up the number of counts of each symbol in the tables of `first_tables`: [E] int32."""
    count = len(symbols)
    edges = tables.T.ravel()  # take from this view is faster than indexing with two arrays
    index = symbols.astype(np.intp) * count + np.arange(count)
    return edges.take(index + count) - edges.take(index)


def first_intervals(
    counts: Counts, offsets: np.ndarray, gaussian_table: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the entries of `first_tables` that code given values.

    Args:
      counts: Counts of E elements.
      offsets: [E] int32, values minus `counts.middle`.
      gaussian_table: [2306] int32.

    Returns:
      low, high: [E] int32.
    """
    edges = np.empty([3, len(offsets)], np.int32)
    np.maximum(np.minimum(offsets, CENTRAL + 1), -CENTRAL, out=edges[0])
    np.maximum(np.minimum(offsets + 1, CENTRAL + 1), -CENTRAL, out=edges[1])
    edges[2] = 1
    low, high, start = _counts_below(counts, edges, gaussian_table)
    low[offsets < -CENTRAL] = 0
    high[offsets > CENTRAL] = TOTAL
    low -= start
    high -= start
    low += (low < 0) * TOTAL
    high += (high <= 0) * TOTAL
    return low, high


def tail_tables(counts: Counts, sides: np.ndarray, gaussian_table: np.ndarray) -> list[list[int]]:
    """Makes the tables of the tail symbols.

    Args:
      counts: Counts of E elements.
      sides: [E] int32, 1 for 'above', -1 for 'below'.
      gaussian_table: [2306] int32.

    Returns:
      List of E lists of ints, strictly increasing from 0. Symbol i stands for the offset
      sides (4 + i), and the last symbol for all offsets beyond the window.
    """
    lengths = extents(counts, sides) + (2 - CENTRAL)  # entries of each table
    ends = np.cumsum(lengths)
    starts = ends - lengths
    repeated = Counts(*(np.repeat(array, lengths, axis=-1) for array in counts))
    steps = np.arange(ends[-1], dtype=np.int32) - np.repeat(starts, lengths).astype(np.int32)
    sides = np.repeat(sides, lengths)
    c = _outward_counts(repeated, sides, steps, gaussian_table)
    c -= np.repeat(c[starts], lengths)
    c *= sides
    flat = c.tolist()
    return [flat[start:end] for start, end in zip(starts.tolist(), ends.tolist())]


def tail_intervals(
    counts: Counts, offsets: np.ndarray, gaussian_table: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Computes the entries of `tail_tables` that code given values.

    Args:
      counts: Counts of E elements.
      offsets: [E] int32, values minus `counts.middle`, below -3 or above 3.
      gaussian_table: [2306] int32.

    Returns:
      low, high, total: [E] int32.
      excess: [E] int32, the distance from the window; zero or less for values within it.
    """
    sides, distances = np.sign(offsets), np.abs(offsets)
    reach = extents(counts, sides)
    excess = distances - reach
    symbols = np.minimum(distances - (CENTRAL + 1), reach - CENTRAL)
    steps = np.stack([np.zeros_like(symbols), symbols, symbols + 1, reach + (1 - CENTRAL)])
    start, low, high, total = _outward_counts(counts, sides, steps, gaussian_table) * sides
    return low - start, high - start, total - start, excess


def extents(counts: Counts, sides: np.ndarray) -> np.ndarray:
    """Returns the extent of the window on each element's side (1 above, -1 below): [E] int32."""
    return np.where(sides > 0, counts.above, counts.below)


def _outward_counts(
    counts: Counts, sides: np.ndarray, steps: np.ndarray, gaussian_table: np.ndarray
) -> np.ndarray:
    """Evaluates C at the edges `steps` away from the central integers, outward: [..., E] int32.

    The edge that follows the window's last one is the outer edge of 'beyond'.
    """
    edges = np.where(sides > 0, np.int32(CENTRAL + 1), np.int32(-CENTRAL)) + sides * steps
    c = _counts_below(counts, edges, gaussian_table)
    np.copyto(c, TOTAL, where=edges > counts.above + 1)
    np.copyto(c, 0, where=edges < -counts.below)
    return c


def _counts_below(counts: Counts, edges: np.ndarray, gaussian_table: np.ndarray) -> np.ndarray:
    """Evaluates C(t) at edges t, [..., E] or [..., 1] int32, from -below to above + 1."""
    index = counts.a * edges[..., None, :]
    index += counts.b
    index >>= 7
    terms = gaussian_table.take(index, mode="clip")
    terms *= counts.weights
    result = terms.sum(axis=-2, dtype=np.int32)  # below 2^31, as the weights' sum is below 2^16
    result >>= 15
    result += edges
    result += counts.below
    result += 1
    return result
