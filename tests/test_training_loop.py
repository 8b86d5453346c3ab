"""The training loop around a step of its own: schedule, logs, saves, stops; needs no TensorFlow."""

import csv
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from gmm_attention import checkpoints
from gmm_attention.errors import CheckpointError, CodecError, TrainingError
from gmm_attention.training import loop as loops
from gmm_attention.training import options, state
from gmm_attention.training.loop import Intervals, Loop
from gmm_attention.training.recipe import POINTS, Recipe, from_settings, paper_num_filters
from gmm_attention.training.run_folder import RunFolder


class Photographs:
    crop = 64

    def __len__(self):
        return 3

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
    assert options.run(second, str) == 0
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
    assert options.run(make_loop(tmp_path), str) == 0
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


def test_two_runs_in_one_folder_are_refused(tmp_path):
    folder = RunFolder(tmp_path)
    folder.lock()
    code = "import sys; from gmm_attention.training.run_folder import RunFolder as R; "
    code += "R(sys.argv[1]).lock()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=environment, capture_output=True, text=True
    )
    assert "another run trains in this folder" in result.stderr


def test_what_a_kill_left_of_a_save_is_removed(tmp_path):
    (tmp_path / ".0123456789abcdef.tmp").write_bytes(b"half a state")
    RunFolder(tmp_path).lock()
    assert list(tmp_path.iterdir()) == []


def test_a_log_of_other_columns_is_moved_aside(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log("log.csv", {"step": 1, "loss": 0.5, "mse": 0.1})
    folder.log("log.csv", {"mse": 0.2, "step": 2, "loss": 0.25})
    assert rows(tmp_path / "log.csv")[1] == {"step": "2", "loss": "0.25", "mse": "0.2"}
    folder.log("log.csv", {"step": 3, "loss": 0.5, "ms_ssim": 0.9})
    assert rows(tmp_path / "log.csv") == [{"step": "3", "loss": "0.5", "ms_ssim": "0.9"}]
    assert len(rows(tmp_path / "log.csv.old")) == 2


@pytest.mark.parametrize("left", ["", "step,lo", "step,loss\n1,0.5\n2,0", "step,loss\n2,0"])
def test_a_log_that_a_full_disk_cut_off_does_not_stop_a_run(tmp_path, left):
    (tmp_path / "log.csv").write_text(left)
    folder = RunFolder(tmp_path)
    folder.cut_logs(1)
    folder.log("log.csv", {"step": 2, "loss": 0.5})
    assert rows(tmp_path / "log.csv")[-1] == {"step": "2", "loss": "0.5"}


def test_rows_after_the_state_are_dropped_and_half_a_row_too(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.log("log.csv", {"step": step, "loss": 0.5})
    with open(tmp_path / "log.csv", "a") as file:
        file.write("4")
    folder.cut_logs(2)
    assert [row["step"] for row in rows(tmp_path / "log.csv")] == ["1", "2"]


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


def test_the_loop_needs_no_tensorflow():
    code = (
        "import sys; from gmm_attention.training import loop, options; "
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


def test_the_learning_rate_is_the_papers():
    paper = Recipe()
    assert (paper.rate_at(0), paper.rate_at(919_999)) == (1e-4, 1e-4)
    assert (paper.rate_at(920_000), paper.rate_at(999_999)) == (1e-5, 1e-5)


def test_the_cosine_rises_in_the_warm_up_and_falls_to_nothing():
    recipe = Recipe(schedule="cosine", steps=1000, warm_up=99, learning_rate=2e-4)
    rates = [recipe.rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(2e-6) and max(rates) == rates[99] == pytest.approx(2e-4)
    assert np.all(np.diff(rates[:100]) > 0) and np.all(np.diff(rates[99:]) < 0)
    assert rates[-1] < 1e-8


def test_a_constant_rate_falls_to_nothing_over_the_last_steps():
    recipe = Recipe(schedule="constant", steps=1000, warm_up=9, cool_down=99, learning_rate=1e-2)
    rates = [recipe.rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-3) and set(rates[9:901]) == {1e-2}
    np.testing.assert_allclose(rates[900:], np.linspace(1e-2, 1e-4, 100))


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
    assert options.run(longer, str) == 0
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
        options.begin_elsewhere(copy, str(tmp_path / "long"))
        if steps == 20:
            with pytest.raises(TrainingError, match="20 steps already; give more --steps"):
                options.run(copy, str)
    # Of which the folder's lock is left: a run is a process.
    copy.folder.cut_logs(0)
    assert copy.run() == "finished" and len(copy.trainer.calls) == 4
    assert [row["step"] for row in rows(tmp_path / "copy" / "log.csv")] == ["24"]


def test_a_cool_down_longer_than_the_run_takes_all_of_it():
    recipe = Recipe(schedule="constant", steps=100, warm_up=10, learning_rate=1e-2)
    assert max(map(recipe.rate_at, range(100))) == pytest.approx(1e-2, rel=0.02)


def test_a_state_that_does_not_tell_its_crops_has_taken_a_batch_a_step(tmp_path):
    loop = make_loop(tmp_path)
    loop.resume({"weights/w": np.zeros(1)}, {**RECIPE.settings(), "step": 7}, "state")
    assert loop.progress["samples"] == 14


def test_the_papers_points_have_its_n():
    numbers = {name: paper_num_filters(*point) for name, point in POINTS.items()}
    wide = {"mse-0.015", "mse-0.03", "mse-0.045", "ms-ssim-40", "ms-ssim-120"}
    assert len(numbers) == 11 and {n for n, count in numbers.items() if count == 192} == wide
    assert set(numbers.values()) == {128, 192}


def test_a_recipe_survives_its_settings():
    assert from_settings({**RECIPE.settings(), "step": 3}) == RECIPE


ARRAYS = {"weights/w": np.arange(4, dtype=np.float32), "average/w": np.ones(4, np.float32)}


def test_a_state_comes_back_whole_from_a_file_and_from_pieces(tmp_path, monkeypatch):
    state.save(tmp_path / "state.npz", ARRAYS, {"step": 7})
    monkeypatch.setattr(state, "PIECE_BYTES", 100)
    state.save_pieces(tmp_path / "pieces", {"weights/w": np.zeros(1000)}, {})
    state.save_pieces(tmp_path / "pieces", ARRAYS, {"step": 7})
    pieces = sorted((tmp_path / "pieces").iterdir())
    assert len(pieces) > 3 and max(path.stat().st_size for path in pieces) <= 100
    for path in (tmp_path / "state.npz", tmp_path, tmp_path / "pieces"):
        arrays, settings = state.load(path)
        assert settings == {"step": 7} and list(arrays) == list(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(arrays[name], array)
    pieces[1].unlink()
    with pytest.raises(CheckpointError, match="piece 2 of"):
        state.load(tmp_path / "pieces")


def test_a_damaged_or_missing_state_is_an_error(tmp_path):
    path = tmp_path / "state.npz"
    state.save(path, ARRAYS, {"step": 7})
    data = path.read_bytes()
    for damaged in (b"", data[:100], data[:-30], data[:300] + b"?" + data[301:]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            state.load(path)
    with pytest.raises(CheckpointError, match="No such file"):
        state.load(tmp_path / "other.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no state in it"):
        state.load(tmp_path / "empty")


def test_half_a_state_begins_adam_anew_and_an_average_at_the_weights():
    shapes = {f"{kind}/w": (4,) for kind in ("weights", "average", "adam_m")}
    shapes["updates"] = ()
    arrays = {**ARRAYS, "adam_m/w": np.ones(4), "updates": np.float32(7)}
    arrays["averaged"] = np.float32(70000)
    shapes["averaged"] = ()
    whole = state.complete(state.half(arrays), shapes, "x")
    # Or the average's first steps would be those of a short memory.
    assert whole["averaged"] == 70000
    np.testing.assert_array_equal(whole["average/w"], ARRAYS["average/w"])
    np.testing.assert_array_equal(whole["adam_m/w"], np.zeros(4))
    assert whole["updates"] == 0 and whole["weights/w"].dtype == np.float32
    alone = state.complete({"weights/w": ARRAYS["weights/w"]}, shapes, "x")
    np.testing.assert_array_equal(alone["average/w"], ARRAYS["weights/w"])


@pytest.mark.parametrize(
    "arrays, cause",
    [
        ({"average/w": np.ones(4)}, "misses weights/w"),
        ({"weights/w": np.ones(3)}, r"shape \[3\], not \[4\]"),
        ({"weights/w": np.ones(4), "weights/v": np.ones(4)}, "foreign weights/v"),
        ({"weights/w": np.full(4, np.nan)}, "not finite"),
    ],
)
def test_a_state_of_another_network_is_refused(arrays, cause):
    shapes = {"weights/w": (4,), "average/w": (4,)}
    with pytest.raises(CheckpointError, match=cause):
        state.complete(arrays, shapes, "run/state.npz")
