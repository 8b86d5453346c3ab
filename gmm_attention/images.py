"""Image files <-> uint8 [H, W, 3]; padding to the model's multiple of 64, and cropping back.

Pillow itself is used for reading, not imageio's wrapper of it: the wrapper returns pixels without
what a careful reader must look at first (frames, bit depth, transparency), and opens files under
Pillow's pixel limit instead of ours.
"""

import collections
import contextlib
import logging
import os
import sys
import threading
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from gmm_attention.errors import CodecError, ImageError
from gmm_attention.files import write_atomically

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

MAX_PIXELS = 2**28  # that are read, and, counted after padding, that are coded

SIDE_MULTIPLE = 64  # y has 1/16 of the image's sides, z 1/64

# Pillow's modes whose conversion to RGB or RGBA is exact. (A TIFF's YCbCr is not: Pillow takes
# uncompressed samples for 4:4:4 whatever they are.)
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B")

# Tags of TIFF, and their values, that say how samples are to be read.
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC, _BLACK_IS_ZERO, _RGB = 262, 1, 2
_PLANAR_CONFIGURATION, _CHUNKY = 284, 1
_SAMPLE_FORMAT, _UNSIGNED = 339, 1

# Pillow keeps the high byte of each 16-bit colour sample. Read again under the name of the other
# byte order, the same file gives the low byte. N is the machine's own order.
_BYTES_SWAPPED = {
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA")
    for order, other in ("BL", "LB", ("N", "B" if sys.byteorder == "little" else "L"))
}

_DEEP_GRAY = ("I;16", "I;16B", "I;16N")

_TRANSPARENT = "has transparent pixels, which the codec cannot keep; put a background behind them"

_pillow_limit_lock = threading.Lock()

_logger = logging.getLogger(__name__)


def read_image(path, max_pixels=MAX_PIXELS, file=None):
    """Reads a photograph as the codec codes it: 8 bits, RGB, upright, opaque.

    - The EXIF orientation is applied. Gray, 1-bit and palette images become RGB.
    - Samples are taken as they are: gamma and embedded colour profiles are ignored.
    - 16-bit samples are rounded to 8 bits (value / 257), and a log record of level WARNING says
      so, for the codec cannot keep the rest.
    - An alpha channel that is opaque everywhere is dropped. Transparent pixels are refused: a
      background to put behind them is the user's choice, and leaving alpha away would show the
      colours that nobody was meant to see.
    - CMYK is refused: without its profile its colours are a guess. So are animations and files
      of several pages, of which one page would be kept (but not a camera's JPEG that carries
      previews behind its photograph), and float, 32-bit or signed samples, whose range only
      their author knows.

    Args:
      path: str or Path of a PNG, JPEG, WebP, BMP or TIFF file, told apart by content, not by name.
      max_pixels: images of more pixels are refused before they are decoded. Takes the place of
        Pillow's own limit.
      file: binary file, seekable, that is read from its start in place of opening the path, which
        then only names it in errors. It stays open.

    Returns:
      uint8 [H, W, 3], 0..255.

    Raises:
      ImageError: the file is missing, not readable, not such an image, damaged, too large, or
        refused for a reason above.
    """
    with _image_in(path, max_pixels, file) as open_image:
        return _read(open_image, path)


def read_size(path, max_pixels=MAX_PIXELS, file=None):
    """Reads the height and width of an image from its header; no pixel is decoded.

    They are those of the stored picture: EXIF orientation may turn it, which swaps them.

    Args:
      path, max_pixels, file: as for `read_image`.

    Returns:
      height, width in pixels.

    Raises:
      ImageError: as `read_image`, as far as a header tells.
    """
    with _image_in(path, max_pixels, file) as open_image:
        width, height = open_image().size
    return height, width


def check_png(path):
    """Tells whether a PNG is whole, by the checksums of its parts; no pixel is decoded.

    Args:
      path: str or Path.

    Returns:
      height, width in pixels.

    Raises:
      ImageError: the file is missing, not readable, no PNG, or damaged.
    """
    with _image_in(path, MAX_PIXELS, None) as open_image:
        image = open_image()
        if not isinstance(image, PngImageFile):
            raise ImageError(f"{path}: no PNG; remove it, or give another name")
        width, height = image.size
        with _pillow_errors(path):
            image.verify()
    return height, width


def write_png(path, image):
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
    # Here, for programs that only read images, such as training, do without imageio.
    import imageio.v3 as iio

    data = iio.imwrite("<bytes>", image, extension=".png", plugin="pillow", is_batch=False)
    try:
        write_atomically({path: data})
    except CodecError as error:
        raise ImageError(str(error)) from error


def pad(image):
    """Pads right and below to sides that are multiples of 64, by reflection.

    The edge row is not repeated. Where a side is too short for one reflection (32 or less), the
    reflections are reflected again, which the original could not do; a side of 1 is repeated.

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


def pad_strip(image, axis, first, last):
    """Cuts rows, or columns, first up to last out of what `pad` would return.

    Args:
      image: array [H, W, 3] of any type, H and W at least 1.
      axis: 0 for rows, 1 for columns.
      first, last: within the padded side; None for its end.

    Returns:
      Array of the same type, [last - first, W', 3] or [H', last - first, 3].
    """
    rows, columns = (_reflected(side) for side in image.shape[:2])
    if axis == 0:
        return image[rows[first:last]][:, columns]
    return image[:, columns[first:last]][rows]  # cut first: the other way copies the whole image


def crop(image, height, width):
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


def find_images(path):
    """Lists the images that a path given by the user stands for, with a name for each output.

    A folder is searched with its sub-folders for files with a suffix in IMAGE_SUFFIXES, in any
    case. Hidden files and folders are left out, and links to folders are not followed, so that
    no photograph comes twice and no loop of links is entered. A file is taken whatever its name.

    Args:
      path: str or Path of an image file or of a folder.

    Returns:
      List of (path, name), sorted by path. The name is the path relative to the folder, with "/"
      between its parts and without the image's suffix: "holiday/beach 1". Names differ, also on
      a file system that ignores case: files whose names would be equal (a.png and a.jpg) keep
      their suffix ("a.png", "a.jpg"), and those that are equal even so (A.png and a.png) are
      numbered ("A.png", "a.png-2"). An output's suffix is to be appended to the whole name.

    Raises:
      ImageError: nothing is there, it holds no image, or a folder cannot be listed.
    """
    top = Path(path)
    # os.path, unlike Path, answers False where permission to look is missing.
    if os.path.isfile(top):
        return [(top, _without_suffix(top.name))]
    if not os.path.isdir(top):
        try:
            top.stat()
        except OSError as error:
            raise ImageError(
                f"{path}: cannot be read: {error.strerror}; give an image file or a folder of them"
            ) from error
        raise ImageError(f"{path}: neither a file nor a folder; give one of them")

    relatives = list_files(top, IMAGE_SUFFIXES)
    if not relatives:
        raise ImageError(
            f"{path}: no image in this folder; its files should end in {', '.join(IMAGE_SUFFIXES)}"
        )
    return [(top / relative, name) for relative, name in zip(relatives, _distinct_names(relatives))]


def list_files(folder, suffixes):
    """Lists the files of a folder and its sub-folders, by the rules of `find_images`.

    Args:
      folder: str or Path of a folder.
      suffixes: tuple of the suffixes wanted, in lower case; those of files may be in any case.

    Returns:
      Sorted list of paths relative to the folder, str with "/" between their parts.

    Raises:
      ImageError: a folder cannot be listed.
    """
    relatives = []
    for subfolder, subfolders, files in os.walk(folder, onerror=_refuse_folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or not name.lower().endswith(suffixes):
                continue
            found = Path(subfolder, name)
            # A broken link is kept, for its reader to complain of; a pipe would block it.
            if os.path.isfile(found) or not os.path.exists(found):
                relatives.append(found.relative_to(folder).as_posix())
    return sorted(relatives)


def _reader(head):
    """Pillow's reader for a file's first 16 bytes, or None."""
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
def _no_pillow_limit():
    """Takes Pillow's pixel limit, a variable of its module, out of force for one reader."""
    with _pillow_limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextlib.contextmanager
def _image_in(path, max_pixels, file):
    """Gives, while the file is open, a function without arguments that returns `_open` of it."""
    if file is not None:
        opened = contextlib.nullcontext(file)
    else:
        try:
            opened = open(path, "rb")
        except OSError as error:
            raise ImageError(
                f"{path}: cannot be read: {error.strerror}; check the name and its permissions"
            ) from error
    with opened as file:
        with _pillow_errors(path):
            file.seek(0)
            head = file.read(16)
        if not head:
            raise ImageError(f"{path}: the file is empty; copy or export it again")
        reader = _reader(head)
        if reader is None:
            raise ImageError(f"{path}: not a PNG, JPEG, WebP, BMP or TIFF file; convert it to PNG")
        # Pillow's readers of these two kinds check its own limit of pixels.
        checks_limit = reader in (TiffImageFile, WebPImageFile)
        with _no_pillow_limit() if checks_limit else contextlib.nullcontext():
            yield lambda: _open(reader, file, path, max_pixels)


@contextlib.contextmanager
def _pillow_errors(path):
    """Turns an exception of Pillow's into one line about the file.

    Its readers meet damage with nearly any exception (OSError, SyntaxError, ValueError,
    struct.error, zlib.error, ...), so around its calls, and only there, all are caught.
    """
    try:
        yield
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{path}: damaged or of an unsupported kind ({cause}); "
            "copy it again or convert it to an 8-bit PNG"
        ) from error


def _read(open_image, path):
    """Reads uint8 [H, W, 3].

    Args:
      open_image: function without arguments that returns a Pillow image (see `_open`).
      path: named in errors.
    """
    image = open_image()
    if isinstance(image, PngImageFile):
        # Pillow decodes without a look at the checksums, and cannot go on after one.
        with _pillow_errors(path):
            image.verify()
        image = open_image()
    _check_kind(image, path)
    if _is_deep(image):
        rgb = _round_to_8_bits(_opaque_rgb(_deep_samples(image, open_image, path), path))
        _logger.warning("%s: 16 bits per sample, rounded to 8", path)
    else:
        rgb = _opaque_rgb(_samples(image, path), path)
    # A copy, for Pillow's own memory cannot be written to.
    return np.array(rgb)


def _open(reader, file, path, max_pixels):
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


def _rawmode(image):
    """Pillow's name for the layout of the samples in the file, "" where it found none."""
    args = image.tile[0].args if image.tile else ""
    return args if isinstance(args, str) else args[0]


def _is_deep(image):
    """Whether samples have more than 8 bits, which Pillow's mode does not always tell."""
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8
    return isinstance(image, PngImageFile) and ";16" in _rawmode(image)


def _check_kind(image, path):
    """Refuses what Pillow would decode, but into something else than the picture."""
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
        # Pillow reads signed 8-bit samples as unsigned, and of 16-bit samples neither inverts
        # those whose 0 is white nor joins those that are stored plane by plane.
        signed = any(code != _UNSIGNED for code in tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)))
        inverted = tags.get(_PHOTOMETRIC) not in (_BLACK_IS_ZERO, _RGB)
        in_planes = tags.get(_PLANAR_CONFIGURATION, _CHUNKY) != _CHUNKY
        unsupported |= signed or (_is_deep(image) and (inverted or in_planes))
    if unsupported or (_is_deep(image) and _rawmode(image) not in {*_DEEP_GRAY, *_BYTES_SWAPPED}):
        raise ImageError(f"{path}: an unsupported kind of samples; convert it to an 8-bit PNG")


def _decode(image, path):
    """Decodes the pixels and turns them upright, in place."""
    with _pillow_errors(path):
        image.load()
        # EXIF data whose header is broken tells no orientation: the picture stays as stored.
        with contextlib.suppress(SyntaxError):
            ImageOps.exif_transpose(image, in_place=True)


def _samples(image, path):
    """Decodes to uint8 [H, W, 3], or [H, W, 4] where the file has some transparency."""
    _decode(image, path)
    with _pillow_errors(path):
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _deep_samples(image, open_image, path):
    """Decodes to uint16 [H, W, 3 or 4].

    Args:
      image: Pillow image of which only the header is read.
      open_image: function without arguments that returns the same once more.
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


def _with_rawmode(tile, rawmode):
    args = rawmode if isinstance(tile.args, str) else (rawmode, *tile.args[1:])
    return tile._replace(args=args)


def _opaque_rgb(samples, path):
    """Drops an alpha channel that is opaque everywhere, refuses any other."""
    if samples.shape[2] == 4 and samples[..., 3].min() < np.iinfo(samples.dtype).max:
        raise ImageError(f"{path}: {_TRANSPARENT}")
    return samples[..., :3]


def _round_to_8_bits(samples):
    """uint16 0..65535 -> uint8 0..255; there are no ties, for 65535 / 255 = 257 is odd."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _reflected(length):
    """Indices that pad a side of this length to the next multiple: [0, 1, 2, 1, 0, 1, ...]."""
    padded = np.arange(length + -length % SIDE_MULTIPLE)
    if length == 1:
        return np.zeros_like(padded)
    period = 2 * (length - 1)
    return length - 1 - np.abs(length - 1 - padded % period)


def _refuse_folder(error):
    raise ImageError(
        f"{error.filename}: cannot be listed: {error.strerror}; change its permissions or move it"
    ) from error


def _without_suffix(name):
    """Leaves other suffixes than an image's: "IMG.2024.png" -> "IMG.2024", which stays."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _distinct_names(relatives):
    """Names for outputs, in the same order; see `find_images`.

    Args:
      relatives: sorted list of distinct paths with "/" between their parts.
    """
    names = {relative: _without_suffix(relative) for relative in relatives}
    while True:
        uses = collections.Counter(_as_file_system(name) for name in names.values())
        # A name that got its suffix back can meet another's stem ("a.png.jpg"), hence the loop.
        shared = [r for r in relatives if names[r] != r and uses[_as_file_system(names[r])] > 1]
        if not shared:
            break
        names.update((relative, relative) for relative in shared)

    # What is still shared differs in case alone: the first keeps its name, others are numbered.
    given = set()
    result = []
    for relative in relatives:
        name, number = names[relative], 1
        while _as_file_system(name) in given or (number > 1 and _as_file_system(name) in uses):
            number += 1
            name = f"{names[relative]}-{number}"
        given.add(_as_file_system(name))
        result.append(name)
    return result


def _as_file_system(name):
    """What a file system that ignores case and Unicode's spellings takes for the same name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
