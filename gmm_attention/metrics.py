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

# Approximate number of pixels that are measured at a time: few, so that what is computed of them
# stays in a core's cache.
STRIP_PIXELS = 2**14

# Side, in pixels, of the squares whose halves are in memory at a time. It is a multiple of 16,
# because a pixel of the last scale is the mean of 16x16 pixels of the image.
TILE = 1024

# Weights along one side of the window: a Gaussian whose sigma is 1.5 pixels.
_BELL = np.exp(-np.square(np.arange(WINDOW) - WINDOW // 2) / (2 * 1.5**2))
_GAUSSIAN = (_BELL / _BELL.sum()).astype(np.float32)

# The constants of SSIM, from Wang et al. 2004, for pixels up to 255.
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(image: np.ndarray, reconstruction: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, over the three channels together, peak 255.

    Args:
      image, reconstruction: uint8 [H, W, 3].

    Returns:
      dB; infinity if both are equal.
    """
    total = 0
    longer = 0 if image.shape[0] >= image.shape[1] else 1
    for first, last in strips.bounds(image.shape, longer, STRIP_PIXELS, 1):
        where = strips.along(longer, first, last)
        difference = np.subtract(image[where], reconstruction[where], dtype=np.int32)
        total += int(np.sum(np.square(difference), dtype=np.int64))
    return float("inf") if total == 0 else 10 * math.log10(255**2 * image.size / total)


def ms_ssim(image: np.ndarray, reconstruction: np.ndarray) -> float | None:
    """MS-SSIM of Wang et al. 2003, as tf.image defines it and the original code prints it.

    All windows lie inside the image, and odd sides repeat their last line before they are halved.

    Args:
      image, reconstruction: uint8 [H, W, 3].

    Returns:
      0..1, mean of the three channels; None if a side is under 161 pixels.
    """
    height, width, _ = image.shape
    if min(height, width) < MS_SSIM_SMALLEST_SIDE:
        return None
    num_scales = len(MS_SSIM_WEIGHTS)
    totals = np.zeros([num_scales, 3])
    # Windows that begin in one square reach into the next, at the last scale by this much.
    halo = (WINDOW - 1) << (num_scales - 1)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            where = slice(top, top + TILE + halo), slice(left, left + TILE + halo)
            totals += _totals(image[where], reconstruction[where])
    means = []
    for scale in range(num_scales):
        rows, columns = (math.ceil(side / 2**scale) - WINDOW + 1 for side in (height, width))
        means.append(totals[scale] / (rows * columns))
    terms = np.maximum(means, 0).T ** MS_SSIM_WEIGHTS
    return float(np.mean(np.prod(terms, axis=1)))


def _totals(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sums over the windows that begin in a square, by scale and channel: float64 [5, 3].

    Args:
      x, y: [H, W, 3], the square and what its windows need to the right of it and below.
    """
    num_scales = len(MS_SSIM_WEIGHTS)
    totals = np.zeros([num_scales, 3])
    for scale in range(num_scales):
        if scale:
            x, y = _halved(x), _halved(y)
        if min(x.shape[:2]) < WINDOW:  # no window begins here, so near to the end of the image
            break
        side = TILE // 2**scale + WINDOW - 1
        is_last = scale == num_scales - 1
        totals[scale] = _similarity(x[:side, :side], y[:side, :side], luminance=is_last)
    return totals


def _similarity(x: np.ndarray, y: np.ndarray, luminance: bool) -> np.ndarray:
    """Sums of SSIM over all windows, by channel: float64 [3].

    It is computed from s = x + y and d = x - y. SSIM's factor for contrast and structure,

      (2 cov(x, y) + C2) / (var(x) + var(y) + C2),

    is (var(s) - var(d) + 2 C2) / (var(s) + var(d) + 2 C2); the one for luminance is the same of
    squared means and C1. So only four means are needed, those of s, d and their squares, and var(d)
    keeps its precision where x and y differ little.

    Args:
      x, y: [H, W, 3].
      luminance: whether to multiply by the factor for luminance.
    """
    height, width, _ = x.shape
    total = np.zeros([width - WINDOW + 1, 3])
    for first, last in strips.bounds((height - WINDOW + 1, width), 0, STRIP_PIXELS, 1):
        rows = slice(first, last + WINDOW - 1)
        maps = np.empty([4, *x[rows].shape], np.float32)
        np.add(x[rows], y[rows], out=maps[0], dtype=np.float32)
        np.subtract(x[rows], y[rows], out=maps[1], dtype=np.float32)
        np.square(maps[:2], out=maps[2:])
        means = _weighted_means(_weighted_means(maps, 1), 2)
        squared_means = np.square(means[:2])
        similarity = _ratio(means[2:] - squared_means, 2 * _C2)
        if luminance:
            similarity *= _ratio(squared_means, 2 * _C1)
        total += similarity.sum(axis=0)
    return total.sum(axis=0)


def _ratio(pair: np.ndarray, constant: float) -> np.ndarray:
    """(s - d + constant) / (s + d + constant), of a pair s, d."""
    s, d = pair
    s = s + np.float32(constant)
    return (s - d) / (s + d)


def _weighted_means(maps: np.ndarray, axis: int) -> np.ndarray:
    """Means over the window along one axis, which gets WINDOW - 1 positions shorter; float32."""
    size = maps.shape[axis] - WINDOW + 1
    shifted = [maps[strips.along(axis, k, k + size)] for k in range(WINDOW)]
    middle = WINDOW // 2
    means = shifted[middle] * _GAUSSIAN[middle]
    both = np.empty_like(means)
    for k in range(middle):  # both positions at one distance have the same weight
        np.add(shifted[k], shifted[-1 - k], out=both)
        both *= _GAUSSIAN[k]
        means += both
    return means


def _halved(x: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels, [ceil(H/2), ceil(W/2), 3] float32; odd sides repeat their last line."""
    height, width, _ = x.shape
    even = np.pad(x, [(0, height % 2), (0, width % 2), (0, 0)], "edge")
    rows = np.add(even[::2], even[1::2], dtype=np.float32)
    return (rows[:, ::2] + rows[:, 1::2]) / 4


def decibels(value: float) -> float:
    """MS-SSIM, 0..1, in dB: -10 log10(1 - value); infinity for 1."""
    return float("inf") if value >= 1 else -10 * math.log10(1 - value)
