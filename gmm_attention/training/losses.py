"""Rate and distortion of a batch, and the loss that weighs them."""

import numpy as np
import tensorflow as tf

METRICS = ("mse", "ms-ssim")


def bits_per_pixel(likelihoods, num_pixels):
    """Sum of -log2 of likelihoods, over the pixels of the batch."""
    return tf.reduce_sum(tf.math.log(likelihoods)) / (-np.log(2) * num_pixels)


def rate_distortion(x, x_hat, likelihoods, lmbda, metric):
    """The paper's loss and its parts.

    Args:
      x, x_hat: [B, H, W, 3] float32 in [0, 1], x_hat not clipped. MS-SSIM needs 161 pixels a side.
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
        ms_ssim = tf.reduce_mean(tf.image.ssim_multiscale(x, x_hat, max_val=1.0))
        return {"loss": lmbda * (1 - ms_ssim) + rate, "ms_ssim": ms_ssim, **rates}
    raise ValueError(f"metric must be one of {METRICS}, not {metric!r}")
