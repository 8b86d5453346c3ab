"""A folder of photographs to batches of random crops."""

import concurrent.futures

import numpy as np
from PIL import Image

from gmm_attention.errors import ImageError
from gmm_attention.images import find_images, read_image


def read_photographs(directory, crop):
    """Reads all images of a folder that a crop fits into.

    Args:
      directory: searched recursively.
      crop: side of the crop, pixels.

    Returns:
      list of uint8 [H, W, 3], sorted by name.

    Raises:
      ImageError: an image cannot be read, or none is large enough.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = list(pool.map(read_image, [path for path, _ in find_images(directory)]))
    images = [image for image in images if min(image.shape[:2]) >= crop]
    if not images:
        raise ImageError(f"{directory}: no image has {crop} pixels on both sides")
    return images


def random_crop(images, crop, rng):
    """One crop of one image, scaled down by up to 2 first, mirrored half of the time.

    Scaling makes more of few photographs, and hides the artefacts of those that were JPEG.

    Returns:
      uint8 [crop, crop, 3].
    """
    image = images[rng.integers(len(images))]
    height, width = image.shape[:2]
    side = int(crop * rng.uniform(1, min(2, min(height, width) / crop)))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    patch = image[top : top + side, left : left + side]
    if side != crop:
        patch = np.asarray(Image.fromarray(patch).resize((crop, crop), Image.Resampling.LANCZOS))
    return patch[:, :: 1 if rng.random() < 0.5 else -1]


def batches(images, batch, crop, seed):
    """Endless batches, uint8 [batch, crop, crop, 3], the same for the same seed."""
    rng = np.random.default_rng(seed)
    while True:
        yield np.stack([random_crop(images, crop, rng) for _ in range(batch)])
