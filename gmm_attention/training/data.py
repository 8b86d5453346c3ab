"""Folders and tar files of photographs -> endless batches of random crops, uint8 [B, H, W, 3].

Each crop depends on nothing but the seed and its number. So a run that continues after a stop gets
the crops that it would have had without the stop, and several processes together get those of one.

It needs no TensorFlow, so that training by JAX draws the same crops.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import logging
import os
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from gmm_attention.errors import ImageError
from gmm_attention.images import Header, read_header, read_image
from gmm_attention.training.sources import PhotographFile, find_photographs

# Mixed into the seed, to draw the order of photographs and the crops independently.
_ORDER, _CROP = 0, 1

# What is said at the start of photographs whose headers show these kinds.
_KINDS = {
    "16-bit": "with 16 bits a sample, rounded to 8",
    "gray": "gray",
    "CMYK": "CMYK, passed over",
    "transparent": "with transparency, passed over where a pixel is transparent",
}

_LANCZOS_REACH = 3  # reach of Pillow's filter to each side, in pixels of its output

_logger = logging.getLogger(__name__)


class Photographs:
    """The photographs in folders, tar files and image files that are large enough for a crop.

    Those in CMYK, which `read_image` refuses, are not among them.

    They are sorted by their names within their source. A tar file counts as if it were unpacked
    where it lies. So the order is the same on every machine, and the same for a folder, for the tar
    files made from it, and for a folder of these tar files.

    Attributes:
      crop: as given.
      notes: list of str, a line for each reason why files were passed over, and one that counts
        photographs of unusual kinds; empty if there is nothing to say.
    """

    def __init__(self, sources: Sequence[str | os.PathLike[str]], crop: int, memory: int) -> None:
        """Finds the photographs, and reads the header of each file.

        Args:
          sources: list of str or Path. Each is an image file, an uncompressed tar file (NAME.tar)
            of images, or a folder, which is searched for both by the rules of
            `image_folders.find_images`, with its sub-folders.
          crop: side of the crops, in pixels; smaller photographs are skipped.
          memory: bytes of decoded photographs to keep in memory.

        Raises:
          ImageError: a source is missing, cannot be read or holds no image, a tar file is
            compressed or damaged, or no photograph is left.
        """
        self.crop = crop
        self.notes: list[str] = []
        files: list[PhotographFile] = []
        for source in sources:
            found, notes = find_photographs(source)
            files += found
            self.notes += notes
        files.sort(key=lambda file: file.name)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            headers = list(pool.map(_header_or_error, files))

        self._files: list[PhotographFile] = []
        self._smaller_sides: list[tuple[str, int]] = []  # names, also of those that are too small
        self._choose(files, headers)
        if not self._files:
            raise ImageError(
                f"{', '.join(map(str, sources))}: no photograph with {crop} pixels on both sides "
                f"can be used ({'; '.join(self.notes)}); give other photographs or a smaller crop"
            )

        self._lock = threading.Lock()
        self._cache: dict[int, np.ndarray] = {}  # index -> uint8 [H, W, 3]
        self._free_bytes = memory

    def _choose(
        self, files: Sequence[PhotographFile], headers: Sequence[Header | ImageError]
    ) -> None:
        """Keeps the files that can be used, and notes why others are passed over."""
        small = []
        unreadable = []
        kinds: collections.Counter[str] = collections.Counter()
        large_enough = 0
        for file, header in zip(files, headers):
            if isinstance(header, ImageError):
                unreadable.append(header)
                continue
            is_cmyk = "CMYK" in header.kinds
            smaller_side = min(header.height, header.width)
            if not is_cmyk:
                self._smaller_sides.append((file.name, smaller_side))
            if smaller_side < self.crop:
                small.append(f"{file} ({header.width}x{header.height})")
                continue
            large_enough += 1
            kinds.update(header.kinds)
            if not is_cmyk:
                self._files.append(file)

        if unreadable:
            self.notes.append(
                f"passed over {len(unreadable)} of {len(files)} images that cannot be read, "
                f"first {unreadable[0]}"
            )
        if small:
            self.notes.append(
                f"passed over {len(small)} of {len(files)} images that have less than {self.crop} "
                f"pixels on a side, first {small[0]}"
            )
        if kinds:
            counts = (f"{kinds[kind]} {what}" for kind, what in _KINDS.items() if kinds[kind])
            what = "photograph" if large_enough == 1 else "photographs"
            self.notes.append(f"of {large_enough} {what}: {'; '.join(counts)}")

    def __len__(self) -> int:
        return len(self._files)

    def names(self, crop: int) -> list[str]:
        """The names within their sources of the photographs that are large enough for a crop.

        Args:
          crop: side in pixels, which may be another than that of the crops here.

        Returns:
          sorted list of str, with "/" between the parts of each.
        """
        return [name for name, smaller_side in self._smaller_sides if smaller_side >= crop]

    def image(self, index: int) -> np.ndarray:
        """Returns a photograph, uint8 [H, W, 3], read-only. Any thread may call it.

        Raises:
          ImageError: the photograph cannot be read, see `images.read_image`.
        """
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        image = self._files[index].read(read_image)
        image.flags.writeable = False
        # The cache is filled once and then stays. Replacing old photographs by new ones would not
        # help: each epoch takes every photograph once, so that the new ones are not needed sooner.
        with self._lock:
            if index not in self._cache and image.nbytes <= self._free_bytes:
                self._cache[index] = image
                self._free_bytes -= image.nbytes
        return image


class Batches:
    """Endless iterator of batches, uint8 [batch, crop, crop, 3], which threads make in advance.

    The samples of a run are numbered: sample k = first_sample + i is the i-th that is returned
    here. Every len(photographs) samples are an epoch, which takes each photograph once, in an order
    drawn from (seed, epoch). The crop is drawn from (seed, k). So the batches do not depend on the
    number of workers, but they may change with the versions of NumPy and Pillow, which do not
    guarantee the same numbers for ever.

    A photograph that cannot be decoded is reported once, by a log record of level WARNING, and is
    replaced by the next in the epoch's order. Of those with transparent pixels, which may be many
    and are counted at the start, only the first is reported.

    As a context manager it closes itself at the end.
    """

    def __init__(
        self,
        photographs: Photographs,
        batch: int,
        seed: int,
        first_sample: int = 0,
        flip: bool = True,
        min_scale: float = 0.5,
        workers: int = 4,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Makes the iterator; its threads start when the first batch is requested.

        Args:
          photographs: Photographs.
          batch: crops in a step, for all processes together.
          seed: integer, 0 or more.
          first_sample: number of the first sample to return, counted from the start of the run.
          flip: mirror half of the crops, left to right.
          min_scale: scale photographs down by a random factor from min_scale to 1 (as far as the
            crop still fits), which gives more variety and hides JPEG artefacts. 1: do not scale.
          workers: number of threads. Each makes a whole batch; up to twice as many batches as
            threads are ready or being made.
          part: (index, count), for one of `count` processes that share each batch: this one gets
            [batch / count, crop, crop, 3]. The parts in order of index are the batch.

        Raises:
          ValueError: batch is no multiple of count, or an argument is outside its range.
        """
        index, count = part
        if batch < 1 or not 0 <= index < count or batch % count:
            raise ValueError(f"part {part} must be (index, count), and count divide {batch} crops")
        if not 0 < min_scale <= 1:
            raise ValueError(f"min_scale must be above 0 and at most 1, not {min_scale}")
        self._photographs = photographs
        self._batch = batch
        self._seed = seed
        self._flip = flip
        self._min_scale = min_scale
        self._samples = range(index * batch // count, (index + 1) * batch // count)
        self._pool = concurrent.futures.ThreadPoolExecutor(workers)
        self._ahead = 2 * workers
        self._next_sample = first_sample  # first sample of the next batch to be made
        self._pending: collections.deque[concurrent.futures.Future[np.ndarray]]
        self._pending = collections.deque()  # batches ready or being made, in order
        self._closed = False
        self._reported: set[int | str] = set()  # indices of photographs, or what many share
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        """Returns the next step's batch.

        Raises:
          ImageError: not one photograph can be decoded.
          StopIteration: the iterator was closed.
        """
        if self._closed:
            raise StopIteration
        while len(self._pending) < self._ahead:
            self._pending.append(self._pool.submit(self._make_batch, self._next_sample))
            self._next_sample += self._batch
        batch = self._pending[0].result()
        # Only after the wait, so that an interrupt during it loses no batch.
        self._pending.popleft()
        return batch

    def close(self) -> None:
        """Ends the threads, after the batches that they are making."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)
        self._pending.clear()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_batch(self, first_sample: int) -> np.ndarray:
        return np.stack([self._sample(first_sample + i) for i in self._samples])

    def _sample(self, k: int) -> np.ndarray:
        """Sample k of the run, uint8 [crop, crop, 3]."""
        image = self._photograph(k)
        *draws, mirror = np.random.default_rng([self._seed, _CROP, k]).random(4)
        height, width = image.shape[:2]
        crop = self._photographs.crop
        side, top, left = _window(height, width, crop, self._min_scale, draws)
        result = _scaled(image, side, top, left, crop)
        return result[:, ::-1] if self._flip and mirror < 0.5 else result

    def _photograph(self, k: int) -> np.ndarray:
        """The photograph of sample k, or the next in its epoch's order that can be decoded."""
        count = len(self._photographs)
        epoch, position = divmod(k, count)
        order = _order(self._seed, epoch, count)
        for i in range(count):
            index = int(order[(position + i) % count])
            try:
                return self._photographs.image(index)
            except ImageError as error:
                last = error
                self._report(index, error)
        raise ImageError(f"none of {count} photographs can be decoded, last {last}") from last

    def _report(self, index: int, error: ImageError) -> None:
        transparent = "has transparent pixels" in str(error)
        with self._lock:
            cause = "transparent pixels" if transparent else index
            if cause in self._reported:
                return
            self._reported.add(cause)
        others = ", and so of all others with transparent pixels" if transparent else ""
        _logger.warning("%s (another photograph takes its place%s)", error, others)


@functools.lru_cache(maxsize=4)  # threads may be at different epochs at the same time
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The indices of all photographs in the order of an epoch, int64 [count]."""
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)


def _window(
    height: int, width: int, crop: int, min_scale: float, draws: Sequence[float]
) -> tuple[int, int, int]:
    """Chooses the square window of a photograph that is scaled to a crop.

    Args:
      height, width: of the photograph, in pixels; at least crop.
      crop: side of the crop, in pixels.
      min_scale: smallest scaling factor, at most 1.
      draws: three random numbers in [0, 1): for the scaling factor, whose logarithm is uniform,
        for the window's top and for its left.

    Returns:
      side, top, left of the window, in pixels.
    """
    largest = min(1 / min_scale, min(height, width) / crop)
    side = round(crop * largest ** draws[0])
    return side, int(draws[1] * (height - side + 1)), int(draws[2] * (width - side + 1))


def _scaled(image: np.ndarray, side: int, top: int, left: int, crop: int) -> np.ndarray:
    """Scales a window of a photograph, uint8 [H, W, 3], to uint8 [crop, crop, 3]."""
    if side == crop:
        return image[top : top + side, left : left + side]
    # Only the pixels that the filter reads are copied to Pillow: the window and some around it.
    reach = -(-_LANCZOS_REACH * side // crop) + 1
    first_row, first_column = max(top - reach, 0), max(left - reach, 0)
    read = image[first_row : top + side + reach, first_column : left + side + reach]
    top, left = top - first_row, left - first_column
    resized = Image.fromarray(read).resize(
        (crop, crop), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
    )
    return np.asarray(resized)


def _header_or_error(file: PhotographFile) -> Header | ImageError:
    """The Header of a file, or the ImageError of reading it."""
    try:
        return file.read(read_header)
    except ImageError as error:
        return error
