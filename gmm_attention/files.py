"""Files written whole or not at all, folders for them, and CSV files that grow row by row."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from gmm_attention.errors import CodecError, printable

# A file name that is not valid UTF-8 reaches Python with surrogates, which this error handler
# writes back as the original bytes.
_ENCODING, _ENCODING_ERRORS = "utf-8", "surrogateescape"

_Path = TypeVar("_Path", bound="str | os.PathLike[str]")


def write_atomically(files: Mapping[_Path, bytes], modified: int | None = None) -> None:
    """Writes files, which appear under their names only when all of them are complete.

    The bytes go to hidden files beside the targets, which are renamed at the end. So a reader
    never meets half a file, and a failure (such as a full disk) leaves all older files in place
    rather than a mixture of old and new ones. A target that is a symbolic link stays one: the file
    that it points to is replaced. New files have the permissions that the user's umask gives. The
    folders must exist.

    Args:
      files: dict of path (str or Path) to bytes; several files where each is useless without
        the others.
      modified: modification time that the files get, in nanoseconds since 1970, or None for now.
        A file system that keeps no such time is none the worse.

    Raises:
      CodecError: a file cannot be written (no such folder, no permission, no space), or a target
        is a folder or a device, which renaming would replace.
    """
    renamings = []
    path: str | os.PathLike[str] = ""
    try:
        for path, data in files.items():
            target = os.path.realpath(path)
            if os.path.exists(target) and not os.path.isfile(target):
                kind = "a folder" if os.path.isdir(target) else "not a regular file"
                raise CodecError(f"{path}: cannot be written: it is {kind}; give a file's name")
            # `tempfile` would make files that only their owner may read. The name holds no part
            # of the target's, which may already be as long as the file system allows.
            temporary = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.tmp")
            renamings.append((temporary, target))
            with open(temporary, "xb") as file:
                file.write(data)
            if modified is not None:
                with contextlib.suppress(OSError):
                    os.utime(temporary, ns=(modified, modified))
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


# How many of a file's first bytes tell who wrote it.
HEAD_SIZE = 4096


def refuse_foreign(
    path: str | os.PathLike[str], is_ours: Callable[[bytes], bool], overwrite: bool
) -> None:
    """Refuses to replace a file that this project's programs did not write.

    Nothing is lost with an empty file, so that one may always be replaced.

    Args:
      path: str or Path of a file that is about to be written.
      is_ours: function of the first 4096 bytes of the file that is there, or all of them if it is
        shorter, which tells whether a program of ours wrote it.
      overwrite: whether the user allows to replace any file.

    Raises:
      CodecError: a file is there that is not ours, or that cannot be read.
    """
    if overwrite or not os.path.isfile(path):
        return
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_SIZE)
    except OSError as error:
        raise CodecError(
            f"{path}: is there already, and cannot be read: {error.strerror}; give another output"
        ) from error
    if head and not is_ours(head):
        raise CodecError(
            f"{path}: is there already, and was not written by this program; give another output, "
            "move the file away, or allow its loss by --overwrite"
        )


# Names of what a process has open, which may also be a file that is read or written as a stream.
_OPEN_FILES = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/(self|\d+)/fd/\d+")

# Most bytes that are read from a stream: some devices have no end.
_MOST_FROM_STREAM = 2**30


def is_stream(path: str) -> bool:
    """Whether a path is a pipe or a device, or "-", which stands for standard input or output."""
    if path == "-" or _OPEN_FILES.fullmatch(os.path.abspath(path)):
        return True
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def shown(path: str) -> str:
    """What messages call an input: its path in one line, or standard input for "-"."""
    return "standard input" if path == "-" else printable(path)


def write_stream(path: str, data: bytes) -> None:
    """Writes bytes to a pipe or a device, or to standard output for "-".

    Raises:
      CodecError: it cannot be written.
      BrokenPipeError: nobody reads it any more.
    """
    try:
        if path != "-":
            with open(path, "wb") as file:
                file.write(data)
        elif sys.__stdout__ is None:
            raise OSError(errno.EBADF, "it is closed")
        else:
            # Whatever is printed meanwhile goes elsewhere, see `redirect_stdout`.
            sys.__stdout__.buffer.write(data)
            sys.__stdout__.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "standard output" if path == "-" else path
        raise CodecError(
            f"{name}: cannot be written: {error.strerror}; give another output"
        ) from error


def read_stream(path: str) -> bytes:
    """Reads a pipe or a device to its end, or standard input for "-".

    Raises:
      CodecError: it cannot be read, or has more than 2^30 bytes.
    """
    try:
        if path != "-":
            with open(path, "rb") as file:
                data = file.read(_MOST_FROM_STREAM + 1)
        elif sys.stdin is None:
            raise OSError(errno.EBADF, "it is closed")
        else:
            data = sys.stdin.buffer.read(_MOST_FROM_STREAM + 1)
    except OSError as error:
        raise CodecError(
            f"{shown(path)}: cannot be read: {error.strerror}; give an image, a folder or a pipe"
        ) from error
    if len(data) > _MOST_FROM_STREAM:
        raise CodecError(
            f"{shown(path)}: has more than 2^30 bytes, or no end; save the image, and give the file"
        )
    return data


def make_folder(path: str | os.PathLike[str]) -> None:
    """Makes a folder and its parents unless they exist; "" is the current folder.

    Raises:
      CodecError: it cannot be made.
    """
    try:
        os.makedirs(path or ".", exist_ok=True)
    except (OSError, RecursionError) as error:  # the latter for a thousand folders in each other
        cause = error.strerror if isinstance(error, OSError) else "too many folders"
        raise CodecError(
            f"{path}: cannot be made: {cause}; give another folder, or change its permissions"
        ) from error


def append_row(path: str | os.PathLike[str], row: Mapping[str, object]) -> None:
    """Appends a row to a CSV file, and first writes the header of a new file.

    A file with other columns is moved aside, to NAME.old or, if that is taken, NAME.old-2, and so
    on. If the disk has no room for the whole row, no part of it stays in the file.

    Args:
      path: str or Path.
      row: dict of column name to value.

    Raises:
      CodecError: the file cannot be written.
    """
    try:
        with open(path, "a+", newline="", encoding=_ENCODING, errors=_ENCODING_ERRORS) as file:
            file.seek(0)
            columns = next(csv.reader(file), None)
        if columns and set(columns) != set(row):
            os.replace(path, _free_name(f"{path}.old"))
            columns = None
        data = _csv_bytes(columns or list(row), [row], header=not columns)
        with open(path, "r+b" if columns else "wb", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if file.write(data) < len(data):  # the disk had room for a part only
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise CodecError(
            f"{path}: cannot be written: {error.strerror}; check the free space"
        ) from error


def columns_of(head: bytes) -> list[str]:
    """The names in the first row of a CSV file; none if it holds no such row.

    Args:
      head: the first bytes of the file.
    """
    line = head.partition(b"\n")[0].decode(_ENCODING, "replace")
    try:
        return next(csv.reader([line]), [])
    except csv.Error:  # it is no text
        return []


def has_columns(columns: set[str], head: bytes) -> bool:
    """Whether a CSV file with these first bytes has these columns, and perhaps more."""
    return columns <= set(columns_of(head))


def read_rows(path: str | os.PathLike[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Reads a CSV file that `append_row` made.

    A last row that an interrupted program left unfinished is dropped.

    Returns:
      columns: list of names; empty if the file is missing or empty.
      rows: list of dicts of name to str.

    Raises:
      CodecError: the file cannot be read.
    """
    try:
        with open(path, newline="", encoding=_ENCODING, errors=_ENCODING_ERRORS) as file:
            text = file.read()
        whole = io.StringIO(text[: text.rfind("\n") + 1], newline="")
        columns, *rows = list(csv.reader(whole)) or [[]]
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError, csv.Error) as error:
        raise CodecError(f"{path}: cannot be read: {error}; move it out of the way") from error
    return columns, [dict(zip(columns, row)) for row in rows if len(row) == len(columns)]


def write_rows(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, object]]
) -> None:
    """Writes a whole CSV file, atomically.

    Args:
      path: str or Path.
      columns: list of names, in order.
      rows: list of dicts with these keys.

    Raises:
      CodecError: see `write_atomically`.
    """
    write_atomically({path: _csv_bytes(columns, rows, header=True)})


def _free_name(path: str) -> str:
    """The path, with a number if something is there already."""
    name, number = path, 1
    while os.path.lexists(name):
        number += 1
        name = f"{path}-{number}"
    return name


def _csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, object]], header: bool) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(_ENCODING, _ENCODING_ERRORS)
