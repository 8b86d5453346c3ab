"""Header and byte strings to NAME.npz and NAME.bin and back. docs/FORMAT.md describes the bytes.

The names are those of the original code; here NAME.npz is no numpy archive.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from gmm_attention.errors import BitstreamError, ImageError

MAGIC = b"GMM"
# The bytes of both are alike; they differ in what the picture is. So programs that know no gray
# pictures still read all others, and refuse these rather than show them with colours.
COLOUR, GRAY = 1, 2  # format versions
# Magic number, version, fingerprint of the model, CRC-32 of NAME.bin, check of the latents.
_FIXED = struct.Struct("<3sB4sIH")
_CHECKSUM = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
JOINED_START = _LENGTH.size  # where NAME.npz begins in what `join` returns
_LARGEST_SIDE = 2**32 - 1

# Of all before the channel flags: each side takes five bytes at most.
MOST_HEADER_BYTES = _FIXED.size + 10

_REMEDY = "copy it or encode the image again"


class Coded(NamedTuple):
    """The contents of the two files.

    Attributes:
      height, width: sides of the unpadded image, pixels.
      flags: N / 8 bytes, a bit for each channel of y, set where any element is not zero.
      z_string, y_string: the range-coded symbols of z and of y.
      latents_check: 16 bits of a checksum of z's symbols and y_hat.
      gray: whether the picture is gray: each pixel the mean of the three channels.
    """

    height: int
    width: int
    flags: bytes
    z_string: bytes
    y_string: bytes
    latents_check: int
    gray: bool = False


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(data) + bytes([value])


def _read_varint(data: bytes, start: int, path: str) -> tuple[int, int]:
    """Reads a side of the image, 1..2^32 - 1, and returns it with the index of the next byte."""
    value = 0
    for i in range(5):
        if start + i >= len(data):
            break
        value |= (data[start + i] & 0x7F) << (7 * i)
        if data[start + i] <= 0x7F:
            if not 1 <= value <= _LARGEST_SIDE:
                break
            return value, start + i + 1
    raise BitstreamError(f"{path}: damaged: it holds no valid image size; {_REMEDY}")


def _read_sides(data: bytes, path: str) -> tuple[int, int, int]:
    """Reads height and width, and returns them with the index of the next byte."""
    height, start = _read_varint(data, _FIXED.size, path)
    width, start = _read_varint(data, start, path)
    return height, width, start


def read_size(npz: bytes, path: str) -> tuple[int, int]:
    """Reads the image's size from the header of NAME.npz, without checking the file for damage.

    Args:
      npz: bytes of NAME.npz.
      path: path of NAME.npz, for messages.

    Returns:
      height, width in pixels.

    Raises:
      BitstreamError: the header holds no valid size.
    """
    return _read_sides(npz, path)[:2]


def pack(coded: Coded, fingerprint: bytes) -> tuple[bytes, bytes]:
    """Makes the bytes of the two files.

    Args:
      coded: the contents.
      fingerprint: 4 bytes, the model's fingerprint.

    Returns:
      bytes of NAME.npz, bytes of NAME.bin.

    Raises:
      ImageError: a side of 2^32 pixels or more.
    """
    if max(coded.height, coded.width) > _LARGEST_SIDE:
        raise ImageError(f"an image of {coded.width}x{coded.height} pixels is too large to code")
    version = GRAY if coded.gray else COLOUR
    npz = _FIXED.pack(MAGIC, version, fingerprint, zlib.crc32(coded.y_string), coded.latents_check)
    npz += _varint(coded.height) + _varint(coded.width) + coded.flags + coded.z_string
    return npz + _CHECKSUM.pack(zlib.crc32(npz)), coded.y_string


def fingerprint_of(npz: bytes) -> bytes | None:
    """Reads the fingerprint of a file's model, without checking the file for damage.

    Args:
      npz: the first bytes of NAME.npz.

    Returns:
      4 bytes; or None if this is no file of this codec.
    """
    if len(npz) < _FIXED.size or npz[:3] != MAGIC:
        return None
    return _FIXED.unpack_from(npz)[2]


class Header(NamedTuple):
    """What the header of NAME.npz says.

    Attributes:
      version: format version.
      fingerprint: of the model that coded the image, 4 bytes.
      y_checksum: CRC-32 of NAME.bin.
      latents_check: see `Coded`.
      height, width: pixels.
      num_bytes: of all this; the channel flags follow, N / 8 bytes.
    """

    version: int
    fingerprint: bytes
    y_checksum: int
    latents_check: int
    height: int
    width: int
    num_bytes: int


def check_magic(npz: bytes, name: str) -> None:
    """Checks that a file begins as those of this codec do.

    Args:
      npz: bytes of NAME.npz.
      name: of the file, for messages.

    Raises:
      BitstreamError: it is empty or foreign.
    """
    if not npz:
        raise BitstreamError(f"{name}: the file is empty; {_REMEDY}")
    if npz[:3] != MAGIC[: len(npz)]:
        raise BitstreamError(
            f"{name}: not a file of this codec; give what its encoder wrote "
            "(files of the original code or numpy archives are others)"
        )


def read_header(npz: bytes, name: str) -> Header:
    """Reads the header of NAME.npz, and checks that the file is whole.

    Args:
      npz: bytes of NAME.npz.
      name: of the file, for messages.

    Raises:
      BitstreamError: the file is foreign, truncated, damaged or of an unknown format version.
    """
    check_magic(npz, name)
    if len(npz) < _FIXED.size + 2 + _CHECKSUM.size:
        raise BitstreamError(f"{name}: truncated: its header is cut off; {_REMEDY}")
    _, version, fingerprint, y_checksum, latents_check = _FIXED.unpack_from(npz)
    body = npz[: -_CHECKSUM.size]
    if zlib.crc32(body) != _CHECKSUM.unpack(npz[-_CHECKSUM.size :])[0]:
        raise BitstreamError(f"{name}: truncated or damaged: wrong checksum; {_REMEDY}")
    if version not in (COLOUR, GRAY):
        raise BitstreamError(
            f"{name}: format version {version}, this program reads versions {COLOUR} and {GRAY}; "
            "decode it with the release that wrote it"
        )
    height, width, end = _read_sides(body, name)
    return Header(version, fingerprint, y_checksum, latents_check, height, width, end)


def unpack(
    npz: bytes, y_string: bytes, num_filters: int, fingerprint: bytes, names: tuple[str, str, str]
) -> Coded:
    """Reads the bytes of the two files and checks that they are whole and belong together.

    Args:
      npz, y_string: bytes of NAME.npz and NAME.bin.
      num_filters: N of the model that is to decode them.
      fingerprint: 4 bytes, that model's fingerprint.
      names: names of NAME.npz, NAME.bin and the model, for messages.

    Returns:
      the contents.

    Raises:
      BitstreamError: a file is foreign, truncated or damaged, the two do not belong together, or
        another model made them.
    """
    npz_name, bin_name, model_name = names
    header = read_header(npz, npz_name)
    if header.fingerprint != fingerprint:
        raise BitstreamError(
            f"{npz_name}: made by another model (fingerprint {header.fingerprint.hex()}, "
            f"{model_name} has {fingerprint.hex()}); give that model with --model. If both are one "
            "checkpoint, loaded on two machines, export it once with `python -m "
            "gmm_attention.export CHECKPOINT models/NAME` and use the exported model on both"
        )
    check_belongs(header, y_string, (npz_name, bin_name))
    z_start, z_end = header.num_bytes + num_filters // 8, len(npz) - _CHECKSUM.size
    if z_end < z_start:
        raise BitstreamError(f"{npz_name}: damaged: its channel flags are cut off; {_REMEDY}")
    return Coded(
        header.height,
        header.width,
        npz[header.num_bytes : z_start],
        npz[z_start:z_end],
        y_string,
        header.latents_check,
        gray=header.version == GRAY,
    )


def check_belongs(header: Header, y_string: bytes, names: tuple[str, str]) -> None:
    """Checks that NAME.bin is whole and belongs to NAME.npz.

    Args:
      header: of NAME.npz.
      y_string: bytes of NAME.bin.
      names: of both, for messages; equal if one file holds both.

    Raises:
      BitstreamError: it is not.
    """
    if zlib.crc32(y_string) != header.y_checksum:
        npz_name, bin_name = names
        another = "" if npz_name == bin_name else f", or not the file that belongs to {npz_name}"
        raise BitstreamError(
            f"{bin_name}: truncated or damaged{another}: wrong checksum; {_REMEDY}"
        )


def join(npz: bytes, y_string: bytes) -> bytes:
    """Joins the bytes of NAME.npz and NAME.bin: the length of the first as uint32, then both."""
    return _LENGTH.pack(len(npz)) + npz + y_string


def split(data: bytes) -> tuple[bytes, bytes]:
    """Splits what `join` returned into the bytes of NAME.npz and NAME.bin.

    Raises:
      BitstreamError: the data is shorter than the length that it states.
    """
    if len(data) < _LENGTH.size or len(data) - _LENGTH.size < _LENGTH.unpack_from(data)[0]:
        raise BitstreamError(f"truncated or foreign data; {_REMEDY}")
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    return data[_LENGTH.size : end], data[end:]
