"""An image to coded bytes and back, with one model."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gmm_attention import images, metrics, padding, strips
from gmm_attention.checkpoints import loading
from gmm_attention.checkpoints.loading import LoadedModel
from gmm_attention.checkpoints.locate import Kind, locate
from gmm_attention.codec import cross_entropy, file_format
from gmm_attention.codec.efforts import LEVELS, Listener, Wanted, trained_lambda
from gmm_attention.codec.latent_codec import NAMES, LatentCodec, is_too_large, z_sides
from gmm_attention.codec.refinement import Attempt, Latents, Refinement
from gmm_attention.codec.strip_transform import StripTransform
from gmm_attention.errors import ImageError
from gmm_attention.runtimes import choosing
from gmm_attention.runtimes.protocol import LatentSearch, Runtime


def load(
    path: str | os.PathLike,
    precision: str = "float32",
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> ImageCodec:
    """Loads a codec. Threads may share it; for forked processes see `forks`.

    Args:
      path: directory of an exported model or of a training checkpoint, prefix of a TF1 checkpoint
        of the original, or the name of an installed model; see `locate.locate`.
      precision: precision of analysis and synthesis, "float32" or "bfloat16". The latter is faster
        on processors and GPUs that compute in it, and changes latents and pictures a little. Files
        encoded in either precision can be decoded in the other.
      runtime: "onnx", "tensorflow", or "auto": ONNX Runtime where it is installed and can take the
        model, otherwise TensorFlow. Files encoded by either can be decoded by the other.
      device: "auto", "cpu" or "gpu".
      threads: number of threads on a CPU, or None for one a core.

    Returns:
      the codec.

    Raises:
      CheckpointError: nothing at this path, or missing, unknown, misshapen or unusable weights.
      CodecError: the runtime is not installed or cannot take the model, or the device is not there
        or does not compute in this precision.
      ValueError: an argument is none of its choices.
    """
    choosing.check(runtime, precision, device, threads)
    found = locate(path)
    exported = found.kind is Kind.EXPORTED
    runtime = choosing.choose(found.path, exported, runtime, precision, device)
    choosing.prepare(runtime, precision, device, threads)
    return assemble(loading.read(found, precision), runtime, precision, device, threads)


def assemble(
    loaded: LoadedModel, runtime: str, precision: str, device: str, threads: int | None
) -> ImageCodec:
    """Makes the codec of a model that is in memory; see `load`, but runtime may not be "auto"."""
    return ImageCodec(
        loaded,
        choosing.make(loaded, runtime, precision, device, threads),
        functools.partial(choosing.make_search, loaded, device, threads),
    )


class ImageCodec:
    """Compresses and decompresses images with one model.

    Args:
      loaded: the model.
      runtime: a Runtime of the same model.
      make_search: function that makes a LatentSearch of the same model, when it is first needed.

    Attributes:
      exported, settings, name, fingerprint: those of the LoadedModel.
      num_filters: N.
      runtime: as given.
      latent_codec: a LatentCodec of the same model.
    """

    def __init__(
        self, loaded: LoadedModel, runtime: Runtime, make_search: Callable[[], LatentSearch]
    ):
        self.exported, self.settings = loaded.exported, loaded.settings
        self.name, self.fingerprint = loaded.name, loaded.fingerprint
        self.num_filters = loaded.entropy_model.num_filters
        self.runtime = runtime
        self.latent_codec = LatentCodec(loaded.entropy_model, self.fingerprint, self.name)
        quantiles = loaded.exported["entropy_bottleneck/quantiles"]
        self._medians = quantiles[:, 0, 1].astype(np.float32)
        self._analysis = StripTransform(runtime.analysis(), pixels=16)
        self._hyper_analysis = StripTransform(runtime.hyper_analysis(), pixels=64)
        self._synthesis = StripTransform(runtime.synthesis(), pixels=1)
        self._search = functools.lru_cache(make_search)

    def warm_up(self, effort: int = 0) -> None:
        """Codes and decodes a small image, so that the next one does not wait for preparations.

        Args:
          effort: see `encode`; for one above 0 the search is made ready, too.
        """
        # MS-SSIM cannot measure a smaller one, with which a search would not begin.
        side = 192 if effort else 64
        options = {"effort": 1, "lmbda": 1.0} if effort else {}
        self.decompress(self.compress(np.zeros([side, side, 3], np.uint8), **options))

    def analyse(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes the rounded latents of an image.

        Args:
          image: uint8 [H, W, 3], 0..255.

        Returns:
          z_symbols [H/64, W/64, N] int32, y_hat [H/16, W/16, N] int32, H and W being the sides of
          the padded image.

        Raises:
          ImageError: too many pixels, latents that are not finite, or too little memory.
          ValueError: image has another type or shape.
        """
        latents = self._latents(image)
        return latents.z_symbols, latents.y_hat

    def _latents(self, image: np.ndarray) -> Latents:
        _check_image(image)

        def pixels(axis: int, first: int, last: int) -> np.ndarray:
            return padding.pad_strip(image, axis, first, last)[None].astype(np.float32) / 255

        def latents(axis: int, first: int, last: int) -> np.ndarray:
            return y[None][strips.along(axis + 1, first, last)]

        sides = [padding.SIDE_MULTIPLE * side for side in z_sides(*image.shape[:2])]
        with self._within_memory(image.shape):
            y = self._analysis.whole(pixels, sides)
            z = self._hyper_analysis.whole(latents, y.shape[:2])
        if not (np.isfinite(y).all() and np.isfinite(z).all()):
            raise ImageError(f"{self.name} gives latents that are not finite; use other weights")
        with np.errstate(invalid="ignore"):  # what int32 cannot hold, the coder refuses
            # As `EntropyBottleneck.symbols` does it.
            symbols = np.floor(z + (np.float32(0.5) - self._medians)).astype(np.int32)
            y_hat = np.rint(y).astype(np.int32)
        return Latents(y, z, y_hat, symbols)

    def encode(
        self,
        image: np.ndarray,
        effort: int = 0,
        lmbda: float | None = None,
        target_bpp: float | None = None,
        target_psnr: float | None = None,
        listen: Listener | None = None,
    ) -> tuple[bytes, bytes, np.ndarray]:
        """Codes an image into the bytes of two files.

        An image whose channels are equal everywhere is marked as gray, so that it comes back gray.

        With an effort, latents of lower lambda D + R are searched for this image, and the files are
        those of the best ones found: never worse than without. The same image gives the same files
        on the same machine. The search needs TensorFlow, whatever runs the model. It does nothing
        for images that MS-SSIM cannot measure, with a model that was trained for it.

        Args:
          image: uint8 [H, W, 3], 0..255.
          effort: 0 for the latents as the network gives them, or one of `efforts.LEVELS`, which
            say how long to search.
          lmbda: weight of the distortion in the search, or None for the one in the model's
            settings.
          target_bpp, target_psnr: bits per pixel of the files, or PSNR in dB; at most one of them.
            The search tries one lambda after the other, beginning with `lmbda`, until it comes
            within 2 % of the bits, or of the squared error. Where it cannot, the files are the
            nearest ones, and without the promise of above.
          listen: called after each step of the search with its Progress. Once it returns something
            true, the search ends, with the best found so far.

        Returns:
          bytes of NAME.npz (header and z), bytes of NAME.bin (y), and y_hat
          ([H/16, W/16, N] int32), from which `reconstruct` makes the image that the decoder will
          show.

        Raises:
          ImageError: too many pixels, latents that are not finite or too large to be coded, or too
            little memory.
          CodecError: TensorFlow is not installed, or there is no lambda.
          ValueError: image has another type or shape, or another argument is none of its choices.
        """
        wanted = Wanted(effort, lmbda, target_bpp, target_psnr)
        wanted.check()
        if effort:
            found = self._refined(image, self._latents(image), wanted, listen)
            return found.npz, found.y_string, found.y_hat
        z_symbols, y_hat = self.analyse(image)
        height, width = image.shape[:2]
        gray = images.is_gray(image)
        return *self.latent_codec.encode(height, width, z_symbols, y_hat, gray), y_hat

    def _refined(
        self, image: np.ndarray, latents: Latents, wanted: Wanted, listen: Listener | None
    ) -> Attempt:
        height, width = image.shape[:2]
        gray = images.is_gray(image)

        def attempt(z_symbols: np.ndarray, y_hat: np.ndarray) -> Attempt:
            files = self.latent_codec.encode(height, width, z_symbols, y_hat, gray)
            picture = self.reconstruct(y_hat, height, width, gray)
            return Attempt(*files, y_hat, 8 * sum(map(len, files)) / (height * width), picture)

        lmbda = wanted.lmbda or trained_lambda(self.settings, self.name)
        search = self._search()
        first = attempt(latents.z_symbols, latents.y_hat)
        if search.metric == "ms-ssim" and min(height, width) < metrics.MS_SSIM_SMALLEST_SIDE:
            return first
        refined = Refinement(search, image, gray, latents, self._medians, attempt, listen)
        level = LEVELS[wanted.effort]
        with self._within_memory(image.shape, search.memory_errors):
            if wanted.has_target:
                return refined.nearest(first, level, lmbda, wanted)
            return refined.better(first, level, lmbda)

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
        height, width, y_hat, gray = self.latent_codec.decode(npz, y_string, names, max_pixels)
        return self.reconstruct(y_hat, height, width, gray)

    def reconstruct(
        self, y_hat: np.ndarray, height: int, width: int, gray: bool = False
    ) -> np.ndarray:
        """Synthesizes an image from rounded latents.

        Args:
          y_hat: [H/16, W/16, N] integers.
          height, width: sides of the image without padding, pixels.
          gray: whether to make the picture gray, see `images.is_gray`.

        Returns:
          uint8 [height, width, 3].

        Raises:
          ImageError: pixels that are not finite, or too little memory.
        """
        picture = np.empty([height, width, 3], np.uint8)
        for place, strip in self._pixels(y_hat, picture, gray):
            place[...] = np.rint(strip)
        return picture

    def _pixels(
        self, y_hat: np.ndarray, picture: np.ndarray, gray: bool
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields views of parts of the picture, each with its pixels: float32, 0..255."""

        def quantized(axis: int, first: int, last: int) -> np.ndarray:
            return y_hat[None][strips.along(axis + 1, first, last)].astype(np.float32)

        with self._within_memory(picture.shape):
            for where, x_hat in self._synthesis.strips(quantized, y_hat.shape[:2]):
                if not np.isfinite(x_hat).all():
                    raise ImageError(
                        f"{self.name} gives pixels that are not finite; use other weights"
                    )
                place = picture[where]
                strip = padding.crop(x_hat[0], *place.shape[:2])
                if gray:
                    # The network's errors in the three channels differ, so their mean has less.
                    strip = strip.mean(axis=2, keepdims=True)
                yield place, np.clip(strip, 0, 1) * 255

    @contextlib.contextmanager
    def _within_memory(
        self, shape: tuple[int, ...], errors: tuple[type[Exception], ...] = ()
    ) -> Iterator[None]:
        """Turns a lack of memory into an ImageError that names the size of the image.

        Args:
          shape: of the image.
          errors: what a lack of memory raises, beside those of the runtime.
        """
        try:
            yield
        except (*self.runtime.memory_errors, *errors) as error:
            raise ImageError(
                f"not enough memory for an image of {shape[1]}x{shape[0]} pixels; free some, or "
                "code the image in pieces"
            ) from error

    def compress(self, image: np.ndarray, **options: Any) -> bytes:
        """Codes an image, uint8 [H, W, 3], into one string of bytes.

        Args:
          image: uint8 [H, W, 3], 0..255.
          options: effort, lmbda and the other arguments of `encode`.

        Returns:
          what `decompress` takes.

        Raises:
          ImageError, CodecError, ValueError: see `encode`.
        """
        npz, y_string, _ = self.encode(image, **options)
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
          not rounded, and gray where the image is; element_bits_y [h, w, N], element_bits_z
          [h/4, w/4, N], the cross-entropy of each element in bits; and the sums of these two, the
          floats bits_y and bits_z.

        Raises:
          ImageError, ValueError: see `analyse` and `reconstruct`.
        """
        y, z, y_hat, z_symbols = self._latents(image)
        y_hat = y_hat.astype(np.float32)
        z_hat = z_symbols.astype(np.float32) + self._medians
        with self._within_memory(image.shape):
            mixture = self.runtime.mixtures(y_hat[None], z_hat[None])
        phi, weights, means, scales = (t[0] for t in mixture)
        bits_y = cross_entropy.bits_of_y(y_hat, weights, means, scales)
        bits_z = cross_entropy.bits_of_z(z_hat, self.exported)
        x_hat = np.empty(image.shape, np.float32)
        for place, strip in self._pixels(y_hat, x_hat, images.is_gray(image)):
            place[...] = strip
        return {
            "y": y,
            "y_hat": y_hat,
            "z": z,
            "z_hat": z_hat,
            "phi": phi,
            "weights": weights,
            "means": means,
            "scales": scales,
            "x_hat": x_hat,
            "element_bits_y": bits_y,
            "element_bits_z": bits_z,
            "bits_y": float(bits_y.sum()),
            "bits_z": float(bits_z.sum()),
        }


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
