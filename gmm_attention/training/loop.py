"""The training loop: photographs -> trained weights, by any Trainer of protocols.py.

It needs no TensorFlow, so that it also drives the steps of JAX on machines without TensorFlow.
"""

from __future__ import annotations

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, SupportsFloat

import numpy as np

from gmm_attention.errors import CodecError, TrainingError
from gmm_attention.training import recipe as recipes
from gmm_attention.training.data import Batches, Photographs
from gmm_attention.training.display import Display
from gmm_attention.training.progress import new_progress
from gmm_attention.training.protocols import Board, Trainer
from gmm_attention.training.recipe import Recipe
from gmm_attention.training.run_folder import LOG, VALIDATION, RunFolder
from gmm_attention.training.sources import FewerWarnings

# Steps in flight while the next one is started, so that an accelerator never waits for Python.
UNDER_WAY = 3

# Steps in a row that may be skipped as not finite. After so many, training will not recover.
MOST_SKIPPED = 100

# Pause after a failed save, until the next attempt.
RETRY_SECONDS = 60


@dataclasses.dataclass
class Intervals:
    """How often a run logs, validates and saves, and when it stops."""

    log: int = 100  # steps
    validate: int = 5000  # steps
    save_steps: int | None = None  # None: not by steps
    save_minutes: float | None = 10  # None: not by time
    stop_at: float = math.inf  # on the clock of time.monotonic


class Loop:
    """A training run, which starts from new weights or, after `resume`, from a saved state.

    Args:
      trainer: takes the steps.
      recipe: settings of the run; the trainer must have been made with the same.
      photographs: to learn from; None if `run` is not called.
      folder: where the run is saved.
      intervals: how often it logs, validates and saves.
      validation: list of (name, uint8 [H, W, 3]), measured as a whole.
      workers: number of threads that make batches.
      board: shows scalars and reconstructions, if given.

    Attributes:
      step: number of steps taken.
      progress: see progress.Progress; saved with the state.
    """

    def __init__(
        self,
        trainer: Trainer,
        recipe: Recipe,
        photographs: Photographs | None,
        folder: RunFolder,
        intervals: Intervals,
        validation: Sequence[tuple[str, np.ndarray]] = (),
        workers: int = 2,
        board: Board | None = None,
    ) -> None:
        self.trainer, self.recipe, self.photographs = trainer, recipe, photographs
        self.folder, self.intervals, self.validation = folder, intervals, validation
        self.workers, self.board = workers, board
        self.step = 0
        self.progress = new_progress()
        # Until when `hours` counts, on the clock of time.monotonic.
        self._counted_until: float | None = None
        # Of each step in flight: steps taken with it, learning rate, results.
        self._in_flight: collections.deque[tuple[int, float, Mapping[str, SupportsFloat]]]
        self._in_flight = collections.deque()
        self._stop_signal: int | None = None
        self._next_save = math.inf
        self._started = False
        self._display = Display(quiet=not trainer.chief)

    def resume(
        self,
        arrays: Mapping[str, np.ndarray],
        settings: Mapping[str, Any],
        source: str | os.PathLike[str],
    ) -> list[str]:
        """Continues from a saved state.

        Args:
          arrays, settings: as `state.load` returns.
          source: path that they come from, for the message.

        Returns:
          A text for each setting in which the state's recipe differs from this one.

        Raises:
          CheckpointError: the state is damaged or belongs to another network.
        """
        self.trainer.restore(arrays, source)
        self.step = settings["step"]
        recipe = recipes.from_settings(settings)
        # A default, for the states of earlier versions, which lack the number.
        self.progress["samples"] = self.step * recipe.batch
        self.progress.update(settings.get("progress", {}))
        before, now = recipe.settings(), self.recipe.settings()
        changes = [
            {"step": self.step, "setting": key, "before": before[key], "now": now[key]}
            for key in now
            if before[key] != now[key]
        ]
        self.progress["changes"] = [*self.progress["changes"], *changes]
        notes = {"optimizer": " (its moments begin anew)"}
        return [
            f"{c['setting']} was {c['before']}, now {c['now']}{notes.get(c['setting'], '')}"
            for c in changes
        ]

    def run(self) -> str | int:
        """Takes the steps that are left, or as many as time and signals allow, and saves the state.

        Returns:
          Why it stopped: "finished", "time" or a signal's number.

        Raises:
          TrainingError: too many steps in a row were not finite (the state is saved), or processes
            that share the work start from different states.
          CodecError: the state cannot be saved, or no photograph can be decoded.
          ValueError: there are no photographs.
        """
        if self.photographs is None:
            raise ValueError("a loop without photographs cannot run")
        recipe, intervals = self.recipe, self.intervals
        settings = zlib.crc32(json.dumps(recipe.settings()).encode())
        numbers = (self.step, self.progress["samples"], settings, len(self.photographs))
        # Small enough for their sums over processes to be exact in float32.
        if not all([self.trainer.alike(number % 2**20) for number in numbers]):
            raise TrainingError(
                f"{self.folder.path}: the machines do not begin alike; all of them need the same "
                "command, the same photographs, and --output on a disk that they share"
            )
        self._schedule_save()
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
        reason: str | int = "finished"
        with FewerWarnings(), batches, self._signals(), self._display:
            while self.step < recipe.steps:
                stop = self._stop_signal is not None or time.monotonic() >= intervals.stop_at
                if self.trainer.agree(stop):
                    reason = self._stop_signal or "time"
                    break
                self._take_step(next_batch=batches.__next__)
                validate = self.step % intervals.validate == 0 or self.step == recipe.steps
                if self.validation and validate:
                    self._finish_all_steps()
                    self._validate()
                by_steps = intervals.save_steps and self.step % intervals.save_steps == 0
                if by_steps or time.monotonic() >= self._next_save:
                    self._finish_all_steps()
                    self._try_to_save()
            self._finish_all_steps()
            self._save_at_end(patient=reason == "finished")
        return reason

    def save(self) -> None:
        """Saves the state; no step may be in flight. Raises CodecError."""
        self._display.pause()
        if self.trainer.chief:
            self.folder.save_state(self.trainer.arrays(), self.settings())

    def settings(self) -> dict[str, Any]:
        """What is saved beside the arrays: the recipe's settings, `step` and `progress`."""
        self._count_hours()
        return {**self.recipe.settings(), "step": self.step, "progress": self.progress}

    def _count_hours(self) -> float:
        """Brings progress["hours"] up to now, and returns it."""
        if self._counted_until is not None:
            now = time.monotonic()
            self.progress["hours"] += (now - self._counted_until) / 3600
            self._counted_until = now
        return self.progress["hours"]

    def _take_step(self, next_batch: Callable[[], np.ndarray]) -> None:
        """Starts a step, and finishes the oldest one if too many are in flight."""
        begin = time.monotonic()
        images = next_batch()
        waited = time.monotonic() - begin
        rate = self.recipe.rate_at(self.step)
        seed = [self.recipe.seed, self.step]
        metrics = self.trainer(images, seed, rate, self.recipe.lmbda)
        self.step += 1
        self.progress["samples"] += self.recipe.batch
        self._in_flight.append((self.step, rate, metrics))
        # The first step is finished at once, so that its result is shown without delay.
        if len(self._in_flight) > (UNDER_WAY if self._started else 0):
            self._finish_step()
        self._started = True
        self._display.record_step(waited)

    def _finish_all_steps(self) -> None:
        while self._in_flight:
            self._finish_step()

    def _finish_step(self) -> None:
        """Waits for the oldest step in flight, and records its results."""
        step, rate, metrics = self._in_flight.popleft()
        values = {name: float(value) for name, value in metrics.items()}
        skipped = values.pop("skipped") > 0
        self.progress["skipped"] += skipped
        in_a_row = self.progress["skipped_in_a_row"] + 1 if skipped else 0
        self.progress["skipped_in_a_row"] = in_a_row
        if in_a_row >= MOST_SKIPPED:
            self._in_flight.clear()
            self._save_at_end(patient=False)
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

    def _log(self, step: int, rate: float) -> None:
        """Logs the means since the last row."""
        window = self.progress["window"]
        count = window.pop("count", 0)
        if count:
            row: dict[str, float | str] = {"step": step, "learning_rate": rate}
            row.update({name: f"{value / count:.6g}" for name, value in window.items()})
            row["skipped"] = self.progress["skipped"]
            row["images_per_second"] = f"{self._display.images_per_second(self.recipe.batch):.4g}"
            row["waited"] = f"{self._display.share_waited():.4g}"
            row["hours"] = f"{self._count_hours():.4g}"
            self._write_log(LOG, row)
            if self.board:
                with self._report_write_errors():
                    self.board.scalars("train", step, row)
        window.clear()

    def _write_log(self, name: str, row: Mapping[str, float | str]) -> None:
        if self.trainer.chief:
            with self._report_write_errors():
                self.folder.log(name, row)

    @contextlib.contextmanager
    def _report_write_errors(self) -> Iterator[None]:
        """Prints an error of writing and goes on: days of training may not have been saved yet."""
        try:
            yield
        except CodecError as error:
            self._display.print(f"{error} (training goes on)", error=True)

    def _validate(self) -> None:
        """Measures the validation images, logs the means, and keeps the best weights."""
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
                with self._report_write_errors():
                    self.board.pictures(self.step, name, image, reconstruction)
        known = {k: [r[k] for r in rows if not math.isnan(r[k])] for k in rows[0]}
        means = {k: sum(v) / len(v) if v else math.nan for k, v in known.items()}
        means["bpp"] = means["bpp_y"] + means["bpp_z"]
        self._write_log(VALIDATION, {"step": self.step, **means})
        if self.board:
            with self._report_write_errors():
                self.board.scalars("validation", self.step, means)
        text = ", ".join(f"{name} {value:.5g}" for name, value in means.items())
        # Losses can only be compared if they are of the same images, by the same metric and lambda.
        of: list[str | float] = [self.recipe.metric, self.recipe.lmbda]
        of += [f"{name} {image.shape[1]}x{image.shape[0]}" for name, image in self.validation]
        best = self.progress["best"]
        is_best = best is None or best["of"] != of or means["loss"] < best["loss"]
        if math.isfinite(means["loss"]) and is_best:
            with self._report_write_errors():
                self.progress["best"] = {"loss": means["loss"], "of": of}
                try:
                    self.folder.save_weights("best", self.trainer.arrays(), self.settings())
                    text += " (the best so far)"
                except CodecError:
                    self.progress["best"] = best
                    raise
        self._display.print(f"validation at step {self.step}: {text}")

    def _schedule_save(self) -> None:
        minutes = self.intervals.save_minutes
        self._next_save = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def _try_to_save(self) -> None:
        """Saves; prints an error and goes on, since days of training may not have been saved."""
        self._schedule_save()
        try:
            self.save()
        except CodecError as error:
            self._next_save = min(self._next_save, time.monotonic() + RETRY_SECONDS)
            self._display.print(
                f"{error} (training goes on, and tries again within {RETRY_SECONDS} s)", error=True
            )

    def _save_at_end(self, patient: bool) -> None:
        """Saves. If that fails and `patient` is true, tries again until it works or a signal comes.

        Raises:
          CodecError: the state cannot be saved.
        """
        while True:
            try:
                self.save()
                return
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
    def _signals(self) -> Iterator[None]:
        """Makes SIGINT and SIGTERM end the run after its step; a second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _: FrameType | None) -> None:
            self._stop_signal = number
            # Not print: the signal may have interrupted one, which cannot be entered twice.
            with contextlib.suppress(OSError):
                os.write(2, b"\nstops after this step and saves; once more stops it at once\n")
            signal.signal(number, before[number])

        numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in numbers}
        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def validation_loss(recipe: Recipe, measures: Mapping[str, float]) -> float:
    """The loss of an image, lambda * distortion + bpp, with its 8-bit reconstruction.

    Args:
      recipe: gives metric and lambda.
      measures: as `Trainer.validate` returns.
    """
    if recipe.metric == "mse":
        distortion = 255**2 / 10 ** (measures["psnr"] / 10)
    else:
        distortion = 1 - measures["ms_ssim"]
    return recipe.lmbda * distortion + measures["bpp_y"] + measures["bpp_z"]
