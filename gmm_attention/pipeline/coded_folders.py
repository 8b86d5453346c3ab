"""Paths given by the user -> coded images, with a name for each output."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from gmm_attention.codec.file_format import MAGIC
from gmm_attention.errors import BitstreamError, CodecError, printable
from gmm_attention.folders import File, Search, examples, named_file
from gmm_attention.names import distinct_names

_SUFFIXES = (".npz", ".bin", ".gmm")

# Where the magic number stands in a file that holds both strings, behind the length of the first.
_JOINED_START = 4


class CodedImage(NamedTuple):
    """The file or files of a coded image.

    Attributes:
      paths: of NAME.npz and NAME.bin, or of a single file that holds both.
      name: of the output without its suffix, relative, with "/" between its parts.
    """

    paths: tuple[str, ...]
    name: str


class CodedListing(NamedTuple):
    """The coded images that paths given by the user stand for.

    Attributes:
      images: list of CodedImage.
      notes: list of str, a line for each kind of thing that was passed over, such as files that
        are no coded images.
      failures: list of str, a line for each thing that was asked for and cannot be reached, such
        as a sub-folder without permission.
    """

    images: list[CodedImage]
    notes: list[str]
    failures: list[str]


def find_coded(inputs: str | Sequence[str], exclude: Sequence[str] = ()) -> CodedListing:
    """Lists the coded images that paths given by the user stand for, with names for the outputs.

    A folder is searched recursively, by the rules of `image_folders.find_images`, for NAME.npz
    with its NAME.bin, and for NAME.gmm, which holds both. Files of these suffixes that do not
    begin like ours, such as archives of numpy, are passed over with a note. An empty file, or one
    that is cut off within the magic number, counts as a coded image, so that it is reported.

    A path to a file is accepted whatever the file holds. NAME.npz and NAME.bin mean the pair, and
    so does NAME; any other file, such as a pipe, is taken for one that holds both strings. A coded
    image that is given twice is listed once.

    Args:
      inputs: path, or list of them.
      exclude: list of patterns of files and folders to pass over in folders, see
        `folders.Search`.

    Returns:
      CodedListing, sorted by path. A name is the path relative to the folder without the coded
      file's suffix. Where there are several inputs, it begins with the folder's own name. See
      `names.distinct_names`.

    Raises:
      BitstreamError: there is no coded image, for whatever reason.
    """
    search = _CodedSearch(exclude)
    nothing = "no coded image in this folder; give the encoder's --output"
    try:
        files = search.find([inputs] if isinstance(inputs, str) else inputs, _named, nothing)
    except CodecError as error:
        raise BitstreamError(str(error)) from error
    names = distinct_names([file.relative for file in files], _SUFFIXES)
    images = [CodedImage(_paths(file.path), name) for file, name in zip(files, names)]
    return CodedListing(images, search.notes(), search.failures)


def _named(path: str) -> File:
    """The file that stands for a coded image: NAME.npz of a pair, or the only one."""
    if _suffix(path) not in _SUFFIXES or not os.path.exists(path):
        # A file without a suffix may be called like the coded files made from it.
        path = next(filter(os.path.isfile, (path + suffix for suffix in _SUFFIXES)), path)
    file = named_file(path, "give what the encoder wrote")
    if _suffix(path) == ".bin" and os.path.isfile(path):
        npz = _beside(path, ".npz")
        folder = os.path.dirname(file.place)
        file = File(npz, os.path.basename(npz), os.path.join(folder, os.path.basename(npz)))
    return file


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _beside(path: str, suffix: str) -> str:
    """The other file of a pair, whose suffix may be in upper case."""
    stem = os.path.splitext(path)[0]
    upper = stem + suffix.upper()
    return upper if os.path.exists(upper) and not os.path.exists(stem + suffix) else stem + suffix


def _paths(path: str) -> tuple[str, ...]:
    is_stream = os.path.exists(path) and not os.path.isfile(path)
    return (path, _beside(path, ".bin")) if _suffix(path) == ".npz" and not is_stream else (path,)


class _CodedSearch(Search):
    """A Search for coded images, which accounts for files that are merely called like one."""

    def __init__(self, exclude: Sequence[str]) -> None:
        super().__init__((".npz", ".gmm"), exclude)
        self._foreign: dict[str, str] = {}

    def files(self, folder: str) -> list[File]:
        """Lists the coded images below a folder, each by its NAME.npz or NAME.gmm."""
        named = [file for file in super().files(folder) if _suffix(file.path) in _SUFFIXES]
        found = [file for file in named if _suffix(file.path) != ".bin" and self._is_ours(file)]
        parts = {path for file in found for path in _paths(file.path)}
        for file in named:
            npz = os.path.splitext(file.place)[0] + ".npz"
            if file.path not in parts and self._failures.keys().isdisjoint((file.place, npz)):
                self._foreign[file.place] = file.path
        return found

    def _is_ours(self, file: File) -> bool:
        """Whether a file begins with the magic number, or ends within it."""
        start = 0 if _suffix(file.path) == ".npz" else _JOINED_START
        try:
            with open(file.path, "rb", buffering=0) as opened:
                return MAGIC.startswith(opened.read(start + len(MAGIC))[start:])
        except OSError as error:
            self._failures[file.place] = (
                f"{printable(file.path)}: cannot be read: {error.strerror}; check its permissions"
            )
            return False

    def notes(self) -> list[str]:
        notes, foreign = [], self._foreign.values()
        if len(foreign) == 1:
            notes.append(f"1 file that is no coded image is passed over: {examples(foreign)}")
        elif foreign:
            notes.append(
                f"{len(foreign)} files that are no coded images are passed over: "
                f"{examples(foreign)}"
            )
        return notes + super().notes()
