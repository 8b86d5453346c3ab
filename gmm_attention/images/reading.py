"""Image files -> uint8 [H, W, 3].

Reading uses Pillow itself, not imageio's wrapper of it: the wrapper returns pixels without what a
careful reader must look at first (frames, bit depth, transparency), and opens files under
Pillow's pixel limit instead of ours. The modules of the formats clean the files for Pillow, and
find in them what Pillow does not tell.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from gmm_attention.errors import ImageError
from gmm_attention.images import avif, jpeg, pillow, png, tiff, webp_bmp
from gmm_attention.images.colour import to_srgb
from gmm_attention.images.formats import HEAD_SIZE, recognise
from gmm_attention.images.source import Damaged, Refused, Source

# Largest image that is read or, with its padding counted, coded.
MAX_PIXELS = 2**28

# Pillow's modes whose conversion to RGB or RGBA is exact. (A TIFF's YCbCr is not: Pillow takes
# uncompressed samples for 4:4:4 even if they are subsampled.)
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B")
_GRAY_MODES = ("1", "L", "LA", "I;16", "I;16B")

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

# What turns a picture [H, W, C] upright that is stored with EXIF's orientation.
_TO_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}

_READERS: dict[str, Callable[[BinaryIO, bool], Source]] = {
    "PNG": png.read,
    "JPEG": jpeg.read,
    "WebP": webp_bmp.read_webp,
    "AVIF": avif.read,
    "BMP": webp_bmp.read_bmp,
    "TIFF": tiff.read,
}

# Those whose readers check Pillow's own limit of pixels.
_CHECK_LIMIT = ("TIFF", "WebP")

_logger = logging.getLogger(__name__)


def read_image(
    path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, file: BinaryIO | None = None
) -> np.ndarray:
    """Reads a photograph as the codec codes it: 8 bits, RGB, upright, opaque, in sRGB.

    What has no effect on the pixels, such as text, EXIF data or other pictures behind the first of
    a JPEG file, is passed over, even if it is damaged. Log records of level WARNING tell what is
    lost or doubtful.

    - The EXIF orientation is applied. Gray, 1-bit and palette images become RGB.
    - Colours that the file describes, by a profile or otherwise, become sRGB, see
      `colour.to_srgb`. High dynamic range is refused.
    - Samples of more than 8 bits are rounded to 8 (of 16 bits, value / 257) when their colours have
      been converted, with a warning: 8 bits are all that the codec can keep.
    - An alpha channel that is opaque everywhere is dropped, and so is one that is transparent
      everywhere, with a warning. Otherwise transparent pixels are refused: the background behind
      them is the user's choice, and dropping alpha would show colours that were meant to be
      hidden.
    - JPEG data that is damaged is refused, or read with a warning if it may be whole. Damage to
      few bytes need not show.
    - CMYK is refused, since it is made for print. Animations and files
      of several pages are refused, because only one page would be kept; thumbnails, reduced
      pictures and masks are no pages. Float, 32-bit and signed samples are refused, because only
      their author knows their range. Cameras' raw files are refused.

    Args:
      path: str or Path of a PNG, JPEG, WebP, AVIF, BMP or TIFF file. Its content decides which,
        not its name.
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
    with _opened(path, max_pixels, file, whole=True) as (source, image):
        return _read(source, image, path)


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
    return read_header(path, max_pixels, file)[:2]


class Header(NamedTuple):
    """What the header of an image file tells."""

    height: int  # pixels as stored, see `read_size`
    width: int
    kinds: tuple[str, ...]  # of "16-bit", "gray", "CMYK", "transparent": those that it is


def read_header(
    path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, file: BinaryIO | None = None
) -> Header:
    """Reads size and kinds of an image from its header; no pixel is decoded.

    "transparent" means that the file has an alpha channel or a transparent colour, whether or not
    a pixel is transparent.

    Args:
      path, max_pixels, file: as for `read_image`.

    Raises:
      ImageError: as for `read_size`.
    """
    with _opened(path, max_pixels, file, whole=False) as (source, image):
        kinds = {
            "16-bit": source.bits > 8,
            "gray": _is_gray(source, image),
            "CMYK": image.mode == "CMYK",
            "transparent": image.has_transparency_data or source.clear_colour is not None,
        }
    width, height = image.size
    return Header(height, width, tuple(kind for kind, holds in kinds.items() if holds))


@contextlib.contextmanager
def _opened(
    path: str | os.PathLike[str], max_pixels: int, file: BinaryIO | None, whole: bool
) -> Iterator[tuple[Source, ImageFile.ImageFile]]:
    """Yields what a file's header tells, and the image of which Pillow has read the header.

    It refuses what the codec cannot keep, as far as that shows.

    Args:
      path, max_pixels, file: see `read_image`.
      whole: whether its pixels will be decoded, for which the file must be whole.
    """
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
    with opened as content, pillow.quiet():
        with _naming(path):
            content.seek(0)
            name = recognise(content.read(HEAD_SIZE))
        with pillow.no_limit() if name in _CHECK_LIMIT else contextlib.nullcontext():
            with _naming(path):
                source = _READERS[name](content, whole)
                image = source.open()
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"{path}: {width}x{height} pixels are more than the limit of {max_pixels}; "
                    "scale it down or cut it into parts"
                )
            if source.pictures > 1:
                raise ImageError(
                    f"{path}: holds {source.pictures} pictures (an animation or pages); "
                    "save each as a file"
                )
            yield source, image


@contextlib.contextmanager
def _naming(path: object) -> Iterator[None]:
    """Turns any exception into an ImageError of one line that names the file.

    Pillow's readers raise nearly any exception for a damaged file (OSError, SyntaxError,
    ValueError, struct.error, zlib.error, ...), so all are caught, but only around its calls.
    """
    try:
        yield
    except Refused as error:
        raise ImageError(f"{path}: {error}") from error
    except Damaged as error:
        raise ImageError(f"{path}: damaged ({error}); copy or export it again") from error
    except MemoryError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{path}: damaged or of an unsupported kind ({cause}); "
            "copy it again or convert it to an 8-bit PNG"
        ) from error


def _read(source: Source, image: ImageFile.ImageFile, path: object) -> np.ndarray:
    """Decodes to uint8 [H, W, 3]; `path` is named in errors."""
    _check_kind(source, image, path)
    is_gray = _is_gray(source, image)
    # Pillow has divided such colours by an alpha that may be 0.
    is_premultiplied = "a" in _rawmode(image)
    with _naming(path):
        samples = _samples(source, image)
        suspicion = source.inspect()
    for note in source.notes:
        _logger.warning("%s: " + note, path)  # the text is the kind of the warning
    if suspicion:
        _logger.warning("%s: its JPEG data %s", path, suspicion)
    rgb = _opaque_rgb(samples, source.clear_colour, is_premultiplied, path)
    del samples
    if source.orientation in _TO_UPRIGHT:
        rgb = _TO_UPRIGHT[source.orientation](rgb)
    # A copy, because an array over Pillow's own memory is read-only.
    rgb = to_srgb(np.array(rgb, order="C"), source.colours, is_gray, path)
    if source.bits == 16:
        _logger.warning("%s: 16 bits per sample, rounded to 8", path)
    elif source.bits > 8:
        _logger.warning("%s: %d bits per sample, rounded to 8", path, source.bits)
    return rgb


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Pillow's name for the layout of the samples in the file, "" if it found none."""
    args = image.tile[0].args if image.tile else ""
    if isinstance(args, str):
        return args
    return args[0] if args else ""


def _is_gray(source: Source, image: ImageFile.ImageFile) -> bool:
    """Whether a pixel has one sample of colour."""
    return image.mode in _GRAY_MODES or source.has_joined_bytes


def _is_deep(source: Source, image: ImageFile.ImageFile) -> bool:
    """Whether Pillow decodes samples of more than 8 bits, which its mode does not always show."""
    return source.bits > 8 and image.format != "AVIF"


def _check_kind(source: Source, image: ImageFile.ImageFile, path: object) -> None:
    """Refuses samples that Pillow would decode into wrong colours."""
    if image.mode == "CMYK":
        raise ImageError(f"{path}: CMYK colours, made for print; convert it to sRGB")
    if image.mode in ("F", "I"):
        raise ImageError(
            f"{path}: float, signed or 32-bit samples; convert it to 8 bits, which takes a choice "
            "of what is black and what is white"
        )
    unsupported = image.mode not in _MODES
    is_deep = _is_deep(source, image) and not source.has_joined_bytes
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        # Pillow reads signed 8-bit samples as unsigned. It does not invert 16-bit samples whose 0
        # is white, and does not join 16-bit samples that are stored plane by plane.
        signed = any(code != _UNSIGNED for code in tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)))
        inverted = tags.get(_PHOTOMETRIC) not in (_BLACK_IS_ZERO, _RGB)
        in_planes = tags.get(_PLANAR_CONFIGURATION, _CHUNKY) != _CHUNKY
        unsupported |= signed or (is_deep and (inverted or in_planes))
    if unsupported or (is_deep and _rawmode(image) not in {*_DEEP_GRAY, *_BYTES_SWAPPED}):
        raise ImageError(f"{path}: an unsupported kind of samples; convert it to an 8-bit PNG")


def _samples(source: Source, image: ImageFile.ImageFile) -> np.ndarray:
    """Decodes to uint8 or uint16 [H, W, 3], or [H, W, 4] if the file has an alpha channel."""
    if source.has_joined_bytes:
        image.load()
        gray, alpha = np.moveaxis(np.asarray(image).view(">u2"), 2, 0)
        return np.stack([gray, gray, gray, alpha], axis=-1).astype(np.uint16)
    if _is_deep(source, image):
        return _deep_samples(source, image)
    image.load()
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _deep_samples(source: Source, image: ImageFile.ImageFile) -> np.ndarray:
    """Decodes to uint16 [H, W, 3 or 4]."""
    rawmode = _rawmode(image)
    if rawmode in _DEEP_GRAY:
        image.load()
        return np.stack([np.asarray(image)] * 3, axis=-1)
    swapped = source.open()
    swapped.tile = [_with_rawmode(tile, _BYTES_SWAPPED[rawmode]) for tile in swapped.tile]
    image.load()
    swapped.load()
    return np.asarray(image).astype(np.uint16) << 8 | np.asarray(swapped)


def _with_rawmode(tile: Any, rawmode: str) -> Any:
    """Returns a tile, Pillow's description of stored samples, with another layout."""
    args = rawmode if isinstance(tile.args, str) else (rawmode, *tile.args[1:])
    return tile._replace(args=args)


def _opaque_rgb(
    samples: np.ndarray,
    clear_colour: tuple[int, ...] | None,
    is_premultiplied: bool,
    path: object,
) -> np.ndarray:
    """Drops transparency of which no pixel has any; refuses any other.

    Args:
      samples: uint8 or uint16 [H, W, 3 or 4].
      clear_colour: see `Source`.
      is_premultiplied: whether the file's colours are multiplied by alpha, so that they are lost
        where it is 0.
      path: named in errors.
    """
    some = everything = False
    if clear_colour is not None:
        clear = np.ones(samples.shape[:2], bool)
        for band, value in enumerate(clear_colour):
            clear &= samples[..., band] == value
        some, everything = bool(clear.any()), bool(clear.all())
    elif samples.shape[2] == 4:
        alpha = samples[..., 3]
        some, everything = alpha.min() < np.iinfo(alpha.dtype).max, alpha.max() == 0
    if everything and not is_premultiplied:
        # Programs write so that do not fill a channel that they do not use.
        _logger.warning("%s: transparent everywhere, which is taken as opaque", path)
    elif some:
        raise ImageError(f"{path}: {_TRANSPARENT}")
    return samples[..., :3]
