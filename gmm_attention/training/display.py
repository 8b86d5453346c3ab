"""What one sees of a run while it trains."""

import collections
import contextlib
import math
import shutil
import sys
import time


class Display:
    """Where a run stands, on one line of a terminal, or a line every half minute elsewhere."""

    TERMINAL_SECONDS, FILE_SECONDS = 0.5, 30

    def __init__(self, quiet):
        self._quiet = quiet
        self._terminal = sys.stdout.isatty()
        self._times = collections.deque(maxlen=100)  # of steps, and how long they waited for data
        self._smoothed = {}
        self._next = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._terminal and not self._quiet:
            self._write("\n")

    def pause(self):
        """Keeps the time until the next step out of the speed."""
        self._times.clear()

    def seconds_per_step(self):
        if len(self._times) < 2:
            return math.nan
        return (self._times[-1][0] - self._times[0][0]) / (len(self._times) - 1)

    def images_per_second(self, batch):
        return batch / self.seconds_per_step()

    def share_waited(self):
        """Of the time, waiting for photographs."""
        waited = sum(waited for _, waited in list(self._times)[1:])
        return waited / (self.seconds_per_step() * max(len(self._times) - 1, 1))

    def print(self, text, error=False):
        """Prints a line of its own."""
        if self._quiet and not error:
            return
        if self._terminal:
            self._write("\r\033[K")
        self._write(f"{text}\n", sys.stderr if error else sys.stdout)

    @staticmethod
    def _write(text, stream=None):
        # A terminal that has gone, or a full disk behind it, is no reason to end a run of days.
        with contextlib.suppress(OSError):
            print(text, end="", file=stream or sys.stdout, flush=True)

    def taken(self, waited):
        """Takes down that a step was sent off just now, after so many seconds without data."""
        self._times.append((time.monotonic(), waited))

    def step(self, step, recipe, values, skipped):
        """Shows what a step gave, if it is time to.

        Args:
          values: dict of finite floats; empty if the step was skipped.
          skipped: steps that were, up to now.
        """
        now = time.monotonic()
        for name, value in values.items():
            # Means of the last steps, some ten of them.
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

    def _text(self, step, recipe, skipped):
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


def duration(seconds):
    """`3 d 4 h`, `2 h 10 min`, `5 min 20 s`."""
    seconds = round(seconds)
    for unit, size, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // small} {smaller}"
    return f"{seconds // 60} min {seconds % 60} s"
