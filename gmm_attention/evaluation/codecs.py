"""The classical codecs of Pillow, each at a wanted rate: image -> bytes -> image."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features

from gmm_attention.errors import CodecError, ImageError


class ImageFormat(NamedTuple):
    """A file format, with settings that make its smallest files in a reasonable time.

    Attributes:
      title: its name in tables and messages.
      pillow_name: its name in Pillow.
      options: keyword arguments for Pillow, except the quality.
      best_quality: the highest quality; the lowest is 0.
    """

    title: str
    pillow_name: str
    options: dict[str, Any]
    best_quality: int


# libjpeg treats quality 0 as 1. JPEG XL's 100 is left out: it is lossless, which is another mode.
FORMATS = {
    "jpeg": ImageFormat(
        "JPEG", "JPEG", {"optimize": True, "progressive": True, "subsampling": "4:2:0"}, 100
    ),
    "webp": ImageFormat("WebP", "WEBP", {"method": 6}, 100),
    "avif": ImageFormat("AVIF", "AVIF", {"speed": 4, "subsampling": "4:2:0"}, 100),
    "jxl": ImageFormat("JPEG XL", "JXL", {"effort": 7}, 99),
}


def check(name: str) -> None:
    """Checks that this installation can write a format.

    Args:
      name: a key of FORMATS.

    Raises:
      CodecError: it cannot.
    """
    if name == "jxl":
        try:
            import pillow_jxl  # noqa: F401  registers the format
        except ImportError as error:
            raise CodecError(
                f"JPEG XL: {error}; pip install pillow-jxl-plugin, or leave jxl away"
            ) from error
    elif name != "jpeg" and not features.check(name):
        raise CodecError(
            f"{FORMATS[name].title}: Pillow was built without it; pip install "
            f"--force-reinstall pillow, or leave {name} away"
        )


def encode(name: str, image: np.ndarray, quality: int) -> bytes:
    """Codes an image into the bytes of a file.

    Args:
      name: a key of FORMATS.
      image: uint8 [H, W, 3], 0..255.
      quality: int, from 0 to the format's best.

    Raises:
      ImageError: the format cannot hold the image; WebP holds at most 16383 pixels a side.
    """
    file = io.BytesIO()
    image_format = FORMATS[name]
    with _errors(name):
        Image.fromarray(image).save(
            file, image_format.pillow_name, quality=quality, **image_format.options
        )
    return file.getvalue()


def decode(name: str, data: bytes) -> np.ndarray:
    """Decodes what `encode` returned.

    Returns:
      uint8 [H, W, 3].

    Raises:
      ImageError: more pixels than Pillow's limit.
    """
    with _errors(name), Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def quality_near(name: str, image: np.ndarray, num_bytes: float) -> int:
    """Finds the quality whose file is nearest to a wanted size.

    It is a binary search: files grow with quality, with exceptions too small to matter.

    Args:
      name: a key of FORMATS.
      image: uint8 [H, W, 3], 0..255.
      num_bytes: wanted size.

    Returns:
      quality, from 0 to the format's best.

    Raises:
      ImageError: see `encode`.
    """
    sizes: dict[int, int] = {}

    def size(quality: int) -> int:
        if quality not in sizes:
            sizes[quality] = len(encode(name, image, quality))
        return sizes[quality]

    low, high = 0, FORMATS[name].best_quality
    while low < high:
        middle = (low + high) // 2
        if size(middle) < num_bytes:
            low = middle + 1
        else:
            high = middle
    return min(range(max(low - 1, 0), low + 1), key=lambda q: abs(size(q) - num_bytes))


@contextlib.contextmanager
def _errors(name: str) -> Iterator[None]:
    """Turns an exception of Pillow's plugins, which may be of any class, into an ImageError."""
    try:
        yield
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{FORMATS[name].title} cannot hold this image ({cause}); leave {name} away"
        ) from error
