"""One image through one codec to the figures of a table's row."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gmm_attention import metrics
from gmm_attention.evaluation import codecs

if TYPE_CHECKING:
    from gmm_attention.codec.image_codec import ImageCodec

_Result = TypeVar("_Result")


def measure(
    codec: ImageCodec, image: np.ndarray, effort: int = 0
) -> tuple[dict[str, Any], np.ndarray]:
    """Codes an image to real bytes, decodes them, and measures rate, quality and times.

    Args:
      codec: ImageCodec.
      image: uint8 [H, W, 3], 0..255.
      effort: how long to search better latents, see `ImageCodec.encode`.

    Returns:
      figures: dict of height and width in pixels; bpp of both files and side_bpp of NAME.npz
        (header and z); psnr in dB; ms_ssim, 0..1, or None if the image is too small; and
        encode_seconds, with the search, and decode_seconds, without reading and writing files.
      reconstruction: uint8 [H, W, 3].

    Raises:
      ImageError, CodecError: see `ImageCodec.encode` and `ImageCodec.reconstruct`.
    """
    (npz, y_string, _), encode_seconds = _timed(codec.encode, image, effort)
    reconstruction, decode_seconds = _timed(codec.decode, npz, y_string)
    figures = {
        **_rate(image, 8 * (len(npz) + len(y_string)), 8 * len(npz)),
        **_quality(image, reconstruction),
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
    }
    return figures, reconstruction


def estimate(codec: ImageCodec, image: np.ndarray) -> dict[str, Any]:
    """Measures without coding: the rate is the float model's cross-entropy.

    Args:
      codec: ImageCodec.
      image: uint8 [H, W, 3], 0..255.

    Returns:
      figures as of `measure`, without times; side_bpp is that of z.

    Raises:
      ImageError: too many pixels, or latents or pixels that are not finite.
    """
    arrays = codec.inspect(image)
    return {
        **_rate(image, arrays["bits_y"] + arrays["bits_z"], arrays["bits_z"]),
        **_quality(image, np.rint(arrays["x_hat"]).astype(np.uint8)),
    }


def measure_format(name: str, image: np.ndarray, bpp: float) -> tuple[dict[str, Any], np.ndarray]:
    """Measures one of `codecs.FORMATS`, at the quality whose rate is nearest to a wanted rate.

    Args:
      name: of the format, a key of `codecs.FORMATS`.
      image: uint8 [H, W, 3], 0..255.
      bpp: wanted rate.

    Returns:
      figures: dict as of `measure`, with side_bpp None, and the quality. The times are those of
        coding once, without the search.
      reconstruction: uint8 [H, W, 3].

    Raises:
      ImageError: see `codecs.encode` and `codecs.decode`.
    """
    quality = codecs.quality_near(name, image, bpp * image.shape[0] * image.shape[1] / 8)
    data, encode_seconds = _timed(codecs.encode, name, image, quality)
    reconstruction, decode_seconds = _timed(codecs.decode, name, data)
    figures = {
        **_rate(image, 8 * len(data), None),
        **_quality(image, reconstruction),
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
        "quality": quality,
    }
    return figures, reconstruction


def _timed(function: Callable[..., _Result], *arguments: Any) -> tuple[_Result, float]:
    """Returns the function's result, and the seconds that it took."""
    begin = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - begin


def _rate(image: np.ndarray, bits: float, side_bits: float | None) -> dict[str, Any]:
    height, width = image.shape[:2]
    side_bpp = None if side_bits is None else side_bits / (height * width)
    return {
        "height": height,
        "width": width,
        "bpp": bits / (height * width),
        "side_bpp": side_bpp,
    }


def _quality(image: np.ndarray, reconstruction: np.ndarray) -> dict[str, Any]:
    return {
        "psnr": metrics.psnr(image, reconstruction),
        "ms_ssim": metrics.ms_ssim(image, reconstruction),
    }
