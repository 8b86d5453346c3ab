"""A row of figures, or an error, for each image -> a CSV or JSON file."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from gmm_attention.errors import CodecError
from gmm_attention.files import (
    columns_of,
    make_folder,
    read_rows,
    refuse_foreign,
    write_atomically,
    write_rows,
)

SUFFIXES = (".csv", ".json")

SECONDS_BETWEEN = 10  # seconds from one write of the file to the next


class Summary:
    """The rows of a summary; a context manager that writes them every 10 s, and at its end.

    Args:
      path: str that ends with one of SUFFIXES, or None for no file.
      columns: names of the columns; "name" is the key of a row.
      keep: whether to begin with the rows of an existing file.
      overwrite: whether a file that is no summary may be replaced.

    Raises:
      CodecError: the file cannot be written, or existing rows cannot be read.
    """

    def __init__(self, path: str | None, columns: Sequence[str], keep: bool, overwrite: bool):
        self._path, self._columns = path, columns
        self._rows: dict[str, dict[str, Any]] = {}
        self._written = time.monotonic()
        if path is None:
            return
        make_folder(os.path.dirname(path))
        if keep:
            self._rows = {row["name"]: row for row in _read(path) if set(columns) == set(row)}
        refuse_foreign(path, self._is_ours, overwrite)
        self._write()  # reports a file that cannot be written before the work begins

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row, or replaces the row with its name.

        Args:
          row: dict; keys that are not columns are ignored, and columns without a key stay empty.
        """
        texts = {name: _rounded(row.get(name)) for name in self._columns}
        self._rows[row["name"]] = texts
        if time.monotonic() - self._written > SECONDS_BETWEEN:
            with contextlib.suppress(CodecError):  # the last write reports an error that persists
                self._write()

    def add_existing(self, row: Mapping[str, Any]) -> None:
        """Adds a row for outputs of an earlier run, unless one with its name and bytes exists."""
        old = self._rows.get(row["name"])
        if not old or str(old["bytes"]) != str(row["bytes"]):
            self.add(row)

    def __enter__(self) -> Summary:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()

    def _is_ours(self, head: bytes) -> bool:
        """Whether a file of these first bytes is a summary with the same columns."""
        assert self._path is not None
        if self._path.endswith(".csv"):
            return columns_of(head) == list(self._columns)
        text = head.decode("utf-8", "replace")
        first = re.match(r"\s*\[\s*(\{.*?\}\s*(?=[],])|\])", text, re.DOTALL)
        if not first or first[1] == "]":
            return bool(first)
        with contextlib.suppress(ValueError):
            return set(json.loads(first[1])) == set(self._columns)
        return False

    def _write(self) -> None:
        if self._path is None:
            return
        rows = [self._rows[name] for name in sorted(self._rows)]
        if self._path.endswith(".csv"):
            write_rows(self._path, self._columns, rows)
        else:
            text = json.dumps([_finite(row) for row in rows], indent=1)
            write_atomically({self._path: f"{text}\n".encode()})
        self._written = time.monotonic()


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces infinity, the PSNR of equal images, which JSON cannot hold, by None."""
    return {name: None if value == math.inf else value for name, value in row.items()}


def _read(path: str) -> list[dict[str, Any]]:
    """Reads the rows of an existing summary; none if there is no file."""
    if path.endswith(".csv"):
        return read_rows(path)[1]
    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)
        if isinstance(rows, list) and all(isinstance(r, dict) and "name" in r for r in rows):
            return rows
        cause = "not a list of images"
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        cause = str(error)
    raise CodecError(f"{path}: cannot be read: {cause}; move it out of the way")
