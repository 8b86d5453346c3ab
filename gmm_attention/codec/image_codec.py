"""An image to coded bytes and back, with one model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from gmm_attention import images, padding, strips
from gmm_attention.checkpoints import loading
from gmm_attention.checkpoints.loading import LoadedModel
from gmm_attention.codec import file_format
from gmm_attention.codec.latent_codec import NAMES, LatentCodec, is_too_large, z_sides
from gmm_attention.codec.strip_transform import StripTransform
from gmm_attention.errors import CodecError, ImageError
from gmm_attention.model import gaussian_mixture
from gmm_attention.model.cheng2020 import policy

# Pixels of the images that go through a transform together on a GPU, which a single small image
# would not fill. On a CPU one image at a time is enough.
PIXELS_TOGETHER = 2**22


def load(path: str | os.PathLike, precision: str = "float32") -> ImageCodec:
    """Loads a codec.

    Args:
      path: directory of an exported model or of a training checkpoint, or prefix of a TF1
        checkpoint of the original.
      precision: precision of analysis and synthesis, "float32" or "bfloat16". The latter is faster
        on processors and GPUs that compute in it, and changes latents and pictures a little. Files
        encoded in either precision can be decoded in the other.

    Returns:
      the codec.

    Raises:
      CheckpointError: nothing at this path, or missing, unknown, misshapen or unusable weights.
      CodecError: the device does not compute in bfloat16.
      ValueError: precision is neither of the two.
    """
    policy(precision)  # a wrong precision is the caller's mistake, so it is no CheckpointError
    if precision == "bfloat16" and not _has_bfloat16():
        raise CodecError(
            "bfloat16: neither AVX512-BF16 nor AMX in this processor, or a GPU older than Ampere, "
            "where it would be slower than float32; use --precision float32"
        )
    if tf.config.get_visible_devices("GPU"):
        # With these settings, which hold for the whole process, repeated runs give the same bytes,
        # and pixels that differ from a CPU's by rounding only.
        tf.config.experimental.enable_op_determinism()
        tf.config.experimental.enable_tensor_float_32_execution(False)
    return ImageCodec(loading.load(path, precision))


def _has_bfloat16() -> bool:
    gpus = tf.config.get_visible_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return details.get("compute_capability", (0, 0)) >= (8, 0)
    try:
        with open("/proc/cpuinfo") as file:
            flags = file.read().split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


class ImageCodec:
    """Compresses and decompresses images with one model.

    Args:
      loaded: the model.

    Attributes:
      model: a built Cheng2020, for the float transforms.
      exported, settings, name, fingerprint: those of the LoadedModel.
      latent_codec: a LatentCodec of the same model.
      on_gpu: whether TensorFlow uses a GPU.
    """

    def __init__(self, loaded: LoadedModel):
        model = self.model = loaded.network
        self.exported, self.settings = loaded.exported, loaded.settings
        self.name, self.fingerprint = loaded.name, loaded.fingerprint
        self.latent_codec = LatentCodec(loaded.entropy_model, self.fingerprint, self.name)
        self.on_gpu = bool(tf.config.get_visible_devices("GPU"))
        self._analysis = StripTransform(model.analysis, 3, pixels=16)
        self._hyper_analysis = StripTransform(model.hyper_analysis, model.num_filters, pixels=64)
        self._synthesis = StripTransform(model.synthesis, model.num_filters, pixels=1)

    def most_together(self, height: int, width: int) -> int:
        """Returns how many images of this size are best analysed or synthesized together."""
        h, w = z_sides(height, width)
        return max(PIXELS_TOGETHER // (h * w * padding.SIDE_MULTIPLE**2), 1) if self.on_gpu else 1

    def analyse(self, several: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Computes the rounded latents of images whose padded sizes are equal.

        Args:
          several: list of uint8 [H, W, 3], 0..255.

        Returns:
          list of (z_symbols [H/64, W/64, N] int32, y_hat [H/16, W/16, N] int32), H and W being the
          sides of the padded images.

        Raises:
          ImageError: too many pixels, latents that are not finite, or too little memory.
          ValueError: an image has another type or shape, or the padded sizes differ.
        """
        _, _, y_hat, z_symbols = self._latents(several)
        return list(zip(z_symbols, y_hat))

    def _latents(
        self, several: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Computes y and z (float32), y_hat and z's symbols (int32), each with a batch axis."""
        for image in several:
            _check_image(image)
        if len({z_sides(*image.shape[:2]) for image in several}) != 1:
            raise ValueError("images that go together have one size")

        def pixels(axis: int, first: int, last: int) -> np.ndarray:
            padded = [padding.pad_strip(image, axis, first, last) for image in several]
            return np.stack(padded).astype(np.float32) / 255

        def latents(axis: int, first: int, last: int) -> np.ndarray:
            return y[strips.along(axis + 1, first, last)]

        shape, count = several[0].shape, len(several)
        sides = [padding.SIDE_MULTIPLE * side for side in z_sides(*shape[:2])]
        with _within_memory(shape):
            y = self._analysis.whole(pixels, sides, count)
            z = self._hyper_analysis.whole(latents, y.shape[1:3], count)
        if not (np.isfinite(y).all() and np.isfinite(z).all()):
            raise ImageError(f"{self.name} gives latents that are not finite; use other weights")
        symbols = self.model.entropy_bottleneck.symbols(z).numpy()
        return y, z, np.rint(y).astype(np.int32), symbols

    def encode(self, image: np.ndarray) -> tuple[bytes, bytes, np.ndarray]:
        """Codes an image into the bytes of two files.

        Args:
          image: uint8 [H, W, 3], 0..255.

        Returns:
          bytes of NAME.npz (header and z), bytes of NAME.bin (y), and y_hat
          ([H/16, W/16, N] int32), from which `reconstruct` makes the image that the decoder will
          show.

        Raises:
          ImageError: too many pixels, latents that are not finite or too large to be coded, or too
            little memory.
          ValueError: image has another type or shape.
        """
        ((z_symbols, y_hat),) = self.analyse([image])
        height, width = image.shape[:2]
        return *self.latent_codec.encode(height, width, z_symbols, y_hat), y_hat

    def decode(
        self,
        npz: bytes,
        y_string: bytes,
        names: tuple[str, str] = NAMES,
        max_pixels: int = images.MAX_PIXELS,
    ) -> np.ndarray:
        """Decodes the bytes of two files.

        Args:
          npz, y_string: bytes of NAME.npz and NAME.bin.
          names: names of the two files, for messages.
          max_pixels: images of more pixels are refused, from the header alone.

        Returns:
          uint8 [H, W, 3].

        Raises:
          BitstreamError: see `LatentCodec.decode`.
          ImageError: see `reconstruct`.
        """
        height, width, y_hat = self.latent_codec.decode(npz, y_string, names, max_pixels)
        return self.reconstruct(y_hat, height, width)

    def reconstruct(self, y_hat: np.ndarray, height: int, width: int) -> np.ndarray:
        """Synthesizes an image from rounded latents.

        Args:
          y_hat: [H/16, W/16, N] integers.
          height, width: sides of the image without padding, pixels.

        Returns:
          uint8 [height, width, 3].

        Raises:
          ImageError: pixels that are not finite, or too little memory.
        """
        return self.synthesize([y_hat], [(height, width)])[0]

    def synthesize(
        self, several: list[np.ndarray], sizes: list[tuple[int, int]]
    ) -> list[np.ndarray]:
        """Does the same as `reconstruct` for several images whose padded sizes are equal.

        Args:
          several: list of y_hat.
          sizes: list of (height, width).

        Returns:
          list of uint8 [height, width, 3].

        Raises:
          ImageError: see `reconstruct`.
        """
        pixels = [np.empty([*size, 3], np.uint8) for size in sizes]
        for place, x_hat in self._pixels(several, pixels):
            place[...] = np.rint(x_hat, out=x_hat)
        return pixels

    def _pixels(
        self, several: list[np.ndarray], pictures: list[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields views of parts of the pictures, each with its pixels: float32, 0..255."""

        def quantized(axis: int, first: int, last: int) -> np.ndarray:
            part = strips.along(axis, first, last)
            return np.stack([y_hat[part] for y_hat in several]).astype(np.float32)

        with _within_memory(pictures[0].shape):
            for where, x_hats in self._synthesis.strips(quantized, several[0].shape[:2]):
                if not np.isfinite(x_hats).all():
                    raise ImageError(
                        f"{self.name} gives pixels that are not finite; use other weights"
                    )
                for picture, x_hat in zip(pictures, x_hats):
                    place = picture[where]
                    x_hat = padding.crop(x_hat, *place.shape[:2])
                    yield place, np.clip(x_hat, 0, 1) * 255

    def compress(self, image: np.ndarray) -> bytes:
        """Codes an image, uint8 [H, W, 3], into one string of bytes. See `encode`."""
        npz, y_string, _ = self.encode(image)
        return file_format.join(npz, y_string)

    def decompress(self, data: bytes) -> np.ndarray:
        """Decodes what `compress` returned into uint8 [H, W, 3]. See `decode`."""
        npz, y_string = file_format.split(data)
        return self.decode(npz, y_string, names=("the header", "the y string"))

    def inspect(self, image: np.ndarray) -> dict[str, Any]:
        """Returns everything that the float model computes for an image.

        Args:
          image: uint8 [H, W, 3], 0..255.

        Returns:
          dict of numpy arrays without the batch axis (h = H/16 and w = W/16, with the sides of the
          padded image): y, y_hat [h, w, N]; z, z_hat [h/4, w/4, N]; phi [h, w, 2N]; weights, means,
          scales [h, w, N, K]; x_hat [H, W, 3] of the unpadded image, float32 in 0..255, clipped but
          not rounded; element_bits_y [h, w, N], element_bits_z [h/4, w/4, N], the cross-entropy of
          each element in bits; and the sums of these two, the floats bits_y and bits_z.

        Raises:
          ImageError, ValueError: see `analyse` and `reconstruct`.
        """
        y, z, y_hat, z_symbols = (t[0] for t in self._latents([image]))
        model = self.model
        y_hat = y_hat.astype(np.float32)
        z_hat = model.entropy_bottleneck.dequantize(z_symbols[None])
        phi = model.hyper_synthesis(z_hat)
        mixture = model.entropy_parameters([y_hat[None], phi])
        likelihoods_z = model.entropy_bottleneck.likelihoods(z_hat).numpy()[0]
        bits_y = gaussian_mixture.bits(y_hat[None], *mixture).numpy()[0]
        bits_z = -np.log2(likelihoods_z.astype(np.float64))
        weights, means, scales = (t.numpy()[0] for t in mixture)
        x_hat = np.empty(image.shape, np.float32)
        for place, strip in self._pixels([y_hat], [x_hat]):
            place[...] = strip
        return {
            "y": y,
            "y_hat": y_hat,
            "z": z,
            "z_hat": z_hat.numpy()[0],
            "phi": phi.numpy()[0],
            "weights": weights,
            "means": means,
            "scales": scales,
            "x_hat": x_hat,
            "element_bits_y": bits_y,
            "element_bits_z": bits_z,
            "bits_y": float(bits_y.sum()),
            "bits_z": float(bits_z.sum()),
        }


@contextlib.contextmanager
def _within_memory(shape: tuple[int, ...]) -> Iterator[None]:
    """Turns a lack of memory into an ImageError that names the size of the image."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ImageError(
            f"not enough memory for an image of {shape[1]}x{shape[0]} pixels; free some, or code "
            "the image in pieces"
        ) from error


def _check_image(image: np.ndarray) -> None:
    """Raises ValueError for another type or shape, ImageError for too many pixels."""
    if not (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size
    ):
        raise ValueError("image must be a numpy array, uint8 [H, W, 3] with at least one pixel")
    height, width, _ = image.shape
    if is_too_large(height, width):
        raise ImageError(
            f"{width}x{height} pixels, padded to multiples of {padding.SIDE_MULTIPLE}, are more "
            f"than the limit of {images.MAX_PIXELS}; cut the image into parts"
        )
