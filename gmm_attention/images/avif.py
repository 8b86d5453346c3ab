"""AVIF files: what their boxes tell of the picture, besides what Pillow tells."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

from PIL import AvifImagePlugin

from gmm_attention.images import exif, icc
from gmm_attention.images.colour import Colours
from gmm_attention.images.source import Refused, Source

# The name of an item of EXIF data, in a box of the list of items.
_exif_item = re.compile(rb"(infe.{8}(?:..)?)Exif", re.DOTALL)


def read(file: BinaryIO, whole: bool) -> Source:
    """Reads an AVIF file.

    Args:
      file: binary file.
      whole: no matter, since Pillow reads all of it to find the header.

    Raises:
      Refused: Pillow was built without AVIF.
    """
    del whole
    if not AvifImagePlugin.SUPPORTED:
        raise Refused("AVIF, which this installation of Pillow cannot read; convert it to PNG")
    file.seek(0)
    # The picture is turned as the file's own boxes say, never as EXIF data does. Pillow raises an
    # exception if that is damaged, so it gets a file in which nothing is called EXIF data.
    data = _exif_item.sub(rb"\1none", file.read())
    image = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    properties = _properties(data)
    profile = image.info.get("icc_profile")
    cicp = _cicp(properties)
    if profile and cicp and cicp[1] not in icc.HDR_TRANSFERS:
        cicp = None  # it describes the samples before a decoder made them RGB, the profile after
    return Source(
        open=lambda: image,
        colours=Colours(profile=profile, cicp=cicp),
        # Pillow makes EXIF data to tell how the picture is to be turned.
        orientation=exif.orientation(exif.parse([image.info.get("exif", b"")])),
        pictures=image.n_frames,
        bits=_bits(properties),
    )


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields of each box: its name, and where its content starts and ends."""
    while start + 8 <= end:
        size = int.from_bytes(data[start : start + 4], "big")
        name, content = data[start + 4 : start + 8], start + 8
        if size == 1:
            size, content = int.from_bytes(data[content : content + 8], "big"), content + 8
        elif size == 0:
            size = end - start
        if not content - start <= size <= end - start:
            return
        yield name, content, start + size
        start += size


def _content(data: bytes, *path: bytes) -> bytes:
    """Returns the content of the box to which the names lead, b"" if there is none."""
    start, end = 0, len(data)
    for name in path:
        places = (place for found, *place in _boxes(data, start, end) if found == name)
        start, end = next(places, (end, end))
        if name == b"meta":
            start += 4  # version and flags
    return data[start:end]


def _properties(data: bytes) -> list[tuple[bytes, bytes]]:
    """Returns name and content of each property of the picture, or else of all items."""
    container = _content(data, b"meta", b"iprp", b"ipco")
    properties = [
        (name, container[start:end]) for name, start, end in _boxes(container, 0, len(container))
    ]
    some = [properties[i - 1] for i in _associations(data) if 1 <= i <= len(properties)]
    return some if any(name in (b"pixi", b"av1C") for name, _ in some) else properties


def _associations(data: bytes) -> list[int]:
    """Returns the numbers of the properties of the picture, from 1."""
    picture = _content(data, b"meta", b"pitm")
    item = int.from_bytes(picture[4:], "big")
    content = _content(data, b"meta", b"iprp", b"ipma")
    if len(content) < 8:
        return []
    item_size, index_size = (4 if content[0] else 2), (2 if content[3] & 1 else 1)
    place = 8
    while place + item_size < len(content):
        number = int.from_bytes(content[place : place + item_size], "big")
        place += item_size
        end = place + 1 + index_size * content[place]
        if number == item:
            indices = content[place + 1 : end]
            # The highest bit tells whether readers must know the property.
            mask = 2 ** (8 * index_size - 1) - 1
            return [
                int.from_bytes(indices[i : i + index_size], "big") & mask
                for i in range(0, len(indices), index_size)
            ]
        place = end
    return []


def _cicp(properties: list[tuple[bytes, bytes]]) -> tuple[int, int, int, int] | None:
    """The colours of the picture, whose samples a decoder turns to RGB of full range."""
    for name, content in properties:
        if name == b"colr" and content[:4] == b"nclx" and len(content) >= 10:
            primaries, transfer = struct.unpack_from(">2H", content, 4)
            return primaries, transfer, 0, 1
    return None


def _bits(properties: list[tuple[bytes, bytes]]) -> int:
    """Bits per sample."""
    bits = 8
    for name, content in properties:
        if name == b"pixi":
            bits = max(bits, *content[5:], 0)
        elif name == b"av1C" and len(content) > 2 and content[2] & 0x40:
            bits = max(bits, 12 if content[2] & 0x20 else 10)
    return bits
