"""Folders and tar files of photographs -> endless batches of random crops, uint8 [B, H, W, 3].

Each crop depends on the seed and its number alone: a run that goes on after a stop, or one of
several processes that share the work, gets exactly the crops it would have had.

Without TensorFlow, so that whatever else trains the model draws the same crops.
"""

import collections
import concurrent.futures
import functools
import io
import logging
import os
import posixpath
import tarfile
import threading
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
from PIL import Image

from gmm_attention.errors import ImageError
from gmm_attention.images import IMAGE_SUFFIXES, list_files, read_image, read_size

_TAR_SUFFIX = ".tar"

# Their members can only be reached by reading all that comes before.
_COMPRESSED_SUFFIXES = (".tar.bz2", ".tar.gz", ".tar.xz", ".tar.zst", ".tbz2", ".tgz", ".txz")

# Tell apart the random numbers that one seed gives.
_ORDER, _CROP = 0, 1

_LANCZOS_REACH = 3  # of Pillow's filter to each side, in pixels of its output

_logger = logging.getLogger(__name__)


class Photographs:
    """The photographs of folders, tar files and image files that a crop fits into.

    Their order is that of their names inside of their source, where a tar file counts as unpacked
    in its place: it is the same on every machine, for a folder, the tar files made from it, and
    the folder that these lie in.

    Attributes:
      crop: as given.
      notes: list of str, lines about the images that were passed over; empty if there are none.
    """

    def __init__(self, sources, crop, memory):
        """Finds the photographs; of each file only the header is read.

        Args:
          sources: list of str or Path, each an image file, an uncompressed tar file (NAME.tar) of
            images, or a folder that is searched for both with its sub-folders, by the rules of
            `images.find_images`.
          crop: side of the crops to be taken, in pixels; smaller photographs are passed over.
          memory: bytes of decoded photographs that are kept for the next time.

        Raises:
          ImageError: a source is missing, cannot be read or holds no image, a tar file is
            compressed or damaged, or no photograph is left.
        """
        self.crop = crop
        self.notes = []
        files = [file for source in sources for file in _find(source)]
        files.sort(key=lambda file: file.name)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            sizes = list(pool.map(_size_or_error, files))

        unreadable = [size for size in sizes if isinstance(size, ImageError)]
        if unreadable:
            self.notes.append(
                f"passed over {len(unreadable)} of {len(files)} images that cannot be read, "
                f"first {unreadable[0]}"
            )
        readable = [(f, size) for f, size in zip(files, sizes) if not isinstance(size, ImageError)]
        small = [(file, size) for file, size in readable if min(size) < crop]
        if small:
            file, (height, width) = small[0]
            self.notes.append(
                f"passed over {len(small)} of {len(files)} images that have less than {crop} "
                f"pixels on a side, first {file} ({width}x{height})"
            )
        self._files = [file for file, size in readable if min(size) >= crop]
        if not self._files:
            raise ImageError(
                f"{', '.join(map(str, sources))}: no photograph has {crop} pixels on both sides "
                f"({'; '.join(self.notes)}); give larger photographs or a smaller crop"
            )

        self._lock = threading.Lock()
        self._kept = {}  # index -> uint8 [H, W, 3]
        self._room = memory

    def __len__(self):
        return len(self._files)

    def image(self, index):
        """Returns a photograph as uint8 [H, W, 3], read-only; any thread may call.

        Raises:
          ImageError: it cannot be read, see `images.read_image`.
        """
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        image = self._files[index].read(read_image)
        image.flags.writeable = False
        # The first to come are kept for ever: every photograph is equally likely to be next, and
        # in random order the one used last is the one that is not needed for longest.
        with self._lock:
            if index not in self._kept and image.nbytes <= self._room:
                self._kept[index] = image
                self._room -= image.nbytes
        return image


class Batches:
    """Endless iterator of uint8 [batch, crop, crop, 3], made ahead by threads.

    The samples of a run are numbered, k = first_sample + i for number i of those returned here.
    Each len(photographs) samples are an epoch, which takes every photograph once, in an order drawn
    from (seed, epoch); the crop is drawn from (seed, k). So the batches are the same whatever the
    number of workers.
    (NumPy's and Pillow's versions count: neither promises the same numbers for ever.)

    A photograph that cannot be decoded is reported once, by a log record of level WARNING, and
    the next in the epoch's order takes its place.

    It is a context manager, which closes at its end.
    """

    def __init__(
        self,
        photographs,
        batch,
        seed,
        first_sample=0,
        flip=True,
        min_scale=0.5,
        workers=4,
        part=(0, 1),
    ):
        """Makes the iterator; threads start with the first batch asked for.

        Args:
          photographs: Photographs.
          batch: crops in a step, of all processes together.
          seed: integer, 0 or more.
          first_sample: number of the first sample that is returned, of all that the run takes.
          flip: whether half of the crops are mirrored, left to right.
          min_scale: photographs are scaled down by a random factor from min_scale to 1 (as far as
            the crop still fits), which makes more of few photographs and hides the artefacts of
            those that were JPEG. 1 leaves them as they are.
          workers: number of threads. Each makes a batch; up to two for each are ready or begun.
          part: (index, count), for one of `count` processes that share the batches: it gets
            [batch / count, crop, crop, 3], and all together, in order of index, the batch.

        Raises:
          ValueError: batch does not divide by count, or an argument is outside its range.
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
        self._next_sample = first_sample  # of the batch that is to be begun
        self._begun = collections.deque()  # futures of the batches before it
        self._closed = False
        self._reported = set()
        self._lock = threading.Lock()

    def __iter__(self):
        return self

    def __next__(self):
        """Returns the next step's batch.

        Raises:
          ImageError: no photograph at all can be decoded.
          StopIteration: it is closed.
        """
        if self._closed:
            raise StopIteration
        while len(self._begun) < self._ahead:
            self._begun.append(self._pool.submit(self._make, self._next_sample))
            self._next_sample += self._batch
        batch = self._begun[0].result()
        # After the wait, for an interrupt of it must not cost a batch.
        self._begun.popleft()
        return batch

    def close(self):
        """Ends the threads, after the batches that they are at."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)
        self._begun.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _make(self, first_sample):
        return np.stack([self._sample(first_sample + i) for i in self._samples])

    def _sample(self, k):
        """Sample k of all, uint8 [crop, crop, 3]."""
        image = self._photograph(k)
        *draws, mirror = np.random.default_rng([self._seed, _CROP, k]).random(4)
        crop = self._photographs.crop
        window = _window(*image.shape[:2], crop, self._min_scale, draws)
        result = _scaled(image, *window, crop)
        return result[:, ::-1] if self._flip and mirror < 0.5 else result

    def _photograph(self, k):
        """The photograph of sample k, or the first after it in its epoch that can be decoded."""
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

    def _report(self, index, error):
        with self._lock:
            if index in self._reported:
                return
            self._reported.add(index)
        _logger.warning("%s (another photograph takes its place)", error)


@functools.lru_cache(maxsize=4)  # for the epochs that threads are at
def _order(seed, epoch, count):
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)


def _window(height, width, crop, min_scale, draws):
    """Draws the square window that becomes a crop.

    Args:
      height, width: of the photograph, in pixels; at least crop.
      crop: side of the crop, in pixels.
      min_scale: smallest factor of scaling, at most 1.
      draws: three random numbers in [0, 1), for the factor (its logarithm is uniform) and the
        place.

    Returns:
      side, top, left of the window, in pixels.
    """
    largest = min(1 / min_scale, min(height, width) / crop)
    side = round(crop * largest ** draws[0])
    return side, int(draws[1] * (height - side + 1)), int(draws[2] * (width - side + 1))


def _scaled(image, side, top, left, crop):
    """Scales a window of a photograph, uint8 [H, W, 3], to uint8 [crop, crop, 3]."""
    if side == crop:
        return image[top : top + side, left : left + side]
    # Only what the filter sees is copied to Pillow, and it sees some pixels beyond the window.
    reach = -(-_LANCZOS_REACH * side // crop) + 1
    first_row, first_column = max(top - reach, 0), max(left - reach, 0)
    seen = image[first_row : top + side + reach, first_column : left + side + reach]
    top, left = top - first_row, left - first_column
    resized = Image.fromarray(seen).resize(
        (crop, crop), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
    )
    return np.asarray(resized)


class _File(NamedTuple):
    """An image file, or a tar file's member; str() of it names it in messages."""

    name: str  # inside of its source, "/" between its parts
    path: Path  # of the image file or of the tar file
    member: Optional[tuple[str, int, int]]  # name, start and size in bytes; None: not in a tar

    def __str__(self):
        return f"{self.path}/{self.member[0]}" if self.member else str(self.path)

    def read(self, function):
        """Result of `read_image` or `read_size`. Raises ImageError."""
        if self.member is None:
            return function(self.path)
        _, start, size = self.member
        try:
            tar = open(self.path, "rb", buffering=0)
        except OSError as error:
            raise ImageError(
                f"{self}: cannot be read: {error.strerror}; leave the tar file where it was"
            ) from error
        with tar:
            return function(self, file=io.BufferedReader(_Span(tar, start, size)))


class _Span(io.RawIOBase):
    """A part of a file, as a file; the file must be its own, for it moves the position.

    (tarfile's members all share one position, so threads would have to wait for each other.)
    """

    def __init__(self, file, start, size):
        super().__init__()
        self._file, self._start, self._size = file, start, size
        self.seek(0)

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        return self._file.seek(self._start + base + offset) - self._start

    def tell(self):
        return self._file.tell() - self._start

    def readinto(self, buffer):
        return self._file.readinto(memoryview(buffer)[: max(self._size - self.tell(), 0)])


def _size_or_error(file):
    """(height, width) in pixels, or the ImageError that tells why there is none."""
    try:
        return file.read(read_size)
    except ImageError as error:
        return error


def _find(source):
    """List of _File for one source, see Photographs."""
    top = Path(source)
    if os.path.isfile(top):
        found = [(top, top.name)]
    elif os.path.isdir(top):
        suffixes = (*IMAGE_SUFFIXES, _TAR_SUFFIX, *_COMPRESSED_SUFFIXES)
        found = [(top / relative, relative) for relative in list_files(top, suffixes)]
    else:
        raise ImageError(
            f"{source}: no file or folder that can be read; check the name and its permissions"
        )
    files = []
    for path, name in found:
        if name.lower().endswith(_COMPRESSED_SUFFIXES):
            raise ImageError(
                f"{path}: a compressed tar file, in which no image can be reached directly; "
                "unpack it or repack it as .tar, and keep it out of the folder"
            )
        if name.lower().endswith(_TAR_SUFFIX):
            folder = posixpath.dirname(name)
            files += [
                _File(posixpath.join(folder, member), path, (member, start, size))
                for member, (start, size) in _members(path).items()
            ]
        else:
            files.append(_File(name, path, None))
    if not files:
        raise ImageError(
            f"{source}: no image in it; give a folder or a tar file of images whose names end in "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    return files


def _members(path):
    """Lists the images in a tar file, hidden ones left out.

    Returns:
      dict of name, str with "/" between its parts, to (start, size) in bytes.

    Raises:
      ImageError: the file cannot be read, is damaged, or is no uncompressed tar file.
    """
    members = {}
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                name = posixpath.normpath(member.name).lstrip("/")
                hidden = any(part.startswith(".") for part in name.split("/"))
                if member.isreg() and not hidden and name.lower().endswith(IMAGE_SUFFIXES):
                    # Of two that have one name the last counts, as in unpacking.
                    members[name] = (member.offset_data, member.size)
            # tarfile takes a damaged header, and a file cut between two members, for the end.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("its end is missing")
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read: {error.strerror}; check its permissions"
        ) from error
    except (tarfile.TarError, ValueError, OverflowError) as error:  # the latter from odd numbers
        raise ImageError(
            f"{path}: truncated, damaged or no uncompressed tar file ({error}); "
            "copy it again or repack it"
        ) from error
    return members
