"""Header and byte strings <-> NAME.npz and NAME.bin. docs/FORMAT.md describes the bytes.

In spite of its name, given by the original, NAME.npz is no numpy archive.
"""

import struct
import zlib
from typing import NamedTuple

from gmm_attention.errors import BitstreamError, ImageError

MAGIC = b"GMM"
VERSION = 1
# magic, version, fingerprint of the model, CRC-32 of NAME.bin, check of the latents
_FIXED = struct.Struct("<3sB4sIH")
_CHECKSUM = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_LARGEST_SIDE = 2**32 - 1

_AGAIN = "copy it or encode the image again"


class Coded(NamedTuple):
    """What the two files hold."""

    height: int  # pixels, unpadded
    width: int
    flags: bytes  # N / 8 bytes, a bit for each channel of y, set where any element is not zero
    z_string: bytes
    y_string: bytes
    latents_check: int  # of z's symbols and y_hat, 16 bits


def _varint(value):
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(data) + bytes([value])


def _read_varint(data, start, path):
    value = 0
    for i in range(5):
        if start + i >= len(data):
            break
        value |= (data[start + i] & 0x7F) << (7 * i)
        if data[start + i] <= 0x7F:
            if not 1 <= value <= _LARGEST_SIDE:
                break
            return value, start + i + 1
    raise BitstreamError(f"{path}: damaged: it holds no valid image size; {_AGAIN}")


def _read_sides(data, path):
    """Height, width, and where they end."""
    height, start = _read_varint(data, _FIXED.size, path)
    width, start = _read_varint(data, start, path)
    return height, width, start


def read_size(npz, path):
    """Reads the size that NAME.npz claims, from its header, without looking for damage.

    Args:
      npz: bytes of NAME.npz.
      path: of it, for messages.

    Returns:
      height, width in pixels.

    Raises:
      BitstreamError: there is no size.
    """
    return _read_sides(npz, path)[:2]


def pack(coded, fingerprint):
    """Writes the two files' bytes.

    Args:
      coded: a Coded.
      fingerprint: the model's, 4 bytes.

    Returns:
      bytes of NAME.npz, bytes of NAME.bin.

    Raises:
      ImageError: a side of 2^32 pixels or more.
    """
    if max(coded.height, coded.width) > _LARGEST_SIDE:
        raise ImageError(f"an image of {coded.width}x{coded.height} pixels is too large to code")
    npz = _FIXED.pack(MAGIC, VERSION, fingerprint, zlib.crc32(coded.y_string), coded.latents_check)
    npz += _varint(coded.height) + _varint(coded.width) + coded.flags + coded.z_string
    return npz + _CHECKSUM.pack(zlib.crc32(npz)), coded.y_string


def unpack(npz, y_string, num_filters, fingerprint, names):
    """Reads the two files' bytes, and tells whether they are whole and belong together.

    Args:
      npz, y_string: bytes of NAME.npz and NAME.bin.
      num_filters: N of the model that is to decode them.
      fingerprint: that model's, 4 bytes.
      names: of the two files and the model, for messages.

    Returns:
      a Coded.

    Raises:
      BitstreamError: a file is foreign, truncated or damaged, they do not belong together, or
        another model made them.
    """
    npz_name, bin_name, model_name = names
    if not npz:
        raise BitstreamError(f"{npz_name}: the file is empty; {_AGAIN}")
    if npz[:3] != MAGIC[: len(npz)]:
        raise BitstreamError(
            f"{npz_name}: not a file of this codec; give what its encoder wrote "
            "(files of the original code or numpy archives are others)"
        )
    if len(npz) < _FIXED.size + 2 + _CHECKSUM.size:
        raise BitstreamError(f"{npz_name}: truncated: its header is cut off; {_AGAIN}")
    _, version, made_by, y_crc, latents_check = _FIXED.unpack_from(npz)
    body = npz[: -_CHECKSUM.size]
    if zlib.crc32(body) != _CHECKSUM.unpack(npz[-_CHECKSUM.size :])[0]:
        raise BitstreamError(f"{npz_name}: truncated or damaged: wrong checksum; {_AGAIN}")
    if version != VERSION:
        raise BitstreamError(
            f"{npz_name}: format version {version}, this program reads version {VERSION}; "
            "decode it with the release that wrote it"
        )
    if made_by != fingerprint:
        raise BitstreamError(
            f"{npz_name}: made by another model (fingerprint {made_by.hex()}, {model_name} has "
            f"{fingerprint.hex()}); give that model with --model. If both are one checkpoint, "
            "loaded on two machines, export it once with `python -m gmm_attention.export "
            "CHECKPOINT models/NAME` and use the exported model on both"
        )
    if zlib.crc32(y_string) != y_crc:
        raise BitstreamError(
            f"{bin_name}: truncated, damaged, or not the file that belongs to {npz_name}: "
            f"wrong checksum; {_AGAIN}"
        )
    height, width, start = _read_sides(body, npz_name)
    z_start = start + num_filters // 8
    if len(body) < z_start:
        raise BitstreamError(f"{npz_name}: damaged: its channel flags are cut off; {_AGAIN}")
    return Coded(height, width, body[start:z_start], body[z_start:], y_string, latents_check)


def join(npz, y_string):
    """The two files as one string: the first one's length, uint32, then both."""
    return _LENGTH.pack(len(npz)) + npz + y_string


def split(data):
    """Takes apart what `join` made.

    Raises:
      BitstreamError: the string is too short for the length it gives.
    """
    if len(data) < _LENGTH.size or len(data) - _LENGTH.size < _LENGTH.unpack_from(data)[0]:
        raise BitstreamError(f"truncated or foreign data; {_AGAIN}")
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    return data[_LENGTH.size : end], data[end:]
