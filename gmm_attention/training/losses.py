"""Rate and distortion of a batch, and the loss that weighs them."""

import numpy as np
import tensorflow as tf
import tensorflow_compression as tfc

# What tf.image.ssim_multiscale itself calls; setup.py names TensorFlow's version.
from tensorflow.python.ops.image_ops_impl import _ssim_per_channel

from gmm_attention.evaluation.metrics import MS_SSIM_WEIGHTS

METRICS = ("mse", "ms-ssim")

MS_SSIM_TERM_BOUND = 1e-3


def bits_per_pixel(likelihoods, num_pixels):
    """Sum of -log2 of likelihoods, over the pixels of the batch."""
    return tf.reduce_sum(tf.math.log(likelihoods)) / (-np.log(2) * num_pixels)


def ms_ssim(x, x_hat):
    """MS-SSIM as tf.image.ssim_multiscale computes it, but with a gradient everywhere.

    Each scale's term is at least 10^-3. Where one is negative, as most are before x_hat resembles
    x, tf.image takes zero, and the gradient of its power is not finite.

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


def rate_distortion(x, x_hat, likelihoods, lmbda, metric):
    """The paper's loss and its parts.

    Args:
      x, x_hat: [B, H, W, 3] float32 in [0, 1], x_hat not clipped; for sides see `ms_ssim`.
      likelihoods: dict with "y" and "z".
      lmbda: weight of the distortion.
      metric: "mse" (lmbda * 255^2 * MSE) or "ms-ssim" (lmbda * (1 - MS-SSIM)).

    Returns:
      dict of scalars: "loss", "bpp_y", "bpp_z" (bits per pixel), and "mse" (of 0..1) or "ms_ssim".

    Source: paper, section 4.1; SPEC of the original's commented-out training block.
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
