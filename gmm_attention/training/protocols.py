"""What the training loop needs: something that takes steps, and something that shows results.

The loop itself knows neither TensorFlow nor JAX; these protocols are all that it relies on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol, SupportsFloat

import numpy as np


class Trainer(Protocol):
    """A training step and its state: `TrainStep` of step.py or `Program` of xla/jax_step.py.

    Attributes:
      part: (number of this process, number of processes) that share the batches.
      chief: whether this process, the first of them, writes the run's files.
    """

    part: tuple[int, int]
    chief: bool

    def __call__(
        self, images: np.ndarray, seed: Sequence[int], learning_rate: float, lmbda: float
    ) -> Mapping[str, SupportsFloat]:
        """Takes a step. It may return before the device is done: float() of a result waits.

        Args:
          images: uint8 [B, H, W, 3], this process' part of the batch.
          seed: two integers, from which the noise is drawn.
          learning_rate: of this step.
          lmbda: weight of the distortion in the loss.

        Returns:
          Scalars by name: `loss`, `bpp_y`, `bpp_z`, `mse` (of pixels in [0, 1]) or `ms_ssim`, any
          others that are to be logged, and `skipped`: 1 if the loss or the gradients were not
          finite and the state was left as it was, otherwise 0.
        """
        ...

    def validate(self, image: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """Measures an image, uint8 [H, W, 3], with the moving average of the weights.

        Returns:
          measures: `bpp_y`, `bpp_z`, `psnr` (dB) and `ms_ssim` (NaN if the image is too small).
          reconstruction: uint8, of the image's shape.
        """
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole state, as copies that later steps leave alone."""
        ...

    def restore(self, arrays: Mapping[str, np.ndarray], source: str | os.PathLike[str]) -> None:
        """Replaces the state by one that `arrays` returned, or by a part of it.

        Args:
          arrays: see `state.complete` for what may be missing.
          source: path that the arrays come from, for the error message.

        Raises:
          CheckpointError: the arrays do not fit the network.
        """
        ...

    def agree(self, flag: bool) -> bool:
        """Whether any process passes True. Every process must call it at the same point."""
        ...

    def alike(self, number: int) -> bool:
        """Whether all processes pass the same number, below 2^20. Every process must call it."""
        ...


class Board(Protocol):
    """Shows the results of a run: `TensorBoard` of board.py.

    Raises:
      CodecError: it cannot write; from every method. Training goes on after such an error.
    """

    def scalars(self, name: str, step: int, values: Mapping[str, float | str]) -> None:
        """Shows numbers, or texts of numbers, under the heading `name`."""
        ...

    def pictures(self, step: int, name: str, image: np.ndarray, reconstruction: np.ndarray) -> None:
        """Shows an image of validation and its reconstruction, uint8 [H, W, 3] each."""
        ...
