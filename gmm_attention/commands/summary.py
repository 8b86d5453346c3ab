"""What became of each image -> a CSV or JSON file."""

import contextlib
import json
import math
import os
import time

from gmm_attention.errors import CodecError
from gmm_attention.files import make_folder, read_rows, write_atomically, write_rows

SUFFIXES = (".csv", ".json")

SECONDS_BETWEEN = 10


class Summary:
    """The rows of a summary; a context manager that writes them every now and then, and at its end.

    Args:
      path: str or Path with a suffix of SUFFIXES, or None for no file.
      columns: list of names, of which "name" tells a row from the others.
      keep: whether to begin with the rows of the file that is there.

    Raises:
      CodecError: it cannot be written, or the rows that are there cannot be read.
    """

    def __init__(self, path, columns, keep):
        self._path, self._columns, self._rows = path, columns, {}
        self._written = time.monotonic()
        if path is None:
            return
        make_folder(os.path.dirname(path))
        if keep:
            self._rows = {row["name"]: row for row in _read(path) if set(columns) == set(row)}
        self._write()  # what cannot be written is told before the work

    def add(self, row):
        """Adds a row, or replaces that of its name.

        Args:
          row: dict of some of the columns, and what else is known; the other columns stay empty.
        """
        texts = {name: _rounded(row.get(name)) for name in self._columns}
        self._rows[row["name"]] = texts
        if time.monotonic() - self._written > SECONDS_BETWEEN:
            with contextlib.suppress(CodecError):  # it will be told at the end, if it lasts
                self._write()

    def add_existing(self, row):
        """Adds a row of what an earlier run made, unless one has its name and bytes."""
        old = self._rows.get(row["name"])
        if not old or str(old["bytes"]) != str(row["bytes"]):
            self.add(row)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._write()

    def _write(self):
        if self._path is None:
            return
        rows = [self._rows[name] for name in sorted(self._rows)]
        if self._path.endswith(".csv"):
            write_rows(self._path, self._columns, rows)
        else:
            text = json.dumps([_finite(row) for row in rows], indent=1)
            write_atomically({self._path: f"{text}\n".encode()})
        self._written = time.monotonic()


def _rounded(value):
    return round(value, 6) if isinstance(value, float) else value


def _finite(row):
    """JSON has no word for the PSNR of equal images."""
    return {name: None if value == math.inf else value for name, value in row.items()}


def _read(path):
    if path.endswith(".csv"):
        return read_rows(path)[1]
    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)
        if isinstance(rows, list) and all(isinstance(r, dict) and "name" in r for r in rows):
            return rows
        cause = "no list of images"
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        cause = error
    raise CodecError(f"{path}: cannot be read: {cause}; move it out of the way")
