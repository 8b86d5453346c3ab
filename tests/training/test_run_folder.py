"""The folder of a run: its lock, and logs that survive kills and full disks."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest

from gmm_attention.errors import CodecError
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


def test_what_a_kill_left_of_a_save_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".0123456789abcdef.tmp").write_bytes(b"half a state")
    (tmp_path / ".letter.tmp").write_bytes(b"of another program")
    RunFolder(tmp_path).lock()
    assert list(tmp_path.iterdir()) == [tmp_path / ".letter.tmp"]


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


FOREIGN = {
    "log.csv": b"step,accuracy\n1,0.5\n",
    "validation.csv": b"step,loss\n1,0.5\n",
    "changes.csv": b"",
    "last/settings.json": b"{}",
    "last/weights.npz": b"PK\3\4 of an archive without settings",
    "best/settings.json": b'{"num_filters": 8',
    "best/weights.npz": b"weights",
}


def write(folder, name, content):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_run_does_not_begin_among_files_that_are_not_its_own(name, tmp_path):
    write(tmp_path, name, FOREIGN[name])
    folder = RunFolder(tmp_path)
    if FOREIGN[name]:
        with pytest.raises(CodecError, match=f"{name}: is there already.*--overwrite"):
            folder.refuse_foreign(overwrite=False)
    else:
        folder.refuse_foreign(overwrite=False)  # nothing is lost with an empty file
    folder.refuse_foreign(overwrite=True)


def test_a_run_begins_anew_where_one_was_killed_before_it_was_saved(tmp_path):
    folder = RunFolder(tmp_path).make()
    folder.refuse_foreign(overwrite=False)
    settings = {"num_filters": 8, "num_mixtures": 3, "attention": True, "lambda": 0.01}
    measures = {"bpp_y": 1.0, "bpp_z": 0.1, "psnr": 30.0, "ms_ssim": 0.9, "loss": 1.5, "bpp": 1.1}
    folder.log("log.csv", {"step": 1, "learning_rate": 1e-4, "loss": 2.0, "mse": 0.1, "skipped": 0})
    folder.log("validation.csv", {"step": 1, **measures})
    folder.save_weights("best", {"average/w": np.zeros(3)}, settings)
    folder.refuse_foreign(overwrite=False)


def test_what_lies_in_the_folder_of_a_saved_run_is_its_own(tmp_path):
    write(tmp_path, "log.csv", FOREIGN["log.csv"])
    write(tmp_path, "state.npz", b"")
    RunFolder(tmp_path).refuse_foreign(overwrite=False)
