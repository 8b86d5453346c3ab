"""How a model is trained: the paper's operating points, all settings, and the learning rate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

OPTIMIZERS = ("adam", "muon")
SCHEDULES = ("step", "cosine", "constant")
SYNTHESIS_INPUTS = ("noise", "rounded")

# Default peak learning rate of Muon. At N = 32, twice this rate ends with a higher loss.
MUON_LEARNING_RATE = 1e-2

# Last part of the steps, which the schedule "step" takes at a tenth of the learning rate: 80,000 of
# the paper's 10^6 steps.
FINAL_PART = 0.08

# Paper, section 4.1: N = 192 from these lambdas upwards, N = 128 below them.
_WIDE_FROM = {"mse": 0.015, "ms-ssim": 40}

# Paper, section 4.1, as (metric, lambda); ms-ssim-14 is the authors' published checkpoint.
POINTS: dict[str, tuple[str, float]] = {
    f"{metric}-{lmbda}": (metric, lmbda)
    for metric, lambdas in {
        "mse": (0.0016, 0.0032, 0.0075, 0.015, 0.03, 0.045),
        "ms-ssim": (3, 12, 14, 40, 120),
    }.items()
    for lmbda in lambdas
}


def paper_num_filters(metric: str, lmbda: float) -> int:
    """N as the paper chooses it: 128 for its lower rates, 192 for its higher ones."""
    return 192 if lmbda >= _WIDE_FROM[metric] else 128


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All settings that decide the outcome of training; only the photographs are missing.

    Batch, crop, steps, learning rate and its last step down are the paper's. The paper does not
    mention gradient clipping, a moving average, mirroring or scaling: those defaults are ours.
    """

    metric: str = "mse"  # distortion in the loss, "mse" or "ms-ssim"
    lmbda: float = 0.015  # weight of the distortion in the loss
    num_filters: int = 192  # N
    num_mixtures: int = 3  # K
    attention: bool = True  # whether the network has attention modules
    batch: int = 8  # crops in a step, on all devices together
    crop: int = 256  # side of a crop, in pixels
    steps: int = 1_000_000
    optimizer: str = "adam"  # one of OPTIMIZERS
    schedule: str = "step"  # one of SCHEDULES
    learning_rate: float = 1e-4  # peak of the schedule
    warm_up: int = 0  # first steps, in which the learning rate rises to its peak
    cool_down: int = 10_000  # last steps, in which the schedule "constant" falls to 0
    synthesis_input: str = "noise"  # noisy latents; "rounded": only the rates are of noisy ones
    clip_norm: float = 1.0  # largest norm of the gradient, 0 for no limit
    average_decay: float = 0.999  # decay of the moving average of the weights, for each step
    flip: bool = True  # mirror half of the crops
    min_scale: float = 0.5  # photographs are scaled down by a random factor from this to 1
    precision: str = "float32"  # of analysis and synthesis, or "bfloat16"; runner.py has "tf32"
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        rate = self.learning_rate * min((step + 1) / (self.warm_up + 1), 1)
        if self.schedule == "constant":
            cool_down = min(self.cool_down, self.steps - self.warm_up)
            return rate * min((self.steps - step) / (cool_down + 1), 1)
        if self.schedule == "step":
            return rate if step < round(self.steps * (1 - FINAL_PART)) else rate / 10
        progress = max(step - self.warm_up, 0) / max(self.steps - self.warm_up, 1)
        return rate * (1 + math.cos(math.pi * progress)) / 2

    def settings(self) -> dict[str, Any]:
        """The fields as a dict for JSON, with the key "lambda" as in every model's settings."""
        fields = dataclasses.asdict(self)
        return {"lambda" if name == "lmbda" else name: value for name, value in fields.items()}


def from_settings(settings: Mapping[str, Any]) -> Recipe:
    """The Recipe of `Recipe.settings`. Other keys are ignored, missing ones keep their default."""
    names = [field.name for field in dataclasses.fields(Recipe)]
    stored = {"lmbda" if key == "lambda" else key: value for key, value in settings.items()}
    return Recipe(**{name: stored[name] for name in names if name in stored})
