"""An image to coded bytes and back, with one model."""

import contextlib
import zlib

import numpy as np
import tensorflow as tf

from gmm_attention import export, images
from gmm_attention.codec import file_format, latents
from gmm_attention.entropy_coding.prediction import Prediction
from gmm_attention.errors import BitstreamError, ImageError
from gmm_attention.model import gaussian_mixture


def load(path):
    """Loads a codec.

    Args:
      path: str or Path: an exported model's or a training checkpoint's directory, or the prefix
        of a TF1 checkpoint of the original.

    Returns:
      an ImageCodec.

    Raises:
      CheckpointError: nothing there, or missing, unknown, misshapen or unusable weights.
    """
    if tf.config.get_visible_devices("GPU"):
        # For the whole process: the same bytes every time, and pixels within rounding of a CPU's.
        tf.config.experimental.enable_op_determinism()
        tf.config.experimental.enable_tensor_float_32_execution(False)
    return ImageCodec(*export.load(path), name=str(path))


def _latents_check(z_symbols, y_hat):
    crc = 0
    for array in (z_symbols, y_hat):
        crc = zlib.crc32(np.ascontiguousarray(array, "<i4").tobytes(), crc)
    return crc & 0xFFFF


class ImageCodec:
    """Compresses and decompresses images with one model.

    Args:
      model: a built Cheng2020, the float transforms.
      exported: dict of arrays, as `export.export_arrays` returns.
      settings: dict of the model's settings.
      name: of the model, for messages.

    Attributes: model, settings, name; fingerprint, 4 bytes.
    """

    def __init__(self, model, exported, settings, name):
        self.model, self.settings, self.name = model, settings, name
        self.fingerprint = export.fingerprint(exported)
        self._prediction = Prediction(exported)
        self._analysis = tf.function(self._analyse, [_spec(3)], autograph=False)
        self._synthesis = tf.function(
            model.synthesis.call, [_spec(model.num_filters)], autograph=False
        )

    def _analyse(self, x):
        y = self.model.analysis(x)
        z = self.model.hyper_analysis(y)
        # Sums of infinities make no integers; they are refused by what is returned beside.
        finite = tf.reduce_all(tf.math.is_finite(y)) & tf.reduce_all(tf.math.is_finite(z))
        symbols = self.model.entropy_bottleneck.symbols(z)
        return y, z, tf.cast(tf.round(y), tf.int32), symbols, finite

    def _latents(self, image):
        """y, z (float), y_hat, z's symbols (int32), without the batch axis."""
        _check_image(image)
        x = images.pad(image).astype(np.float32)[None] / 255
        with _within_memory(image.shape):
            *results, finite = self._analysis(x)
        if not finite:
            raise ImageError(f"{self.name} gives latents that are not finite; use other weights")
        return [result.numpy()[0] for result in results]

    def encode(self, image):
        """Codes an image into the bytes of two files.

        Args:
          image: uint8 [H, W, 3], 0..255.

        Returns:
          bytes of NAME.npz (header and z), bytes of NAME.bin (y), and y_hat
          ([H/16, W/16, N] int32), of which `reconstruct` makes what the decoder will show.

        Raises:
          ImageError: too many pixels, or latents that are not finite or that the coder cannot take.
          ValueError: image has another type or shape.
        """
        _, _, y_hat, z_symbols = self._latents(image)
        coded = file_format.Coded(
            *image.shape[:2],
            *latents.encode_latents(self._prediction, z_symbols, y_hat),
            _latents_check(z_symbols, y_hat),
        )
        return *file_format.pack(coded, self.fingerprint), y_hat

    def decode(self, npz, y_string, names=("NAME.npz", "NAME.bin")):
        """Decodes the bytes of two files.

        Args:
          npz, y_string: bytes of NAME.npz and NAME.bin.
          names: of the two files, for messages.

        Returns:
          uint8 [H, W, 3].

        Raises:
          BitstreamError: foreign, truncated or damaged bytes, or another model's.
          ImageError: see `reconstruct`.
        """
        coded = file_format.unpack(
            npz, y_string, self.model.num_filters, self.fingerprint, (*names, self.name)
        )
        h, w = _z_sides(coded.height, coded.width)
        # Before anything is allocated: a header may promise what its strings cannot hold.
        if _is_too_large(h, w) or h * w > latents.max_positions(
            self._prediction, len(coded.z_string)
        ):
            raise BitstreamError(
                f"{names[0]}: damaged: it cannot hold an image of {coded.width}x{coded.height} "
                "pixels; encode the image again"
            )
        try:
            z_symbols, y_hat = latents.decode_latents(
                self._prediction, h, w, coded.flags, coded.z_string, coded.y_string
            )
        except BitstreamError as error:
            raise BitstreamError(f"{names[0]}: {error}; encode the image again") from error
        if _latents_check(z_symbols, y_hat) != coded.latents_check:
            raise BitstreamError(
                f"{names[0]}: decodes to other latents than were encoded; encode the image again"
            )
        return self.reconstruct(y_hat, coded.height, coded.width)

    def reconstruct(self, y_hat, height, width):
        """Synthesizes rounded latents.

        Args:
          y_hat: [H/16, W/16, N] integers.
          height, width: of the image without padding, pixels.

        Returns:
          uint8 [height, width, 3].

        Raises:
          ImageError: pixels that are not finite.
        """
        return np.rint(self._pixels(y_hat, height, width)).astype(np.uint8)

    def _pixels(self, y_hat, height, width):
        """What `reconstruct` rounds: float32 [height, width, 3], 0..255."""
        with _within_memory((height, width)):
            x_hat = self._synthesis(y_hat[None].astype(np.float32)).numpy()[0]
        if not np.isfinite(x_hat).all():
            raise ImageError(f"{self.name} gives pixels that are not finite; use other weights")
        return np.clip(images.crop(x_hat, height, width), 0, 1) * 255

    def compress(self, image):
        """Codes an image into one string of bytes. See `encode`."""
        npz, y_string, _ = self.encode(image)
        return file_format.join(npz, y_string)

    def decompress(self, data):
        """Decodes what `compress` returned into uint8 [H, W, 3]. See `decode`."""
        return self.decode(*file_format.split(data), names=("the header", "the y string"))

    def inspect(self, image):
        """Everything that the float model computes for an image.

        Args:
          image: uint8 [H, W, 3], 0..255.

        Returns:
          dict of numpy arrays of the padded image, without the batch axis (h = H/16, w = W/16
          after padding): y, y_hat [h, w, N]; z, z_hat [h/4, w/4, N]; phi [h, w, 2N]; weights,
          means, scales [h, w, N, K]; x_hat [H, W, 3] of the unpadded image, 0..255, float, before
          rounding; element_bits_y [h, w, N], element_bits_z [h/4, w/4, N], the cross-entropy of
          each element in bits; and bits_y, bits_z, their sums, floats.
        """
        y, z, y_hat, z_symbols = self._latents(image)
        model = self.model
        y_hat = y_hat.astype(np.float32)
        z_hat = model.entropy_bottleneck.dequantize(z_symbols[None])
        phi = model.hyper_synthesis(z_hat)
        mixture = model.entropy_parameters([y_hat[None], phi])
        likelihoods_z = model.entropy_bottleneck.likelihoods(z_hat).numpy()[0]
        bits_y = gaussian_mixture.bits(y_hat[None], *mixture).numpy()[0]
        bits_z = -np.log2(likelihoods_z.astype(np.float64))
        weights, means, scales = (t.numpy()[0] for t in mixture)
        return {
            "y": y,
            "y_hat": y_hat,
            "z": z,
            "z_hat": z_hat.numpy()[0],
            "phi": phi.numpy()[0],
            "weights": weights,
            "means": means,
            "scales": scales,
            "x_hat": self._pixels(y_hat, *image.shape[:2]),
            "element_bits_y": bits_y,
            "element_bits_z": bits_z,
            "bits_y": float(bits_y.sum()),
            "bits_z": float(bits_z.sum()),
        }


@contextlib.contextmanager
def _within_memory(shape):
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ImageError(
            f"not enough memory for an image of {shape[1]}x{shape[0]} pixels; free some, or code "
            "the image in pieces"
        ) from error


def _spec(channels):
    return tf.TensorSpec([1, None, None, channels], tf.float32)


def _z_sides(height, width):
    return -(-height // images.SIDE_MULTIPLE), -(-width // images.SIDE_MULTIPLE)


def _is_too_large(h, w):
    return h * w * images.SIDE_MULTIPLE**2 > images.MAX_PIXELS


def _check_image(image):
    if not (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size
    ):
        raise ValueError("image must be a numpy array, uint8 [H, W, 3] with at least one pixel")
    height, width, _ = image.shape
    if _is_too_large(*_z_sides(height, width)):
        raise ImageError(
            f"{width}x{height} pixels, padded to multiples of {images.SIDE_MULTIPLE}, are more "
            f"than the limit of {images.MAX_PIXELS}; cut the image into parts"
        )
