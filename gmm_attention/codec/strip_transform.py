"""A transform of the network over an image of any size, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gmm_attention import strips
from gmm_attention.padding import SIDE_MULTIPLE

# Pixels that go through a transform at a time, seams not counted; bounds memory.
STRIP_PIXELS = 2**20

# Least rows of pixels in a strip, since stages compute up to 3 rows twice at each seam.
STRIP_ROWS = 192


class StripTransform:
    """Runs analysis, hyper-analysis or synthesis over images of one size, strip by strip.

    The numbers are those of the whole image at once: on a CPU, and where they have been compared
    (`tests/test_strips.py`), to the last bit.

    Args:
      transform: the built part of the network, with a method `stages` that returns its steps as
        `strips.Stage`.
      channels: number of channels of its input.
      pixels: pixels that an element of its output spans along a side: 16, 64 or 1.
    """

    def __init__(self, transform: Any, channels: int, pixels: int):
        self._stages: list[strips.Stage] = []
        self._pixels = pixels
        dtype = tf.float32
        for stage in transform.stages():
            spec = tf.TensorSpec([None, None, None, channels], dtype)
            graph = tf.function(stage.function, [spec], autograph=False)
            output = graph.get_concrete_function().outputs[0]
            channels, dtype = output.shape[-1], output.dtype
            self._stages.append(stage._replace(function=graph))
        self._channels = channels

    def strips(
        self, take: Callable[[int, int, int], np.ndarray], sides: Sequence[int]
    ) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Yields the output in strips along its longer side.

        Args:
          take: function of axis (0 or 1), first and last that returns rows or columns of the
            inputs, [B, h, w, C] float32.
          sides: height and width of an input, those of an image padded to multiples of 64 pixels.

        Yields:
          where: index of the strip in an output, without the batch axis.
          strip: [B, h', w', C'] float32.
        """
        positions, multiple = STRIP_PIXELS // self._pixels**2, SIDE_MULTIPLE // self._pixels
        shorter = min(strips.output_sides(sides, self._stages))
        positions = max(positions, STRIP_ROWS // self._pixels * shorter)
        made = strips.in_strips(
            lambda axis, first, last: tf.constant(take(axis, first, last)),
            sides, self._stages, 1, tf.concat, positions, multiple,
        )  # fmt: skip
        for where, strip in made:
            yield where, tf.cast(strip, tf.float32).numpy()

    def whole(
        self, take: Callable[[int, int, int], np.ndarray], sides: Sequence[int], count: int
    ) -> np.ndarray:
        """Returns the whole output of `count` inputs, [count, H', W', C'] float32; see `strips`."""
        sides_out = strips.output_sides(sides, self._stages)
        result = np.empty([count, *sides_out, self._channels], np.float32)
        for where, strip in self.strips(take, sides):
            everywhere = (slice(None), *where)
            result[everywhere] = strip
        return result
