"""Rounded latents to the bytes of NAME.npz and NAME.bin, and back; needs no TensorFlow."""

from __future__ import annotations

import contextlib
import functools
import threading
import zlib
from collections.abc import Iterator

import numpy as np
from threadpoolctl import ThreadpoolController

from gmm_attention import forks, images, padding
from gmm_attention.codec import file_format, wavefront
from gmm_attention.entropy_coding.integer_model import IntegerEntropyModel
from gmm_attention.errors import BitstreamError

NAMES = "NAME.npz", "NAME.bin"

_one_at_a_time = threading.Lock()


def _unlock() -> None:
    """Undoes what threads of the parent did that were about to enter the block, not yet inside."""
    global _one_at_a_time
    _one_at_a_time = threading.Lock()


forks.in_child(_unlock)


@functools.cache
def _blas() -> ThreadpoolController:
    # Finding the libraries takes milliseconds. numpy's, which is all that counts, is loaded by now.
    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Has numpy compute its matrix products on one thread for the block.

    The products are many and small. On a free core a second thread takes a quarter of the encoder's
    time away at best, and little of the decoder's; but where another program holds that core, each
    product waits for it, and decoding takes several times as long (`benchmarks/entropy_coding.py
    --threads 1 2 --busy 1`).

    Threads of this process that come to the block at once pass it one after the other, so that BLAS
    is left as it was found. Side by side they would be no faster, because of Python's own lock.

    What cannot be had with OpenBLAS, whose number of threads is the whole process's: other threads'
    products meanwhile run on one thread too, and a number that another thread sets meanwhile is
    overruled at the end. Where another thread is inside a limit of threadpoolctl's own, that limit
    stays in force and this one has no effect. A thread that forks waits until the block is free, so
    that the child finds BLAS and its locks at rest.
    """
    with _one_at_a_time, forks.delayed(), _blas().limit(limits=1, user_api="blas"):
        yield


class LatentCodec:
    """The part of a codec that computes with integers: the same on every machine.

    It may be used by several threads at once; they take turns.

    Args:
      entropy_model: the model's z tables and layers in integers.
      fingerprint: 4 bytes, see `fingerprints.fingerprint`.
      name: the model's name, for messages.

    Attributes: entropy_model, fingerprint, name, as given.
    """

    def __init__(self, entropy_model: IntegerEntropyModel, fingerprint: bytes, name: str):
        self.entropy_model, self.fingerprint, self.name = entropy_model, fingerprint, name

    @_one_blas_thread()
    def encode(
        self,
        height: int,
        width: int,
        z_symbols: np.ndarray,
        y_hat: np.ndarray,
        gray: bool = False,
    ) -> tuple[bytes, bytes]:
        """Codes the latents of one image.

        Args:
          height, width: sides of the unpadded image, pixels.
          z_symbols: [h, w, N] int32.
          y_hat: [4h, 4w, N] int32.
          gray: whether the picture is to be gray.

        Returns:
          bytes of NAME.npz (header and z), bytes of NAME.bin (y).

        Raises:
          ImageError: a latent is too large to be coded, or a side has 2^32 pixels or more.
        """
        coded = file_format.Coded(
            height,
            width,
            *wavefront.encode_latents(self.entropy_model, z_symbols, y_hat),
            _latents_check(z_symbols, y_hat),
            gray,
        )
        return file_format.pack(coded, self.fingerprint)

    def unpack(
        self, npz: bytes, y_string: bytes, names: tuple[str, str] = NAMES
    ) -> file_format.Coded:
        """Reads the header of two files and checks their checksums; decodes nothing.

        Args:
          npz, y_string: bytes of NAME.npz and NAME.bin.
          names: names of the two files, for messages.

        Returns:
          the files' contents.

        Raises:
          BitstreamError: bytes that are foreign, truncated, damaged or made by another model.
        """
        return file_format.unpack(
            npz, y_string, self.entropy_model.num_filters, self.fingerprint, (*names, self.name)
        )

    @_one_blas_thread()
    def decode(
        self,
        npz: bytes,
        y_string: bytes,
        names: tuple[str, str] = NAMES,
        max_pixels: int = images.MAX_PIXELS,
    ) -> tuple[int, int, np.ndarray, bool]:
        """Decodes the bytes of two files.

        Args:
          npz, y_string: bytes of NAME.npz and NAME.bin.
          names: names of the two files, for messages.
          max_pixels: images of more pixels are refused, from the header alone.

        Returns:
          height, width: sides of the unpadded image, pixels.
          y_hat: [H/16, W/16, N] int32, H and W being the sides of the padded image.
          gray: whether the picture is gray.

        Raises:
          BitstreamError: bytes that are foreign, truncated, damaged or made by another model, or
            more pixels than `max_pixels` or than the format allows.
        """
        coded = self.unpack(npz, y_string, names)
        h, w = z_sides(coded.height, coded.width)
        # Checked before anything is allocated: a header may claim more than z's string can hold.
        if is_too_large(coded.height, coded.width) or h * w > wavefront.max_positions(
            self.entropy_model, len(coded.z_string)
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
            z_symbols, y_hat = wavefront.decode_latents(
                self.entropy_model, h, w, coded.flags, coded.z_string, coded.y_string
            )
        except BitstreamError as error:
            raise BitstreamError(f"{names[0]}: {error}; encode the image again") from error
        if _latents_check(z_symbols, y_hat) != coded.latents_check:
            raise BitstreamError(
                f"{names[0]}: decodes to other latents than were encoded; encode the image again"
            )
        return coded.height, coded.width, y_hat, coded.gray


def z_sides(height: int, width: int) -> tuple[int, int]:
    """Returns height and width of z for an image of this height and width in pixels."""
    return -(-height // padding.SIDE_MULTIPLE), -(-width // padding.SIDE_MULTIPLE)


def is_too_large(height: int, width: int) -> bool:
    """Tells whether an image, once padded, has more pixels than the format allows."""
    h, w = z_sides(height, width)
    return h * w * padding.SIDE_MULTIPLE**2 > images.MAX_PIXELS


def _latents_check(z_symbols: np.ndarray, y_hat: np.ndarray) -> int:
    crc = 0
    for array in (z_symbols, y_hat):
        crc = zlib.crc32(np.ascontiguousarray(array, "<i4").data, crc)
    return crc & 0xFFFF
