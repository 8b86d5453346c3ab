"""Files written whole or not at all, folders for them, and CSV files that grow row by row."""

import contextlib
import csv
import errno
import io
import os
import secrets

from gmm_attention.errors import CodecError

# File names need not be UTF-8, and come to Python by this.
_ENCODING = {"encoding": "utf-8", "errors": "surrogateescape"}


def write_atomically(files):
    """Writes files, which appear under their names only when all of them are complete.

    The bytes go to hidden files beside the targets, which are renamed at the end, so a reader
    never meets half a file, and a failure (a full disk) leaves all the older files, not a new one
    beside an old one. A target that is a symbolic link stays one: the file it points to is
    replaced. New files have the permissions that the user's umask gives. The folders must exist.

    Args:
      files: dict of path (str or Path) to bytes; more than one where they are of use only
        together.

    Raises:
      CodecError: a file cannot be written (no such folder, no permission, no space), or a target
        is a folder or a device, which renaming would replace.
    """
    renamings = []
    try:
        for path, data in files.items():
            target = os.path.realpath(path)
            if os.path.exists(target) and not os.path.isfile(target):
                kind = "a folder" if os.path.isdir(target) else "not a regular file"
                raise CodecError(f"{path}: cannot be written: it is {kind}; give a file's name")
            # Not `tempfile`, whose files only their owner may read; and no part of the target's
            # name, which may already be as long as the file system allows.
            temporary = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.tmp")
            renamings.append((temporary, target))
            with open(temporary, "xb") as file:
                file.write(data)
        for temporary, path in renamings:
            os.replace(temporary, path)
    except OSError as error:
        raise CodecError(
            f"{path}: cannot be written: {error.strerror}; check the folder, its permissions "
            "and the free space"
        ) from error
    finally:
        # Also after an interrupt; after success there is nothing left to remove.
        for temporary, _ in renamings:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def make_folder(path):
    """Makes a folder, with those above it, unless it is there; "" is the current one.

    Raises:
      CodecError: it cannot be made.
    """
    try:
        os.makedirs(path or ".", exist_ok=True)
    except OSError as error:
        raise CodecError(
            f"{path}: cannot be made: {error.strerror}; give another folder, or change its "
            "permissions"
        ) from error


def append_row(path, row):
    """Appends a row to a CSV file, which begins with its columns' names.

    A file of other columns is moved aside, to NAME.old. A row that the disk has no room for leaves
    nothing behind.

    Args:
      path: str or Path.
      row: dict of the column's name to what is to stand there.

    Raises:
      CodecError: the file cannot be written.
    """
    try:
        with open(path, "a+", newline="", **_ENCODING) as file:
            file.seek(0)
            columns = next(csv.reader(file), None)
        if columns and set(columns) != set(row):
            os.replace(path, f"{path}.old")
            columns = None
        text = _csv_text(columns or list(row), [row], header=not columns)
        with open(path, "r+b" if columns else "wb", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if file.write(text) < len(text):  # as it is where a disk has room for a part
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise CodecError(
            f"{path}: cannot be written: {error.strerror}; check the free space"
        ) from error


def read_rows(path):
    """Reads a CSV file that `append_row` made, without what a kill left of a row.

    Returns:
      columns: list of names, empty if there is no such file or nothing in it.
      rows: list of dicts of name to str.

    Raises:
      CodecError: the file cannot be read.
    """
    try:
        with open(path, newline="", **_ENCODING) as file:
            text = file.read()
        whole = io.StringIO(text[: text.rfind("\n") + 1], newline="")
        columns, *rows = list(csv.reader(whole)) or [[]]
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError, csv.Error) as error:
        raise CodecError(f"{path}: cannot be read: {error}; move it out of the way") from error
    return columns, [dict(zip(columns, row)) for row in rows if len(row) == len(columns)]


def write_rows(path, columns, rows):
    """Writes a whole CSV file, atomically.

    Args:
      path: str or Path.
      columns: list of names, in order.
      rows: list of dicts with these keys.

    Raises:
      CodecError: see `write_atomically`.
    """
    write_atomically({path: _csv_text(columns, rows, header=True)})


def _csv_text(columns, rows, header):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(**_ENCODING)
