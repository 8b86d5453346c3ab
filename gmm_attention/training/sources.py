"""A folder, tar file or image -> the image files in it, which any thread can read."""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gmm_attention.errors import ImageError
from gmm_attention.image_folders import IMAGE_SUFFIXES, list_files

_Result = TypeVar("_Result")

_TAR_SUFFIX = ".tar"

# Refused, since a member can only be reached by decompressing everything before it.
_COMPRESSED_SUFFIXES = (".tar.bz2", ".tar.gz", ".tar.xz", ".tar.zst", ".tbz2", ".tgz", ".txz")


class PhotographFile(NamedTuple):
    """An image file, or a member of a tar file. Its str() is its name in messages."""

    name: str  # path within the source, with "/" between its parts
    path: Path  # of the image file, or of the tar file
    member: tuple[str, int, int] | None  # name, start, size in bytes; None for an image file

    def __str__(self) -> str:
        return f"{self.path}/{self.member[0]}" if self.member else str(self.path)

    def read(self, function: Callable[..., _Result]) -> _Result:
        """Calls `read_image` or `read_size` on the file, and returns the result.

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


def find_photographs(source: str | os.PathLike[str]) -> list[PhotographFile]:
    """Lists the image files of a source, see `data.Photographs`.

    Raises:
      ImageError: the source is missing, cannot be read or holds no image, or a tar file is
        compressed or damaged.
    """
    top = Path(source)
    if os.path.isfile(top):
        found = [(top, top.name)]
    elif os.path.isdir(top):
        suffixes = (*IMAGE_SUFFIXES, _TAR_SUFFIX, *_COMPRESSED_SUFFIXES)
        found = [(top / relative, relative) for relative in list_files(top, suffixes).relatives]
    else:
        raise ImageError(
            f"{source}: no file or folder that can be read; check the name and its permissions"
        )
    files = []
    for path, name in found:
        if name.lower().endswith(_COMPRESSED_SUFFIXES):
            raise ImageError(
                f"{path}: a compressed tar file, in which no image can be reached directly; "
                "unpack it or repack it as .tar, and keep it out of the folder"
            )
        if name.lower().endswith(_TAR_SUFFIX):
            folder = posixpath.dirname(name)
            files += [
                PhotographFile(posixpath.join(folder, member), path, (member, start, size))
                for member, (start, size) in _members(path).items()
            ]
        else:
            files.append(PhotographFile(name, path, None))
    if not files:
        raise ImageError(
            f"{source}: no image in it; give a folder or a tar file of images whose names end in "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    return files


def _members(path: Path) -> dict[str, tuple[int, int]]:
    """Lists the images in a tar file, without hidden files and those in hidden folders.

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
                hidden = any(part.startswith(".") for part in name.split("/"))
                if member.isreg() and not hidden and name.lower().endswith(IMAGE_SUFFIXES):
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
