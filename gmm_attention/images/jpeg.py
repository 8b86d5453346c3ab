"""JPEG files: the first picture in them, without what Pillow might stumble over."""

from __future__ import annotations

import io
from typing import BinaryIO

from PIL.JpegImagePlugin import JpegImageFile

from gmm_attention.images import exif
from gmm_attention.images.colour import Colours
from gmm_attention.images.jpeg_data import (
    END_MARKER,
    SCAN,
    START,
    Segment,
    can_inspect,
    coded_data,
    inspect,
)
from gmm_attention.images.source import Damaged, Source

_START_MARKER = bytes((0xFF, START))
_APPLICATION, _COMMENT = range(0xE0, 0xF0), 0xFE

# Markers without a segment behind them.
_ALONE = (0x00, 0x01, *range(0xD0, 0xD8), START)

# Segments by whose beginning the decoder tells how colours are stored.
_COLOUR_SEGMENTS = ((0xE0, b"JFIF"), (0xEE, b"Adobe"))

_EXIF = (0xE1, b"Exif\0")
_XMP = (0xE1, b"http://ns.adobe.com/xap/1.0/\0")
_PROFILE = (0xE2, b"ICC_PROFILE\0")

# Most bytes outside of segments that are passed over in a header.
_MAX_JUNK = 2**16


def read(file: BinaryIO, whole: bool) -> Source:
    """Reads a JPEG file, of several pictures the first.

    Args:
      file: binary file.
      whole: whether to read all of it, or only what is before the pixels.

    Raises:
      Damaged: its header cannot be read.
    """
    segments = _header(file)
    blocks = [content[1:] for content in _contents(segments, _EXIF)]
    # Long EXIF data is in several segments. But some programs put new data beside the old.
    found = exif.parse([b"".join(blocks), *blocks])
    needed = [segment for segment in segments if _is_needed(segment)]
    tables = [segment for segment in needed if segment.marker not in _APPLICATION]
    coded, has_end = coded_data(file.read()) if whole else (b"", True)

    # With an end marker Pillow decodes what is left of a file that was cut off.
    end = END_MARKER if has_end or can_inspect() else b""

    def open_image() -> JpegImageFile:
        header = b"".join(segment.stored() for segment in needed)
        return JpegImageFile(io.BytesIO(b"".join((_START_MARKER, header, coded, end))))

    return Source(
        open=open_image,
        colours=Colours(profile=_profile(segments), adobe_rgb=found.adobe_rgb),
        orientation=exif.orientation(found, _contents(segments, _XMP)),
        inspect=lambda: inspect(tables, coded, has_end),
    )


def _header(file: BinaryIO) -> list[Segment]:
    """Reads the segments up to that of the first scan, behind which the coded data begins."""
    file.seek(2)
    segments: list[Segment] = []
    junk = 0
    while not segments or segments[-1].marker != SCAN:
        byte = file.read(1)
        marker = file.read(1) if byte == b"\xff" else b""
        while marker == b"\xff":
            marker = file.read(1)
        if not byte or (byte == b"\xff" and not marker):
            raise Damaged("truncated in its header")
        if not marker or marker[0] in _ALONE:
            junk += 1
            if junk > _MAX_JUNK:
                raise Damaged("its header is lost")
            continue
        if marker == END_MARKER[1:]:
            raise Damaged("it holds no picture")
        length = int.from_bytes(file.read(2), "big") - 2
        content = file.read(max(length, 0))
        if length < 0 or len(content) < length:
            raise Damaged("truncated in its header")
        segments.append(Segment(marker[0], content))
    return segments


def _is_needed(segment: Segment) -> bool:
    if segment.marker in _APPLICATION:
        return any(_begins(segment, kind) for kind in _COLOUR_SEGMENTS)
    return segment.marker != _COMMENT


def _begins(segment: Segment, kind: tuple[int, bytes]) -> bool:
    marker, name = kind
    return segment.marker == marker and segment.content.startswith(name)


def _contents(segments: list[Segment], kind: tuple[int, bytes]) -> list[bytes]:
    """What follows the name in each segment of a kind."""
    return [segment.content[len(kind[1]) :] for segment in segments if _begins(segment, kind)]


def _profile(segments: list[Segment]) -> bytes | None:
    """The ICC profile; b"" if pieces of it are missing."""
    pieces = sorted(_contents(segments, _PROFILE))
    if not pieces:
        return None
    # Each begins with its number and their count.
    is_whole = all(piece[1:2] == bytes((len(pieces) & 255,)) for piece in pieces)
    return b"".join(piece[2:] for piece in pieces) if is_whole else b""
