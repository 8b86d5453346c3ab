"""Image files <-> uint8 [H, W, 3]."""

from gmm_attention.images.reading import MAX_PIXELS, read_image, read_size
from gmm_attention.images.writing import check_png, write_png

__all__ = ["MAX_PIXELS", "check_png", "read_image", "read_size", "write_png"]
