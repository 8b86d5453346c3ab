"""How a model is trained: the paper's points, its settings and ours, and the learning rate."""

import dataclasses
import math

OPTIMIZERS = ("adam", "muon")
SCHEDULES = ("step", "cosine", "constant")
SYNTHESIS_INPUTS = ("noise", "rounded")

# Muon's at its highest, where none is given; at N = 32 twice as much ends worse.
MUON_LEARNING_RATE = 1e-2

# The last part of training, at a tenth of the rate: 80,000 of the paper's 10^6 steps.
FINAL_PART = 0.08

# Paper, section 4.1: N = 128 below these lambdas, and 192 from them on.
_WIDE_FROM = {"mse": 0.015, "ms-ssim": 40}

# Paper, section 4.1; ms-ssim-14 is the authors' published checkpoint.
POINTS = {
    f"{metric}-{lmbda}": (metric, lmbda)
    for metric, lambdas in {
        "mse": (0.0016, 0.0032, 0.0075, 0.015, 0.03, 0.045),
        "ms-ssim": (3, 12, 14, 40, 120),
    }.items()
    for lmbda in lambdas
}


def paper_num_filters(metric, lmbda):
    """N as the paper chooses it: 128 for its lower rates, 192 for its higher ones."""
    return 192 if lmbda >= _WIDE_FROM[metric] else 128


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides what comes out of training, but the photographs.

    Batch, crop, steps, learning rate and its step at the end are the paper's; clipping, moving
    average, mirroring and scaling are ours, for it says nothing of them.
    """

    metric: str = "mse"  # distortion, "mse" or "ms-ssim"
    lmbda: float = 0.015  # its weight in the loss
    num_filters: int = 192  # N
    num_mixtures: int = 3  # K
    attention: bool = True
    batch: int = 8  # crops in a step, of all devices together
    crop: int = 256  # their sides, in pixels
    steps: int = 1_000_000
    optimizer: str = "adam"  # or another of OPTIMIZERS
    schedule: str = "step"  # or one of the other SCHEDULES
    learning_rate: float = 1e-4  # at its highest
    warm_up: int = 0  # steps, in which the rate rises to that
    cool_down: int = 10_000  # last steps, in which the rate of "constant" falls to nothing
    synthesis_input: str = "noise"  # or "rounded", where the rate alone keeps its noise
    clip_norm: float = 1.0  # of the gradient, 0 for no limit
    average_decay: float = 0.999  # of the moving average, in a step
    flip: bool = True  # mirror half of the crops
    min_scale: float = 0.5  # photographs are scaled down by a random factor from here to 1
    precision: str = "float32"  # of the operands of convolutions, or "bfloat16"
    seed: int = 0

    def rate_at(self, step):
        """Learning rate of a step, counted from 0."""
        rate = self.learning_rate * min((step + 1) / (self.warm_up + 1), 1)
        if self.schedule == "constant":
            cool_down = min(self.cool_down, self.steps - self.warm_up)
            return rate * min((self.steps - step) / (cool_down + 1), 1)
        if self.schedule == "step":
            return rate if step < round(self.steps * (1 - FINAL_PART)) else rate / 10
        progress = max(step - self.warm_up, 0) / max(self.steps - self.warm_up, 1)
        return rate * (1 + math.cos(math.pi * progress)) / 2

    def settings(self):
        """dict for JSON, with "lambda" as in every model's settings."""
        fields = dataclasses.asdict(self)
        return {"lambda" if name == "lmbda" else name: value for name, value in fields.items()}


def from_settings(settings):
    """The Recipe that `settings()` was made from; keys of other things are passed over."""
    names = [field.name for field in dataclasses.fields(Recipe)]
    stored = {"lmbda" if key == "lambda" else key: value for key, value in settings.items()}
    return Recipe(**{name: stored[name] for name in names if name in stored})
