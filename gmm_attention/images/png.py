"""PNG files, reduced to what makes the pixels.

Pillow refuses a file for any chunk that it cannot read. Here only those chunks must be whole that
have an effect on the pixels, and Pillow gets no others.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from PIL.PngImagePlugin import PngImageFile

from gmm_attention.images import exif
from gmm_attention.images.colour import Colours
from gmm_attention.images.source import Damaged, Refused, Source

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# The others whose content is looked at, if they stand where they belong.
_COLOURS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
_BEFORE_PIXELS = (b"acTL", b"fcTL", *_COLOURS)
_ANYWHERE = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")

_is_name = re.compile(rb"[A-Za-z]{4}").fullmatch
_known_names = re.compile(b"|".join((*_PIXEL_CHUNKS, *_BEFORE_PIXELS, *_ANYWHERE)))

_GRAY, _RGB, _PALETTE, _GRAY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_BANDS = {_GRAY: 1, _RGB: 3, _PALETTE: 1, _GRAY_ALPHA: 2, _RGBA: 4}

# The passes in which an interlaced file stores pixels: first row and column, and the steps between.
_PASSES = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)

# Longest result of decompressing a chunk, far longer than profiles, EXIF or XMP data.
_MAX_DECOMPRESSED = 2**24


class _Chunk(NamedTuple):
    name: bytes
    content: bytes
    is_whole: bool  # its checksum is right
    end: int  # the place behind it


class _Parts(NamedTuple):
    """What a PNG file holds that is of use."""

    header: bytes
    palette: bytes
    clear: bytes | None  # content of tRNS
    pixels: list[bytes]  # content of each IDAT
    others: list[_Chunk]
    notes: tuple[str, ...]  # see `Source`


def read(file: BinaryIO, whole: bool) -> Source:
    """Reads a PNG file.

    Args:
      file: binary file.
      whole: whether to read all of it, or only what is before the pixels.

    Raises:
      Damaged, Refused: see there.
    """
    parts = _parts(file, whole)
    depth, color_type = parts.header[8:10]
    texts = list(_texts(parts.others))
    found = exif.parse(
        [chunk.content for chunk in parts.others if chunk.name == b"eXIf"]
        + [_unhex(text) for key, text in texts if key.startswith(b"Raw profile type ")]
    )
    return Source(
        open=lambda: PngImageFile(io.BytesIO(_for_pillow(parts))),
        colours=_colours(parts.others, found.adobe_rgb),
        orientation=exif.orientation(found, [text for key, text in texts if b"xmp" in key]),
        pictures=_pictures(parts.others),
        bits=depth,
        has_joined_bytes=(depth, color_type) == (16, _GRAY_ALPHA),
        clear_colour=_clear_colour(parts),
        notes=parts.notes,
        inspect=lambda: _inspect(parts),
    )


def _parts(file: BinaryIO, whole: bool) -> _Parts:
    header, palette, clear, others = b"", b"", None, []
    notes: dict[str, None] = {}  # each once
    pixels: list[bytes] = []
    for chunk in _chunks(file, whole):
        name = chunk.name
        if name == b"IEND" or (name == b"IHDR" and header):
            break
        if name[:1].isupper() and name not in _PIXEL_CHUNKS:
            raise Refused(f"needs the unknown PNG chunk {name.decode()}; convert it to a usual PNG")
        if not header and name != b"IHDR":
            raise Damaged("its header is missing")
        if name == b"IHDR":
            header = chunk.content
        elif name == b"PLTE" and not chunk.is_whole:
            if header[9:10] == bytes((_PALETTE,)):  # elsewhere it is but advice
                raise Damaged("wrong checksum of its PLTE chunk")
        elif name in _COLOURS and not chunk.is_whole:
            notes["what it says of its colours is damaged; they are taken as sRGB"] = None
        elif name == b"PLTE":
            palette = palette or chunk.content
        elif name == b"tRNS":
            clear = chunk.content if clear is None and not pixels else clear
        elif name == b"IDAT":
            if not pixels:
                _check_header(header, palette)
            pixels.append(chunk.content)
            if not whole:
                break
        elif name in _ANYWHERE or (name in _BEFORE_PIXELS and not pixels):
            others.append(chunk)
    if not pixels:
        raise Damaged("it holds no pixels")
    bands = {_GRAY: 1, _RGB: 3}.get(header[9], 0)
    if clear is not None and len(clear) < 2 * bands:
        notes["its tRNS chunk is cut, and is passed over"] = None
        clear = None
    return _Parts(header, palette, clear, pixels, others, tuple(notes))


def _check_header(header: bytes, palette: bytes) -> None:
    if len(header) != 13:
        raise Damaged("wrong length of its header")
    if header[9] == _PALETTE and (not palette or len(palette) % 3):
        raise Damaged("its palette is missing or cut")


def _for_pillow(parts: _Parts) -> bytes:
    """Makes the file that Pillow gets."""
    header = parts.header
    if tuple(header[8:10]) == (16, _GRAY_ALPHA):
        # Pillow would drop the low bytes. A pixel has four bytes, as in RGBA of 8 bits, and all
        # that the format does to bytes depends on their number alone.
        header = header[:8] + bytes((8, _RGBA)) + header[10:]
    chunks = [(b"IHDR", header)]
    if header[9] == _PALETTE:
        chunks.append((b"PLTE", parts.palette))
        if parts.clear is not None:
            chunks.append((b"tRNS", parts.clear[: len(parts.palette) // 3]))
    chunks += [(b"IDAT", content) for content in parts.pixels]
    chunks.append((b"IEND", b""))
    data = [_SIGNATURE]
    for name, content in chunks:
        data += [struct.pack(">I", len(content)), name, content, _checksum(name, content)]
    return b"".join(data)


def _checksum(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))


def _chunks(file: BinaryIO, whole: bool) -> Iterator[_Chunk]:
    """Yields the whole chunks up to where the file ends or is no longer readable.

    Palettes and chunks about colours are also yielded where their checksum is wrong.

    Args:
      file: binary file.
      whole: whether to read pixels; otherwise the chunks of them are empty and count as whole.

    Raises:
      Damaged: a chunk is damaged that makes the pixels.
    """
    size = file.seek(0, io.SEEK_END)
    start = len(_SIGNATURE)
    while start < size:
        chunk = _chunk(file, start, size, whole)
        if chunk is not None and chunk.is_whole:
            yield chunk
            start = chunk.end
        elif chunk is not None and chunk.name == b"IEND":
            return
        elif chunk is not None and chunk.end <= size and chunk.name in (b"PLTE", *_COLOURS):
            yield chunk
            start = chunk.end if _starts_chunk(file, chunk.end, size) else start + 1
            start = start if start == chunk.end else _next_known(file, start, size)
        elif chunk is not None and chunk.name in _PIXEL_CHUNKS:
            if chunk.end > size:
                raise Damaged("truncated")
            raise Damaged(f"wrong checksum of its {chunk.name.decode()} chunk")
        elif chunk is not None and _starts_chunk(file, chunk.end, size):
            start = chunk.end
        else:
            start = _next_known(file, start + 1, size)


def _chunk(file: BinaryIO, start: int, size: int, whole: bool = True) -> _Chunk | None:
    """Reads what is at a place as a chunk; None if it cannot be one."""
    file.seek(start)
    head = file.read(8)
    name = head[4:]
    if not _is_name(name):
        return None
    length = int.from_bytes(head[:4], "big")
    end = start + 12 + length
    if name == b"IDAT" and not whole:
        return _Chunk(name, b"", True, end)
    if end > size:
        return _Chunk(name, b"", False, end)
    content = file.read(length)
    return _Chunk(name, content, file.read(4) == _checksum(name, content), end)


def _starts_chunk(file: BinaryIO, start: int, size: int) -> bool:
    """Whether a chunk may begin at a place."""
    file.seek(min(start, size))
    head = file.read(8)
    length = int.from_bytes(head[:4], "big")
    return bool(_is_name(head[4:])) and start + 12 + length <= size


def _next_known(file: BinaryIO, start: int, size: int) -> int:
    """Returns the place of the next whole chunk of a known name, or the size of the file.

    A chunk whose length is damaged does not tell where the next one begins.
    """
    file.seek(start)
    for match in _known_names.finditer(file.read(), 4):
        place = start + match.start() - 4
        chunk = _chunk(file, place, size)
        if chunk is not None and chunk.is_whole:
            return place
    return size


def _inspect(parts: _Parts) -> str:
    """Checks that no pixels are missing, which Pillow would leave black if the data ends well."""
    width, height, depth, color_type, _, _, is_interlaced = struct.unpack(">2I5B", parts.header)
    missing = 0
    for row, column, row_step, column_step in _PASSES if is_interlaced else ((0, 0, 1, 1),):
        rows, columns = -(-(height - row) // row_step), -(-(width - column) // column_step)
        if columns > 0:
            missing += max(rows, 0) * (1 - -columns * _BANDS[color_type] * depth // 8)
    decompressor = zlib.decompressobj()
    for content in parts.pixels:
        for start in range(0, len(content), 2**16):
            missing -= len(decompressor.decompress(content[start : start + 2**16]))
            if missing <= 0:
                return ""
    raise Damaged("pixels are missing")


def _pictures(others: list[_Chunk]) -> int:
    """The number of pictures: the frames of an animation, and one that is none of them."""
    for chunk in others:
        if chunk.name == b"acTL" and len(chunk.content) == 8:
            frames = int.from_bytes(chunk.content[:4], "big")
            is_first_frame = any(other.name == b"fcTL" for other in others)
            return frames + (frames > 0 and not is_first_frame) or 1
    return 1


def _clear_colour(parts: _Parts) -> tuple[int, ...] | None:
    """The colour that means transparency, in samples as Pillow decodes them."""
    depth, color_type = parts.header[8:10]
    if parts.clear is None or color_type not in (_GRAY, _RGB):
        return None
    bands = _BANDS[color_type]
    largest = 2**depth - 1
    scale = 1 if depth == 16 else 255 // largest
    # The format says that only the low bits count.
    values = [scale * (value & largest) for value in struct.unpack_from(f">{bands}H", parts.clear)]
    return tuple(values * (3 // bands))


def _colours(others: list[_Chunk], adobe_rgb: bool) -> Colours:
    chunks = {chunk.name: chunk.content for chunk in reversed(others)}
    profile = cicp = gamma = chromaticities = None
    if b"iCCP" in chunks:
        name, _, compressed = chunks[b"iCCP"].partition(b"\0")
        # b"" if it is damaged, which is no profile that colours could be read from.
        profile = _decompressed(compressed[1:])
    if len(chunks.get(b"cICP", b"")) == 4:
        primaries, transfer, matrix, full_range = chunks[b"cICP"]
        cicp = (primaries, transfer, matrix, full_range)
    if len(chunks.get(b"gAMA", b"")) == 4:
        gamma = int.from_bytes(chunks[b"gAMA"], "big") / 100000
    if len(chunks.get(b"cHRM", b"")) == 32:
        chromaticities = tuple(x / 100000 for x in struct.unpack(">8I", chunks[b"cHRM"]))
    return Colours(profile, cicp, b"sRGB" in chunks, gamma, chromaticities, adobe_rgb)


def _texts(others: list[_Chunk]) -> Iterator[tuple[bytes, bytes]]:
    """Yields key and content of those text chunks that may hold EXIF or XMP data."""
    for chunk in others:
        key, _, text = chunk.content.partition(b"\0")
        if not key.startswith((b"Raw profile type ", b"XML:com.adobe.xmp")):
            continue
        if chunk.name == b"zTXt":
            yield key, _decompressed(text[1:])
        elif chunk.name == b"tEXt":
            yield key, text
        elif chunk.name == b"iTXt":
            # Whether it is compressed, how, its language, and the key in that language.
            fields = text[2:].split(b"\0", 2)
            content = fields[-1] if len(fields) == 3 else b""
            yield key, _decompressed(content) if text[:1] == b"\1" else content


def _decompressed(data: bytes) -> bytes:
    """Returns the decompressed data, b"" if it is damaged or too long."""
    decompressor = zlib.decompressobj()
    try:
        result = decompressor.decompress(data, _MAX_DECOMPRESSED)
    except zlib.error:
        return b""
    return result if decompressor.eof else b""


def _unhex(text: bytes) -> bytes:
    """Decodes a raw profile of ImageMagick's: a name and a length, then hexadecimal digits."""
    digits = b"".join(text.split()[2:])
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""
