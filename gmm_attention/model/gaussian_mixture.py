"""Likelihoods of y under a mixture of Gaussians."""

import numpy as np
import tensorflow as tf
import tensorflow_compression as tfc

LIKELIHOOD_BOUND = 1e-6

# abs() leaves scales without a lower bound, and at zero the division below has no gradient.
# Scales this small have the same likelihoods as smaller ones in float32.
SCALE_BOUND = 1e-9


def _normal_cdf(t):
    return 0.5 * tf.math.erfc(t * -(0.5**0.5))


def likelihoods(y, weights, means, scales):
    """Probability of each element of y: the mixture's mass on [y - 1/2, y + 1/2].

    Args:
      y: [B, H/16, W/16, N] float32, rounded or with uniform noise.
      weights, means, scales: [B, H/16, W/16, N, K] float32.

    Returns:
      [B, H/16, W/16, N] float32 in [1e-6, 1], without gradient where it is clipped.

    Source: paper, eq. 9; original encoder.py, its commented-out training block (the alphabet's
    ends, -255 and 256, take the tails).
    """
    y = y[..., None]
    scales = tfc.lower_bound(scales, SCALE_BOUND)
    upper = _normal_cdf((y + 0.5 - means) / scales)
    lower = _normal_cdf((y - 0.5 - means) / scales)
    mass = tf.where(y < -254.5, upper, tf.where(y > 255.5, 1 - lower, upper - lower))
    return tf.clip_by_value(tf.reduce_sum(weights * mass, axis=-1), LIKELIHOOD_BOUND, 1.0)


def bits(y_hat, weights, means, scales):
    """Cross-entropy of rounded latents in bits, in float64, as the reference figures take it.

    Args:
      y_hat: [..., N] integers.
      weights, means, scales: [..., N, K].

    Returns:
      [..., N] float64, -log2 of the likelihoods clipped to [1e-6, 1].
    """
    y_hat = tf.cast(y_hat, tf.float64)[..., None]
    weights, means, scales = (tf.cast(t, tf.float64) for t in (weights, means, scales))
    scales = scales + 1e-10
    # The same mass on the other side of the mean: differences of small numbers, not of ones.
    distance = tf.abs(y_hat - means)
    mass = _normal_cdf((0.5 - distance) / scales) - _normal_cdf((-0.5 - distance) / scales)
    mixture = tf.reduce_sum(weights * mass, axis=-1)
    return -tf.math.log(tf.clip_by_value(mixture, LIKELIHOOD_BOUND, 1.0)) / np.log(2)
