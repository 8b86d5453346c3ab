"""The folder of a run: its lock, and logs that survive kills and full disks."""

import csv
import os
import subprocess
import sys

import pytest

from gmm_attention.training.run_folder import RunFolder


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


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
