"""Image files -> uint8 [H, W, 3].

Reading uses Pillow itself, not imageio's wrapper of it: the wrapper returns pixels without what a
careful reader must look at first (frames, bit depth, transparency), and opens files under
Pillow's pixel limit instead of ours.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from gmm_attention.errors import ImageError

# Largest image that is read or, with its padding counted, coded.
MAX_PIXELS = 2**28

# Pillow's modes whose conversion to RGB or RGBA is exact. (A TIFF's YCbCr is not: Pillow takes
# uncompressed samples for 4:4:4 even if they are subsampled.)
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B")

# TIFF tags, and their values, that say how samples are stored.
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC, _BLACK_IS_ZERO, _RGB = 262, 1, 2
_PLANAR_CONFIGURATION, _CHUNKY = 284, 1
_SAMPLE_FORMAT, _UNSIGNED = 339, 1

# Pillow keeps only the high byte of each 16-bit colour sample. When the same file is decoded
# again with the other byte order, it gives the low byte. N is the machine's own order.
_BYTES_SWAPPED = {
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA")
    for order, other in ("BL", "LB", ("N", "B" if sys.byteorder == "little" else "L"))
}

# Layouts of 16-bit gray samples, which Pillow decodes whole.
_DEEP_GRAY = ("I;16", "I;16B", "I;16N")

_TRANSPARENT = "has transparent pixels, which the codec cannot keep; put a background behind them"

_Opener = Callable[[], ImageFile.ImageFile]

_pillow_limit_lock = threading.Lock()

_logger = logging.getLogger(__name__)


def read_image(
    path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, file: BinaryIO | None = None
) -> np.ndarray:
    """Reads a photograph as the codec codes it: 8 bits, RGB, upright, opaque.

    - The EXIF orientation is applied. Gray, 1-bit and palette images become RGB.
    - Samples are taken as they are: gamma and embedded colour profiles are ignored.
    - 16-bit samples are rounded to 8 bits (value / 257), all that the codec can keep; a log
      record of level WARNING says so.
    - An alpha channel that is opaque everywhere is dropped. Transparent pixels are refused: the
      background behind them is the user's choice, and dropping alpha would show colours that
      were meant to be hidden.
    - CMYK is refused, because its colours are a guess without its profile. Animations and files
      of several pages are refused, because only one page would be kept; a camera's JPEG with
      previews behind its photograph is accepted. Float, 32-bit and signed samples are refused,
      because only their author knows their range.

    Args:
      path: str or Path of a PNG, JPEG, WebP, BMP or TIFF file. Its content decides which, not its
        name.
      max_pixels: images with more pixels are refused before they are decoded. It replaces
        Pillow's own limit.
      file: seekable binary file to read from its start instead of opening the path; the path then
        only names it in errors. It stays open.

    Returns:
      uint8 [H, W, 3], 0..255.

    Raises:
      ImageError: the file is missing, not readable, not such an image, damaged, too large, or
        refused for a reason above.
    """
    with _opener(path, max_pixels, file) as open_image:
        return _read(open_image, path)


def read_size(
    path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, file: BinaryIO | None = None
) -> tuple[int, int]:
    """Reads the height and width of an image from its header; no pixel is decoded.

    They are those of the picture as stored; an EXIF orientation may swap them in `read_image`.

    Args:
      path, max_pixels, file: as for `read_image`.

    Returns:
      height, width in pixels.

    Raises:
      ImageError: as for `read_image`, as far as the header shows the reason.
    """
    with _opener(path, max_pixels, file) as open_image:
        width, height = open_image().size
    return height, width


def _reader(head: bytes) -> type[ImageFile.ImageFile] | None:
    """Pillow's reader for the file with these first 16 bytes, or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if head.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebPImageFile
    if head.startswith(b"BM"):
        return BmpImageFile
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return TiffImageFile
    return None


@contextlib.contextmanager
def _no_pillow_limit() -> Iterator[None]:
    """Suspends Pillow's pixel limit, a global variable of its module, for the block."""
    with _pillow_limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextlib.contextmanager
def _opener(
    path: str | os.PathLike[str], max_pixels: int, file: BinaryIO | None
) -> Iterator[_Opener]:
    """Opens a file and yields a function that reads its header anew at each call; see `_open`."""
    opened: contextlib.AbstractContextManager[BinaryIO]
    if file is not None:
        opened = contextlib.nullcontext(file)
    else:
        try:
            opened = open(path, "rb")
        except OSError as error:
            raise ImageError(
                f"{path}: cannot be read: {error.strerror}; check the name and its permissions"
            ) from error
    with opened as source:
        with _pillow_errors(path):
            source.seek(0)
            head = source.read(16)
        if not head:
            raise ImageError(f"{path}: the file is empty; copy or export it again")
        reader = _reader(head)
        if reader is None:
            raise ImageError(f"{path}: not a PNG, JPEG, WebP, BMP or TIFF file; convert it to PNG")
        # Pillow's readers of these two formats check Pillow's own pixel limit.
        checks_limit = reader in (TiffImageFile, WebPImageFile)
        with _no_pillow_limit() if checks_limit else contextlib.nullcontext():
            yield lambda: _open(reader, source, path, max_pixels)


@contextlib.contextmanager
def _pillow_errors(path: object) -> Iterator[None]:
    """Turns an exception of Pillow's into an ImageError of one line that names the file.

    Pillow's readers raise nearly any exception for a damaged file (OSError, SyntaxError,
    ValueError, struct.error, zlib.error, ...), so all are caught, but only around its calls.
    """
    try:
        yield
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{path}: damaged or of an unsupported kind ({cause}); "
            "copy it again or convert it to an 8-bit PNG"
        ) from error


def _read(open_image: _Opener, path: object) -> np.ndarray:
    """Reads uint8 [H, W, 3]; `path` is named in errors."""
    image = open_image()
    if isinstance(image, PngImageFile):
        # Pillow ignores the checksums when it decodes, and cannot decode after it verified them.
        with _pillow_errors(path):
            image.verify()
        image = open_image()
    _check_kind(image, path)
    if _is_deep(image):
        rgb = _round_to_8_bits(_opaque_rgb(_deep_samples(image, open_image, path), path))
        _logger.warning("%s: 16 bits per sample, rounded to 8", path)
    else:
        rgb = _opaque_rgb(_samples(image, path), path)
    # A copy, because an array over Pillow's own memory is read-only.
    return np.array(rgb)


def _open(
    reader: type[ImageFile.ImageFile], file: BinaryIO, path: object, max_pixels: int
) -> ImageFile.ImageFile:
    """Reads the header and refuses what the codec cannot keep; no pixel is decoded."""
    with _pillow_errors(path):
        file.seek(0)
        image = reader(file)
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{path}: {width}x{height} pixels are more than the limit of {max_pixels}; "
            "scale it down or cut it into parts"
        )
    with _pillow_errors(path):
        frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageError(
            f"{path}: holds {frames} pictures (an animation or pages); save each as a file"
        )
    return image


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Pillow's name for the layout of the samples in the file, "" if it found none."""
    args = image.tile[0].args if image.tile else ""
    if isinstance(args, str):
        return args
    return args[0] if args else ""


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether samples have more than 8 bits, which Pillow's mode does not always show."""
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8
    return isinstance(image, PngImageFile) and ";16" in _rawmode(image)


def _check_kind(image: ImageFile.ImageFile, path: object) -> None:
    """Refuses samples that Pillow would decode into wrong colours."""
    if image.mode == "CMYK":
        raise ImageError(
            f"{path}: CMYK colours, which have no RGB without a profile; convert it to sRGB"
        )
    if image.mode in ("F", "I"):
        raise ImageError(
            f"{path}: float, signed or 32-bit samples; convert it to 8 bits, which takes a choice "
            "of what is black and what is white"
        )
    if "transparency" in image.info and image.mode != "P":
        raise ImageError(f"{path}: {_TRANSPARENT}")
    unsupported = image.mode not in _MODES
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        # Pillow reads signed 8-bit samples as unsigned. It does not invert 16-bit samples whose 0
        # is white, and does not join 16-bit samples that are stored plane by plane.
        signed = any(code != _UNSIGNED for code in tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)))
        inverted = tags.get(_PHOTOMETRIC) not in (_BLACK_IS_ZERO, _RGB)
        in_planes = tags.get(_PLANAR_CONFIGURATION, _CHUNKY) != _CHUNKY
        unsupported |= signed or (_is_deep(image) and (inverted or in_planes))
    if unsupported or (_is_deep(image) and _rawmode(image) not in {*_DEEP_GRAY, *_BYTES_SWAPPED}):
        raise ImageError(f"{path}: an unsupported kind of samples; convert it to an 8-bit PNG")


def _decode(image: ImageFile.ImageFile, path: object) -> None:
    """Decodes the pixels and turns them upright, in place."""
    with _pillow_errors(path):
        image.load()
        # EXIF data with a broken header gives no orientation: the picture stays as stored.
        with contextlib.suppress(SyntaxError):
            ImageOps.exif_transpose(image, in_place=True)


def _samples(image: ImageFile.ImageFile, path: object) -> np.ndarray:
    """Decodes to uint8 [H, W, 3], or [H, W, 4] if the file has data on transparency."""
    _decode(image, path)
    with _pillow_errors(path):
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _deep_samples(image: ImageFile.ImageFile, open_image: _Opener, path: object) -> np.ndarray:
    """Decodes to uint16 [H, W, 3 or 4].

    Args:
      image: Pillow image of which only the header has been read.
      open_image: function that opens the same image once more.
      path: named in errors.
    """
    rawmode = _rawmode(image)
    if rawmode in _DEEP_GRAY:
        _decode(image, path)
        return np.stack([np.asarray(image)] * 3, axis=-1)
    swapped = open_image()
    swapped.tile = [_with_rawmode(tile, _BYTES_SWAPPED[rawmode]) for tile in swapped.tile]
    _decode(image, path)
    _decode(swapped, path)
    return np.asarray(image).astype(np.uint16) << 8 | np.asarray(swapped)


def _with_rawmode(tile: Any, rawmode: str) -> Any:
    """Returns a tile, Pillow's description of stored samples, with another layout."""
    args = rawmode if isinstance(tile.args, str) else (rawmode, *tile.args[1:])
    return tile._replace(args=args)


def _opaque_rgb(samples: np.ndarray, path: object) -> np.ndarray:
    """Drops an alpha channel that is opaque everywhere; refuses any other."""
    if samples.shape[2] == 4 and samples[..., 3].min() < np.iinfo(samples.dtype).max:
        raise ImageError(f"{path}: {_TRANSPARENT}")
    return samples[..., :3]


def _round_to_8_bits(samples: np.ndarray) -> np.ndarray:
    """uint16 0..65535 -> uint8 0..255; there are no ties, because 65535 / 255 = 257 is odd."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
