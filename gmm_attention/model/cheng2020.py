"""The whole network: x to x_hat and likelihoods."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from gmm_attention.model import gaussian_mixture, transforms
from gmm_attention.model.entropy_bottleneck import EntropyBottleneck
from gmm_attention.model.entropy_parameters import EntropyParameters

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def policy(precision: str) -> str:
    """Returns the name of Keras' policy for a precision, "float32" or "bfloat16".

    Raises:
      ValueError: precision is neither of the two.
    """
    if precision not in _POLICIES:
        raise ValueError(f"precision must be one of {', '.join(_POLICIES)}, not {precision!r}")
    return _POLICIES[precision]


class Cheng2020(tf.keras.Model):
    """Image codec with attention modules and a discretized Gaussian mixture hyperprior.

    ```
    x -- analysis --> y -- round --> y_hat -------------------- synthesis --> x_hat
                      |                |
                hyper_analysis   context model ----.
                      |                            v
                      z -- round --> z_hat --> hyper_synthesis, entropy parameters
                                                   |
                                     weights, means, scales of y_hat
    ```

    Args:
      num_filters: N of the paper (128 and 192 there), a multiple of 8.
      num_mixtures: K of the paper (3 there), 1 to 5.
      attention: whether to have the four attention modules (the paper's ablation has none).
      rdft: whether to store 3x3 kernels by their real DFT, as in training.
      precision: precision of analysis and synthesis except for their last steps, "float32" or
        "bfloat16".
      name: name of the Keras model.

    Raises:
      ValueError: num_filters is not a positive multiple of 8, num_mixtures not in 1..5, or
        precision neither of the two.

    Source: Cheng, Sun, Takeuchi, Katto, CVPR 2020; original network.py.
    """

    def __init__(
        self,
        num_filters: int = 128,
        num_mixtures: int = 3,
        attention: bool = True,
        rdft: bool = True,
        precision: str = "float32",
        name: str = "cheng2020",
    ):
        super().__init__(name=name)
        if num_filters <= 0 or num_filters % 8:
            raise ValueError(f"num_filters must be a positive multiple of 8, not {num_filters}")
        if not 1 <= num_mixtures <= 5:
            raise ValueError(f"num_mixtures must be from 1 to 5, not {num_mixtures}")
        self.num_filters = num_filters
        self.num_mixtures = num_mixtures
        self.has_attention = attention
        self.rdft = rdft
        self.precision = precision
        dtype = policy(precision)
        self.analysis = transforms.Analysis(num_filters, attention, rdft, dtype)
        self.synthesis = transforms.Synthesis(num_filters, attention, rdft, dtype)
        self.hyper_analysis = transforms.hyper_analysis(num_filters, rdft)
        self.hyper_synthesis = transforms.hyper_synthesis(num_filters, rdft)
        self.entropy_parameters = EntropyParameters(num_filters, num_mixtures)
        self.entropy_bottleneck = EntropyBottleneck()

    def call(
        self,
        x: tf.Tensor,
        noise: tuple[tf.Tensor, tf.Tensor] | None = None,
        round_for_synthesis: bool = False,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Computes x_hat and likelihoods, with rounding or, in training, with noise in its place.

        Args:
          x: [B, H, W, 3] float32 in [0, 1], H and W multiples of 64.
          noise: None to round, or the pair of tensors added to y ([B, H/16, W/16, N]) and z
            ([B, H/64, W/64, N]), uniform in [-1/2, 1/2). The same noisy y feeds context model,
            likelihoods and synthesis.
          round_for_synthesis: whether to give the synthesis rounded y and the hyper_synthesis
            rounded z in place of noisy ones, as in decoding. Their gradients reach y and z as if
            these had not been rounded.

        Returns:
          x_hat: [B, H, W, 3] float32, not clipped.
          likelihoods: a dict, "y" [B, H/16, W/16, N] and "z" [B, H/64, W/64, N].

        Raises:
          ValueError: H or W is known and not a multiple of 64.
        """
        if any(side is not None and side % 64 for side in x.shape[1:3]):
            raise ValueError(f"sides of x must be multiples of 64, not {list(x.shape[1:3])}")
        y = self.analysis(x)
        z = self.hyper_analysis(y)
        noise_y, noise_z = (None, None) if noise is None else noise
        y_hat = tf.round(y) if noise_y is None else y + noise_y
        z_hat, likelihoods_z = self.entropy_bottleneck(z, noise=noise_z)
        if round_for_synthesis:
            z_hat = z + tf.stop_gradient(self.entropy_bottleneck.rounded(z) - z)
        phi = self.hyper_synthesis(z_hat)
        mixture = self.entropy_parameters([y_hat, phi])
        likelihoods_y = gaussian_mixture.likelihoods(y_hat, *mixture)
        if round_for_synthesis:
            y_hat = y + tf.stop_gradient(tf.round(y) - y)
        return self.synthesis(y_hat), {"y": likelihoods_y, "z": likelihoods_z}

    def get_config(self) -> dict[str, Any]:
        return {
            "num_filters": self.num_filters,
            "num_mixtures": self.num_mixtures,
            "attention": self.has_attention,
            "rdft": self.rdft,
            "precision": self.precision,
            "name": self.name,
        }
