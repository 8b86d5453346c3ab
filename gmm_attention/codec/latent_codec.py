"""Rounded latents to the bytes of NAME.npz and NAME.bin, and back; needs no TensorFlow."""

import zlib

import numpy as np

from gmm_attention import images
from gmm_attention.codec import file_format, latents
from gmm_attention.entropy_coding.prediction import Prediction
from gmm_attention.errors import BitstreamError

NAMES = "NAME.npz", "NAME.bin"


class LatentCodec:
    """The part of a codec that is integers: the same on every machine.

    Args:
      exported: dict of arrays, as `export.export_arrays` returns.
      fingerprint: the model's, 4 bytes, see `export.fingerprint`.
      name: of the model, for messages.

    Attributes: fingerprint, name; prediction, a Prediction.
    """

    def __init__(self, exported, fingerprint, name):
        self.fingerprint, self.name = fingerprint, name
        self.prediction = Prediction(exported)

    def encode(self, height, width, z_symbols, y_hat):
        """Codes the latents of one image.

        Args:
          height, width: of the unpadded image, pixels.
          z_symbols: [h, w, N] int32.
          y_hat: [4h, 4w, N] int32.

        Returns:
          bytes of NAME.npz (header and z), bytes of NAME.bin (y).

        Raises:
          ImageError: latents that the coder cannot take.
        """
        coded = file_format.Coded(
            height,
            width,
            *latents.encode_latents(self.prediction, z_symbols, y_hat),
            _latents_check(z_symbols, y_hat),
        )
        return file_format.pack(coded, self.fingerprint)

    def unpack(self, npz, y_string, names=NAMES):
        """Reads the bytes of two files, as far as headers and checksums go.

        Returns:
          file_format.Coded.

        Raises:
          BitstreamError: foreign, truncated or damaged bytes, or another model's.
        """
        return file_format.unpack(
            npz, y_string, self.prediction.num_filters, self.fingerprint, (*names, self.name)
        )

    def decode(self, npz, y_string, names=NAMES, max_pixels=images.MAX_PIXELS):
        """Decodes the bytes of two files.

        Args:
          npz, y_string: bytes of NAME.npz and NAME.bin.
          names: of the two files, for messages.
          max_pixels: images of more pixels are refused, from the header alone.

        Returns:
          height, width: of the unpadded image, pixels.
          y_hat: [H/16, W/16, N] int32, of the padded one.

        Raises:
          BitstreamError: foreign, truncated or damaged bytes, another model's, or too many pixels.
        """
        coded = self.unpack(npz, y_string, names)
        h, w = z_sides(coded.height, coded.width)
        # Before anything is allocated: a header may promise what its strings cannot hold.
        if is_too_large(coded.height, coded.width) or h * w > latents.max_positions(
            self.prediction, len(coded.z_string)
        ):
            raise BitstreamError(
                f"{names[0]}: damaged: it cannot hold an image of {coded.width}x{coded.height} "
                "pixels; encode the image again"
            )
        if coded.height * coded.width > max_pixels:
            raise BitstreamError(
                f"{names[0]}: claims {coded.width}x{coded.height} pixels, more than the limit of "
                f"{max_pixels}; if you trust it, raise the limit (--max-pixels)"
            )
        try:
            z_symbols, y_hat = latents.decode_latents(
                self.prediction, h, w, coded.flags, coded.z_string, coded.y_string
            )
        except BitstreamError as error:
            raise BitstreamError(f"{names[0]}: {error}; encode the image again") from error
        if _latents_check(z_symbols, y_hat) != coded.latents_check:
            raise BitstreamError(
                f"{names[0]}: decodes to other latents than were encoded; encode the image again"
            )
        return coded.height, coded.width, y_hat


def z_sides(height, width):
    """Sides of z for an image of these, pixels."""
    return -(-height // images.SIDE_MULTIPLE), -(-width // images.SIDE_MULTIPLE)


def is_too_large(height, width):
    """Whether an image, padded, has more pixels than the format allows."""
    h, w = z_sides(height, width)
    return h * w * images.SIDE_MULTIPLE**2 > images.MAX_PIXELS


def _latents_check(z_symbols, y_hat):
    crc = 0
    for array in (z_symbols, y_hat):
        crc = zlib.crc32(np.ascontiguousarray(array, "<i4"), crc)
    return crc & 0xFFFF
