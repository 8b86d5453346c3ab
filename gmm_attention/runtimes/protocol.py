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


class Window(NamedTuple):
    """A part of an image, and where a search for its latents begins.

    Attributes:
      image: uint8 [H', W', 3], 0..255, the pixels whose error counts.
      corner: the row and the column of the window's pixels where these begin.
      y: [4h, 4w, N] float32, not rounded; where it is not searched, y_hat.
      z: [h, w, N] float32, not rounded; where it is not searched, z_hat.
      free: [h, w] bool, the positions of z that are searched, and with each the 4x4 of y there.
      gray: whether the picture is to be gray.
    """

    image: np.ndarray
    corner: tuple[int, int]
    y: np.ndarray
    z: np.ndarray
    free: np.ndarray
    gray: bool


class WindowSearch(Protocol):
    """The search for the latents of one window."""

    def step(self, temperature: float, rate: float, noise: float) -> None:
        """Moves the latents once.

        Args:
          temperature: above 0; a low one makes the latents seen nearly integers.
          rate: how far a latent moves, about.
          noise: 0..1, how much chance decides about the integers.
        """

    def rounded(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Rounds the latents.

        Returns:
          y_hat: [4h, 4w, N] int32.
          z_symbols: [h, w, N] int32.
          lambda D + R of these, in bits of the whole window; not finite if they are not.
        """


class LatentSearch(Protocol):
    """What searches latents whose lambda D + R is low.

    Attributes:
      metric: "mse" or "ms-ssim", see `losses.rate_distortion`.
    """

    metric: str

    @property
    def memory_errors(self) -> tuple[type[Exception], ...]:
        """Exceptions that a lack of memory raises."""

    def begin(self, window: Window, lmbda: float) -> WindowSearch:
        """Begins with a window; lmbda is the weight of the distortion."""
