"""A chain of local stages over a large array, strip by strip, with the result of the whole array.

A row of a convolution's output depends on few rows of its input, so a strip of rows needs only
some more of the rows before and after it. Each stage keeps the rows of its output that the next
stage will ask for again, so nothing is computed twice, except inside a stage at the seams of its
strips.

Sides are numbers of rows and columns. An array may be a numpy array or a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


class Stage(NamedTuple):
    """A function of an array that is local along both sides.

    Attributes:
      function: array to array; sides grow by the factor `up` and shrink by the factor `down`.
        Outside of the array it assumes zeros or the like.
      halo: rows of the input that an output row depends on, on each side of those at its position.
      down: rows of the input for each row of the output; sides are multiples of it.
      up: rows of the output for each row of the input.
    """

    function: Callable[[Any], Any]
    halo: int
    down: int = 1
    up: int = 1


class Rows(NamedTuple):
    """An array that is available only a few rows at a time.

    "Rows" lie along one axis, which is the first or the second side of an image.

    Attributes:
      size: number of rows.
      take: function of first and last that returns the rows from first up to last. Later calls
        ask for no row before an earlier first.
    """

    size: int
    take: Callable[[int, int], Any]


# Joins a list of arrays along an axis: np.concatenate or tf.concat.
_Concatenate = Callable[[Sequence[Any], int], Any]


def chain(source: Rows, stages: Sequence[Stage], axis: int, concatenate: _Concatenate) -> Rows:
    """Applies stages, one after the other, to an array.

    Args:
      source: Rows of the array.
      stages: list of Stage.
      axis: axis of the stages' arrays along which rows are counted.
      concatenate: function of a list of arrays and an axis.

    Returns:
      Rows of the last stage's output.
    """
    for stage in stages:
        output = _Output(source, stage, axis, concatenate)
        source = Rows(output.size, output.take)
    return source


def in_strips(
    take: Callable[[int, int, int], Any],
    sides: Sequence[int],
    stages: Sequence[Stage],
    leading: int,
    concatenate: _Concatenate,
    num_positions: int,
    multiple: int,
) -> Iterator[tuple[tuple[slice, ...], Any]]:
    """Applies stages to an array, in strips along its longer side.

    Args:
      take: function of axis (0 or 1), first and last that returns rows of the array.
      sides: both sides of the array.
      stages: list of Stage.
      leading: number of axes before the sides.
      concatenate: see `chain`.
      num_positions, multiple: size of a strip of the output, see `bounds`.

    Yields:
      where: index of the strip in the output, without the leading axes.
      strip: array.
    """
    axis = 0 if sides[0] >= sides[1] else 1
    source = Rows(sides[axis], lambda first, last: take(axis, first, last))
    made = chain(source, stages, axis + leading, concatenate)
    for first, last in bounds(output_sides(sides, stages), axis, num_positions, multiple):
        yield along(axis, first, last), made.take(first, last)


def output_sides(sides: Sequence[int], stages: Sequence[Stage]) -> Sequence[int]:
    """Returns the sides of the stages' output for an input with these sides."""
    for stage in stages:
        sides = [side // stage.down * stage.up for side in sides]
    return sides


class _Output:
    """The output of a stage, with the attributes of Rows."""

    def __init__(self, source: Rows, stage: Stage, axis: int, concatenate: _Concatenate):
        self.size = source.size // stage.down * stage.up
        self._source: Rows | None = source
        self._stage, self._axis, self._concatenate = stage, axis, concatenate
        # The rows from start up to end, which the next call may ask for again.
        self._kept: Any = None
        self._start, self._end = 0, 0

    def take(self, first: int, last: int) -> Any:
        if last > self._end:
            made = self._make(self._end, last)
            if first < self._end:
                kept = self._cut(self._kept, first - self._start, self._end - self._start)
                made = self._concatenate([kept, made], self._axis)
                self._start = first
            else:
                self._start = self._end
            self._kept, self._end = made, last
        return self._cut(self._kept, first - self._start, last - self._start)

    def _make(self, first: int, last: int) -> Any:
        assert self._source is not None  # dropped only after the last row, which is made once
        function, halo, down, up = self._stage
        above = first // up * down - halo
        above = max(above // down * down, 0)
        below = min(-(-last // up) * down + halo, self._source.size)
        taken = self._source.take(above, below)
        if last == self.size:
            self._source = None  # frees the rows that earlier stages keep
        offset = above // down * up
        return self._cut(function(taken), first - offset, last - offset)

    def _cut(self, array: Any, first: int, last: int) -> Any:
        if first == 0 and array.shape[self._axis] == last:
            return array
        return array[along(self._axis, first, last)]


def along(axis: int, first: int, last: int) -> tuple[slice, ...]:
    """An index that picks rows (axis 0), columns (axis 1), ... first up to last of an array."""
    return (slice(None),) * axis + (slice(first, last),)


def bounds(
    sides: Sequence[int], axis: int, num_positions: int, multiple: int
) -> Iterator[tuple[int, int]]:
    """Divides an array into strips of some positions each.

    Args:
      sides: of the array, the first two.
      axis: 0 or 1, the side that is divided.
      num_positions: smallest number of positions in a strip, except for the last one.
      multiple: the number of rows of each strip is a multiple of it, except for the last one.

    Yields:
      first, last: the ends of a strip.
    """
    step = max(-(-num_positions // (sides[1 - axis] * multiple)), 1) * multiple
    for first in range(0, sides[axis], step):
        yield first, min(first + step, sides[axis])
