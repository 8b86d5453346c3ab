"""A transform of the network over an image of any size, in memory that does not grow with it."""

import numpy as np
import tensorflow as tf

from gmm_attention import strips
from gmm_attention.images import SIDE_MULTIPLE

# That go through a transform at a time, seams apart.
STRIP_PIXELS = 2**20


class StripTransform:
    """Runs analysis, hyper-analysis or synthesis strip by strip.

    The numbers are those of the whole image at once: on a CPU, and where they have been compared
    (`tests/test_strips.py`), to the last bit.

    Args:
      transform: the built part of the network; its `stages` say how far each step sees.
      channels: of its input.
      pixels: that an element of its output spans along a side: 16, 64 or 1.
    """

    def __init__(self, transform, channels, pixels):
        self._stages, self._pixels = [], pixels
        for stage in transform.stages():
            spec = tf.TensorSpec([1, None, None, channels], tf.float32)
            graph = tf.function(stage.function, [spec], autograph=False)
            channels = graph.get_concrete_function().outputs[0].shape[-1]
            self._stages.append(stage._replace(function=graph))
        self._channels = channels

    def strips(self, take, sides):
        """Yields the output in strips along its longer side.

        Args:
          take: function of axis (0 or 1), first and last that returns rows or columns of the
            input, [h, w, C] float32.
          sides: of the input, of multiples of 64 pixels.

        Yields:
          where: index of the strip in the output.
          strip: [h', w', C'] float32.
        """
        axis = 0 if sides[0] >= sides[1] else 1
        source = strips.Rows(
            sides[axis], lambda first, last: tf.constant(take(axis, first, last)[None])
        )
        made = strips.chain(source, self._stages, axis + 1, tf.concat)
        positions, multiple = STRIP_PIXELS // self._pixels**2, SIDE_MULTIPLE // self._pixels
        for first, last in strips.bounds(self._sides(sides), axis, positions, multiple):
            yield strips.along(axis, first, last), made.take(first, last).numpy()[0]

    def whole(self, take, sides):
        """The whole output, [H', W', C'] float32; arguments as for `strips`."""
        result = np.empty([*self._sides(sides), self._channels], np.float32)
        for where, strip in self.strips(take, sides):
            result[where] = strip
        return result

    def _sides(self, sides):
        for stage in self._stages:
            sides = [side // stage.down * stage.up for side in sides]
        return sides
