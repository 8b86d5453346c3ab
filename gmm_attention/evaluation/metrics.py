"""An image and its reconstruction to PSNR and MS-SSIM."""

import math

import numpy as np

# Five scales with an 11x11 window.
MS_SSIM_SMALLEST_SIDE = 161


def psnr(image, reconstruction):
    """Peak signal-to-noise ratio in dB, over the three channels together, peak 255.

    Args:
      image, reconstruction: uint8 [H, W, 3].

    Returns:
      float; infinity where both are equal.
    """
    error = np.mean(np.square(image.astype(np.float64) - reconstruction))
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ms_ssim(image, reconstruction):
    """MS-SSIM, 0..1, by tf.image as in the original; None where a side is under 161 pixels.

    Args:
      image, reconstruction: uint8 [H, W, 3].
    """
    # Here, for tables want only the decibels, and TensorFlow takes seconds to import.
    import tensorflow as tf

    if min(image.shape[:2]) < MS_SSIM_SMALLEST_SIDE:
        return None
    pair = (tf.cast(t[None], tf.float32) for t in (image, reconstruction))
    return float(tf.image.ssim_multiscale(*pair, max_val=255.0)[0])


def decibels(value):
    """MS-SSIM, 0..1, in dB: -10 log10(1 - value); infinity for 1."""
    return float("inf") if value >= 1 else -10 * math.log10(1 - value)
