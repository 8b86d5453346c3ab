"""Paths of images -> names of their outputs, which differ on every file system, and fit it."""

from __future__ import annotations

import collections
import hashlib
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Sequence

# What programs append to a name: the encoder the first three, the decoder the last.
_OUTPUT_SUFFIXES = (".npz", ".bin", ".gmm", ".png")

# Most bytes in the name of a file or folder, on nearly all file systems.
_LONGEST = 255

# Characters that show nothing, which some file systems ignore: Unicode's Default_Ignorable.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def distinct_names(relatives: Sequence[str], suffixes: tuple[str, ...]) -> list[str]:
    """Names the outputs of files, so that none of them gets in the way of another.

    A name is the file's path without its suffix: "holiday/beach 1". Names differ, also on a file
    system that ignores case or the Unicode form: files whose names would be equal (a.png and
    a.jpg) keep their suffix ("a.png", "a.jpg"), and those that are equal even so (A.png and a.png)
    are numbered ("A.png", "a.png-2"). No output has the name of a folder of outputs: beside
    "a.png/b.jpg", the file a.jpg keeps its suffix, as its picture would be "a.png".

    A name so long that "NAME.npz" would have more than 255 bytes is cut, and ends in "~" and 8 hex
    digits of the SHA-256 of all of it. The same holds for each folder in it.

    Args:
      relatives: list of paths with "/" between their parts, in an order of their own: of equal
        names, the first is not numbered.
      suffixes: tuple of the suffixes to remove, in lower case; those of files may be in any case.

    Returns:
      list of str, in the order of the files. The caller appends an output's suffix to the whole
      name.
    """
    whole = [_fitting(relative) for relative in relatives]
    names = [_fitting(_without_suffix(relative, suffixes)) for relative in relatives]
    folders = _folders(names)
    with_suffix: set[int] = set()
    while True:
        uses = collections.Counter(map(_folded, names))
        # A name that gets its suffix back may equal another name without one ("a.png" and
        # "a.png.jpg"), hence the loop.
        shared = [
            i
            for i, name in enumerate(names)
            if i not in with_suffix and (uses[_folded(name)] > 1 or _is_folder(name, folders))
        ]
        if not shared:
            break
        with_suffix.update(shared)
        for i in shared:
            names[i] = whole[i]

    # What is still shared differs in case alone, or is of several folders.
    numbers: dict[str, int] = {}
    given: set[str] = set()
    for i, name in enumerate(names):
        number = numbers.get(name, 1)
        while (
            _folded(names[i]) in given
            or (number > 1 and _folded(names[i]) in uses)
            or _is_folder(names[i], folders)
        ):
            number += 1
            names[i] = _fitting(f"{relatives[i]}-{number}")
        numbers[name] = number
        given.add(_folded(names[i]))
    return names


def _without_suffix(name: str, suffixes: tuple[str, ...]) -> str:
    """Removes one of the suffixes and no other: "IMG.2024.png" becomes "IMG.2024"."""
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in suffixes else name


def _folders(names: Iterable[str]) -> set[str]:
    """The folders of outputs, folded, that could also be a file of outputs."""
    found: set[str] = set()
    for name in names:
        folder = posixpath.dirname(name)
        while folder and folder not in found:
            found.add(folder)
            folder = posixpath.dirname(folder)
    return {folder for folder in map(_folded, found) if folder.endswith(_OUTPUT_SUFFIXES)}


def _is_folder(name: str, folders: set[str]) -> bool:
    return bool(folders) and any(_folded(name + suffix) in folders for suffix in _OUTPUT_SUFFIXES)


def _folded(name: str) -> str:
    """Maps names that a file system may take for one, in case or Unicode form, to one string."""
    if name.isascii():
        return name.lower()
    name = _IGNORABLE.sub("", name)
    # Unicode's canonical caseless matching.
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _fitting(name: str) -> str:
    *folders, last = name.split("/")
    most = _LONGEST - max(map(len, _OUTPUT_SUFFIXES))
    return "/".join([*(_cut(folder, _LONGEST) for folder in folders), _cut(last, most)])


def _cut(name: str, most: int) -> str:
    """Cuts a name to a number of bytes, between characters."""
    data = os.fsencode(name)
    if len(data) <= most:
        return name
    end = f"~{hashlib.sha256(data).hexdigest()[:8]}"
    while len(os.fsencode(name)) > most - len(end):
        name = name[:-1]
    return name + end
