"""A chain of local stages over a large array, strip by strip: the numbers of the whole at once.

A convolution's output depends on few rows of its input, so a strip of rows needs only some more of
the rows before and after it. Each stage keeps the rows of its output that the next will ask for
again, so that no row is computed twice but at the seams of a stage itself.
"""

from typing import Callable, NamedTuple


class Stage(NamedTuple):
    """A function of an array that is local along both sides.

    Attributes:
      function: array to array; sides grow by `up` and shrink by `down`, with zeros or the like
        outside of the array.
      halo: how many rows of its input, beyond those that lie at an output row, that row depends on.
      down: rows of the input for each row of the output; sides are multiples of it.
      up: rows of the output for each row of the input.
    """

    function: Callable
    halo: int
    down: int = 1
    up: int = 1


class Rows(NamedTuple):
    """An array of which only some rows are there at a time.

    "Rows" are what lies along one axis, the first or the second side of an image.

    Attributes:
      size: their number.
      take: function of first and last that returns the rows from first up to last. Later calls ask
        for no row before an earlier first.
    """

    size: int
    take: Callable


def chain(source, stages, axis, concatenate):
    """What stages, one after the other, make of an array.

    Args:
      source: Rows.
      stages: list of Stage.
      axis: of the arrays that the stages take and return, along which rows are counted.
      concatenate: function of a list of arrays and an axis.

    Returns:
      what has the attributes of Rows.
    """
    for stage in stages:
        source = _Output(source, stage, axis, concatenate)
    return source


def in_strips(take, sides, stages, leading, concatenate, num_positions, multiple):
    """What stages make of an array, in strips along its longer side.

    Args:
      take: function of axis (0 or 1), first and last that returns rows of the array.
      sides: of the array.
      stages: list of Stage.
      leading: number of axes before the sides.
      concatenate: see `chain`.
      num_positions, multiple: of a strip of the output, see `bounds`.

    Yields:
      where: index of the strip in the output, without the leading axes.
      strip: array.
    """
    axis = 0 if sides[0] >= sides[1] else 1
    source = Rows(sides[axis], lambda first, last: take(axis, first, last))
    made = chain(source, stages, axis + leading, concatenate)
    for first, last in bounds(output_sides(sides, stages), axis, num_positions, multiple):
        yield along(axis, first, last), made.take(first, last)


def output_sides(sides, stages):
    """Sides of what stages make of an array of these."""
    for stage in stages:
        sides = [side // stage.down * stage.up for side in sides]
    return sides


class _Output:
    """Rows of a stage's output."""

    def __init__(self, source, stage, axis, concatenate):
        self.size = source.size // stage.down * stage.up
        self._source, self._stage = source, stage
        self._axis, self._concatenate = axis, concatenate
        self._kept, self._start, self._end = None, 0, 0

    def take(self, first, last):
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

    def _make(self, first, last):
        function, halo, down, up = self._stage
        above = first // up * down - halo
        above = max(above // down * down, 0)
        below = min(-(-last // up) * down + halo, self._source.size)
        taken = self._source.take(above, below)
        if last == self.size:
            self._source = None  # with all that the stages before keep
        offset = above // down * up
        return self._cut(function(taken), first - offset, last - offset)

    def _cut(self, array, first, last):
        if first == 0 and array.shape[self._axis] == last:
            return array
        return array[along(self._axis, first, last)]


def along(axis, first, last):
    """An index that picks rows (axis 0), columns (axis 1), ... first up to last of an array."""
    return (slice(None),) * axis + (slice(first, last),)


def bounds(sides, axis, num_positions, multiple):
    """Ends of strips of some positions each, that together are all.

    Args:
      sides: of the array, the first two.
      axis: 0 or 1, along which it is cut.
      num_positions: in a strip, at least, unless the array ends.
      multiple: that the strips' rows are to be of.

    Yields:
      first, last.
    """
    step = max(-(-num_positions // (sides[1 - axis] * multiple)), 1) * multiple
    for first in range(0, sides[axis], step):
        yield first, min(first + step, sides[axis])
