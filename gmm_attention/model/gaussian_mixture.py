"""Likelihoods of y under a mixture of Gaussians."""

from __future__ import annotations

import tensorflow as tf
import tensorflow_compression as tfc

LIKELIHOOD_BOUND = 1e-6

# abs() leaves scales without a lower bound, and a division by a scale of zero has no gradient.
# In float32, smaller scales than this give the same likelihoods as this one.
SCALE_BOUND = 1e-9


def _normal_cdf(t: tf.Tensor) -> tf.Tensor:
    return 0.5 * tf.math.erfc(t * -(0.5**0.5))


def likelihoods(y: tf.Tensor, weights: tf.Tensor, means: tf.Tensor, scales: tf.Tensor) -> tf.Tensor:
    """Returns the probability of each element of y: the mixture's mass on [y - 1/2, y + 1/2].

    Args:
      y: [B, H/16, W/16, N] float32, rounded or with uniform noise.
      weights, means, scales: [B, H/16, W/16, N, K] float32.

    Returns:
      [B, H/16, W/16, N] float32 in [1e-6, 1], without gradient where it is clipped.

    Source: paper, eq. 9; original encoder.py, the commented-out training block, in which the ends
    of the alphabet, -255 and 256, take the mass of the tails.
    """
    y = y[..., None]
    scales = tfc.lower_bound(scales, SCALE_BOUND)
    upper = _normal_cdf((y + 0.5 - means) / scales)
    lower = _normal_cdf((y - 0.5 - means) / scales)
    mass = tf.where(y < -254.5, upper, tf.where(y > 255.5, 1 - lower, upper - lower))
    return tf.clip_by_value(tf.reduce_sum(weights * mass, axis=-1), LIKELIHOOD_BOUND, 1.0)
