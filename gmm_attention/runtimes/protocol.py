"""What the codec asks of a runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from gmm_attention.strips import Stage


class Transform(NamedTuple):
    """Analysis, hyper-analysis or synthesis as a chain of steps on a runtime's own arrays.

    Attributes:
      stages: list of Stage.
      channels: number of channels of the last stage's output.
      leading: number of axes before the sides of the runtime's arrays.
      enter: function from [B, h, w, C] float32 to the first stage's input.
      leave: function from the last stage's output to [B, h', w', C'] float32.
      concatenate: function of a list of the runtime's arrays and an axis.
    """

    stages: Sequence[Stage]
    channels: int
    leading: int
    enter: Callable[[np.ndarray], Any]
    leave: Callable[[Any], np.ndarray]
    concatenate: Callable[[Sequence[Any], int], Any]


class Runtime(Protocol):
    """A model's float network, ready to run.

    Attributes:
      title: name, version and device, for messages.
    """

    title: str

    @property
    def memory_errors(self) -> tuple[type[Exception], ...]:
        """Exceptions that a lack of memory raises."""

    def analysis(self) -> Transform:
        """x [B, H, W, 3] to y [B, H/16, W/16, N]."""

    def hyper_analysis(self) -> Transform:
        """y to z [B, H/64, W/64, N]."""

    def synthesis(self) -> Transform:
        """y_hat [B, H/16, W/16, N] to x_hat [B, H, W, 3]."""

    def mixtures(
        self, y_hat: np.ndarray, z_hat: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Computes what the float model predicts of y; coding uses integers in its place.

        Args:
          y_hat: [B, H/16, W/16, N] float32.
          z_hat: [B, H/64, W/64, N] float32.

        Returns:
          phi: [B, H/16, W/16, 2N] float32.
          weights, means, scales: [B, H/16, W/16, N, K] float32, see `model.entropy_parameters`.
        """
