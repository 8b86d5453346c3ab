"""Scalars and reconstructions to files that TensorBoard shows."""

import numpy as np
import tensorflow as tf

MOST_PICTURES = 4


class TensorBoard:
    """Writes to a folder; see `Loop`."""

    def __init__(self, directory):
        self._writer = tf.summary.create_file_writer(directory)
        self._names = []

    def scalars(self, name, step, values):
        with self._writer.as_default(step):
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
        with self._writer.as_default(step):
            tf.summary.image(name, np.concatenate([image, reconstruction])[None])
