"""What all programs share on the command line."""

import re
import subprocess
import sys

import pytest

from gmm_attention import cli

# Each takes as long to import as all else that --help does, or many times as long.
SLOW = "tensorflow", "onnxruntime", "onnx", "scipy", "matplotlib", "imageio", "distributed"


def test_the_bar_shows_while_there_is_work(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    def jobs():
        for number in range(2):  # the work of a job is done before the job is there
            assert re.search(rf" {number}/2(, \d+ s left)?$", capsys.readouterr().err)
            yield number

    assert cli.process_all(jobs(), lambda job: ("text", job), False, 2) == [0, 1]
    assert capsys.readouterr().err.endswith("\r\033[K")


@pytest.mark.parametrize("command", ["encoder", "decoder", "evaluate", "train"])
def test_help_waits_for_nothing_slow(command):
    program = (
        "import atexit, sys\n"
        f"from gmm_attention.commands import {command}\n"
        f"atexit.register(lambda: print([name for name in {SLOW} if name in sys.modules]))\n"
        f"{command}.main(['--help'])\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("usage: ") and finished.stdout.endswith("\n[]\n")
