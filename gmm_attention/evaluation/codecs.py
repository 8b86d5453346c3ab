"""The classical codecs that Pillow writes, each at a wanted rate: image -> bytes -> image."""

import contextlib
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, features

from gmm_attention.errors import CodecError, ImageError


class ImageFormat(NamedTuple):
    """A file format, at the settings that make its smallest files in a reasonable time.

    Attributes:
      title: its name for readers.
      pillow_name: Pillow's.
      options: keyword arguments for Pillow, all but the quality.
      best_quality: the highest; the lowest is 0.
    """

    title: str
    pillow_name: str
    options: dict
    best_quality: int


# libjpeg's quality 0 is its 1. JPEG XL's 100 is lossless, another mode.
FORMATS = {
    "jpeg": ImageFormat(
        "JPEG", "JPEG", {"optimize": True, "progressive": True, "subsampling": "4:2:0"}, 100
    ),
    "webp": ImageFormat("WebP", "WEBP", {"method": 6}, 100),
    "avif": ImageFormat("AVIF", "AVIF", {"speed": 4, "subsampling": "4:2:0"}, 100),
    "jxl": ImageFormat("JPEG XL", "JXL", {"effort": 7}, 99),
}


def check(name):
    """Looks whether this installation can write a format.

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


def encode(name, image, quality):
    """Writes a file of a format.

    Args:
      name: a key of FORMATS.
      image: uint8 [H, W, 3], 0..255.
      quality: int, from 0 to the format's best.

    Returns:
      bytes.

    Raises:
      ImageError: the format cannot hold the image, as WebP none of more than 16383 pixels a side.
    """
    file = io.BytesIO()
    image_format = FORMATS[name]
    with _errors(name):
        Image.fromarray(image).save(
            file, image_format.pillow_name, quality=quality, **image_format.options
        )
    return file.getvalue()


def decode(name, data):
    """Reads what `encode` returned.

    Returns:
      uint8 [H, W, 3].

    Raises:
      ImageError: more pixels than Pillow's limit.
    """
    with _errors(name), Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def quality_near(name, image, num_bytes):
    """Finds the quality whose file has nearest to a wanted number of bytes.

    Args:
      name: a key of FORMATS.
      image: uint8 [H, W, 3], 0..255.
      num_bytes: wanted.

    Returns:
      int. Files grow with quality but for exceptions too small to matter, so the search halves.

    Raises:
      ImageError: see `encode`.
    """
    sizes = {}

    def size(quality):
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
def _errors(name):
    """Pillow's plugins fail with nearly any exception; around their calls all are caught."""
    try:
        yield
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{FORMATS[name].title} cannot hold this image ({cause}); leave {name} away"
        ) from error
