"""TIFF files: which of their pages is the photograph, and that page alone for Pillow.

Pillow gets a view of the file with one directory in it, of the tags that make the pixels. So it
neither takes a thumbnail for the photograph nor stumbles over other tags.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from PIL.TiffImagePlugin import TiffImageFile

from gmm_attention.images import exif, jpeg, pillow
from gmm_attention.images.colour import Colours
from gmm_attention.images.formats import RAW
from gmm_attention.images.jpeg_data import END_MARKER
from gmm_attention.images.source import Damaged, Refused, Source
from gmm_attention.images.tags import Entry, Tags

_NEW_SUBFILE_TYPE, _REDUCED_OR_MASK = 254, 1 | 4
_SUBFILE_TYPE, _REDUCED = 255, 2
_BITS_PER_SAMPLE = 258
_COMPRESSION, _JPEG = 259, 7
_PHOTOMETRIC, _MASK, _COLOUR_FILTERS, _LINEAR_RAW = 262, 4, 32803, 34892
_STRIP_STARTS, _STRIP_SIZES = 273, 279
_TILE_STARTS, _TILE_SIZES = 324, 325
_DIRECTORIES_BELOW = 330
_JPEG_TABLES = 347
_XMP, _PROFILE = 700, 34675
_DNG_VERSION = 50706

# All tags that have an effect on the pixels.
_PIXEL_TAGS = frozenset(
    (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325)
    + (332, 334, 336, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532, 50674)
)

# Compressions of raw data: Sony's, Nikon's, Kodak's, Pentax's.
_RAW_COMPRESSIONS = (32767, 34713, 32867, 65000, 65535)

# More pages than any photograph has; a chain of more is taken for damage.
_MAX_PAGES = 2**16


class _Page(NamedTuple):
    start: int
    entries: dict[int, Entry]


def read(file: BinaryIO, whole: bool) -> Source:
    """Reads a TIFF file.

    Args:
      file: binary file.
      whole: no matter, since the file is read when the pixels are.

    Raises:
      Damaged, Refused: see there.
    """
    del whole
    pillow.silence_libtiff()
    end = file.seek(0, io.SEEK_END)
    tags = Tags(lambda start, size: _read(file, start, size) if start < end else b"")
    if tags.is_big and tags.order == ">":  # which Pillow takes for a small one
        raise Refused("a big-endian BigTIFF file, which is not read; convert it to PNG")
    pages = list(_chain(tags))
    if not pages:
        raise Damaged("it holds no directory")
    below = [page for parent in pages for page in _pages_below(tags, parent)]
    if _is_raw(tags, pages, below):
        raise Refused(RAW)
    page, pictures = _photograph(tags, pages, below)
    first = pages[0].entries
    # Programs put EXIF data into the first directory, even if it is a thumbnail's.
    turned = [exif.directory_orientation(tags, entries) for entries in (page.entries, first)]
    found = exif.Exif(
        turned[0] or turned[1],
        any(exif.directory_colours(tags, entries) for entries in (page.entries, first)),
    )
    profile = tags.data(page.entries.get(_PROFILE)) or tags.data(first.get(_PROFILE))
    return Source(
        open=lambda: TiffImageFile(io.BufferedReader(_View(file, _changes(tags, page)))),
        colours=Colours(profile=profile or None, adobe_rgb=found.adobe_rgb),
        orientation=exif.orientation(found, [tags.data(page.entries.get(_XMP))]),
        pictures=pictures,
        bits=max(tags.integers(page.entries.get(_BITS_PER_SAMPLE)), default=1),
        inspect=lambda: _inspect(tags, page),
    )


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _chain(tags: Tags, start: int | None = None) -> Iterator[_Page]:
    """Yields the pages of a chain of directories, each once even if the chain is a circle."""
    place = tags.first if start is None else start
    seen: set[int] = set()
    while place and place not in seen and len(seen) < _MAX_PAGES:
        seen.add(place)
        entries, following = tags.directory(place)
        if entries:
            yield _Page(place, entries)
        place = following


def _pages_below(tags: Tags, page: _Page) -> list[_Page]:
    starts = tags.integers(page.entries.get(_DIRECTORIES_BELOW))[:_MAX_PAGES]
    return [_Page(start, tags.directory(start)[0]) for start in dict.fromkeys(starts) if start]


def _photograph(tags: Tags, pages: list[_Page], below: list[_Page]) -> tuple[_Page, int]:
    """Returns the page that is the photograph, and how many are photographs."""
    for some in (pages, below):
        full = [page for page in some if _has_pixels(page) and not _is_extra(tags, page)]
        if full:
            return full[0], len(full)
    with_pixels = list(filter(_has_pixels, pages))
    return (with_pixels or pages)[0], max(len(with_pixels), 1)


def _has_pixels(page: _Page) -> bool:
    """Whether a page has pixels as pages have them; EXIF's thumbnails are stored otherwise."""
    return _STRIP_STARTS in page.entries or _TILE_STARTS in page.entries


def _is_extra(tags: Tags, page: _Page) -> bool:
    """Whether a page calls itself a thumbnail, a reduced picture or a mask."""
    return bool(
        tags.integer(page.entries.get(_NEW_SUBFILE_TYPE)) & _REDUCED_OR_MASK
        or tags.integer(page.entries.get(_SUBFILE_TYPE)) == _REDUCED
        or tags.integer(page.entries.get(_PHOTOMETRIC)) == _MASK
    )


def _is_raw(tags: Tags, pages: list[_Page], below: list[_Page]) -> bool:
    """Whether the file holds a sensor's data. The pages of such files are often thumbnails."""
    return (
        tags.read(8, 2) == b"CR"  # Canon's
        or _DNG_VERSION in pages[0].entries
        or any(
            tags.integer(page.entries.get(_PHOTOMETRIC)) in (_COLOUR_FILTERS, _LINEAR_RAW)
            or tags.integer(page.entries.get(_COMPRESSION)) in _RAW_COMPRESSIONS
            for page in (*pages, *below)
        )
    )


def _changes(tags: Tags, page: _Page) -> list[tuple[int, bytes]]:
    """Returns what to put at which places of the file to make a page the only one."""
    records = [entry.record for tag, entry in page.entries.items() if tag in _PIXEL_TAGS]
    directory = struct.pack(tags.order + tags.number, len(records)) + b"".join(records)
    directory += bytes(struct.calcsize(tags.offset))  # no next one
    first = struct.pack(tags.order + tags.offset, page.start)
    return [(8 if tags.is_big else 4, first), (page.start, directory)]


class _View(io.RawIOBase):
    """A file as it would be with some changes.

    Args:
      file: binary file.
      changes: list of (start, bytes).
    """

    def __init__(self, file: BinaryIO, changes: list[tuple[int, bytes]]) -> None:
        super().__init__()
        self._file, self._changes, self._place = file, changes, 0
        # A change may reach over the end, since a directory need not have a next one.
        ends = (start + len(data) for start, data in changes)
        self._size = max(file.seek(0, io.SEEK_END), *ends)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        size = max(min(len(buffer), self._size - self._place), 0)
        data = bytearray(_read(self._file, self._place, size).ljust(size, b"\0"))
        for start, change in self._changes:
            begin, end = max(start, self._place), min(start + len(change), self._place + size)
            if begin < end:
                data[begin - self._place : end - self._place] = change[begin - start : end - start]
        buffer[:size] = data
        self._place += size
        return size


def _inspect(tags: Tags, page: _Page) -> str:
    """Looks for damage in a page that is compressed as JPEG, see `jpeg_data.inspect`."""
    entries = page.entries
    if tags.integer(entries.get(_COMPRESSION)) != _JPEG:
        return ""
    tables = tags.data(entries.get(_JPEG_TABLES))
    starts = tags.integers(entries.get(_STRIP_STARTS) or entries.get(_TILE_STARTS))
    sizes = tags.integers(entries.get(_STRIP_SIZES) or entries.get(_TILE_SIZES))
    suspicion = ""
    for start, size in zip(starts, sizes):
        part = tags.read(start, size)
        # Both begin with a start marker, and the tables end with an end marker.
        whole = io.BytesIO(tables.removesuffix(END_MARKER) + part[2:] if tables else part)
        found = jpeg.read(whole, whole=True).inspect()  # of all, since the next may refuse
        suspicion = suspicion or found
    return suspicion
