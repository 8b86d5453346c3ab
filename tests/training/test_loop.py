"""The training loop around a fake step: schedule, logs, saves, stops; needs no TensorFlow."""

import csv
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.errors import CodecError, TrainingError
from gmm_attention.training import loop as loops
from gmm_attention.training import running, state
from gmm_attention.training.loop import Intervals, Loop
from gmm_attention.training.recipe import Recipe
from gmm_attention.training.run_folder import RunFolder


class Photographs:
    crop = 64

    def __init__(self, names=("a.png", "b.png", "c.png")):
        self._names = names

    def __len__(self):
        return len(self._names)

    def names(self, crop):
        return list(self._names)

    def image(self, index):
        return np.full([64, 64, 3], 50 * index, np.uint8)


class Trainer:
    """A step whose one weight adds up what it is given; a loss of NaN where it is told so."""

    part, chief = (0, 1), True
    broken_steps = ()

    def __init__(self):
        self.weight, self.calls = np.zeros(1, np.float32), []

    def __call__(self, images, seed, learning_rate, lmbda):
        self.calls.append((images.mean(), tuple(seed), learning_rate, lmbda))
        broken = seed[1] in self.broken_steps
        if not broken:
            self.weight = self.weight + images.mean()
        return {
            "loss": float("nan") if broken else seed[1] + 1,
            "mse": 0.01,
            "bpp_y": 0.5,
            "bpp_z": 0.25,
            "skipped": float(broken),
        }

    def agree(self, flag):
        return flag

    def alike(self, number):
        return True

    def validate(self, image):
        measures = {"bpp_y": 0.5, "bpp_z": 0.1, "psnr": 30 + float(self.weight[0]) / 1e6}
        return {**measures, "ms_ssim": float("nan")}, image

    def arrays(self):
        return {"weights/w": self.weight, "average/w": self.weight}

    def restore(self, arrays, source):
        self.weight = state.complete(arrays, {n: (1,) for n in self.arrays()}, source)["weights/w"]


RECIPE = Recipe(lmbda=0.01, steps=20, batch=2, crop=64, num_filters=8)


def make_loop(path, recipe=RECIPE, trainer=None, validation=(), **intervals):
    return Loop(
        trainer or Trainer(),
        recipe,
        Photographs(),
        RunFolder(path).make(),
        Intervals(**{"log": 4, **intervals}),
        validation,
        workers=1,
    )


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_step_has_its_seed_its_rate_and_lambda(tmp_path):
    loop = make_loop(tmp_path)
    assert loop.run() == "finished"
    assert [call[1] for call in loop.trainer.calls] == [(0, i) for i in range(20)]
    assert [call[2] for call in loop.trainer.calls] == [1e-4] * 18 + [1e-5] * 2
    assert {call[3] for call in loop.trainer.calls} == {0.01}


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path):
    whole, first, second = (make_loop(tmp_path / name) for name in ("a", "b", "b"))
    whole.run()
    # Between two rows of the log, whose means must come out the same.
    first.trainer.__class__ = type("Stopping", (Trainer,), {})
    first.trainer.__class__.agree = lambda self, flag: len(self.calls) == 10
    assert first.run() == "time"
    arrays, settings = first.folder.load_state()
    assert settings["step"] == 10
    assert second.resume(arrays, settings, "state") == []
    assert running.run(second, str) == 0
    np.testing.assert_array_equal(whole.trainer.weight, second.trainer.weight)
    assert whole.trainer.calls == first.trainer.calls + second.trainer.calls
    logs = [rows(tmp_path / name / "log.csv") for name in ("a", "b")]
    for a, b in zip(*logs):
        for timing in ("images_per_second", "waited", "hours"):
            del a[timing], b[timing]
    assert logs[0] == logs[1]
    assert [row["step"] for row in logs[0]] == ["4", "8", "12", "16", "20"]
    assert [float(row["loss"]) for row in logs[0]] == [2.5, 6.5, 10.5, 14.5, 18.5]


def test_a_run_killed_before_its_first_save_begins_its_log_anew(tmp_path):
    for _ in range(2):
        RunFolder(tmp_path).log("log.csv", {"step": 4, "loss": 1.0})
    assert running.run(make_loop(tmp_path), str) == 0
    assert [row["step"] for row in rows(tmp_path / "log.csv")] == ["4", "8", "12", "16", "20"]


def test_a_first_step_that_is_not_finite_is_skipped_like_any_other(tmp_path, capsys):
    trainer = Trainer()
    trainer.broken_steps = (0,)
    assert make_loop(tmp_path, trainer=trainer).run() == "finished"
    assert "1 steps skipped" in capsys.readouterr().out


def test_a_validation_that_is_not_finite_is_never_the_best(tmp_path):
    class Broken(Trainer):
        def validate(self, image):
            measures, reconstruction = super().validate(image)
            return {**measures, "psnr": float("nan") if len(self.calls) < 10 else 30.0}, image

    image = np.zeros([64, 64, 3], np.uint8)
    make_loop(tmp_path, trainer=Broken(), validation=[("a", image)], validate=8).run()
    assert checkpoints.load(tmp_path / "best")[1]["step"] == 16


def test_skipped_steps_are_counted_and_left_out_of_the_means(tmp_path):
    trainer = Trainer()
    trainer.broken_steps = (1, 2)
    loop = make_loop(tmp_path, trainer=trainer)
    assert loop.run() == "finished"
    assert loop.progress["skipped"] == 2
    first, *_, last = rows(tmp_path / "log.csv")
    assert float(first["loss"]) == 2.5 and first["skipped"] == last["skipped"] == "2"


def test_training_stops_where_no_step_is_finite_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr(loops, "MOST_SKIPPED", 5)
    trainer = Trainer()
    trainer.broken_steps = range(8, 1000)
    loop = make_loop(tmp_path, trainer=trainer)
    with pytest.raises(TrainingError, match="5 steps in a row, up to step 13.*learning-rate"):
        loop.run()
    arrays, settings = loop.folder.load_state()
    assert settings["step"] == 13 + loops.UNDER_WAY
    np.testing.assert_array_equal(arrays["weights/w"], trainer.weight)


def test_a_save_that_fails_does_not_stop_training_and_is_told(tmp_path, monkeypatch, capsys):
    loop = make_loop(tmp_path, save_steps=5)
    save_state, failures = loop.folder.save_state, [1]

    def save(*args):
        if failures:
            failures.pop()
            raise CodecError("state.npz: cannot be written: No space left on device")
        save_state(*args)

    monkeypatch.setattr(loop.folder, "save_state", save)
    assert loop.run() == "finished"
    assert "No space left" in capsys.readouterr().err
    assert loop.folder.load_state()[1]["step"] == 20


def test_a_last_save_is_tried_until_there_is_room(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loops, "RETRY_SECONDS", 0.01)
    loop = make_loop(tmp_path)
    save_state, failures = loop.folder.save_state, [1, 2, 3]

    def save(*args):
        if failures:
            failures.pop()
            raise CodecError("full")
        save_state(*args)

    monkeypatch.setattr(loop.folder, "save_state", save)
    assert loop.run() == "finished"
    assert capsys.readouterr().err.count("full") == 3
    assert loop.folder.load_state()[1]["step"] == 20


def test_a_last_save_that_fails_is_an_error_where_time_is_up(tmp_path, monkeypatch):
    loop = make_loop(tmp_path, stop_at=0)
    monkeypatch.setattr(state, "save", lambda *_: (_ for _ in ()).throw(CodecError("full")))
    with pytest.raises(CodecError, match="full"):
        loop.run()


def test_the_time_limit_stops_and_saves(tmp_path):
    loop = make_loop(tmp_path, stop_at=0)
    assert loop.run() == "time"
    assert loop.folder.load_state()[1]["step"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_its_step_and_saves(tmp_path, number):
    trainer = Trainer()
    before = signal.getsignal(number)
    call = Trainer.__call__

    def step(self, *args):
        if len(self.calls) == 6:
            os.kill(os.getpid(), number)
        return call(self, *args)

    trainer.__class__ = type("Interrupted", (Trainer,), {"__call__": step})
    loop = make_loop(tmp_path, trainer=trainer)
    assert loop.run() == number
    assert loop.folder.load_state()[1]["step"] == 7
    assert signal.getsignal(number) is before


def test_validation_keeps_the_best_and_logs_means(tmp_path):
    image = np.zeros([64, 64, 3], np.uint8)
    trainer = Trainer()
    loop = make_loop(tmp_path, trainer=trainer, validation=[("a", image), ("b", image)], validate=8)
    loop.run()
    table = rows(tmp_path / "validation.csv")
    assert [row["step"] for row in table] == ["8", "16", "20"]
    assert float(table[0]["bpp"]) == pytest.approx(0.6) and table[0]["ms_ssim"] == "nan"
    # The trainer's PSNR rises, so that the last is the best.
    best = checkpoints.load(tmp_path / "best")
    assert best[1]["step"] == 20 and best[1]["lambda"] == 0.01
    assert list(best[0]) == ["w"]
    trainer.weight = np.array([-1e9], np.float32)
    again = make_loop(tmp_path, trainer=trainer, validation=[("a", image), ("b", image)])
    again.resume(*loop.folder.load_state(), "state")
    again.step, again.trainer.weight = 19, np.array([-1e6], np.float32)
    again.run()
    assert checkpoints.load(tmp_path / "best")[0]["w"] == best[0]["w"]
    assert checkpoints.load(tmp_path / "last")[0]["w"] < 0
    # The loss of other photographs does not compare.
    other = make_loop(tmp_path, trainer=trainer, validation=[("c", image)])
    other.resume(*loop.folder.load_state(), "state")
    other.step = 19
    other.run()
    assert checkpoints.load(tmp_path / "best")[0]["w"] != best[0]["w"]


def test_what_differs_from_the_states_recipe_is_named(tmp_path):
    first = make_loop(tmp_path)
    first.run()
    second = make_loop(tmp_path, Recipe(**{**vars(RECIPE), "lmbda": 0.02, "steps": 30}))
    differences = second.resume(*first.folder.load_state(), "state")
    assert sorted(differences) == ["lambda was 0.01, now 0.02", "steps was 20, now 30"]
    assert second.run() == "finished" and len(second.trainer.calls) == 10


def test_other_photographs_than_at_the_last_start_are_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(RunFolder, "lock", lambda _: None)  # which a process holds to its end

    def start(steps, names, chief=True):
        trainer = Trainer()
        trainer.chief = chief
        loop = make_loop(tmp_path, Recipe(**{**vars(RECIPE), "steps": steps}), trainer)
        loop.photographs = Photographs(names)
        assert running.run(loop, str) == 0
        return capsys.readouterr().out

    changed = "the photographs have changed since the run was stopped: "
    assert changed not in start(20, ["a.png", "b.png", "c.png"])
    assert changed not in start(24, ["a.png", "b.png", "c.png"])
    out = start(28, ["a.png", "b.png", "c.png", "n\new.png"])
    assert f"  {changed}3 then, 4 now (1 added: n\\new.png); the order of the crops" in out
    assert changed not in start(32, ["a.png", "b.png", "c.png", "n\new.png"])
    assert start(36, ["a.png"], chief=False) == ""  # the chief says it
    assert f"{changed}4 then, 1 now (3 removed, first b.png)" in start(40, ["a.png"])


def test_a_state_of_an_older_version_tells_nothing_of_its_photographs(tmp_path, capsys):
    make_loop(tmp_path).run()
    arrays, settings = RunFolder(tmp_path).load_state()
    del settings["progress"]["photographs"]
    RunFolder(tmp_path).save_state(arrays, settings)
    longer = make_loop(tmp_path, Recipe(**{**vars(RECIPE), "steps": 24}))
    assert running.run(longer, str) == 0
    assert "photographs" not in capsys.readouterr().out
    assert RunFolder(tmp_path).load_state()[1]["progress"]["photographs"]["count"] == 3


def test_the_loop_needs_no_tensorflow():
    code = (
        "import sys; from gmm_attention.training import loop, running; "
        "print([m for m in ('tensorflow', 'jax', 'imageio') if m in sys.modules])"
    )
    path = os.pathsep.join(sys.path)
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_a_run_goes_on_with_another_batch_where_its_crops_ended(tmp_path, monkeypatch):
    first_samples = []

    class Noted(loops.Batches):
        def __init__(self, photographs, batch, seed, first_sample, *args):
            first_samples.append(first_sample)
            super().__init__(photographs, batch, seed, first_sample, *args)

    monkeypatch.setattr(loops, "Batches", Noted)
    make_loop(tmp_path).run()
    hours = RunFolder(tmp_path).load_state()[1]["progress"]["hours"]
    # As before a kill that comes before the first save: nothing of it is to be seen later.
    other = make_loop(tmp_path, Recipe(**{**vars(RECIPE), "batch": 8}))
    other.resume(*other.folder.load_state(), "state")
    longer = make_loop(tmp_path, Recipe(**{**vars(RECIPE), "batch": 4, "steps": 30}))
    assert running.run(longer, str) == 0
    assert first_samples == [0, 40]
    progress = RunFolder(tmp_path).load_state()[1]["progress"]
    assert progress["samples"] == 80 and progress["hours"] > hours > 0
    assert [list(row.values()) for row in rows(tmp_path / "changes.csv")] == [
        ["20", "batch", "2", "4"],
        ["20", "steps", "20", "30"],
    ]


def test_a_run_begun_elsewhere_needs_steps_that_are_left_and_begins_its_log_anew(tmp_path):
    make_loop(tmp_path / "long").run()
    for steps in (20, 24):
        copy = make_loop(tmp_path / "copy", Recipe(**{**vars(RECIPE), "steps": steps}))
        copy.folder.log("log.csv", {"step": 4, "loss": 1.0})
        running.begin_elsewhere(copy, str(tmp_path / "long"))
        if steps == 20:
            with pytest.raises(TrainingError, match="20 steps already; give more --steps"):
                running.run(copy, str)
    # Of which the folder's lock is left: a run is a process.
    copy.folder.cut_logs(0)
    assert copy.run() == "finished" and len(copy.trainer.calls) == 4
    assert [row["step"] for row in rows(tmp_path / "copy" / "log.csv")] == ["24"]


def test_a_state_that_does_not_tell_its_crops_has_taken_a_batch_a_step(tmp_path):
    loop = make_loop(tmp_path)
    loop.resume({"weights/w": np.zeros(1)}, {**RECIPE.settings(), "step": 7}, "state")
    assert loop.progress["samples"] == 14
