"""A transform of the network over an image of any size, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gmm_attention import strips
from gmm_attention.padding import SIDE_MULTIPLE
from gmm_attention.runtimes.protocol import Transform

# Pixels that go through a transform at a time, seams not counted; bounds memory.
STRIP_PIXELS = 2**20

# Least rows of pixels in a strip, since stages compute up to 3 rows twice at each seam.
STRIP_ROWS = 192


class StripTransform:
    """Runs analysis, hyper-analysis or synthesis over an image, strip by strip.

    The numbers are those of the whole image at once: on a CPU, and where they have been compared
    (`tests/test_strips.py`), to the last bit.

    Args:
      transform: of a runtime.
      pixels: pixels that an element of its output spans along a side: 16, 64 or 1.
    """

    def __init__(self, transform: Transform, pixels: int):
        self._transform, self._pixels = transform, pixels

    def strips(
        self, take: Callable[[int, int, int], np.ndarray], sides: Sequence[int]
    ) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Yields the output in strips along its longer side.

        Args:
          take: function of axis (0 or 1), first and last that returns rows or columns of the
            input, [1, h, w, C] float32.
          sides: height and width of the input, those of an image padded to multiples of 64 pixels.

        Yields:
          where: index of the strip in the output, without the batch axis.
          strip: [1, h', w', C'] float32.
        """
        transform = self._transform
        positions, multiple = STRIP_PIXELS // self._pixels**2, SIDE_MULTIPLE // self._pixels
        shorter = min(strips.output_sides(sides, transform.stages))
        positions = max(positions, STRIP_ROWS // self._pixels * shorter)
        made = strips.in_strips(
            lambda axis, first, last: transform.enter(take(axis, first, last)),
            sides, transform.stages, transform.leading, transform.concatenate, positions, multiple,
        )  # fmt: skip
        for where, strip in made:
            yield where, transform.leave(strip)

    def whole(
        self, take: Callable[[int, int, int], np.ndarray], sides: Sequence[int]
    ) -> np.ndarray:
        """Returns the whole output of one input, [H', W', C'] float32; see `strips`."""
        sides_out = strips.output_sides(sides, self._transform.stages)
        result = np.empty([*sides_out, self._transform.channels], np.float32)
        for where, (strip,) in self.strips(take, sides):
            result[where] = strip
        return result
