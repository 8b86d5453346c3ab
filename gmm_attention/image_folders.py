"""Paths given by the user -> image files, with a name for each output."""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gmm_attention.errors import CodecError, ImageError
from gmm_attention.files import HEAD_SIZE
from gmm_attention.folders import File, Search, examples, named_file
from gmm_attention.images import is_ours
from gmm_attention.names import distinct_names

IMAGE_SUFFIXES = tuple(
    ".avif .bmp .dib .jfi .jfif .jif .jpe .jpeg .jpg .mpo .pjp .pjpeg .png .tif .tiff .webp".split()
)

# Formats of pictures, and of the films that cameras put between them, which are not read. A line
# names them, because who archives a folder would otherwise delete what was never encoded.
_UNREAD_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        "heic heics heif heifs hif avci avcs avifs gif apng mng jng jps pns jxl jxr wdp hdp "
        "jp2 j2k j2c jpc jpf jpx jpm jph jhc mj2 jls bpg flif qoi wp2 insp livp "
        # Raw data of cameras.
        "3fr ari arq arw bay braw cr2 cr3 crw cs1 dcr dcs dng drf eip erf fff gpr iiq k25 kc2 kdc "
        "mdc mef mos mrw nef nrw orf ori pef r3d raf raw rw2 rwl rwz sr2 srf srw x3f "
        # Of drawing programs, graphics and science.
        "psd psb xcf kra ora afphoto ai svg svgz eps wmf emf tga targa icb vda vst exr hdr "
        "rgbe pcx dcx pbm pgm ppm pnm pam pfm ico cur icns xbm xpm ras sgi rgb rgba dds fits fit "
        "fts dcm dicom "
        # Films.
        "mov mp4 m4v avi mkv webm 3gp 3g2 mts m2t m2ts mpg mpeg mpe wmv asf flv vob mxf ogv insv "
        "lrv mjpg mjpeg dv"
    ).split()
)


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


def find_images(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    exclude: Sequence[str] = (),
) -> Listing:
    """Lists the images that paths given by the user stand for, with a name for each output.

    A folder is searched recursively for files with a suffix in IMAGE_SUFFIXES, in upper or lower
    case. Passed over in silence are hidden files and folders, the side folders of NAS and systems,
    and what is excluded. Passed over with a note are PNG files that this project's programs wrote,
    files of other picture formats, links to folders, pipes and devices.

    A path to a single file, pipe or device is accepted whatever it is called and whoever wrote it,
    also if a pattern would exclude it. A file that is given twice is listed once.

    Args:
      inputs: str or Path of an image file or of a folder, or a list of them.
      exclude: list of patterns of files and folders to pass over in folders, see
        `folders.Search`. They are matched with paths relative to the folder that is given.

    Returns:
      Listing, sorted by path. A name is the path relative to the folder, with "/" between its
      parts and without the image's suffix: "holiday/beach 1". Where there are several inputs, it
      begins with the folder's own name. See `names.distinct_names`.

    Raises:
      ImageError: there is no image, for whatever reason.
    """
    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    search = _ImageSearch(IMAGE_SUFFIXES, exclude)
    nothing = f"no image in this folder; its files should end in {', '.join(IMAGE_SUFFIXES)}"
    try:
        files = search.find([os.fspath(path) for path in given], _named, nothing)
    except CodecError as error:
        raise ImageError(str(error)) from error
    names = distinct_names([file.relative for file in files], IMAGE_SUFFIXES)
    images = [(Path(file.path), name) for file, name in zip(files, names)]
    return Listing(images, search.notes(), search.failures)


def list_files(
    folder: str | os.PathLike[str], suffixes: tuple[str, ...], exclude: Sequence[str] = ()
) -> Files:
    """Lists the files of a folder and its sub-folders, by the rules of `find_images`.

    Args:
      folder: str or Path of a folder.
      suffixes: tuple of the suffixes wanted, in lower case; those of files may be in any case.
      exclude: see `find_images`.

    Raises:
      ImageError: the folder itself cannot be listed.
    """
    search = _ImageSearch(suffixes, exclude)
    try:
        files = search.files(os.fspath(folder))
    except CodecError as error:
        raise ImageError(str(error)) from error
    return Files([file.relative for file in files], search.notes(), search.failures)


def _named(path: str) -> File:
    return named_file(path, "give an image file or a folder of them")


class _ImageSearch(Search):
    """A Search for files with certain suffixes, which accounts for what else looks like one."""

    def __init__(self, suffixes: tuple[str, ...], exclude: Sequence[str]) -> None:
        super().__init__(suffixes, exclude)
        self._ours: dict[str, str] = {}
        self._unread: dict[str, str] = {}

    def files(self, folder: str) -> list[File]:
        found = []
        for file in super().files(folder):
            name = file.relative.lower()
            if name.endswith(self._suffixes):
                if name.endswith(".png") and _is_our_file(file.path):
                    self._ours.setdefault(file.place, file.path)
                else:
                    found.append(file)
            elif os.path.splitext(name)[1] in _UNREAD_SUFFIXES:
                self._unread.setdefault(file.place, file.path)
        return found

    def notes(self) -> list[str]:
        notes = []
        unread, ours = self._unread.values(), self._ours.values()
        if unread:
            counts = collections.Counter(os.path.splitext(path)[1].lower() for path in unread)
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            what = "file of a format that is" if len(unread) == 1 else "files of formats that are"
            notes.append(
                f"{len(unread)} {what} not read: "
                f"{', '.join(f'{count} {suffix}' for suffix, count in ordered)} "
                f"({examples(unread)})"
            )
        if len(ours) == 1:
            notes.append(f"1 picture that this program made is passed over: {examples(ours)}")
        elif ours:
            notes.append(
                f"{len(ours)} pictures that this program made are passed over: {examples(ours)}"
            )
        return notes + super().notes()


def _is_our_file(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            return is_ours(file.read(HEAD_SIZE))
    except OSError:
        return False  # reported when the image is read
