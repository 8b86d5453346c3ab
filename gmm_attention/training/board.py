"""Scalars and reconstructions to files that TensorBoard shows."""

import contextlib

import numpy as np
import tensorflow as tf

from gmm_attention.errors import CodecError

MOST_PICTURES = 4


class TensorBoard:
    """Writes to a folder; see `Loop`.

    Raises:
      CodecError: it cannot; from every method.
    """

    def __init__(self, directory):
        self._directory = directory
        with self._errors():
            self._writer = tf.summary.create_file_writer(directory)
        self._names = []

    @contextlib.contextmanager
    def _errors(self):
        try:
            yield
        except tf.errors.OpError as error:
            cause = error.message.splitlines()[0].rpartition("}} ")[2]  # after names of the graph
            raise CodecError(f"{self._directory}: cannot be written: {cause}") from error

    def scalars(self, name, step, values):
        with self._errors(), self._writer.as_default(step):
            for key, value in values.items():
                if key != "step":
                    tf.summary.scalar(f"{name}/{key}", float(value))
            self._writer.flush()

    def pictures(self, step, name, image, reconstruction):
        """Shows the photograph above its reconstruction, uint8 [H, W, 3] each; of the first few."""
        if name not in self._names:
            if len(self._names) == MOST_PICTURES:
                return
            self._names.append(name)
        with self._errors(), self._writer.as_default(step):
            tf.summary.image(name, np.concatenate([image, reconstruction])[None])
