"""A path given by the user -> image files, with a name for each output."""

from __future__ import annotations

import collections
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from gmm_attention.errors import ImageError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class Listing(NamedTuple):
    """The images that paths given by the user stand for.

    Attributes:
      images: list of (path, name of the outputs).
      notes: list of str, a line for each kind of thing that was passed over, such as files of
        formats that are not read.
      failures: list of str, a line for each thing that was asked for and cannot be reached, such
        as a sub-folder without permission.
    """

    images: list[tuple[Path, str]]
    notes: list[str]
    failures: list[str]


class Files(NamedTuple):
    """The files of a folder.

    Attributes:
      relatives: sorted list of paths relative to the folder, str with "/" between their parts.
      notes, failures: see `Listing`.
    """

    relatives: list[str]
    notes: list[str]
    failures: list[str]


def find_images(path: str | os.PathLike[str]) -> Listing:
    """Lists the images that a path given by the user stands for, with a name for each output.

    A folder is searched recursively for files with a suffix in IMAGE_SUFFIXES, in upper or lower
    case. Hidden files and folders are left out, and links to folders are not followed, so that
    no photograph is listed twice and no loop of links is entered. A path to a single file is
    accepted whatever its suffix.

    Args:
      path: str or Path of an image file or of a folder.

    Returns:
      List of (path, name), sorted by path. The name is the path relative to the folder, with "/"
      between its parts and without the image's suffix: "holiday/beach 1". Names differ, also on
      a file system that ignores case: files whose names would be equal (a.png and a.jpg) keep
      their suffix ("a.png", "a.jpg"), and those that are equal even so (A.png and a.png) are
      numbered ("A.png", "a.png-2"). The caller appends an output's suffix to the whole name.

    Raises:
      ImageError: nothing is there, it holds no image, or a folder cannot be listed.
    """
    top = Path(path)
    # os.path, unlike Path, answers False where permission to look is missing.
    if os.path.isfile(top):
        return Listing([(top, _without_suffix(top.name))], [], [])
    if not os.path.isdir(top):
        try:
            top.stat()
        except OSError as error:
            raise ImageError(
                f"{path}: cannot be read: {error.strerror}; give an image file or a folder of them"
            ) from error
        raise ImageError(f"{path}: neither a file nor a folder; give one of them")

    relatives = list_files(top, IMAGE_SUFFIXES).relatives
    if not relatives:
        raise ImageError(
            f"{path}: no image in this folder; its files should end in {', '.join(IMAGE_SUFFIXES)}"
        )
    found = zip(relatives, _distinct_names(relatives))
    return Listing([(top / relative, name) for relative, name in found], [], [])


def list_files(folder: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Files:
    """Lists the files of a folder and its sub-folders, by the rules of `find_images`.

    Args:
      folder: str or Path of a folder.
      suffixes: tuple of the suffixes wanted, in lower case; those of files may be in any case.

    Returns:
      Sorted list of paths relative to the folder, str with "/" between their parts.

    Raises:
      ImageError: a folder cannot be listed.
    """
    relatives = []
    for subfolder, subfolders, files in os.walk(folder, onerror=_refuse_folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or not name.lower().endswith(suffixes):
                continue
            found = Path(subfolder, name)
            # A broken link is kept, so that reading it reports the error; a pipe is left out,
            # because reading it would block.
            if os.path.isfile(found) or not os.path.exists(found):
                relatives.append(found.relative_to(folder).as_posix())
    return Files(sorted(relatives), [], [])


def _refuse_folder(error: OSError) -> NoReturn:
    raise ImageError(
        f"{error.filename}: cannot be listed: {error.strerror}; change its permissions or move it"
    ) from error


def _without_suffix(name: str) -> str:
    """Removes the suffix of an image and no other: "IMG.2024.png" becomes "IMG.2024"."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _distinct_names(relatives: Sequence[str]) -> list[str]:
    """Returns the names of the outputs, in the order of the files; see `find_images`.

    Args:
      relatives: sorted list of distinct paths with "/" between their parts.
    """
    names = {relative: _without_suffix(relative) for relative in relatives}
    while True:
        uses = collections.Counter(_folded(name) for name in names.values())
        # A name that gets its suffix back may equal another name without one ("a.png" and
        # "a.png.jpg"), hence the loop.
        shared = [r for r in relatives if names[r] != r and uses[_folded(names[r])] > 1]
        if not shared:
            break
        names.update((relative, relative) for relative in shared)

    # What is still shared differs in case alone: the first keeps its name, others are numbered.
    given: set[str] = set()
    result = []
    for relative in relatives:
        name, number = names[relative], 1
        while _folded(name) in given or (number > 1 and _folded(name) in uses):
            number += 1
            name = f"{names[relative]}-{number}"
        given.add(_folded(name))
        result.append(name)
    return result


def _folded(name: str) -> str:
    """Maps names that a file system may take for one, in case or Unicode form, to one string."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
