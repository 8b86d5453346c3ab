"""Rate and distortion of a batch, and the loss that weighs them against each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import tensorflow_compression as tfc

# The function that tf.image.ssim_multiscale itself calls. It is private to TensorFlow, whose exact
# version setup.py requires.
from tensorflow.python.ops.image_ops_impl import _ssim_per_channel

from gmm_attention.metrics import MS_SSIM_WEIGHTS

METRICS = ("mse", "ms-ssim")

MS_SSIM_TERM_BOUND = 1e-3


def bits_per_pixel(likelihoods: tf.Tensor, num_pixels: tf.Tensor | int) -> tf.Tensor:
    """Sum of -log2 of likelihoods, divided by the number of pixels of the whole batch."""
    return tf.reduce_sum(tf.math.log(likelihoods)) / (-np.log(2) * num_pixels)


def ms_ssim(x: tf.Tensor, x_hat: tf.Tensor) -> tf.Tensor:
    """MS-SSIM as tf.image.ssim_multiscale computes it, but with a finite gradient everywhere.

    Each scale's term is bounded below by 10^-3. Most terms are negative before x_hat resembles x;
    tf.image replaces these by zero, where the gradient of the power is not finite.

    Args:
      x, x_hat: [B, H, W, 3] float32 in [0, 1], H and W multiples of 16 and at least 176.

    Returns:
      [B] float32.
    """
    terms = []
    for i, weight in enumerate(MS_SSIM_WEIGHTS):
        if i:
            x, x_hat = (tf.nn.avg_pool2d(t, 2, 2, "VALID") for t in (x, x_hat))
        ssim, contrast = _ssim_per_channel(x, x_hat, max_val=1.0)
        term = ssim if i == len(MS_SSIM_WEIGHTS) - 1 else contrast
        terms.append(tfc.lower_bound(term, MS_SSIM_TERM_BOUND) ** weight)
    return tf.reduce_mean(tf.reduce_prod(tf.stack(terms), axis=0), axis=-1)


def rate_distortion(
    x: tf.Tensor,
    x_hat: tf.Tensor,
    likelihoods: Mapping[str, tf.Tensor],
    lmbda: tf.Tensor | float,
    metric: str,
) -> dict[str, tf.Tensor]:
    """The paper's loss and its parts.

    Args:
      x, x_hat: [B, H, W, 3] float32 in [0, 1], x_hat not clipped; for "ms-ssim" H and W as in
        `ms_ssim`.
      likelihoods: dict with the keys "y" and "z".
      lmbda: weight of the distortion.
      metric: "mse" (lmbda * 255^2 * MSE) or "ms-ssim" (lmbda * (1 - MS-SSIM)).

    Returns:
      dict of scalars: "loss", "bpp_y", "bpp_z" (bits per pixel), and "mse" (of pixels in [0, 1])
      or "ms_ssim".

    Raises:
      ValueError: metric is unknown.

    Source: paper, section 4.1; the original's training code, which is commented out there.
    """
    num_pixels = tf.cast(tf.size(x) // 3, tf.float32)
    rates = {f"bpp_{k}": bits_per_pixel(likelihoods[k], num_pixels) for k in ("y", "z")}
    rate = rates["bpp_y"] + rates["bpp_z"]
    if metric == "mse":
        mse = tf.reduce_mean(tf.math.squared_difference(x, x_hat))
        return {"loss": lmbda * 255**2 * mse + rate, "mse": mse, **rates}
    if metric == "ms-ssim":
        mean = tf.reduce_mean(ms_ssim(x, x_hat))
        return {"loss": lmbda * (1 - mean) + rate, "ms_ssim": mean, **rates}
    raise ValueError(f"metric must be one of {METRICS}, not {metric!r}")
