"""What a run prints while it trains."""

from __future__ import annotations

import collections
import contextlib
import math
import shutil
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from gmm_attention.training.recipe import Recipe


class Display:
    """Shows the progress of a run: one line on a terminal, or a new line every 30 s elsewhere.

    Args:
      quiet: print nothing but errors.
    """

    TERMINAL_SECONDS, FILE_SECONDS = 0.5, 30

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stdout.isatty()
        # Of the last steps: when each was started, and the seconds that it waited for its batch.
        self._times: collections.deque[tuple[float, float]] = collections.deque(maxlen=100)
        self._smoothed: dict[str, float] = {}
        self._next = 0.0

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal and not self._quiet:
            self._write("\n")

    def pause(self) -> None:
        """Leaves the time until the next step out of the measured speed."""
        self._times.clear()

    def seconds_per_step(self) -> float:
        """Mean of up to the last 100 steps; NaN before there are two."""
        if len(self._times) < 2:
            return math.nan
        return (self._times[-1][0] - self._times[0][0]) / (len(self._times) - 1)

    def images_per_second(self, batch: int) -> float:
        """Crops per second, for steps of `batch` crops."""
        return batch / self.seconds_per_step()

    def share_waited(self) -> float:
        """Share of the time, 0..1, that steps waited for their batches."""
        waited = sum(waited for _, waited in list(self._times)[1:])
        return waited / (self.seconds_per_step() * max(len(self._times) - 1, 1))

    def print(self, text: str, error: bool = False) -> None:
        """Prints a line of its own; an error goes to stderr, even if the display is quiet."""
        if self._quiet and not error:
            return
        if self._terminal:
            self._write("\r\033[K")
        self._write(f"{text}\n", sys.stderr if error else sys.stdout)

    @staticmethod
    def _write(text: str, stream: TextIO | None = None) -> None:
        # A closed terminal or a full disk must not end a run that may have taken days.
        with contextlib.suppress(OSError):
            print(text, end="", file=stream or sys.stdout, flush=True)

    def record_step(self, waited: float) -> None:
        """Records that a step was started just now, after so many seconds without a batch."""
        self._times.append((time.monotonic(), waited))

    def step(self, step: int, recipe: Recipe, values: Mapping[str, float], skipped: int) -> None:
        """Takes in the results of a step, and shows the progress if it is time to.

        Args:
          step: number of steps up to this one.
          recipe: Recipe of the run.
          values: dict of finite floats; empty if the step was skipped.
          skipped: number of steps that were skipped so far.
        """
        now = time.monotonic()
        for name, value in values.items():
            # Exponential mean over about the last ten steps.
            smoothed = self._smoothed.get(name, value)
            self._smoothed[name] = smoothed + 0.1 * (value - smoothed)
        if self._quiet or now < self._next:
            return
        self._next = now + (self.TERMINAL_SECONDS if self._terminal else self.FILE_SECONDS)
        text = self._text(step, recipe, skipped)
        if self._terminal:
            self._write("\r\033[K" + text[: shutil.get_terminal_size().columns - 1])
        else:
            self._write(f"{text}\n")

    def _text(self, step: int, recipe: Recipe, skipped: int) -> str:
        mean = self._smoothed
        parts = [f"step {step}/{recipe.steps}"]
        if mean:
            parts += [f"loss {mean['loss']:.4g}", f"{mean['bpp_y'] + mean['bpp_z']:.3f} bpp"]
            if "mse" in mean:
                parts.append(f"PSNR {-10 * math.log10(max(mean['mse'], 1e-10)):.2f} dB")
            else:
                parts.append(f"MS-SSIM {mean['ms_ssim']:.4f}")
        seconds = self.seconds_per_step()
        if not math.isnan(seconds):
            parts.append(f"{recipe.batch / seconds:.3g} images/s")
            parts.append(f"{self.share_waited():.1%} waiting for data")
            parts.append(f"{duration(seconds * (recipe.steps - step))} left")
        if skipped:
            parts.append(f"{skipped} steps skipped as not finite")
        filled = 20 * step // recipe.steps
        return f"[{'#' * filled:<20}] " + ", ".join(parts)


def duration(seconds: float) -> str:
    """A time in words: `3 d 4 h`, `2 h 10 min`, `5 min 20 s`."""
    seconds = round(seconds)
    for unit, size, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // small} {smaller}"
    return f"{seconds // 60} min {seconds % 60} s"
