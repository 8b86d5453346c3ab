"""What all programs share on the command line."""

import logging
import os
import re
import subprocess
import sys
import warnings

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


def on_a_terminal(monkeypatch):
    """Has standard error be a terminal of 60 columns."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2, raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((60, 24)))


def process(texts, quiet=False):
    """Goes through three jobs, each of which shows the texts."""

    def work(job):
        for text in texts:
            cli.show_beside_bar(text)
        return "", job

    cli.process_all(range(3), work, quiet, 3)


def lines(text):
    """What a terminal shows on its last line, one after the other."""
    return re.findall("\r\033\\[K([^\r\n]+)", text)


def test_the_progress_of_an_image_is_shown_beside_the_bar(capsys, monkeypatch):
    on_a_terminal(monkeypatch)
    process(["step 1/50, loss 0.6363 (+0.0%)", "step 23/50, loss 0.6210 (-2.4%)"])
    shown = lines(capsys.readouterr().err)
    first = [line for line in shown if "] 0/3" in line]
    assert [line.partition("] ")[2] for line in first] == [
        "0/3",
        "0/3, step 1/50, loss 0.6363 (+0.0%)",
        "0/3, step 23/50, loss 0.6210 (-2.4%)",
    ]
    assert sum("23/50" in line for line in shown) == 3


def test_no_line_of_the_bar_is_broken_by_the_terminal(capsys, monkeypatch):
    on_a_terminal(monkeypatch)
    texts = ["step 23/50", "step 100/200, loss 0.6210 (-2.4%), and more and more"]
    process([*texts, "x" * 100])
    shown = lines(capsys.readouterr().err)
    assert len(shown) == 12 and all(len(line) < 60 for line in shown)
    for text in texts:
        assert sum(line.endswith(text) for line in shown[:4]) == 1  # the bar gives way


def test_progress_without_a_bar_shows_nothing(capsys, monkeypatch):
    on_a_terminal(monkeypatch)
    cli.show_beside_bar("step 1/50")
    process(["step 1/50"], quiet=True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    process(["step 1/50"])
    cli.show_beside_bar("step 1/50")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shown", [True, False])
def test_a_warning_is_a_line_of_its_own(capsys, monkeypatch, shown):
    on_a_terminal(monkeypatch)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: shown)
    monkeypatch.setattr(logging.root, "handlers", [])
    level = logging.root.level

    def warn(job):
        logging.getLogger("gmm_attention.tests").warning("a.png: a warning")
        return "", job

    with warnings.catch_warnings():
        cli.set_up_messages(logging.WARNING)
        cli.process_all([1], warn, False, 1)
    logging.root.setLevel(level)
    bar, wipe = f"\r\033[K[{' ' * 30}] 0/1", "\r\033[K"
    expected = f"{bar}{wipe}a.png: a warning\n{wipe}{wipe}" if shown else "a.png: a warning\n"
    assert capsys.readouterr().err == expected


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
