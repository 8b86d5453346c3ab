"""WebP and BMP files, which Pillow reads as they are."""

from __future__ import annotations

import struct
from typing import BinaryIO

from PIL.BmpImagePlugin import BmpImageFile
from PIL.WebPImagePlugin import WebPImageFile

from gmm_attention.images import exif
from gmm_attention.images.colour import Colours
from gmm_attention.images.source import Source

# A BMP's header begins at 14. The longest kind of it may tell where a profile is.
_BMP_HEADER, _LONG_BMP_HEADER = 14, 124
_EMBEDDED_PROFILE = b"DEBM"


def read_webp(file: BinaryIO, whole: bool) -> Source:
    """Reads a WebP file.

    Args:
      file: binary file.
      whole: no matter, since Pillow reads all of it to find the header.
    """
    del whole
    file.seek(0)
    image = WebPImageFile(file)
    found = exif.parse([image.info.get("exif", b"")])
    return Source(
        open=lambda: image,
        colours=Colours(profile=image.info.get("icc_profile"), adobe_rgb=found.adobe_rgb),
        orientation=exif.orientation(found, [image.info.get("xmp", b"")]),
        pictures=image.n_frames,
    )


def read_bmp(file: BinaryIO, whole: bool) -> Source:
    """Reads a BMP file.

    Args:
      file: binary file.
      whole: no matter, since Pillow reads the pixels later.
    """
    del whole
    file.seek(0)
    image = BmpImageFile(file)
    return Source(open=lambda: image, colours=Colours(profile=_bmp_profile(file)))


def _bmp_profile(file: BinaryIO) -> bytes | None:
    file.seek(_BMP_HEADER)
    header = file.read(_LONG_BMP_HEADER)
    if len(header) < _LONG_BMP_HEADER or header[0] != _LONG_BMP_HEADER:
        return None
    if header[56:60] != _EMBEDDED_PROFILE:
        return None
    start, size = struct.unpack_from("<2I", header, 112)
    file.seek(_BMP_HEADER + start)
    return file.read(size)
