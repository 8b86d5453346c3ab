"""What train.py, the export and encoder.py --effort say where TensorFlow is not installed."""

import re
import subprocess
import sys

import imageio.v3 as iio
import pytest
from conftest import ROOT, files

from gmm_attention import requirements
from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.commands import encoder, export, train


@pytest.fixture(autouse=True)
def without_tensorflow(monkeypatch, tmp_path):
    monkeypatch.setattr(requirements, "has_tensorflow", lambda: False)
    monkeypatch.chdir(tmp_path)


def assert_one_line(text, *parts):
    assert re.fullmatch("[^\n]+\n", text), text
    for part in (*parts, "needs tensorflow 2.14.1", "pip install"):
        assert part in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--train", "photographs", "--lambda", "0.01"],
        ["--export", "program", "--point", "mse-0.015"],
        ["--import", "state", "--output", "run"],
    ],
)
def test_training_needs_it(arguments, capsys, tmp_path):
    assert train.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert_one_line(err, "training needs ")
    assert files(tmp_path) == []


def test_exporting_a_checkpoint_needs_it(tiny_path, capsys):
    arrays, settings = checkpoints.load(tiny_path)
    checkpoints.save("trained", arrays, {**settings, "exported": False})
    assert export.main(["trained", "exported"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert_one_line(err, "trained: a training checkpoint, unlike an exported model, needs ")
    assert files(".") == ["trained", "trained/settings.json", "trained/weights.npz"]


@pytest.mark.parametrize("options", [[], ["--lambda", "0.01"], ["--target-bpp", "0.2"]])
def test_an_effort_needs_it(tiny_path, photograph, capsys, options, tmp_path):
    iio.imwrite("a.png", photograph[:20, :20])
    arguments = ["a.png", "-o", "coded", "--model", str(tiny_path)]
    assert encoder.main([*arguments, "--effort", "1", *options]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert_one_line(err, "--effort needs ", "leave --effort away")
    assert files(tmp_path) == ["a.png"]
    assert encoder.main([*arguments, "--effort", "0"]) == 0
    assert files("coded") == ["a.bin", "a.npz"]


def test_the_help_of_training_does_not():
    finished = subprocess.run(
        [sys.executable, ROOT / "train.py", "--help"], capture_output=True, text=True
    )
    assert finished.returncode == 0 and "--lambda" in finished.stdout


def test_a_system_without_file_locks_is_told_the_same():
    code = (
        "import sys\n"
        "sys.modules['fcntl'] = None\n"  # as on Windows
        "from gmm_attention import requirements\n"
        "requirements.has_tensorflow = lambda: False\n"
        "from gmm_attention.commands import train\n"
        "sys.exit(train.main(['--train', 'photographs', '--lambda', '0.01']))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 1
    assert_one_line(finished.stderr, "training needs ")
