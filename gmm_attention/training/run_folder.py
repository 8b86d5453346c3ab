"""What a training run keeps on disk: its state, its best and last weights, and its logs.

state.npz         all that the run goes on from
last/, best/      weights.npz, settings.json: the moving average, at the last time that the
                  state was saved and where validation's loss was lowest
log.csv           a row for every so many steps, means over them
validation.csv    a row for each validation
changes.csv       a row for each setting that a run went on with in place of another
"""

import contextlib
import fcntl
import glob
import os

from gmm_attention import checkpoints
from gmm_attention.errors import TrainingError
from gmm_attention.files import append_row, make_folder, read_rows, write_rows
from gmm_attention.training import state
from gmm_attention.training.state import STATE_FILE

LOG, VALIDATION, CHANGES = "log.csv", "validation.csv", "changes.csv"


class RunFolder:
    """The folder of one run.

    Args:
      path: str or Path.

    Raises:
      CodecError: it cannot be made or written to; from every method.
    """

    def __init__(self, path):
        self.path = str(path)

    def make(self):
        """Makes the folder if need be, and returns this object."""
        make_folder(self.path)
        return self

    def join(self, name):
        return os.path.join(self.path, name)

    def lock(self):
        """Keeps other processes off the folder until this one ends, and removes their remains.

        Raises:
          TrainingError: one is at it.
        """
        try:
            # Never closed: with it the lock would go.
            fcntl.flock(os.open(self.path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"{self.path}: another run trains in this folder; wait for it, or give another "
                "--output"
            ) from error
        except OSError:
            pass  # a file system without locks
        for folder in (self.path, self.join("last"), self.join("best")):
            # What a kill in the middle of a save left.
            for path in glob.glob(os.path.join(glob.escape(folder), ".*.tmp")):
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def has_state(self):
        return os.path.exists(self.join(STATE_FILE))

    def load_state(self):
        """Returns arrays, settings. Raises CheckpointError."""
        return state.load(self.join(STATE_FILE))

    def save_state(self, arrays, settings):
        """Writes `last`, the changes and the state, which comes last: a run goes on from it."""
        self.save_weights("last", arrays, settings)
        changes = settings.get("progress", {}).get("changes")
        if changes:
            write_rows(self.join(CHANGES), list(changes[0]), changes)
        state.save(self.join(STATE_FILE), arrays, settings)

    def save_weights(self, name, arrays, settings):
        """Writes the moving average as a checkpoint that the encoder takes."""
        prefix = "average/"
        weights = {n[len(prefix) :]: a for n, a in arrays.items() if n.startswith(prefix)}
        settings = {key: settings[key] for key in settings if key != "progress"}
        checkpoints.save(self.join(name), weights, settings)

    def log(self, name, row):
        """Appends a row, dict of str to number, to a CSV file; see `append_row`."""
        append_row(self.join(name), row)

    def cut_logs(self, step):
        """Drops rows of steps after this one, which the run is to take again."""
        for path in map(self.join, (LOG, VALIDATION)):
            columns, rows = read_rows(path)
            if columns:
                kept = [r for r in rows if r["step"].isdigit() and int(r["step"]) <= step]
                write_rows(path, columns, kept)
