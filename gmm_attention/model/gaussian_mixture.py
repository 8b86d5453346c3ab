"""Likelihoods of y under a mixture of Gaussians."""

from __future__ import annotations

import numpy as np
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


def bits(y_hat: tf.Tensor, weights: tf.Tensor, means: tf.Tensor, scales: tf.Tensor) -> tf.Tensor:
    """Returns the cross-entropy of rounded latents in bits, computed as for the reference figures.

    Args:
      y_hat: [..., N] integers.
      weights, means, scales: [..., N, K].

    Returns:
      [..., N] float64, -log2 of the likelihoods clipped to [1e-6, 1].
    """
    y_hat = tf.cast(y_hat, tf.float64)[..., None]
    weights, means, scales = (tf.cast(t, tf.float64) for t in (weights, means, scales))
    scales = scales + 1e-10
    # By symmetry the mass is taken below the mean, where it is a difference of small numbers and
    # not of numbers near one.
    distance = tf.abs(y_hat - means)
    mass = _normal_cdf((0.5 - distance) / scales) - _normal_cdf((-0.5 - distance) / scales)
    mixture = tf.reduce_sum(weights * mass, axis=-1)
    return -tf.math.log(tf.clip_by_value(mixture, LIKELIHOOD_BOUND, 1.0)) / np.log(2)
