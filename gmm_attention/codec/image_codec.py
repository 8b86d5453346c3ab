"""An image to coded bytes and back, with one model."""

import contextlib
import zlib

import numpy as np
import tensorflow as tf

from gmm_attention import export, images, strips
from gmm_attention.codec import file_format, latents
from gmm_attention.codec.strip_transform import StripTransform
from gmm_attention.entropy_coding.prediction import Prediction
from gmm_attention.errors import BitstreamError, ImageError
from gmm_attention.model import gaussian_mixture

_NAMES = "NAME.npz", "NAME.bin"


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
        crc = zlib.crc32(np.ascontiguousarray(array, "<i4"), crc)
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
        self._analysis = StripTransform(model.analysis, 3, pixels=16)
        self._hyper_analysis = StripTransform(model.hyper_analysis, model.num_filters, pixels=64)
        self._synthesis = StripTransform(model.synthesis, model.num_filters, pixels=1)

    def _latents(self, image):
        """y, z (float), y_hat, z's symbols (int32), without the batch axis."""
        _check_image(image)

        def pixels(*strip):
            return images.pad_strip(image, *strip).astype(np.float32) / 255

        sides = [images.SIDE_MULTIPLE * side for side in _z_sides(*image.shape[:2])]
        with _within_memory(image.shape):
            y = self._analysis.whole(pixels, sides)
            z = self._hyper_analysis.whole(lambda *strip: y[strips.along(*strip)], y.shape[:2])
        if not (np.isfinite(y).all() and np.isfinite(z).all()):
            raise ImageError(f"{self.name} gives latents that are not finite; use other weights")
        symbols = self.model.entropy_bottleneck.symbols(z).numpy()
        return y, z, np.rint(y).astype(np.int32), symbols

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

    def decode(self, npz, y_string, names=_NAMES, max_pixels=images.MAX_PIXELS):
        """Decodes the bytes of two files.

        Args:
          npz, y_string: bytes of NAME.npz and NAME.bin.
          names: of the two files, for messages.
          max_pixels: images of more pixels are refused, from the header alone.

        Returns:
          uint8 [H, W, 3].

        Raises:
          BitstreamError: foreign, truncated or damaged bytes, another model's, or too many pixels.
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
        if coded.height * coded.width > max_pixels:
            raise BitstreamError(
                f"{names[0]}: claims {coded.width}x{coded.height} pixels, more than the limit of "
                f"{max_pixels}; if you trust it, raise the limit (--max-pixels)"
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
        pixels = np.empty([height, width, 3], np.uint8)
        for place, x_hat in self._pixels(y_hat, pixels):
            place[...] = np.rint(x_hat, out=x_hat)
        return pixels

    def _pixels(self, y_hat, image):
        """Yields views of an image, and what belongs there: float32, 0..255."""

        def quantized(*strip):
            return y_hat[strips.along(*strip)].astype(np.float32)

        with _within_memory(image.shape):
            for where, x_hat in self._synthesis.strips(quantized, y_hat.shape[:2]):
                if not np.isfinite(x_hat).all():
                    raise ImageError(
                        f"{self.name} gives pixels that are not finite; use other weights"
                    )
                place = image[where]
                x_hat = images.crop(x_hat, *place.shape[:2])
                yield place, np.clip(x_hat, 0, 1) * 255

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
        x_hat = np.empty(image.shape, np.float32)
        for place, strip in self._pixels(y_hat, x_hat):
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
def _within_memory(shape):
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ImageError(
            f"not enough memory for an image of {shape[1]}x{shape[0]} pixels; free some, or code "
            "the image in pieces"
        ) from error


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
