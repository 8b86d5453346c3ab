"""A folder, tar file or image -> the image files in it, which any thread can read."""

from __future__ import annotations

import copy
import io
import logging
import os
import posixpath
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gmm_attention.errors import ImageError
from gmm_attention.files import HEAD_SIZE
from gmm_attention.folders import examples, is_side_name
from gmm_attention.image_folders import IMAGE_SUFFIXES, list_files
from gmm_attention.images import is_ours

_Result = TypeVar("_Result")

_TAR_SUFFIX = ".tar"

# Refused, since a member can only be reached by decompressing everything before it.
_COMPRESSED_SUFFIXES = (".tar.bz2", ".tar.gz", ".tar.xz", ".tar.zst", ".tbz2", ".tgz", ".txz")

# The logger above all those of the modules that read images, and the one above it.
_READING, _PACKAGE = "gmm_attention.images", "gmm_attention"

_logger = logging.getLogger(__name__)


class PhotographFile(NamedTuple):
    """An image file, or a member of a tar file. Its str() is its name in messages."""

    name: str  # path within the source, with "/" between its parts
    path: Path  # of the image file, or of the tar file
    member: tuple[str, int, int] | None  # name, start, size in bytes; None for an image file

    def __str__(self) -> str:
        return f"{self.path}/{self.member[0]}" if self.member else str(self.path)

    def read(self, function: Callable[..., _Result]) -> _Result:
        """Calls `read_image` or `read_header` on the file, and returns the result.

        Raises:
          ImageError: the file cannot be read.
        """
        if self.member is None:
            return function(self.path)
        _, start, size = self.member
        try:
            tar = open(self.path, "rb", buffering=0)
        except OSError as error:
            raise ImageError(
                f"{self}: cannot be read: {error.strerror}; leave the tar file where it was"
            ) from error
        with tar:
            return function(self, file=io.BufferedReader(_Span(tar, start, size)))


class _Span(io.RawIOBase):
    """A part of a file as a file of its own. It moves the position of the file given to it.

    The members that tarfile opens share one position, so that threads could not read at once.

    Args:
      file: unbuffered binary file, which nothing else may use meanwhile.
      start, size: of the part, in bytes.
    """

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        super().__init__()
        self._file, self._start, self._size = file, start, size
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        return self._file.seek(self._start + base + offset) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def readinto(self, buffer: Any) -> int | None:
        return self._file.readinto(memoryview(buffer)[: max(self._size - self.tell(), 0)])


class FewerWarnings(logging.Handler):
    """Lets the first warning of each kind through, of those that come from reading images.

    Training reads most photographs in each epoch anew, and may find the same fault in thousands of
    them. As a context manager it begins to hold warnings back, and at the end it tells of each kind
    how many photographs there were. Warnings of 16-bit samples are all held back, since the headers
    have told of these.
    """

    def __init__(self) -> None:
        super().__init__()
        # Of each kind, which is a record's text without its arguments: the first message, and the
        # names of all photographs.
        self._kinds: dict[str, tuple[str, set[str]]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a record whose first argument is the name of a photograph."""
        if "16 bits" in record.msg:
            return
        name = str(record.args[0]) if isinstance(record.args, tuple) else ""
        if record.msg in self._kinds:
            self._kinds[record.msg][1].add(name)
            return
        self._kinds[record.msg] = (record.getMessage(), {name})
        told = copy.copy(record)
        told.msg += " (others like it are counted at the end)"
        logging.getLogger(_PACKAGE).handle(told)

    def __enter__(self) -> FewerWarnings:
        logger = logging.getLogger(_READING)
        logger.addHandler(self)
        logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger(_READING)
        logger.removeHandler(self)
        logger.propagate = True
        for first, names in self._kinds.values():
            if len(names) > 1:
                _logger.warning("%d photographs like %s", len(names), first)


def find_photographs(source: str | os.PathLike[str]) -> tuple[list[PhotographFile], list[str]]:
    """Lists the image files of a source, see `data.Photographs`.

    Returns:
      files: list of PhotographFile.
      notes: list of str, a line for each kind of thing that was passed over, such as files of
        formats that are not read, and for each sub-folder that cannot be listed.

    Raises:
      ImageError: the source is missing, cannot be read or holds no image, or a tar file is
        compressed or damaged.
    """
    top = Path(source)
    notes: list[str] = []
    if os.path.isfile(top):
        found = [(top, top.name)]
    elif os.path.isdir(top):
        suffixes = (*IMAGE_SUFFIXES, _TAR_SUFFIX, *_COMPRESSED_SUFFIXES)
        listed = list_files(top, suffixes)
        found = [(top / relative, relative) for relative in listed.relatives]
        notes = [*listed.notes, *_in_one_line(listed.failures)]
    else:
        raise ImageError(
            f"{source}: no file or folder that can be read; check the name and its permissions"
        )
    files: list[PhotographFile] = []
    ours: list[PhotographFile] = []
    for path, name in found:
        if name.lower().endswith(_COMPRESSED_SUFFIXES):
            raise ImageError(
                f"{path}: a compressed tar file, in which no image can be reached directly; "
                "unpack it or repack it as .tar, and keep it out of the folder"
            )
        if name.lower().endswith(_TAR_SUFFIX):
            folder = posixpath.dirname(name)
            for member, (start, size) in _members(path).items():
                place = posixpath.join(folder, member)
                file = PhotographFile(place, path, (member, start, size))
                (ours if _is_our_picture(file) else files).append(file)
        else:
            files.append(PhotographFile(name, path, None))
    if ours:
        notes.append(f"passed over in tar files, made by this program: {examples(map(str, ours))}")
    if not files:
        reasons = f" ({'; '.join(notes)})" if notes else ""
        raise ImageError(
            f"{source}: no image in it{reasons}; give a folder or a tar file of images whose names "
            f"end in {', '.join(IMAGE_SUFFIXES)}"
        )
    return files, notes


def _in_one_line(failures: list[str]) -> list[str]:
    """The failures of listing a folder, of which there may be thousands, as a line or none."""
    if len(failures) < 2:
        return failures
    return [f"{len(failures)} folders and links that cannot be followed, first {failures[0]}"]


def _is_our_picture(file: PhotographFile) -> bool:
    """Whether a program of ours wrote a member of a tar file, as `list_files` asks of files."""
    if not file.name.lower().endswith(".png"):
        return False
    return file.read(lambda _, file: is_ours(file.read(HEAD_SIZE)))


def _members(path: Path) -> dict[str, tuple[int, int]]:
    """Lists the images in a tar file, without those that `list_files` would pass over in silence.

    Returns:
      dict of name, with "/" between its parts, to (start, size) in bytes.

    Raises:
      ImageError: the file cannot be read, is damaged, or is no uncompressed tar file.
    """
    members = {}
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                name = posixpath.normpath(member.name).lstrip("/")
                aside = any(map(is_side_name, name.split("/")))
                if member.isreg() and not aside and name.lower().endswith(IMAGE_SUFFIXES):
                    # The last of several members with the same name counts, as in unpacking.
                    members[name] = (member.offset_data, member.size)
            # tarfile silently ends at a damaged header, and where a file is cut off between two
            # members. A whole file has a block of zeros after its last member.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("its end is missing")
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read: {error.strerror}; check its permissions"
        ) from error
    # ValueError and OverflowError come from damaged numbers in headers.
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ImageError(
            f"{path}: truncated, damaged or no uncompressed tar file ({error}); "
            "copy it again or repack it"
        ) from error
    return members
