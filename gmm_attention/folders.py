"""Paths given by the user -> the files that they stand for, and words about what is none."""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gmm_attention.errors import CodecError, printable

# What systems put between the user's files: NAS, macOS, Windows, Linux. All begin hidden names
# with a dot. In lower case, since some of these systems do not tell cases apart.
_SIDE_NAMES = frozenset(
    (
        "@eadir @tmp @sharebin @recycle @recently-snapshot @__thumb @transcode #recycle #snapshot "
        "~snapshot __macosx $recycle.bin recycler lost+found lost.dir thumbs.db ehthumbs.db "
        "desktop.ini"
    ).split()
) | {"system volume information", "network trash folder"}

# How many names of files a line may list.
_MOST_EXAMPLES = 3


class File(NamedTuple):
    """A file that is to be read.

    Attributes:
      path: as the user would write it.
      relative: path relative to the folder that was given, with "/" between its parts.
      place: tells files apart; equal for all spellings of a path.
    """

    path: str
    relative: str
    place: str


class Search:
    """Finds the files that paths given by the user stand for, and accounts for what it passes over.

    Args:
      suffixes: of the files that the caller looks for in folders, in lower case. A pipe or a broken
        link is worth a word if it has one of them.
      exclude: list of patterns of `fnmatch`, such as "*_edited*". A file or folder is passed over
        if one matches its path relative to the folder that was given, or an end of that path:
        "raw/*" matches "raw/a.png" and "2024/raw/a.png", "a.png" both too. What is in such a folder
        is passed over with it. Upper and lower case differ, and "*" stands for "/" too. What is
        given by itself is never excluded.
    """

    def __init__(self, suffixes: tuple[str, ...], exclude: Sequence[str]) -> None:
        self._suffixes = suffixes
        self._exclude = _pattern(exclude)
        self._excluded = False  # whether anything was
        self._inputs: list[str] = []  # failures of paths that were given
        self._places: set[str] = set()  # of folders that were given
        # By place, so that nothing is told twice of folders within each other.
        self._failures: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._special: dict[str, str] = {}

    @property
    def failures(self) -> list[str]:
        """A line for each path that is missing or stands for nothing, each sub-folder that cannot
        be listed, and each broken link that may have been one of the files or a folder of them."""
        return self._inputs + [text for _, text in sorted(self._failures.items())]

    def find(self, given: Sequence[str], named: Callable[[str], File], nothing: str) -> list[File]:
        """Finds the files of all paths. One that is given twice is listed once.

        Args:
          given: list of paths.
          named: function of a path that is no folder, which returns its File, or raises a
            CodecError.
          nothing: what is wrong with a folder in which `files` finds none.

        Returns:
          list of File, sorted by path. Where several paths are given, the relative path begins with
          the name of the folder.

        Raises:
          CodecError: nothing is found. The message holds all failures and notes, in one line.
        """
        found: dict[str, File] = {}
        for path in given:
            try:
                if os.path.isdir(path):
                    files = self.files(path)
                    if not files:
                        raise CodecError(f"{printable(path)}: {nothing}")
                    front = _own_name(path) if len(given) > 1 else ""
                else:
                    files, front = [named(path)], ""
            except CodecError as error:
                self._inputs.append(str(error))
                continue
            for file in files:
                relative = posixpath.join(front, file.relative)
                found.setdefault(file.place, file._replace(relative=relative))
        if not found:
            lines = self.failures
            if len(lines) > _MOST_EXAMPLES:
                more = f"and {len(lines) - _MOST_EXAMPLES} more failures"
                lines = [*lines[:_MOST_EXAMPLES], more]
            excluded = ["some files or folders are excluded"] if self._excluded else []
            raise CodecError("; ".join([*lines, *self.notes(), *excluded]))
        return sorted(found.values(), key=lambda file: file.path)

    def files(self, folder: str) -> list[File]:
        """Lists the files below a folder, whatever their suffix.

        Left out are hidden files and folders, and the side folders of NAS and systems; but the
        folder itself may be one. Links to files are followed. Links to folders are not, so that no
        file is listed twice and no loop is entered.

        Args:
          folder: path; may be a link.

        Returns:
          list of File, sorted by their paths.

        Raises:
          CodecError: the folder itself cannot be listed.
        """
        place, shown = os.path.realpath(folder), str(Path(folder))
        shown = "" if shown == "." else shown
        self._places.add(place)
        found, pending = [], [""]
        while pending:  # no recursion, which has a limit
            subfolder = pending.pop()
            try:
                with os.scandir(os.path.join(folder, subfolder)) as iterator:
                    entries = list(iterator)
            except OSError as error:
                path = os.path.join(shown, subfolder) if subfolder else folder
                text = (
                    f"{printable(path)}: cannot be listed: {error.strerror}; change its "
                    "permissions or move it"
                )
                if not subfolder:
                    raise CodecError(text) from error
                self._failures.setdefault(os.path.join(place, subfolder), text)
                continue
            for entry in entries:
                relative = posixpath.join(subfolder, entry.name)
                if is_side_name(entry.name) or self._is_excluded(relative):
                    continue
                path, file_place = (os.path.join(top, relative) for top in (shown, place))
                file = File(path, relative, file_place)
                kind = self._look_at(entry, file)
                if kind == stat.S_IFDIR:
                    pending.append(relative)
                elif kind == stat.S_IFREG:
                    found.append(file)
        return sorted(found, key=lambda file: file.relative)

    def notes(self) -> list[str]:
        """A line about links to folders, and one about what is neither file nor folder."""
        links = [path for place, path in self._links.items() if not self._is_given(place)]
        special = self._special.values()
        notes = []
        if len(links) == 1:
            notes.append(
                f"{examples(links)}: a link to a folder, which is not followed; give it by itself"
            )
        elif links:
            notes.append(
                f"{len(links)} links to folders, which are not followed: {examples(links)}; "
                "give them by themselves"
            )
        if len(special) == 1:
            notes.append(f"{examples(special)}: a pipe, socket or device, which is passed over")
        elif special:
            notes.append(
                f"{len(special)} pipes, sockets or devices are passed over: {examples(special)}"
            )
        return notes

    def _is_given(self, link: str) -> bool:
        """Whether a link to a folder leads to one that was given beside it, not around it."""
        target = os.path.realpath(link)
        return target in self._places and not link.startswith(os.path.join(target, ""))

    def _is_excluded(self, relative: str) -> bool:
        if self._exclude is None:
            return False
        parts = _composed(relative).split("/")
        ends = ("/".join(parts[i:]) for i in range(len(parts)))
        found = any(map(self._exclude.match, ends))
        self._excluded |= found
        return found

    def _look_at(self, entry: os.DirEntry[str], file: File) -> int:
        """Returns the type of a file, or 0 for what is passed over, having noted that."""
        wanted = entry.name.lower().endswith(self._suffixes)
        try:
            if entry.is_dir(follow_symlinks=False):
                return stat.S_IFDIR
            if entry.is_file(follow_symlinks=False):
                return stat.S_IFREG
            kind = stat.S_IFMT(entry.stat().st_mode)
        except OSError as error:
            # Without a suffix, it may have been a folder.
            if wanted or not posixpath.splitext(entry.name)[1]:
                self._failures.setdefault(
                    file.place,
                    f"{printable(file.path)}: a link that cannot be followed: {error.strerror}; "
                    "mend or remove it",
                )
            return 0
        if kind == stat.S_IFDIR:
            self._links.setdefault(file.place, file.path)
            return 0
        if kind != stat.S_IFREG and wanted:
            self._special.setdefault(file.place, file.path)
        return kind


def is_side_name(name: str) -> bool:
    """Whether a file or folder is hidden, or of those that systems put between the user's."""
    return name.startswith(".") or name.lower() in _SIDE_NAMES


def named_file(path: str, remedy: str) -> File:
    """The File of a path that is no folder, whatever it is called.

    A pipe is a file here, and so is a device that gives characters, such as a terminal.

    Args:
      path: str.
      remedy: what to give instead, for messages.

    Raises:
      CodecError: nothing is there, or something that cannot be read.
    """
    shown = printable(path) or "''"
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise CodecError(f"{shown}: cannot be read: {error.strerror}; {remedy}") from error
    if stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
        kind = "socket" if stat.S_ISSOCK(mode) else "block device"
        raise CodecError(f"{shown}: cannot be read: it is a {kind}; {remedy}")
    # A link is another file than its target.
    folder, name = os.path.split(path)
    return File(path, name, os.path.join(os.path.realpath(folder), name))


def _own_name(folder: str) -> str:
    """The name of a folder by itself, also of ".", or "" for the top of a file system."""
    name = os.path.basename(folder.rstrip("/"))
    return os.path.basename(os.path.realpath(folder)) if name in ("", ".", "..") else name


def examples(paths: Iterable[str]) -> str:
    """Lists the first few of some paths, so that it remains a line."""
    paths = sorted(paths)
    shown = [printable(path) for path in paths[:_MOST_EXAMPLES]]
    return ", ".join(shown + ["..."] * (len(paths) > _MOST_EXAMPLES))


def _pattern(exclude: Sequence[str]) -> re.Pattern[str] | None:
    """One pattern for all; "./raw", "/raw", "**/raw" and "raw/" are as good as "raw"."""
    globs = [re.sub(r"^(\.?/|\*\*/)+", "", glob).rstrip("/") for glob in exclude]
    texts = [fnmatch.translate(_composed(glob)) for glob in globs if glob]
    return re.compile("|".join(texts)) if texts else None


def _composed(text: str) -> str:
    """What is typed and what a file system stores may differ in Unicode form."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
