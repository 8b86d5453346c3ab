"""Images padded to the model's multiple of 64, and cropped back."""

from __future__ import annotations

import numpy as np

SIDE_MULTIPLE = 64  # y has 1/16 of the length of the image's sides, z has 1/64


def pad(image: np.ndarray) -> np.ndarray:
    """Pads right and below to sides that are multiples of 64, by reflection.

    The edge row is not repeated. If a side is too short for one reflection (32 or less), the
    reflections are reflected again, which the original could not do. A side of 1 is repeated.

    Args:
      image: array [H, W, 3] of any type, H and W at least 1.

    Returns:
      Array of the same type [H', W', 3], H' and W' the next multiples of 64.

    Raises:
      ValueError: image has another shape.

    Source: original encoder.py, `tf.pad(..., "REFLECT")`.
    """
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must be [H, W, 3], not {image.shape}")
    return pad_strip(image, 0, 0, None)


def pad_strip(image: np.ndarray, axis: int, first: int, last: int | None) -> np.ndarray:
    """Returns rows or columns `first` up to `last` of what `pad` would return.

    Args:
      image: array [H, W, 3] of any type, H and W at least 1.
      axis: 0 for rows, 1 for columns.
      first, last: positions within the padded side; None for its end.

    Returns:
      Array of the same type, [last - first, W', 3] or [H', last - first, 3].
    """
    rows, columns = (_reflected(side) for side in image.shape[:2])
    if axis == 0:
        return image[rows[first:last]][:, columns]
    return image[:, columns[first:last]][
        rows
    ]  # cut first: padding first would copy the whole image


def crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cuts off what `pad` added.

    Args:
      image: array [H', W', 3].
      height, width: sides of the image before padding, in pixels.

    Returns:
      Array [height, width, 3], a view of the upper left part.

    Raises:
      ValueError: the image is smaller than that.
    """
    if not (1 <= height <= image.shape[0] and 1 <= width <= image.shape[1]):
        raise ValueError(f"cannot crop {image.shape} to height {height} and width {width}")
    return image[:height, :width]


def _reflected(length: int) -> np.ndarray:
    """Indices that pad a side of this length to the next multiple: [0, 1, 2, 1, 0, 1, ...]."""
    padded = np.arange(length + -length % SIDE_MULTIPLE)
    if length == 1:
        return np.zeros_like(padded)
    period = 2 * (length - 1)
    return length - 1 - np.abs(length - 1 - padded % period)
