"""train.py as a user runs it: from photographs to files, killed and resumed, on several workers."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time

import imageio.v3 as iio
import numpy as np
import pytest

pytest.importorskip("tensorflow")

from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.commands.train import main
from gmm_attention.runtimes import tensorflow_runtime
from gmm_attention.training import state

SMALL = "--lambda 0.01 --num-filters 8 --crop 64 --batch 4 --learning-rate 1e-3".split()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, photograph):
    """A folder with a sub-folder, a photograph that is too small, and one that is broken."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "more").mkdir()
    for i in range(4):
        iio.imwrite(folder / "more" / f"{i}.png", photograph[:100, 30 * i : 30 * i + 100])
    iio.imwrite(folder / "small.png", photograph[:40])
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def start(*args, **environment):
    environment = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "gmm_attention.commands.train", *map(str, args)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process, status=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, out + err
    return out, err


def rows(path):
    with open(path, newline="") as file:
        table = list(csv.DictReader(file))
    for row in table:
        del row["images_per_second"], row["waited"], row["hours"]
    return table


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, photographs):
    """A run of 40 steps with validation, and what it printed."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    args = [*SMALL, "--train", photographs, "--steps", 40, "--log-every", 8]
    args += ["--validate", photographs / "more", "--validate-every", 20]
    # Adam moves the other half of the weights. The rate is the default one of Muon.
    args += ["--optimizer", "muon", "--learning-rate", 0.01, "--output", output]
    return output, finish(start(*args))[0], args


def test_the_loss_falls_and_all_files_are_there(whole_run):
    output, text, _ = whole_run
    log = rows(output / "log.csv")
    assert [row["step"] for row in log] == ["8", "16", "24", "32", "40"]
    assert float(log[-1]["loss"]) < 0.8 * float(log[0]["loss"])
    names = {"state.npz", "best", "last", "log.csv", "validation.csv", "tensorboard"}
    assert {path.name for path in output.iterdir()} == names
    assert "passed over 1 of 6 images that cannot be read" in text
    assert "passed over 1 of 6 images that have less than 64" in text
    settings = checkpoints.load(output / "last")[1]
    assert settings["step"] == 40 and settings["lambda"] == 0.01 and settings["metric"] == "mse"


def test_a_killed_run_goes_on_to_the_same_weights_and_log(whole_run, tmp_path):
    args = [*whole_run[2][:-1], tmp_path / "run", "--save-every", 10]
    process = start(*args)
    while not (tmp_path / "run" / "state.npz").exists():
        assert process.poll() is None, finish(process)
        time.sleep(0.02)
    process.kill()
    finish(process, -signal.SIGKILL)
    killed_at = state.load(tmp_path / "run" / "state.npz")[1]["step"]
    assert 0 < killed_at < 40
    out, _ = finish(start(*args))
    assert f"goes on from step {killed_at} " in out
    expected, _ = state.load(whole_run[0] / "state.npz")
    actual, _ = state.load(tmp_path / "run" / "state.npz")
    assert list(actual) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, name)
    assert rows(tmp_path / "run" / "log.csv") == rows(whole_run[0] / "log.csv")


def test_a_finished_run_says_so_and_what_to_do_next(whole_run, tmp_path):
    text = whole_run[1]
    assert "step 40 of 40\n" in text and "goes on" not in text
    (command,) = (line for line in text.splitlines() if "gmm_attention.export" in line)
    command = command.split()
    assert command[:3] == ["python", "-m", "gmm_attention.export"]
    assert command[3] == str(whole_run[0] / "best")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = {"env": environment, "cwd": tmp_path, "check": True}
    subprocess.run([sys.executable, *command[1:]], **run)
    encoder = ["-m", "gmm_attention.commands.encoder", "--model", command[4]]
    encoder += ["--input", whole_run[2][whole_run[2].index("--train") + 1] / "more"]
    subprocess.run([sys.executable, *encoder], **run)
    assert len(list((tmp_path / "images").iterdir())) == 8


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_two_workers_reach_the_weights_of_one_with_the_double_batch(
    photographs, tmp_path, optimizer
):
    args = [*SMALL, "--train", photographs, "--steps", 5, "--log-every", 5]
    args += ["--optimizer", optimizer, "--output"]
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            ports.append(free.getsockname()[1])
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    workers = [
        start(
            *args,
            tmp_path / "two",
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}),
        )
        for i in range(2)
    ]
    for worker in workers:
        finish(worker)
    finish(start(*args, tmp_path / "one"))
    expected, actual = (state.load(tmp_path / n / "state.npz")[0] for n in ("one", "two"))
    for name, array in expected.items():
        if name.startswith(("weights/", "average/")):
            # Adam takes steps of 1e-3 of gradients that are nothing but rounding.
            largest = max(np.abs(array).max(), 0.1)
            assert np.abs(actual[name] - array).max() <= 1e-3 * largest, name
    assert rows(tmp_path / "two" / "log.csv")[0]["step"] == "5"


@pytest.mark.slow
def test_an_import_goes_on_where_another_machine_stopped(whole_run, tmp_path, capsys):
    arrays, settings = state.load(whole_run[0] / "state.npz")
    state.save_pieces(tmp_path / "pieces", state.half(arrays), {**settings, "step": 30})
    output = str(tmp_path / "run")
    assert main(["--import", str(tmp_path / "pieces"), "--output", output]) == 0
    assert main(["--import", str(tmp_path / "pieces"), "--output", output]) == 1
    assert "holds a state already" in capsys.readouterr().err
    taken, _ = checkpoints.load(tmp_path / "run" / "last")
    for name, array in taken.items():
        np.testing.assert_allclose(array, arrays[f"average/{name}"], rtol=1e-3, atol=1e-7)
    args = [*whole_run[2][:-1], output]
    out, _ = finish(start(*args))
    assert "goes on from step 30" in out and "step 40 of 40" in out


def test_sigterm_saves_and_exits_as_ended_by_it(photographs, tmp_path):
    process = start(*SMALL, "--train", photographs, "--output", tmp_path / "run")
    while "step 1/" not in process.stdout.readline():
        assert process.poll() is None, finish(process)
    process.terminate()
    out, _ = finish(process, 128 + signal.SIGTERM)
    assert "the same command goes on" in out
    assert state.load(tmp_path / "run" / "state.npz")[1]["step"] > 0


@pytest.mark.slow
def test_a_copy_of_a_run_is_cooled_down_with_other_settings(whole_run, tmp_path):
    args = [*whole_run[2][:-1], tmp_path / "run", "--state", whole_run[0], "--steps", 44]
    args += ["--schedule", "constant", "--cool-down", 3, "--batch", 2, "--log-every", 1]
    args += ["--synthesis-input", "rounded"]
    out, _ = finish(start(*args))
    assert f"goes on from step 40 of {whole_run[0]}" in out
    changes = {row["setting"]: row for row in changed(tmp_path / "run")}
    assert changes["batch"] == {"step": "40", "setting": "batch", "before": "4", "now": "2"}
    assert set(changes) == {"batch", "steps", "schedule", "cool_down", "synthesis_input"}
    log = rows(tmp_path / "run" / "log.csv")
    assert [float(row["learning_rate"]) for row in log] == [1e-2, 7.5e-3, 5e-3, 2.5e-3]
    assert state.load(tmp_path / "run" / "state.npz")[1]["progress"]["samples"] == 168
    # The same command finds it finished, and leaves its log alone.
    out, _ = finish(start(*args))
    assert "--state is passed over" in out and "step 44 of 44" in out
    assert len(changed(tmp_path / "run")) == 5


def changed(run):
    with open(run / "changes.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "args, cause",
    [
        (["--train", "nowhere", "--lambda", "0.01"], "nowhere: no file or folder"),
        (["--train", ".", "--lambda", "0.01"], "no image in it"),
        (["--import", "nowhere", "--output", "run"], "nowhere: cannot be read"),
    ],
)
def test_what_is_missing_is_told_in_a_line(args, cause, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(args) == 1
    out, err = capsys.readouterr()
    assert cause in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_processor_without_bfloat16_is_told(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tensorflow_runtime, "has_bfloat16", lambda: False)
    run = tmp_path / "run"
    args = [*SMALL, "--train", str(photographs), "--output", str(run), "--precision", "bfloat16"]
    assert main(args) == 1
    err = capsys.readouterr().err
    assert err.startswith("bfloat16: ") and "--precision float32" in err and err.count("\n") == 1
    assert not run.exists()


@pytest.mark.parametrize("name", ["log.csv", "changes.csv", "best/settings.json"])
def test_a_run_replaces_no_file_of_others(photographs, name, tmp_path, capsys):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("day,weight\n1,70\n")
    save = ["--import", str(tmp_path / "pieces")]
    state.save_pieces(tmp_path / "pieces", {"weights/w": np.zeros(1)}, {"step": 1})
    for args in (["--train", str(photographs), *SMALL], save):
        assert main([*args, "--output", str(tmp_path / "run")]) == 1
        err = capsys.readouterr().err
        assert f"{path}: is there already" in err and err.count("\n") == 1
    assert path.read_text() == "day,weight\n1,70\n"
    assert [p for p in (tmp_path / "run").rglob("*") if p.is_file()] == [path]


def test_overwrite_lets_a_run_begin_among_files_of_others(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.csv").write_text("day,weight\n1,70\n")
    state.save_pieces(tmp_path / "pieces", {"weights/w": np.zeros(1)}, {"step": 1})
    args = ["--import", str(tmp_path / "pieces"), "--output", str(tmp_path / "run")]
    assert main([*args, "--overwrite"]) == 0
    assert state.load(tmp_path / "run")[1]["step"] == 1


def test_an_export_leaves_the_state_of_a_run_alone(whole_run, capsys):
    before = (whole_run[0] / "state.npz").read_bytes()
    assert main([*SMALL, "--output", str(whole_run[0]), "--export", str(whole_run[0])]) == 1
    err = capsys.readouterr().err
    assert "state.npz: is there already, and is no state that an export wrote" in err
    assert (whole_run[0] / "state.npz").read_bytes() == before


@pytest.mark.slow
def test_another_networks_state_and_checkpoint_are_refused(whole_run, photographs, tmp_path):
    """In processes of their own: what TensorFlow was told of devices stays for ever."""
    args = ["--train", photographs, *SMALL, "--num-filters", 16, "--output"]
    _, err = finish(start(*args, whole_run[0]), 1)
    assert "has shape" in err.splitlines()[-1] and "Traceback" not in err
    _, err = finish(start(*args, tmp_path / "run", "--init-from", whole_run[0]), 1)
    assert f"give {whole_run[0] / 'best'}" in err
    _, err = finish(start(*args, tmp_path / "run", TF_CONFIG='{"cluster": 3}'), 1)
    assert "TF_CONFIG" in err and "Traceback" not in err


@pytest.mark.parametrize(
    "args, cause",
    [
        ([], "--lambda or --point"),
        (["--lambda", "0.01"], "--train is needed"),
        (["--lambda", "0"], "not above 0"),
        (["--point", "mse-0.015", "--lambda", "0.1"], "leave --metric and --lambda away"),
        (["--lambda", "0.01", "--crop", "100"], "multiple of 64"),
        (["--lambda", "3", "--metric", "ms-ssim", "--crop", "128"], "192 or more"),
        (["--lambda", "0.01", "--num-filters", "12"], "multiple of 8"),
        (["--import", "run"], "--import needs --output"),
        (["--lambda", "0.01", "--state", "a", "--init-from", "b"], "leave --init-from away"),
    ],
)
def test_bad_usage_exits_with_2(args, cause, capsys):
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 2
    assert cause in capsys.readouterr().err
