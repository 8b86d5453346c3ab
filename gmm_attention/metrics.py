"""An image and its reconstruction -> PSNR and MS-SSIM."""

from __future__ import annotations

import math

import numpy as np

from gmm_attention import strips

# Weights of the five scales: Wang et al. 2003, as in tf.image.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11  # side of the Gaussian window, in pixels

# Shortest side that still holds a window after it is halved four times.
MS_SSIM_SMALLEST_SIDE = 161

# Approximate number of pixels that are measured at a time, which bounds memory.
STRIP_PIXELS = 2**20


def psnr(image: np.ndarray, reconstruction: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, over the three channels together, peak 255.

    Args:
      image, reconstruction: uint8 [H, W, 3].

    Returns:
      dB; infinity if both are equal.
    """
    total = 0
    for first, last in strips.bounds(image.shape, 0, STRIP_PIXELS, 1):
        difference = image[first:last].astype(np.int32) - reconstruction[first:last]
        total += int(np.sum(np.square(difference), dtype=np.int64))
    return float("inf") if total == 0 else 10 * math.log10(255**2 * image.size / total)


def ms_ssim(image: np.ndarray, reconstruction: np.ndarray) -> float | None:
    """MS-SSIM as tf.image computes it and the original prints it.

    Args:
      image, reconstruction: uint8 [H, W, 3].

    Returns:
      0..1, mean of the three channels; None if a side is under 161 pixels.
    """
    if min(image.shape[:2]) < MS_SSIM_SMALLEST_SIDE:
        return None
    terms, pair = [], [image, reconstruction]
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            pair = [_halved(t) for t in pair]
        ssim, contrast = _similarity(*pair)
        term = ssim if scale == len(MS_SSIM_WEIGHTS) - 1 else contrast
        terms.append(np.maximum(term, 0) ** weight)
    return float(np.mean(np.prod(terms, axis=0)))


def _similarity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Means of SSIM, and of its factor for contrast and structure, by channel: float64 [2, 3]."""
    # Imported here, because callers of `decibels` alone must not wait for TensorFlow.
    import tensorflow as tf

    # Private, but what tf.image.ssim_multiscale itself calls; setup.py pins TensorFlow's version.
    from tensorflow.python.ops.image_ops_impl import _ssim_per_channel

    total, rows = np.zeros([2, 3]), len(x) - WINDOW + 1
    for first, last in strips.bounds(x.shape, 0, STRIP_PIXELS, 1):
        last = min(last, rows)
        if first < last:
            pair = (tf.constant(t[None, first : last + WINDOW - 1], tf.float32) for t in (x, y))
            means = _ssim_per_channel(*pair, max_val=255.0)
            total += (last - first) * np.array([mean.numpy()[0] for mean in means])
    return total / rows


def _halved(x: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels, [ceil(H/2), ceil(W/2), 3] float32; odd sides repeat their last line."""
    height, width, _ = x.shape
    half = np.empty([-(-height // 2), -(-width // 2), 3], np.float32)
    columns = np.minimum(np.arange(2 * half.shape[1]), width - 1)
    for first, last in strips.bounds(half.shape, 0, STRIP_PIXELS // 4, 1):
        rows = np.minimum(np.arange(2 * first, 2 * last), height - 1)
        strip = x[rows][:, columns].astype(np.float32)
        strip = strip[::2] + strip[1::2]
        half[first:last] = (strip[:, ::2] + strip[:, 1::2]) / 4
    return half


def decibels(value: float) -> float:
    """MS-SSIM, 0..1, in dB: -10 log10(1 - value); infinity for 1."""
    return float("inf") if value >= 1 else -10 * math.log10(1 - value)
