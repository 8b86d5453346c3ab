"""Context model and 1x1 convolutions: y_hat and phi to the mixture of each element of y."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

from gmm_attention.model.layers import Convolution, MaskedConvolution, leaky_relu


class EntropyParameters(tf.keras.Model):
    """The context model, and the 1x1 convolutions that merge its output with phi.

    Source: original network.py, `entropy_parameter`.
    """

    def __init__(self, num_filters: int, num_mixtures: int):
        super().__init__(name="entropy_parameter")
        self.num_mixtures = num_mixtures
        conv = functools.partial(Convolution, kernel_support=1, corr=True)
        self.masked = MaskedConvolution(2 * num_filters, name="masked")
        self.layer_0 = conv(640, activation=leaky_relu, name="layer_0")
        self.layer_1 = conv(640, activation=leaky_relu, name="layer_1")
        self.layer_2 = conv(3 * num_mixtures * num_filters, use_bias=False, name="layer_2")

    def call(self, inputs: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Predicts the mixture that codes each element of y.

        Args:
          inputs: the pair y_hat, phi. y_hat: [B, H/16, W/16, N], rounded latents (y_tilde in
            training). phi: [B, H/16, W/16, 2N], output of hyper_synthesis.

        Returns:
          weights, means, scales: [B, H/16, W/16, N, K] float32 each. Weights sum to one over the
          last axis; scales are standard deviations, in latent units, not bounded from below.
          (The original calls them `probs`, `means`, `variances`.)
        """
        y_hat, phi = inputs
        t = self.layer_0(tf.concat([self.masked(y_hat), phi], axis=-1))
        t = self.layer_2(self.layer_1(t))
        blocks = tf.split(t, 3 * self.num_mixtures, axis=-1)
        logits, means, scales = (tf.stack(blocks[i::3], axis=-1) for i in range(3))
        return tf.nn.softmax(logits), means, tf.abs(scales)
