"""What the pipeline requires of a task, and a latent codec that worker processes can load."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from gmm_attention.checkpoints import fingerprints
from gmm_attention.checkpoints.files import WEIGHTS_FILE, load_arrays
from gmm_attention.codec.latent_codec import LatentCodec
from gmm_attention.entropy_coding.integer_model import IntegerEntropyModel
from gmm_attention.errors import CheckpointError, CodecError

if TYPE_CHECKING:  # importing it imports TensorFlow, which workers do without
    from gmm_attention.codec.image_codec import ImageCodec

_Item_contra = TypeVar("_Item_contra", bound=Hashable, contravariant=True)


class Task(Protocol[_Item_contra]):
    """The three steps that every image goes through, in order.

    ```
    load (a worker)          transform (this process)     finish (a worker)
    read the image       ->  analysis                 ->  code, write files     encoder
    read files, decode   ->  synthesis                ->  write the picture     decoder
    ```

    `load` and `finish` may run in a worker process, on a pickled copy of the task. Every method
    may raise a CodecError or a MemoryError, which fails its image and no other.
    """

    def size(self, item: _Item_contra) -> int:
        """Number of pixels, by which the pipeline bounds its memory; 0 if unknown."""

    def load(self, item: _Item_contra) -> Any:
        """Reads an image, and returns what `transform` needs."""

    def batch(self, loaded: Any) -> tuple[int, Hashable]:
        """How many such images are best transformed together, and a key that they must share."""

    def transform(self, items: Sequence[_Item_contra], loaded: Sequence[Any]) -> list[Any]:
        """Runs the transforms of the network on images that share a key."""

    def finish(self, item: _Item_contra, transformed: Any) -> Any:
        """Writes the results of an image, and returns its figures."""


class SharedLatentCodec:
    """A latent codec that a worker process loads once, however many tasks it receives.

    Its pickle holds the path of a file with the integers: the exported model's own, or a temporary
    one for any other checkpoint, because two processes might not derive the same integers from
    its floats. It is a context manager that removes the temporary file at its end.

    Args:
      codec: ImageCodec.
      num_workers: number of worker processes; with 0, no file is written.

    Raises:
      CodecError: the temporary file cannot be written.
    """

    def __init__(self, codec: ImageCodec, num_workers: int):
        self._codec: LatentCodec | None = codec.latent_codec
        self._identity = codec.fingerprint, codec.name
        self._folder = None
        self._path = os.path.join(codec.name, WEIGHTS_FILE)
        if num_workers and not codec.settings.get("exported"):
            try:
                self._folder = tempfile.TemporaryDirectory(prefix="gmm-attention-")
                self._path = os.path.join(self._folder.name, WEIGHTS_FILE)
                np.savez(self._path, **codec.exported)
            except OSError as error:
                self.__exit__()
                raise CodecError(
                    f"{tempfile.gettempdir()}: cannot be written: {error.strerror}; free some "
                    "space, set TMPDIR, or give --jobs 1"
                ) from error

    def get(self) -> LatentCodec:
        """Returns the latent codec, which a worker loads at its first call.

        Raises:
          CheckpointError: the file is unreadable, or has changed since the run began.
        """
        if self._codec is not None:
            return self._codec
        return _load(self._path, *self._identity)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_codec": None, "_folder": None}

    def __enter__(self) -> SharedLatentCodec:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder:
            self._folder.cleanup()


@functools.lru_cache(maxsize=1)
def _load(path: str, fingerprint: bytes, name: str) -> LatentCodec:
    arrays = load_arrays(path)
    if fingerprints.fingerprint(arrays) != fingerprint:
        raise CheckpointError(f"{path}: changed since this run began; start the run again")
    return LatentCodec(IntegerEntropyModel(arrays), fingerprint, name)
