"""The training loop: photographs to trained weights, whatever takes the steps.

Without TensorFlow: a step is taken by a `TrainStep`, or by JAX on machines that TensorFlow does
not reach, of which both have the methods that are called here (see `TrainStep`).
"""

import collections
import contextlib
import dataclasses
import json
import math
import os
import signal
import threading
import time
import zlib

from gmm_attention.errors import CodecError, TrainingError
from gmm_attention.training import recipe as recipes
from gmm_attention.training.data import Batches
from gmm_attention.training.display import Display
from gmm_attention.training.run_folder import LOG, VALIDATION

# Steps that may be under way while the next is sent off: an accelerator must not wait for us.
UNDER_WAY = 3

# In a row; the learning rate or the data are then past helping themselves.
MOST_SKIPPED = 100

# A save that failed is tried again after so long.
RETRY_SECONDS = 60


@dataclasses.dataclass
class Intervals:
    """How often things are done, in steps or minutes; None for never."""

    log: int = 100
    validate: int = 5000
    save_steps: int = None
    save_minutes: float = 10
    stop_at: float = math.inf  # as time.monotonic tells it


class Loop:
    """A run of training, which goes on from what its folder holds.

    Args:
      trainer: TrainStep or what stands for it.
      recipe: Recipe.
      photographs: data.Photographs.
      folder: RunFolder.
      intervals: Intervals.
      validation: list of (name, uint8 [H, W, 3]), coded whole every so often.
      workers: threads that make batches.
      board: None, or an object whose methods `scalars(name, step, values)` and
        `pictures(step, name, image, reconstruction)` show them.
    """

    def __init__(
        self, trainer, recipe, photographs, folder, intervals, validation=(), workers=2, board=None
    ):
        self.trainer, self.recipe, self.photographs = trainer, recipe, photographs
        self.folder, self.intervals, self.validation = folder, intervals, validation
        self.workers, self.board = workers, board
        self.step = 0
        # What the state keeps besides arrays, for a log that goes on as if nothing had happened.
        # `best`: validation's lowest loss, and what it was of. `samples`: crops taken, which steps
        # do not tell, since a run may go on with another batch. `hours`: those of all its parts.
        # `changes`: settings that it went on with in place of others, and when.
        self.progress = {"skipped": 0, "skipped_in_a_row": 0, "best": None, "window": {}}
        self.progress.update(samples=0, hours=0.0, changes=[])
        self._counted_until = None  # of `hours`, as time.monotonic tells it
        self._under_way = collections.deque()
        self._stop_signal = None
        self._next_save = math.inf
        self._started = False
        self._display = Display(quiet=not trainer.chief)

    def resume(self, arrays, settings, source):
        """Goes on from a state.

        Returns:
          list of str, what differs between the state's recipe and this one.

        Raises:
          CheckpointError: it is damaged or belongs to another network.
        """
        self.trainer.restore(arrays, source)
        self.step = settings["step"]
        recipe = recipes.from_settings(settings)
        self.progress["samples"] = self.step * recipe.batch  # of a state that does not tell
        self.progress.update(settings.get("progress", {}))
        before, now = recipe.settings(), self.recipe.settings()
        changes = [
            {"step": self.step, "setting": key, "before": before[key], "now": now[key]}
            for key in now
            if before[key] != now[key]
        ]
        self.progress["changes"] = [*self.progress["changes"], *changes]
        anew = {"optimizer": " (its moments begin anew)"}
        return [
            f"{c['setting']} was {c['before']}, now {c['now']}{anew.get(c['setting'], '')}"
            for c in changes
        ]

    def run(self):
        """Takes the steps that are left, or as many as the time allows.

        Returns:
          "finished", "time" or a signal's number: why it stopped. The state is saved.

        Raises:
          TrainingError: too many steps in a row that were not finite. The state is saved. Or
            processes that share the work do not begin alike.
          CodecError: the state cannot be saved, no photograph can be decoded.
        """
        recipe, intervals = self.recipe, self.intervals
        settings = zlib.crc32(json.dumps(recipe.settings()).encode())
        numbers = (self.step, self.progress["samples"], settings, len(self.photographs))
        # Their sums must be exact in float32.
        if not all([self.trainer.alike(number % 2**20) for number in numbers]):
            raise TrainingError(
                f"{self.folder.path}: the machines do not begin alike; all of them need the same "
                "command, the same photographs, and --output on a disk that they share"
            )
        self._plan_save()
        self._counted_until = time.monotonic()
        batches = Batches(
            self.photographs,
            recipe.batch,
            recipe.seed,
            self.progress["samples"],
            recipe.flip,
            recipe.min_scale,
            self.workers,
            self.trainer.part,
        )
        reason = "finished"
        with batches, self._signals(), self._display:
            while self.step < recipe.steps:
                stop = self._stop_signal is not None or time.monotonic() >= intervals.stop_at
                if self.trainer.agree(stop):
                    reason = self._stop_signal or "time"
                    break
                self._take_step(next_batch=batches.__next__)
                validate = self.step % intervals.validate == 0 or self.step == recipe.steps
                if self.validation and validate:
                    self._read_all()
                    self._validate()
                by_steps = intervals.save_steps and self.step % intervals.save_steps == 0
                if by_steps or time.monotonic() >= self._next_save:
                    self._read_all()
                    self._try_to_save()
            self._read_all()
            self._save_at_last(patient=reason == "finished")
        return reason

    def save(self):
        """Saves the state as it is. Raises CodecError."""
        self._display.pause()
        if self.trainer.chief:
            self.folder.save_state(self.trainer.arrays(), self.settings())

    def settings(self):
        """What a checkpoint says of itself."""
        self._hours()
        return {**self.recipe.settings(), "step": self.step, "progress": self.progress}

    def _hours(self):
        """Hours of training up to now, of all parts of the run."""
        if self._counted_until is not None:
            now = time.monotonic()
            self.progress["hours"] += (now - self._counted_until) / 3600
            self._counted_until = now
        return self.progress["hours"]

    def _take_step(self, next_batch):
        begin = time.monotonic()
        images = next_batch()
        waited = time.monotonic() - begin
        rate = self.recipe.rate_at(self.step)
        seed = [self.recipe.seed, self.step]
        metrics = self.trainer(images, seed, rate, self.recipe.lmbda)
        self.step += 1
        self.progress["samples"] += self.recipe.batch
        self._under_way.append((self.step, rate, metrics))
        # The first one is what everybody waits to see.
        if len(self._under_way) > (UNDER_WAY if self._started else 0):
            self._read_one()
        self._started = True
        self._display.taken(waited)

    def _read_all(self):
        while self._under_way:
            self._read_one()

    def _read_one(self):
        """Waits for the oldest step under way, and takes down what it gave."""
        step, rate, metrics = self._under_way.popleft()
        values = {name: float(value) for name, value in metrics.items()}
        skipped = values.pop("skipped") > 0
        self.progress["skipped"] += skipped
        in_a_row = self.progress["skipped_in_a_row"] + 1 if skipped else 0
        self.progress["skipped_in_a_row"] = in_a_row
        if in_a_row >= MOST_SKIPPED:
            self._under_way.clear()
            self._save_at_last(patient=False)
            raise TrainingError(
                f"{self.folder.path}: loss or gradients were not finite in {in_a_row} steps in a "
                f"row, up to step {step}; the weights are those before. Try a lower "
                "--learning-rate, a lower --clip or other photographs"
            )
        window = self.progress["window"]
        if not skipped:
            window["count"] = window.get("count", 0) + 1
            for name, value in values.items():
                window[name] = window.get(name, 0.0) + value
        shown = {} if skipped else values
        self._display.step(step, self.recipe, shown, self.progress["skipped"])
        if step % self.intervals.log == 0:
            self._log(step, rate)

    def _log(self, step, rate):
        window = self.progress["window"]
        count = window.pop("count", 0)
        if count:
            row = {"step": step, "learning_rate": rate}
            row.update({name: f"{value / count:.6g}" for name, value in window.items()})
            row["skipped"] = self.progress["skipped"]
            row["images_per_second"] = f"{self._display.images_per_second(self.recipe.batch):.4g}"
            row["waited"] = f"{self._display.share_waited():.4g}"
            row["hours"] = f"{self._hours():.4g}"
            self._write_log(LOG, row)
            if self.board:
                with self._going_on():
                    self.board.scalars("train", step, row)
        window.clear()

    def _write_log(self, name, row):
        if self.trainer.chief:
            with self._going_on():
                self.folder.log(name, row)

    @contextlib.contextmanager
    def _going_on(self):
        """Tells an error of writing, which does not stop training: it may have days in memory."""
        try:
            yield
        except CodecError as error:
            self._display.print(f"{error} (training goes on)", error=True)

    def _validate(self):
        if not self.trainer.chief:
            return
        self._display.pause()
        self._display.print(f"validation at step {self.step} ...")
        rows = []
        for name, image in self.validation:
            if self._stop_signal is not None:
                return
            measures, reconstruction = self.trainer.validate(image)
            rows.append({**measures, "loss": validation_loss(self.recipe, measures)})
            if self.board:
                with self._going_on():
                    self.board.pictures(self.step, name, image, reconstruction)
        known = {k: [r[k] for r in rows if not math.isnan(r[k])] for k in rows[0]}
        means = {k: sum(v) / len(v) if v else math.nan for k, v in known.items()}
        means["bpp"] = means["bpp_y"] + means["bpp_z"]
        self._write_log(VALIDATION, {"step": self.step, **means})
        if self.board:
            with self._going_on():
                self.board.scalars("validation", self.step, means)
        text = ", ".join(f"{name} {value:.5g}" for name, value in means.items())
        # Losses compare if they are of the same pictures, by the same measure.
        of = [self.recipe.metric, self.recipe.lmbda]
        of += [f"{name} {image.shape[1]}x{image.shape[0]}" for name, image in self.validation]
        best = self.progress["best"]
        first = best is None or best["of"] != of
        if math.isfinite(means["loss"]) and (first or means["loss"] < best["loss"]):
            with self._going_on():
                self.progress["best"] = {"loss": means["loss"], "of": of}
                try:
                    self.folder.save_weights("best", self.trainer.arrays(), self.settings())
                    text += " (the best so far)"
                except CodecError:
                    self.progress["best"] = best
                    raise
        self._display.print(f"validation at step {self.step}: {text}")

    def _plan_save(self):
        minutes = self.intervals.save_minutes
        self._next_save = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def _try_to_save(self):
        """Saves; an error is told and does not stop training, which may have days in memory."""
        self._plan_save()
        try:
            self.save()
        except CodecError as error:
            self._next_save = min(self._next_save, time.monotonic() + RETRY_SECONDS)
            self._display.print(
                f"{error} (training goes on, and tries again within {RETRY_SECONDS} s)", error=True
            )

    def _save_at_last(self, patient):
        """Saves; where a finished run cannot, tries until it can or a signal ends it."""
        while True:
            try:
                return self.save()
            except CodecError as error:
                if not patient or self._stop_signal is not None:
                    raise
                self._display.print(
                    f"{error} (tries again in {RETRY_SECONDS} s; Ctrl-C gives up)", error=True
                )
                end = time.monotonic() + RETRY_SECONDS
                while time.monotonic() < end and self._stop_signal is None:
                    time.sleep(0.1)

    @contextlib.contextmanager
    def _signals(self):
        """Lets Ctrl-C and a cluster's SIGTERM end the run after a step; once more kills it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number, _):
            self._stop_signal = number
            # Not by print, which the signal may have come in the middle of.
            with contextlib.suppress(OSError):
                os.write(2, b"\nstops after this step and saves; once more ends it at once\n")
            signal.signal(number, before[number])

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def validation_loss(recipe, measures):
    """The loss of a whole image, lambda * distortion + bpp, of its 8-bit reconstruction."""
    if recipe.metric == "mse":
        distortion = 255**2 / 10 ** (measures["psnr"] / 10)
    else:
        distortion = 1 - measures["ms_ssim"]
    return recipe.lmbda * distortion + measures["bpp_y"] + measures["bpp_z"]
