"""Image files <-> uint8 [H, W, 3]."""

from gmm_attention.images.reading import MAX_PIXELS, Header, read_header, read_image, read_size
from gmm_attention.images.writing import check_png, encode_png, is_gray, is_ours, write_png

__all__ = [
    "MAX_PIXELS",
    "Header",
    "check_png",
    "encode_png",
    "is_gray",
    "is_ours",
    "read_header",
    "read_image",
    "read_size",
    "write_png",
]
