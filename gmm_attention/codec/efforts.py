"""How much is asked of the encoder: levels of effort, and targets for each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, NamedTuple

from gmm_attention.errors import CodecError


class Level(NamedTuple):
    """How a level of effort searches.

    Attributes:
      steps: number of gradient steps for each part of the image.
      rate: how far a step moves a latent, about.
      noise: share of the noise of Gumbel variables that the draws of a step get.
    """

    steps: int
    rate: float
    noise: float


METHOD = "1"  # version of the search; evaluate.py measures again what another one searched

# Without noise, gradients tell in few steps where to go; but many such steps go where only latents
# that are not rounded cost less.
LEVELS = {1: Level(6, 0.05, 0.0), 2: Level(50, 0.03, 0.3), 3: Level(200, 0.02, 0.5)}
EFFORTS = (0, *LEVELS)

# A target is reached when the bits, or the squared error, come this near to it.
_TOLERANCE = 0.02

_MOST_DECIBELS = 1000.0


class Progress(NamedTuple):
    """How far the search for an image's latents has come.

    Attributes:
      step, steps: of the present search; for a target there are several.
      first, loss: lambda D + R, in bits per pixel, of the latents that the network gives, and of
        the best ones so far; of a part of the image, where it is too large for a search.
    """

    step: int
    steps: int
    first: float
    loss: float


# Told of each step; a true result ends the search, with the best that was found so far.
Listener = Callable[[Progress], Any]


class Wanted(NamedTuple):
    """What is asked of the encoder, beside the files as the network gives them.

    Attributes:
      effort: 0 for these, or one of LEVELS.
      lmbda: weight of the distortion, or None for the one that the model was trained for.
      target_bpp: bits per pixel of both files that lambda is chosen for, or None.
      target_psnr: the same for the PSNR in dB.
    """

    effort: int = 0
    lmbda: float | None = None
    target_bpp: float | None = None
    target_psnr: float | None = None

    def check(self) -> None:
        """Raises ValueError for values that are none or do not go together."""
        if self.effort not in EFFORTS:
            raise ValueError(f"effort must be one of {EFFORTS}, not {self.effort!r}")
        numbers = [value for value in self[1:] if value is not None]
        if not all(isinstance(value, Real) and 0 < value < math.inf for value in numbers):
            raise ValueError(f"lmbda and targets must be finite and above 0, not {numbers}")
        if numbers and not self.effort:
            raise ValueError("lmbda and targets need an effort of at least 1")
        if self.target_bpp and self.target_psnr:
            raise ValueError("only one of target_bpp and target_psnr can be met")

    @property
    def has_target(self) -> bool:
        return bool(self.target_bpp or self.target_psnr)

    def above_target(self, bpp: float, psnr: float) -> float:
        """How far files are above the target, the logarithm of bits or of 1 / MSE.

        Args:
          bpp: bits per pixel of both files.
          psnr: dB, of their picture.
        """
        if self.target_bpp:
            return math.log(bpp / self.target_bpp)
        assert self.target_psnr is not None
        # A number that one can compute with, also for equal images, whose PSNR is infinite.
        decibels = min(max(psnr - self.target_psnr, -_MOST_DECIBELS), _MOST_DECIBELS)
        return decibels * math.log(10) / 10

    def is_met(self, bpp: float, psnr: float) -> bool:
        """Whether files are near enough to the target; see `above_target`."""
        return abs(self.above_target(bpp, psnr)) <= math.log1p(_TOLERANCE)


def trained_lambda(
    settings: Mapping[str, Any], name: str, advice: str = "give one (--lambda)"
) -> float:
    """Returns the lambda that a model was trained for.

    Args:
      settings: the model's.
      name: the model's, for the message.
      advice: what to do if the settings do not say.

    Raises:
      CodecError: the settings do not say.
    """
    lmbda = settings.get("lambda")
    if not isinstance(lmbda, (int, float)) or not 0 < lmbda < math.inf:
        raise CodecError(
            f"{name}: its settings do not say for which lambda it was trained; {advice}"
        )
    return lmbda
