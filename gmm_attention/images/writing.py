"""uint8 [H, W, 3] -> PNG files, and the check that one of them is whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from PIL.PngImagePlugin import PngImageFile, PngInfo

from gmm_attention.errors import CodecError, ImageError
from gmm_attention.files import write_atomically

# The PNG text chunk, right behind the header, by which a program of ours knows its own pictures.
SOFTWARE = "gmm-attention"

_TEXT = b"Software\0" + SOFTWARE.encode()
_MARK = len(_TEXT).to_bytes(4, "big") + b"tEXt" + _TEXT


def is_ours(head: bytes) -> bool:
    """Whether a file is a PNG that a program of this project wrote: a decoded picture or a plot.

    Args:
      head: the first 4096 bytes of the file.
    """
    return head.startswith(b"\x89PNG\r\n\x1a\n") and _MARK in head


def is_gray(image: np.ndarray) -> bool:
    """Whether the three channels of an image, uint8 [H, W, 3], are equal everywhere."""
    red, green, blue = np.moveaxis(image, 2, 0)
    return np.array_equal(red, green) and np.array_equal(green, blue)


class Png(NamedTuple):
    """What a PNG says of itself.

    Attributes:
      height, width: pixels.
      texts: dict of its text chunks before the pixels, str to str.
    """

    height: int
    width: int
    texts: dict[str, str]


def check_png(path: str | os.PathLike[str]) -> Png:
    """Checks that a PNG is whole by the checksums of its parts; no pixel is decoded.

    Args:
      path: str or Path.

    Raises:
      ImageError: the file is missing, not readable, not a PNG, or damaged.
    """
    try:
        with open(path, "rb") as file:
            image = PngImageFile(file)
            width, height = image.size
            texts = {str(key): text for key, text in image.info.items() if isinstance(text, str)}
            image.verify()
    except Exception as error:  # Pillow raises nearly any for a damaged file
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{path}: no whole PNG ({cause}); remove it, or give another name"
        ) from error
    return Png(height, width, texts)


def encode_png(image: np.ndarray, texts: Mapping[str, str]) -> bytes:
    """Encodes an 8-bit PNG: gray if all channels are equal, otherwise RGB.

    Args:
      image: uint8 [H, W, 3], 0..255.
      texts: dict of keyword to text, which the PNG's text chunks hold. The first says that a
        program of this project wrote it, see `is_ours`.

    Raises:
      ValueError: image has another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must be uint8 [H, W, 3], not {image.dtype} {image.shape}")
    # Imported here, because programs that only read images, such as training, need no imageio.
    import imageio.v3 as iio

    chunks = PngInfo()
    for keyword, text in {"Software": SOFTWARE, **texts}.items():
        # The name of a model may hold bytes that are no text.
        chunks.add_text(keyword, text.encode("utf-8", "backslashreplace").decode())
    samples = image[..., 0] if is_gray(image) else image
    return iio.imwrite(
        "<bytes>", samples, extension=".png", plugin="pillow", is_batch=False, pnginfo=chunks
    )


def write_png(
    path: str | os.PathLike[str],
    image: np.ndarray,
    texts: Mapping[str, str] = MappingProxyType({}),
    modified: int | None = None,
) -> None:
    """Writes an 8-bit PNG, complete or not at all (see `write_atomically`).

    Args:
      path: str or Path of the file, in a folder that exists; an older file is replaced.
      image, texts: as for `encode_png`.
      modified: modification time in nanoseconds since 1970, or None for now.

    Raises:
      ImageError: the file cannot be written.
      ValueError: image has another type or shape.
    """
    data = encode_png(image, texts)
    try:
        write_atomically({path: data}, modified)
    except CodecError as error:
        raise ImageError(str(error)) from error
