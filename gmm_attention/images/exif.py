"""EXIF and XMP data -> which way up a photograph is, and whether it is in Adobe RGB.

Nothing else in such data has an effect on the picture, so nothing else in it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from gmm_attention.images.tags import Entry, Tags

_ORIENTATION = 0x0112
_EXIF_DIRECTORY = 0x8769
_COLOR_SPACE, _ADOBE_RGB = 0xA001, 2  # which EXIF does not define, but some cameras write
_INTEROPERABILITY_DIRECTORY = 0xA005
_INTEROPERABILITY_INDEX, _ADOBE_RGB_INDEX = 1, b"R03"

# Data begins with "Exif\0\0", or twice so, or without it.
_HEAD = re.compile(rb"II[*]\0|MM\0[*]|II\0[*]|MM[*]\0")
_MAX_HEAD_START = 64

_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\b""")


class Exif(NamedTuple):
    """What EXIF data says about the picture."""

    orientation: int | None = None  # 1..8, or None
    adobe_rgb: bool = False


def parse(blocks: Iterable[bytes]) -> Exif:
    """Parses EXIF data; never fails.

    Args:
      blocks: pieces of a file that may hold such data. The first that tells an orientation counts.
    """
    found = [_parse(block) for block in blocks]
    return Exif(
        next((exif.orientation for exif in found if exif.orientation), None),
        any(exif.adobe_rgb for exif in found),
    )


def orientation(exif: Exif, xmp: Iterable[bytes] = ()) -> int:
    """Returns the orientation, 1..8.

    Args:
      exif: of the file.
      xmp: pieces of XMP data, which counts where EXIF data tells none.
    """
    if exif.orientation:
        return exif.orientation
    matches = (_XMP_ORIENTATION.search(data) for data in xmp)
    return next((int(match[1]) for match in matches if match), 1)


def directory_colours(tags: Tags, entries: dict[int, Entry]) -> bool:
    """Whether the EXIF directory, to which the first one points, tells of Adobe RGB."""
    place = tags.integer(entries.get(_EXIF_DIRECTORY))
    exif, _ = tags.directory(place) if place else ({}, 0)
    if tags.integer(exif.get(_COLOR_SPACE)) == _ADOBE_RGB:
        return True
    place = tags.integer(exif.get(_INTEROPERABILITY_DIRECTORY))
    interoperability, _ = tags.directory(place) if place else ({}, 0)
    return tags.data(interoperability.get(_INTEROPERABILITY_INDEX))[:3] == _ADOBE_RGB_INDEX


def directory_orientation(tags: Tags, entries: dict[int, Entry]) -> int | None:
    """Returns the orientation that a first directory tells, 1..8, or None."""
    value = tags.integer(entries.get(_ORIENTATION))
    return value if 1 <= value <= 8 else None


def _parse(block: bytes) -> Exif:
    head = _HEAD.search(block, 0, _MAX_HEAD_START)
    if head is None:
        return Exif()
    data = memoryview(block)[head.start() :]
    tags = Tags(lambda start, size: bytes(data[start : start + size]))
    entries, _ = tags.directory(tags.first)
    return Exif(directory_orientation(tags, entries), directory_colours(tags, entries))
