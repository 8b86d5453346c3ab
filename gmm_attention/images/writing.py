"""uint8 [H, W, 3] -> PNG files, and the check that one of them is whole."""

from __future__ import annotations

import os

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from gmm_attention.errors import CodecError, ImageError
from gmm_attention.files import write_atomically
from gmm_attention.images.reading import MAX_PIXELS, _opener, _pillow_errors


def check_png(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Checks that a PNG is whole by the checksums of its parts; no pixel is decoded.

    Args:
      path: str or Path.

    Returns:
      height, width in pixels.

    Raises:
      ImageError: the file is missing, not readable, not a PNG, or damaged.
    """
    with _opener(path, MAX_PIXELS, None) as open_image:
        image = open_image()
        if not isinstance(image, PngImageFile):
            raise ImageError(f"{path}: no PNG; remove it, or give another name")
        width, height = image.size
        with _pillow_errors(path):
            image.verify()
    return height, width


def write_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes an 8-bit RGB PNG, complete or not at all (see `write_atomically`).

    Args:
      path: str or Path of the file, in a folder that exists; an older file is replaced.
      image: uint8 [H, W, 3], 0..255.

    Raises:
      ImageError: the file cannot be written.
      ValueError: image has another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must be uint8 [H, W, 3], not {image.dtype} {image.shape}")
    # Imported here, because programs that only read images, such as training, need no imageio.
    import imageio.v3 as iio

    data = iio.imwrite("<bytes>", image, extension=".png", plugin="pillow", is_batch=False)
    try:
        write_atomically({path: data})
    except CodecError as error:
        raise ImageError(str(error)) from error
