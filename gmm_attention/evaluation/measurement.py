"""One image through one codec to the figures of a table's row."""

import time

import numpy as np

from gmm_attention.evaluation import codecs, metrics


def measure(codec, image):
    """Codes an image to real bytes, decodes them, and measures.

    Args:
      codec: ImageCodec.
      image: uint8 [H, W, 3], 0..255.

    Returns:
      figures: dict: height, width in pixels; bpp of both files and side_bpp of NAME.npz (header
        and z); psnr in dB; ms_ssim, 0..1, or None for images too small; encode_seconds and
        decode_seconds, without reading and writing files.
      reconstruction: uint8 [H, W, 3].

    Raises:
      ImageError: see `ImageCodec.encode` and `ImageCodec.reconstruct`.
    """
    (npz, y_string, _), encode_seconds = _timed(codec.encode, image)
    reconstruction, decode_seconds = _timed(codec.decode, npz, y_string)
    figures = {
        **_rate(image, 8 * (len(npz) + len(y_string)), 8 * len(npz)),
        **_quality(image, reconstruction),
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
    }
    return figures, reconstruction


def estimate(codec, image):
    """Measures without files: the rate is the float model's cross-entropy.

    Args and raises: as `measure`.

    Returns:
      dict as `measure` gives, without times; side_bpp is that of z.
    """
    arrays = codec.inspect(image)
    return {
        **_rate(image, arrays["bits_y"] + arrays["bits_z"], arrays["bits_z"]),
        **_quality(image, np.rint(arrays["x_hat"]).astype(np.uint8)),
    }


def measure_format(name, image, bpp):
    """Codes an image by one of `codecs.FORMATS`, at the quality whose rate is nearest to a wanted.

    Args:
      name: of the format.
      image: uint8 [H, W, 3], 0..255.
      bpp: wanted rate.

    Returns:
      figures: dict as `measure` gives, without side_bpp, and the quality. The times are those of
        coding once, not of the search.
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


def _timed(function, *arguments):
    """Returns what the function returns, and the seconds that it took."""
    begin = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - begin


def _rate(image, bits, side_bits):
    height, width = image.shape[:2]
    side_bpp = None if side_bits is None else side_bits / (height * width)
    return {
        "height": height,
        "width": width,
        "bpp": bits / (height * width),
        "side_bpp": side_bpp,
    }


def _quality(image, reconstruction):
    return {
        "psnr": metrics.psnr(image, reconstruction),
        "ms_ssim": metrics.ms_ssim(image, reconstruction),
    }
