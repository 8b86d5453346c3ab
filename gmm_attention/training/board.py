"""Scalars and reconstructions -> files that TensorBoard shows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from gmm_attention.errors import CodecError

MOST_PICTURES = 4


class TensorBoard:
    """Writes event files to a folder; it is the Board of protocols.py.

    Raises:
      CodecError: a file cannot be written; from the constructor and every method.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        with self._write_errors():
            self._writer = tf.summary.create_file_writer(directory)
        self._names: list[str] = []

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Turns TensorFlow's errors into CodecErrors."""
        try:
            yield
        except tf.errors.OpError as error:
            # TensorFlow puts the names of graph nodes, in {{ }}, before the cause.
            cause = error.message.splitlines()[0].rpartition("}} ")[2]
            raise CodecError(f"{self._directory}: cannot be written: {cause}") from error

    def scalars(self, name: str, step: int, values: Mapping[str, float | str]) -> None:
        """Writes all values but `step`, each as the scalar `name/key`."""
        with self._write_errors(), self._writer.as_default(step):
            for key, value in values.items():
                if key != "step":
                    tf.summary.scalar(f"{name}/{key}", float(value))
            self._writer.flush()

    def pictures(self, step: int, name: str, image: np.ndarray, reconstruction: np.ndarray) -> None:
        """Writes an image above its reconstruction, for the first MOST_PICTURES names only.

        Args:
          step: steps taken so far.
          name: of the image.
          image, reconstruction: uint8 [H, W, 3].
        """
        if name not in self._names:
            if len(self._names) == MOST_PICTURES:
                return
            self._names.append(name)
        with self._write_errors(), self._writer.as_default(step):
            tf.summary.image(name, np.concatenate([image, reconstruction])[None])
