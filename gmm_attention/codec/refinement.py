"""The latents of one image, changed until its rate and its distortion together are lower."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gmm_attention import metrics
from gmm_attention.codec.efforts import Level, Listener, Progress, Wanted
from gmm_attention.padding import SIDE_MULTIPLE
from gmm_attention.runtimes.protocol import LatentSearch, Window

# The temperature of the draws, at the start and at the end.
_HOT, _COLD = 0.5, 0.18

# The rate falls from the level's to this share of it.
_SLOWEST = 0.05

# After how many steps the latents are rounded to see what they cost, or after a tenth of all if
# these are more. The best of them are kept.
_STEPS_UNROUNDED = 5

# Positions of z in a part of an image that is searched at a time, with its halo, for N = 128. It
# bounds memory.
_POSITIONS = 128

# Positions of z around a part. They stay as they are, and let the search see what its latents do to
# pixels and rates beyond the part.
_HALO = 1

# Positions of z along a side of a part, at least. It is enough for MS-SSIM, also where the image
# ends in the last part's last position.
_LEAST_SIDE = 4

# For a target: how many searches, and how lambda changes from one to the next.
_MOST_SEARCHES = 8
_FARTHEST = 1e4  # factor from the first lambda to the last one, at most
_MOST_FACTOR = 30.0  # from one lambda to the next
_SLOPE = 0.13  # of the logarithms of rate or 1 / MSE and lambda, until two points show it


class Latents(NamedTuple):
    """The latents of an image as the network gives them, the sides of the padded image H and W.

    Attributes:
      y: [H/16, W/16, N] float32.
      z: [H/64, W/64, N] float32.
      y_hat: y rounded, int32.
      z_symbols: z in integers, int32, see `EntropyBottleneck.symbols`.
    """

    y: np.ndarray
    z: np.ndarray
    y_hat: np.ndarray
    z_symbols: np.ndarray


class Attempt(NamedTuple):
    """Latents of an image, and what becomes of them.

    Attributes:
      npz, y_string: bytes of NAME.npz and NAME.bin.
      y_hat: [H/16, W/16, N] int32, H and W being the sides of the padded image.
      bpp: bits per pixel of both files.
      picture: uint8 [H, W, 3], what the decoder will make of them, without padding.
    """

    npz: bytes
    y_string: bytes
    y_hat: np.ndarray
    bpp: float
    picture: np.ndarray


class Refinement:
    """Searches better latents for one image.

    Args:
      search: LatentSearch of the model.
      image: uint8 [H, W, 3], 0..255; if the search is for MS-SSIM, large enough for it.
      gray: whether the picture is to be gray.
      latents: Latents of the image.
      medians: [N] float32, what z's symbols are relative to.
      attempt: function of z's symbols and y_hat that returns an Attempt.
      listen: Listener, or None.
    """

    def __init__(
        self,
        search: LatentSearch,
        image: np.ndarray,
        gray: bool,
        latents: Latents,
        medians: np.ndarray,
        attempt: Callable[[np.ndarray, np.ndarray], Attempt],
        listen: Listener | None,
    ):
        self._search, self._image, self._gray = search, image, gray
        self._latents, self._medians, self._attempt = latents, medians, attempt
        self._listen = listen or (lambda progress: False)
        self._stopped = False

    def better(self, first: Attempt, level: Level, lmbda: float) -> Attempt:
        """Searches the least lambda D + R.

        Args:
          first: the latents as the network gives them.
          level: one of LEVELS.
          lmbda: weight of the distortion, see `losses.rate_distortion`.

        Returns:
          what was found, or `first` where it is no worse.
        """
        found = self._searched(level, lmbda)
        return found if self._loss(found, lmbda) < self._loss(first, lmbda) else first

    def _loss(self, attempt: Attempt, lmbda: float) -> float:
        if self._search.metric == "mse":
            distortion = 255**2 / 10 ** (self._psnr(attempt) / 10)
        else:
            ms_ssim = metrics.ms_ssim(self._image, attempt.picture)
            assert ms_ssim is not None  # for images that are too small are not searched
            distortion = 1 - ms_ssim
        return lmbda * distortion + attempt.bpp

    def nearest(self, first: Attempt, level: Level, lmbda: float, wanted: Wanted) -> Attempt:
        """Searches by one lambda after the other until files meet a target.

        Args:
          first: the latents as the network gives them.
          level: one of LEVELS.
          lmbda: the one to begin with.
          wanted: Wanted, with a target.

        Returns:
          what meets the target, or else the nearest to it of all that was found and `first`.
        """
        nearest, least = first, abs(wanted.above_target(first.bpp, self._psnr(first)))
        bounds = math.log(lmbda / _FARTHEST), math.log(lmbda * _FARTHEST)
        tried: list[tuple[float, float]] = []
        here = math.log(lmbda)
        while len(tried) < _MOST_SEARCHES and not self._stopped:
            found = self._searched(level, math.exp(here))
            figures = found.bpp, self._psnr(found)
            if wanted.is_met(*figures):
                return found  # even where `first` is nearer, for this one costs less
            above = wanted.above_target(*figures)
            if abs(above) < least:
                nearest, least = found, abs(above)
            tried.append((here, above))
            following = min(max(_next(tried), bounds[0]), bounds[1])
            if following == here:
                break
            here = following
        return nearest

    def _psnr(self, attempt: Attempt) -> float:
        return metrics.psnr(self._image, attempt.picture)

    def _searched(self, level: Level, lmbda: float) -> Attempt:
        """Searches latents by one lambda, part by part, and codes what was found."""
        y_hat, z_symbols = (t.copy() for t in self._latents[2:])
        height, width, num_filters = z_symbols.shape
        parts = _parts(height, width, int(_POSITIONS * 128 / num_filters))
        for number, part in enumerate(parts):
            if self._stopped:
                break
            window, inside = self._window(part, y_hat, z_symbols)
            found = self._search_window(window, level, lmbda, number, len(parts))
            if found:
                for whole, latents, scale in zip((y_hat, z_symbols), found, (4, 1)):
                    whole[_scaled(part, scale)] = latents[_scaled(inside, scale)]
        return self._attempt(z_symbols, y_hat)

    def _window(
        self, part: _Part, y_hat: np.ndarray, z_symbols: np.ndarray
    ) -> tuple[Window, _Part]:
        """Makes the Window of a part, and says where in it the part lies."""
        outer = _widened(part, _HALO, z_symbols.shape)
        top, left = (s.start for s in outer)
        inside = _moved(part, top, left)
        free = np.zeros(z_symbols[outer].shape[:2], bool)
        free[inside] = True
        y = y_hat[_scaled(outer, 4)].astype(np.float32)
        y[_scaled(inside, 4)] = self._latents.y[_scaled(part, 4)]
        z = z_symbols[outer].astype(np.float32) + self._medians
        z[inside] = self._latents.z[part]
        # Half of the halo: the other half's pixels would also depend on what lies beyond it.
        pixels = _scaled(part, SIDE_MULTIPLE)
        counted = _widened(pixels, _HALO * SIDE_MULTIPLE // 2, self._image.shape)
        corner = _moved(counted, SIDE_MULTIPLE * top, SIDE_MULTIPLE * left)
        image = self._image[counted]
        window = Window(image, (corner[0].start, corner[1].start), y, z, free, self._gray)
        return window, inside

    def _search_window(
        self, window: Window, level: Level, lmbda: float, number: int, count: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Searches one window of several.

        Returns:
          y_hat and z's symbols of the best latents, or None if those at the start are the best.
        """
        search, steps = self._search.begin(window, lmbda), level.steps
        best, first = None, search.rounded()[2]  # what the search begins with
        least = first
        pixels = window.image.shape[0] * window.image.shape[1]
        for done in range(1, steps + 1):
            search.step(*_schedule(level, (done - 1) / steps), level.noise)
            if done == steps or done % max(_STEPS_UNROUNDED, steps // 10) == 0:
                y_hat, z_symbols, loss = search.rounded()
                if loss < least:
                    best, least = (y_hat, z_symbols), loss
            progress = number * steps + done, count * steps, first / pixels, least / pixels
            self._stopped = bool(self._listen(Progress(*progress)))
            if self._stopped:
                break
        return best


_Part = tuple[slice, slice]  # rows and columns


def _schedule(level: Level, share: float) -> tuple[float, float]:
    """Temperature and rate after a share of the steps, 0..1."""
    return _HOT * (_COLD / _HOT) ** share, level.rate * _SLOWEST**share


def _parts(height: int, width: int, positions: int) -> list[_Part]:
    """Divides z into parts of equal size, each with its halo of at most so many positions.

    Of all divisions it is the one that computes the least in halos. Parts are larger than that
    rather than smaller than _LEAST_SIDE.
    """

    def cost(counts: tuple[int, ...]) -> tuple[float, int]:
        """How far a part is above the bound, and the positions of all parts with their halos."""
        outer = math.prod(
            min(-(-side // count) + 2 * _HALO, side) for side, count in zip((height, width), counts)
        )
        return max(outer / positions, 1), outer * math.prod(counts)

    counts = itertools.product(
        *(range(1, max(side // _LEAST_SIDE, 1) + 1) for side in (height, width))
    )
    rows, columns = min(counts, key=cost)
    return [
        (
            slice(height * i // rows, height * (i + 1) // rows),
            slice(width * j // columns, width * (j + 1) // columns),
        )
        for i in range(rows)
        for j in range(columns)
    ]


def _scaled(part: _Part, factor: int) -> _Part:
    rows, columns = (slice(s.start * factor, s.stop * factor) for s in part)
    return rows, columns


def _moved(part: _Part, top: int, left: int) -> _Part:
    """The part as it lies in an array that begins with this row and this column."""
    rows, columns = (slice(s.start - by, s.stop - by) for s, by in zip(part, (top, left)))
    return rows, columns


def _widened(part: _Part, halo: int, shape: Sequence[int]) -> _Part:
    """The part and what lies around it, within an array of this shape."""
    rows, columns = (
        slice(max(s.start - halo, 0), min(s.stop + halo, side)) for s, side in zip(part, shape)
    )
    return rows, columns


def _next(tried: Sequence[tuple[float, float]]) -> float:
    """The logarithm of lambda to try next.

    Args:
      tried: logarithms of lambda, and how far what they led to was above the target, at least one.
    """
    below = [point for point in tried if point[1] < 0]
    above = [point for point in tried if point[1] > 0]
    if below and above:
        (low, off_low), (high, off_high) = max(below), min(above)
        share = off_low / (off_low - off_high)
        return low + min(max(share, 0.1), 0.9) * (high - low)
    here, off = tried[-1]
    slope = _SLOPE
    if len(tried) > 1:
        before, off_before = tried[-2]
        slope = max((off - off_before) / (here - before), _SLOPE / 5)
    most = math.log(_MOST_FACTOR)
    return here - min(max(off / slope, -most), most)
