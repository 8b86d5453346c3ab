"""The coded files of an image, NAME.npz and NAME.bin or both in NAME.gmm: bytes, figures, dates."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from gmm_attention.codec import file_format
from gmm_attention.errors import BitstreamError
from gmm_attention.files import refuse_foreign, shown, write_atomically

SUFFIX_OF_BOTH = ".gmm"


def figures(height: int, width: int, num_bytes: int) -> dict[str, Any]:
    """Returns the figures of an image that encoder and decoder both report.

    Args:
      height, width: pixels.
      num_bytes: size of both strings together.

    Returns:
      dict with height, width, bytes, and bpp, bits per pixel.
    """
    return {
        "height": height,
        "width": width,
        "bytes": num_bytes,
        "bpp": 8 * num_bytes / (height * width),
    }


def names(stem: str) -> tuple[str, str]:
    """Paths of the two files, from the part that they share."""
    return f"{stem}.npz", f"{stem}.bin"


def read(paths: Sequence[str], data: bytes | None = None) -> tuple[bytes, bytes]:
    """Reads the bytes of NAME.npz and of NAME.bin.

    Args:
      paths: of these two, or of one file that holds both.
      data: the bytes of the one file, if they have been read before; its path then only names it.

    Raises:
      BitstreamError: a file is missing, cannot be read or is foreign, or the one file is shorter
        than it states.
    """
    name = shown(paths[0])
    if len(paths) == 2:
        npz = _read_one(paths[0])
        file_format.check_magic(npz, name)  # before a file is missed that no other program needs
        return npz, _read_one(paths[1])
    data = _read_one(paths[0]) if data is None else data
    file_format.check_magic(data[file_format.JOINED_START :] or data, name)
    try:
        return file_format.split(data)
    except BitstreamError as error:
        raise BitstreamError(f"{name}: {error}") from error


def read_start(paths: Sequence[str], data: bytes | None = None) -> bytes:
    """Reads the first bytes of NAME.npz, its header among them; see `read`.

    Returns:
      bytes; fewer than the header has, if the file is damaged.

    Raises:
      BitstreamError: the file is missing or cannot be read.
    """
    if data is None:
        with _errors_of(paths[0]), open(paths[0], "rb") as file:
            data = file.read(file_format.MOST_HEADER_BYTES + file_format.JOINED_START)
    return data if len(paths) == 2 else data[file_format.JOINED_START :]


def checksum(npz: bytes, y_string: bytes) -> str:
    """CRC-32 of both strings, 8 hexadecimal digits, by which a picture names what it is made of."""
    return f"{zlib.crc32(y_string, zlib.crc32(npz)):08x}"


def refuse_foreign_files(paths: Sequence[str], overwrite: bool) -> None:
    """Refuses to replace files that are no coded images; see `files.refuse_foreign`.

    Args:
      paths: of NAME.npz and NAME.bin, or of one file that holds both.
      overwrite: whether the user allows to replace any file.

    Raises:
      CodecError: a file is there that is not ours.
    """
    first, *bin_path = paths
    start = 0 if bin_path else file_format.JOINED_START

    def is_ours(head: bytes) -> bool:
        return head.startswith(file_format.MAGIC, start)

    refuse_foreign(first, is_ours, overwrite)
    for path in bin_path:  # it has no mark of its own, but belongs to the other
        refuse_foreign(path, lambda _: _begins(first, file_format.MAGIC), overwrite)


def write(paths: Sequence[str], npz: bytes, y_string: bytes, modified: int | None) -> None:
    """Writes the coded files of an image.

    Args:
      paths: of NAME.npz and NAME.bin, or of one file that is to hold both.
      npz, y_string: bytes of both.
      modified: modification time that they get, in nanoseconds since 1970, or None for now.

    Raises:
      CodecError: a file cannot be written.
    """
    strings = [npz, y_string] if len(paths) == 2 else [file_format.join(npz, y_string)]
    write_atomically(dict(zip(paths, strings)), modified)


def modified(paths: Sequence[str]) -> int | None:
    """Latest modification time of files, in nanoseconds since 1970, or None if one has none."""
    try:
        return max(os.stat(path).st_mtime_ns for path in paths)
    except OSError:
        return None


def have_one_date(outputs: Sequence[str], sources: Sequence[str]) -> bool:
    """Whether outputs carry the date of their sources, which encoder and decoder give them.

    A source that was replaced since, also by an older file, has another date.
    """
    dates = [modified([path]) for path in outputs]
    expected = modified(sources)
    return all(_equal(date, expected) for date in dates)


def _equal(date: int | None, expected: int | None) -> bool:
    if date is None or expected is None:
        return False
    # File systems differ in what part of a second they keep: FAT keeps none, and every other one.
    precision = 2 * 10**9 if date % 10**9 == 0 else 10**7
    return abs(date - expected) < precision


def _begins(path: str, start: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def _read_one(path: str) -> bytes:
    with _errors_of(path), open(path, "rb") as file:
        return file.read()


@contextlib.contextmanager
def _errors_of(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BitstreamError(
            f"{path}: missing; both files of an image are needed, copy it beside the other"
        ) from error
    except OSError as error:
        raise BitstreamError(
            f"{path}: cannot be read: {error.strerror}; check what it is and its permissions"
        ) from error
