"""What a training run keeps on disk: its state, its best and last weights, and its logs.

state.npz         the whole state, from which the run continues
last/, best/      weights.npz and settings.json of the moving average: as of the last save, and as
                  of the validation with the lowest loss
log.csv           a row for every so many steps, with means over them
validation.csv    a row for each validation
changes.csv       a row for each setting that was changed when the run was continued
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gmm_attention.checkpoints import files as model_files
from gmm_attention.errors import TrainingError
from gmm_attention.files import (
    append_row,
    has_columns,
    make_folder,
    read_rows,
    refuse_foreign,
    write_rows,
)
from gmm_attention.training import state
from gmm_attention.training.state import STATE_FILE

LOG, VALIDATION, CHANGES = "log.csv", "validation.csv", "changes.csv"

LAST, BEST, BOARD = "last", "best", "tensorboard"

# Columns that each CSV file of ours has, also those of earlier versions.
_COLUMNS = {
    LOG: {"step", "learning_rate", "loss", "skipped"},
    VALIDATION: {"step", "bpp_y", "bpp_z", "psnr", "loss"},
    CHANGES: {"step", "setting", "before", "now"},
}

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")  # names that `write_atomically` gives


class RunFolder:
    """The folder of one run.

    Args:
      path: str or Path.

    Raises:
      CodecError: the folder cannot be made, or a file in it cannot be written; from every method.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)

    def make(self) -> RunFolder:
        """Makes the folder if need be, and returns this object."""
        make_folder(self.path)
        return self

    def join(self, name: str) -> str:
        """Path of a file or sub-folder."""
        return os.path.join(self.path, name)

    def refuse_foreign(self, overwrite: bool) -> None:
        """Refuses to begin a run where it would replace files that no run of ours wrote.

        A run that was killed before its first save has left its logs alone, and may begin anew.

        Args:
          overwrite: whether the user allows to replace any file.

        Raises:
          CodecError: such a file is there, and there is no state.
        """
        if self.has_state():
            return
        for name, columns in _COLUMNS.items():
            refuse_foreign(self.join(name), functools.partial(has_columns, columns), overwrite)
        for name in (LAST, BEST, BOARD):
            path = self.join(name)
            if os.path.lexists(path) and not os.path.isdir(path):
                raise TrainingError(
                    f"{path}: is there already, and is no folder; move it away, or give another "
                    "--output"
                )
        for name in (LAST, BEST):
            model_files.refuse_foreign_model(self.join(name), overwrite)

    def lock(self) -> None:
        """Locks the folder until this process ends, and removes what killed processes left.

        Raises:
          TrainingError: another process holds the lock.
        """
        import fcntl  # which Windows lacks, where --help is to work

        try:
            # The file descriptor is never closed, since that would release the lock.
            fcntl.flock(os.open(self.path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"{self.path}: another run trains in this folder; wait for it, or give another "
                "--output"
            ) from error
        except OSError:
            pass  # a file system without locks
        for folder in (self.path, self.join(LAST), self.join(BEST)):
            # Temporary files of a process that was killed in the middle of a save.
            for path in glob.glob(os.path.join(glob.escape(folder), ".*.tmp")):
                if _TEMPORARY.fullmatch(os.path.basename(path)):
                    with contextlib.suppress(OSError):
                        os.unlink(path)

    def has_state(self) -> bool:
        """Whether the run has been saved."""
        return os.path.exists(self.join(STATE_FILE))

    def load_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Reads the run's state.

        Returns:
          arrays, settings: see `save_state`.

        Raises:
          CheckpointError: the file is missing or damaged.
        """
        return state.load(self.join(STATE_FILE))

    def save_state(self, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> None:
        """Writes `last`, changes.csv, and then the state, from which the run continues.

        Args:
          arrays: dict of str to numpy array, as `TrainStep.arrays` returns.
          settings: dict for JSON, as `Loop.settings` returns.
        """
        self.save_weights(LAST, arrays, settings)
        changes = settings.get("progress", {}).get("changes")
        if changes:
            write_rows(self.join(CHANGES), list(changes[0]), changes)
        state.save(self.join(STATE_FILE), arrays, settings)

    def save_weights(
        self, name: str, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]
    ) -> None:
        """Writes the moving average as a training checkpoint, which the codec reads.

        Args:
          name: of the sub-folder.
          arrays, settings: as for `save_state`.
        """
        prefix = "average/"
        weights = {n[len(prefix) :]: a for n, a in arrays.items() if n.startswith(prefix)}
        settings = {key: settings[key] for key in settings if key != "progress"}
        model_files.save(self.join(name), weights, settings)

    def log(self, name: str, row: Mapping[str, float | str]) -> None:
        """Appends a row, a dict of column to number, to a CSV file; see `append_row`."""
        append_row(self.join(name), row)

    def cut_logs(self, step: int) -> None:
        """Drops the rows of later steps, which the run is about to repeat."""
        for path in map(self.join, (LOG, VALIDATION)):
            columns, rows = read_rows(path)
            if columns:
                kept = [r for r in rows if r["step"].isdigit() and int(r["step"]) <= step]
                write_rows(path, columns, kept)
