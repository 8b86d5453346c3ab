"""Samples of the colours that a file describes -> sRGB, which is what the codec codes.

A file's samples are nothing but numbers: the same three are one red in sRGB and a deeper one in
Display P3. The decoded PNG says nothing of its colours, and so is shown as sRGB.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

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

# Linear light above which each of sRGB's levels 1 to 255 is the nearest.
_HALVES = (np.arange(255) + 0.5) / 255
_STEPS = np.where(_HALVES < 0.04045, _HALVES / 12.92, ((_HALVES + 0.055) / 1.055) ** 2.4).astype(
    np.float32
)

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
    """A way to sRGB, of samples of 8 or of 16 bits.

    Attributes:
      convert: function of uint8 or uint16 pixels [N, 3] -> uint8 [N, 3].
      grays: uint8 [256] or [65536], what each gray becomes.
    """

    convert: Callable[[np.ndarray], np.ndarray]
    grays: np.ndarray


def to_srgb(image: np.ndarray, colours: Colours, is_gray: bool, path: object) -> np.ndarray:
    """Converts an image to 8 bits of sRGB, relative to white.

    Colours outside of sRGB become the nearest.

    Where a file says several things of its colours, the first counts, as in PNG's third edition:
    cICP, ICC profile, sRGB, gAMA and cHRM, and then EXIF. Colours that cannot be converted are
    taken as sRGB, which one log record of level WARNING says; a conversion is not worth a word. An
    image without any colour stays so to the last bit.

    Samples of 16 bits are converted before they are rounded: 8 bits of linear light would have too
    few dark levels. They are rounded first, to the nearest of value / 257, if an RGB profile is
    more than primaries and curves: if it has tables, or a black that is not quite dark.

    Args:
      image: uint8 or uint16 [H, W, 3], of which white is 255 or 65535.
      colours: what the image's file says of them.
      is_gray: whether the file's samples are one channel, here repeated three times.
      path: named in errors and warnings.

    Returns:
      uint8 [H, W, 3]; the same array if it is uint8 and there is nothing to convert.

    Raises:
      ImageError: colours of high dynamic range.
    """
    conversion = deep = None
    try:
        profile = _profile(colours, path)
        if profile is not None:
            conversion = _conversion(profile, is_gray)
        if profile is not None and conversion is not None and image.dtype == np.uint16:
            deep = _deep_conversion(profile, is_gray)
    except UnusableColours as error:
        _logger.warning(
            "%s: its %s cannot be used (%s); colours are taken as sRGB",
            path,
            error.what,
            error.cause,
        )
    if image.dtype == np.uint16 and deep is None:
        image = _by_strips(image, _round_to_8_bits)
    used = deep or conversion
    if used is None:
        return image
    grays = used.grays
    if is_gray or _is_neutral(image):
        return _by_strips(image, lambda samples: grays[samples[:, :1]])
    return _by_strips(image, used.convert)


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
    colours = _test_colours()
    try:
        if space == "gray":
            conversion = _gray_conversion(profile, 257 * np.arange(256, dtype=np.uint16))
        else:
            conversion = _rgb_conversion(profile)
    except ImportError as error:
        # By its name then, because most photographs have a profile of sRGB.
        if icc.description(parts).startswith("sRGB"):
            return None
        raise UnusableColours("this Pillow was built without LittleCMS") from error
    if np.abs(colours.astype(np.int16) - conversion.convert(colours)).max() <= _TOLERANCE:
        return None
    if int(conversion.grays[-1]) - int(conversion.grays[0]) < 128:
        # Such as from primaries that are all zero.
        raise UnusableColours("white would become as dark as black")
    return conversion


def _test_colours() -> np.ndarray:
    """Returns uint8 [256 + 18 ** 3, 3]: all grays, and then mixed colours."""
    ramp = np.arange(256, dtype=np.uint8)
    some = ramp[::15]
    mixed = np.stack(np.meshgrid(some, some, some), axis=-1).reshape(-1, 3)
    return np.concatenate([np.stack([ramp] * 3, axis=-1), mixed])


def _gray_conversion(profile: bytes, samples: np.ndarray) -> _Conversion:
    """Makes the conversion from a profile for all its gray samples: uint16 [256] or [65536]."""
    transform = icc.transform(profile, None, "I;16", "RGB")
    grays = icc.apply(transform, samples[None])[0, :, 1]
    return _Conversion(lambda pixels: grays[pixels], grays)


def _rgb_conversion(profile: bytes) -> _Conversion:
    """Makes the conversion from a profile of RGB samples of 8 bits."""
    transform = icc.transform(profile, None, "RGB", "RGB")

    def convert(pixels: np.ndarray) -> np.ndarray:
        return icc.apply(transform, pixels[None])[0]

    return _with_grays(convert, np.arange(256, dtype=np.uint8))


def _with_grays(convert: Callable[[np.ndarray], np.ndarray], samples: np.ndarray) -> _Conversion:
    """Adds what grays become, for all samples that there are: uint8 [256] or uint16 [65536]."""
    # Green has most of the light of a gray. The others differ by rounding, or by a scanner's tint.
    return _Conversion(convert, convert(np.stack([samples] * 3, axis=-1))[:, 1])


@functools.lru_cache(maxsize=16)
def _deep_conversion(profile: bytes, is_gray: bool) -> _Conversion | None:
    """Returns the conversion of samples of 16 bits, or None if only 8 of them can be converted.

    Pillow hands only 8 bits of colour samples to LittleCMS, but all 16 of gray ones. So LittleCMS
    reads a profile's curves, each as if it were that of a gray, and the matrix is applied here.

    Args:
      profile: one for which `_conversion` returns a conversion.
      is_gray: as for `_conversion`.
    """
    ramp = np.arange(65536, dtype=np.uint16)
    if icc.space(profile) == "gray":
        return _gray_conversion(profile, ramp)
    parts = icc.tags(profile)
    primaries = icc.primaries(parts)
    if primaries is None:
        return None
    try:
        curves = [icc.light(parts[name], ramp) for name in (b"rTRC", b"gTRC", b"bTRC")]
    except (KeyError, UnusableColours):
        return None
    conversion = _with_grays(_by_matrix(curves, primaries), ramp)
    # LittleCMS has the last word: it prefers tables that a profile has beside its matrix, and makes
    # a black zero that is not quite dark.
    wanted, colours = _conversion(profile, is_gray), _test_colours()
    assert wanted is not None
    found = conversion.convert(257 * colours.astype(np.uint16)).astype(np.int16)
    return conversion if np.abs(found - wanted.convert(colours)).max() <= 1 else None


def _by_matrix(
    curves: list[np.ndarray], primaries: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from uint16 pixels [N, 3] to sRGB, uint8 [N, 3].

    Args:
      curves: linear light of each sample of red, green and blue, float32 [65536].
      primaries: float64 [3, 3] from linear light to XYZ.
    """
    matrix = np.linalg.solve(icc.matrix(_SRGB), primaries).astype(np.float32)

    def convert(pixels: np.ndarray) -> np.ndarray:
        red, green, blue = (curve[pixels[:, band]] for band, curve in enumerate(curves))
        levels = np.empty(pixels.shape, np.uint8)
        # No matrix product: its last bits may depend on the number of pixels.
        for band, row in enumerate(matrix):
            light = row[0] * red + row[1] * green + row[2] * blue
            levels[:, band] = np.searchsorted(_STEPS, light)
        return levels

    return convert


def _is_neutral(image: np.ndarray) -> bool:
    """Whether red, green and blue are equal everywhere."""
    return all((samples[:, :1] == samples[:, 1:]).all() for _, samples in _strips(image))


def _by_strips(image: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Converts [H, W, 3] to uint8 by a function of pixels, [N, 3] -> [N, 3] or [N, 1]."""
    converted = np.empty(image.shape, np.uint8)
    pixels = converted.reshape(-1, 3)
    for place, samples in _strips(image):
        pixels[place] = convert(samples)
    return converted


def _strips(image: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields some pixels after others, each time their place among all and [N, 3]."""
    pixels = image.reshape(-1, 3)
    for start in range(0, len(pixels), _STRIP):
        place = slice(start, start + _STRIP)
        yield place, pixels[place]


def _round_to_8_bits(samples: np.ndarray) -> np.ndarray:
    """uint16 0..65535 -> uint8 0..255; there are no ties, because 65535 / 255 = 257 is odd."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
