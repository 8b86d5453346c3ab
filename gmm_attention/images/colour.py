"""Samples of the colours that a file describes -> sRGB, which is what the codec codes.

A file's samples are nothing but numbers: the same three are one red in sRGB and a deeper one in
Display P3. The decoded PNG says nothing of its colours, and so is shown as sRGB.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gmm_attention.errors import ImageError
from gmm_attention.images import icc
from gmm_attention.images.icc import UnusableColours

# White, red, green and blue: x, y of each.
_D65 = (0.3127, 0.3290)
_SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE_RGB = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_SMPTE_170M = (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)

_SRGB_CURVE: icc.Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def _power(exponent: float) -> icc.Curve:
    return (exponent, 1.0, 0.0, 0.0, 0.0)


# Primaries and transfer functions by their numbers in ITU-T H.273. What is left unspecified beside
# something that is given is taken as sRGB's.
_UNSPECIFIED = 2
_PRIMARIES = {
    1: _SRGB,
    _UNSPECIFIED: _SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: _SMPTE_170M,
    7: _SMPTE_170M,
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    22: (*_D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077),
}
_TRANSFERS = {
    # Those of video (1, 6, 11, 12, 14, 15) are a camera's, not a screen's: to invert them would
    # wash the shadows out. Browsers, too, show such samples as if they were sRGB's.
    **dict.fromkeys((1, 6, 11, 12, 13, 14, 15, _UNSPECIFIED), _SRGB_CURVE),
    4: _power(2.2),
    5: _power(2.8),
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0912),
    8: _power(1.0),
    17: _power(2.6),
}

# The largest difference, in levels, that a profile may make where it is taken as sRGB. The sRGB
# profiles of several makers make 1, and 2 if their primaries are rounded to four digits; a power
# of 2.2 instead of sRGB's curve makes 9.
_TOLERANCE = 3

# Pixels that are converted at a time, to need little memory beside the image and the result.
_STRIP = 2**20

_logger = logging.getLogger(__name__)


class Colours(NamedTuple):
    """What a file says of its colours; None or False where it says nothing.

    Attributes:
      profile: ICC profile.
      cicp: numbers in ITU-T H.273 of primaries, transfer function and matrix, and 1 for the full
        range of samples. They are of the samples as they are given to `to_srgb`: for a decoded
        AVIF, whose decoder has undone matrix and range, these are 0 and 1.
      srgb: PNG's sRGB chunk.
      gamma: PNG's gAMA, such as 0.45455: the exponent from light to samples.
      chromaticities: PNG's cHRM: x and y of white, red, green and blue.
      adobe_rgb: EXIF's InteropIndex is R03, by which cameras mark Adobe RGB.
    """

    profile: bytes | None = None
    cicp: tuple[int, int, int, int] | None = None
    srgb: bool = False
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None
    adobe_rgb: bool = False


class _Conversion(NamedTuple):
    """A way to sRGB: Pillow's transform of RGB (or gray) samples, and uint8 [256] for grays."""

    transform: Any
    grays: np.ndarray


def to_srgb(image: np.ndarray, colours: Colours, is_gray: bool, path: object) -> np.ndarray:
    """Converts an image to sRGB, relative to white; colours outside of sRGB become the nearest.

    Where a file says several things of its colours, the first counts, as in PNG's third edition:
    cICP, ICC profile, sRGB, gAMA and cHRM, and then EXIF. Colours that cannot be converted are
    taken as sRGB, which one log record of level WARNING says; a conversion is not worth a word. An
    image without any colour stays so to the last bit.

    Args:
      image: uint8 [H, W, 3].
      colours: what the image's file says of them.
      is_gray: whether the file's samples are one channel, here repeated three times.
      path: named in errors and warnings.

    Returns:
      uint8 [H, W, 3]; the same array if there is nothing to convert.

    Raises:
      ImageError: colours of high dynamic range.
    """
    try:
        profile = _profile(colours, path)
        conversion = None if profile is None else _conversion(profile, is_gray)
    except UnusableColours as error:
        _logger.warning(
            "%s: its %s cannot be used (%s); colours are taken as sRGB",
            path,
            error.what,
            error.cause,
        )
        return image
    if conversion is None:
        return image
    grays, transform = conversion.grays, conversion.transform
    if is_gray or _is_neutral(image):
        return _by_strips(image, lambda samples: grays[samples[:, :1]])
    return _by_strips(image, lambda samples: _apply(transform, samples[None])[0])


def _profile(colours: Colours, path: object) -> bytes | None:
    """Returns the ICC profile that the colours are in, or None for sRGB."""
    if colours.cicp is not None:
        primaries, transfer, _, _ = colours.cicp
        if transfer in icc.HDR_TRANSFERS:
            raise _high_dynamic_range(icc.HDR_TRANSFERS[transfer], path)
        if colours.profile is None and (primaries, transfer) != (_UNSPECIFIED, _UNSPECIFIED):
            return _cicp_profile(*colours.cicp)
        if colours.profile is not None and _UNSPECIFIED not in (primaries, transfer):
            # The profile is there for readers that cannot follow the numbers.
            with contextlib.suppress(UnusableColours):
                return _cicp_profile(*colours.cicp)
    if colours.profile is not None:
        transfer_name = icc.hdr_transfer(colours.profile)
        if transfer_name is not None:
            raise _high_dynamic_range(transfer_name, path)
        return colours.profile
    if colours.srgb:
        return None
    if colours.gamma is not None or colours.chromaticities is not None:
        return _png_profile(colours.gamma, colours.chromaticities)
    return icc.matrix_profile(_ADOBE_RGB, _power(563 / 256)) if colours.adobe_rgb else None


def _high_dynamic_range(transfer: str, path: object) -> ImageError:
    return ImageError(
        f"{path}: a picture of high dynamic range ({transfer}), which 8 bits of sRGB cannot hold; "
        "export it as SDR, in sRGB"
    )


def _cicp_profile(primaries: int, transfer: int, matrix: int, full_range: int) -> bytes | None:
    what = "colour code (cICP)"
    if matrix != 0:
        raise UnusableColours(f"matrix {matrix} for RGB samples", what)
    if not full_range:
        raise UnusableColours("samples of limited range", what)
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        raise UnusableColours(f"primaries {primaries} with transfer function {transfer}", what)
    if _PRIMARIES[primaries] == _SRGB and _TRANSFERS[transfer] == _SRGB_CURVE:
        return None
    return icc.matrix_profile(_PRIMARIES[primaries], _TRANSFERS[transfer])


def _png_profile(gamma: float | None, chromaticities: tuple[float, ...] | None) -> bytes | None:
    if gamma is not None and not 0.1 <= gamma <= 10:
        raise UnusableColours(f"{gamma:g}", "gamma (gAMA)")
    primaries = _SRGB if chromaticities is None else chromaticities
    # Writers round them, some to three digits.
    is_srgb = len(primaries) == 8 and np.allclose(primaries, _SRGB, rtol=0, atol=0.002)
    if is_srgb:
        # For sRGB, whose curve is no power, they give the nearest one, 1 / 2.2.
        if gamma is None or abs(2.2 * gamma - 1) < 0.05:
            return None
        primaries = _SRGB
    curve = _SRGB_CURVE if gamma is None else _power(1 / gamma)
    try:
        return icc.matrix_profile(primaries, curve)
    except ValueError as error:
        raise UnusableColours("impossible values", "chromaticities (cHRM)") from error


# Folders have thousands of files with one profile. Threads may share a transform: LittleCMS only
# changes its cache of one pixel, which is off.
@functools.lru_cache(maxsize=16)
def _conversion(profile: bytes, is_gray: bool) -> _Conversion | None:
    """Returns the conversion from a profile's colours, or None if they are sRGB.

    There are many profiles of sRGB, which differ in their last bits. Most photographs have one of
    them, and are not to change; so it is some test colours that decide.
    """
    parts, space = icc.tags(profile), icc.space(profile)
    if space == "gray" and not is_gray:
        raise UnusableColours("it is for gray samples")
    try:
        transform = _transform(profile, "L" if space == "gray" else "RGB")
    except ImportError as error:
        # By its name then, because most photographs have a profile of sRGB.
        if icc.description(parts).startswith("sRGB"):
            return None
        raise UnusableColours("this Pillow was built without LittleCMS") from error
    ramp = np.arange(256, dtype=np.uint8)
    before = np.stack([ramp] * 3, axis=-1)
    if space == "gray":
        after = _apply(transform, ramp[None])[0]
    else:
        some = ramp[::15]
        mixed = np.stack(np.meshgrid(some, some, some), axis=-1).reshape(-1, 3)
        before = np.concatenate([before, mixed])
        after = _apply(transform, before[None])[0]
    if np.abs(before.astype(np.int16) - after).max() <= _TOLERANCE:
        return None
    # Green has most of the light of a gray. The others differ by rounding, or by a scanner's tint.
    grays = after[:256, 1]
    if int(grays[-1]) - int(grays[0]) < 128:
        # Such as from primaries that are all zero.
        raise UnusableColours("white would become as dark as black")
    return _Conversion(transform, grays)


def _transform(profile: bytes, mode: str) -> Any:
    """Builds Pillow's transform to sRGB of samples in a mode, "L" or "RGB".

    It keeps white and black where they are: white paper stays white under any light, and a black
    that is not quite zero in the profile becomes zero. Other intents would change nothing for most
    profiles, which consist of primaries and curves.

    Raises:
      ImportError: Pillow was built without LittleCMS.
      UnusableColours: the profile is damaged.
    """
    # Imported here, because few files need it, and some builds of Pillow lack it.
    from PIL import ImageCms

    try:
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE,
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        raise UnusableColours("it is damaged or of an unknown kind") from error


def _apply(transform: Any, samples: np.ndarray) -> np.ndarray:
    """Applies Pillow's transform to uint8 [1, N, 3] or gray [1, N]; returns uint8 [1, N, 3]."""
    return np.asarray(transform.apply(Image.fromarray(samples)))


def _is_neutral(image: np.ndarray) -> bool:
    """Whether red, green and blue are equal everywhere."""
    return all((samples[:, :1] == samples[:, 1:]).all() for _, samples in _strips(image))


def _by_strips(image: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Converts uint8 [H, W, 3] by a function of pixels, [N, 3] -> [N, 3] or [N, 1]."""
    converted = np.empty(image.shape, np.uint8)
    pixels = converted.reshape(-1, 3)
    for place, samples in _strips(image):
        pixels[place] = convert(samples)
    return converted


def _strips(image: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields some pixels after others, each time their place among all and uint8 [N, 3]."""
    pixels = image.reshape(-1, 3)
    for start in range(0, len(pixels), _STRIP):
        place = slice(start, start + _STRIP)
        yield place, pixels[place]
