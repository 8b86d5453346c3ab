"""The factorized prior of z: a learned univariate density for each channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_compression as tfc

from gmm_attention.errors import CheckpointError

FILTERS = (1, 3, 3, 3, 1)
INIT_SCALE = 10.0
TAIL_MASS = 2**-8
LIKELIHOOD_BOUND = 1e-9
CDF_PRECISION = 16


class EntropyBottleneck(tf.keras.layers.Layer):
    """Density of each channel of z, given by a cumulative that is a small monotone network.

    Source: tensorflow-compression 1.2, `EntropyBottleneck`; Ballé et al. 2018, appendix 6.1.
    """

    def __init__(self, name: str = "entropy_bottleneck"):
        super().__init__(name=name)

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        scale = INIT_SCALE ** (1 / (len(FILTERS) - 1))
        self.matrices: list[tf.Variable] = []
        self.biases: list[tf.Variable] = []
        self.factors: list[tf.Variable] = []
        for i, (inputs, outputs) in enumerate(zip(FILTERS[:-1], FILTERS[1:])):
            self.matrices.append(
                self.add_weight(
                    name=f"matrix_{i}",
                    shape=[channels, outputs, inputs],
                    initializer=tf.keras.initializers.Constant(
                        np.log(np.expm1(1 / scale / outputs))
                    ),
                )
            )
            self.biases.append(
                self.add_weight(
                    name=f"bias_{i}",
                    shape=[channels, outputs, 1],
                    initializer=tf.keras.initializers.RandomUniform(-0.5, 0.5),
                )
            )
            if i < len(FILTERS) - 2:
                self.factors.append(
                    self.add_weight(
                        name=f"factor_{i}", shape=[channels, outputs, 1], initializer="zeros"
                    )
                )
        self.quantiles = self.add_weight(
            name="quantiles",
            shape=[channels, 1, 3],
            initializer=lambda shape, dtype: tf.tile(
                tf.constant([[[-INIT_SCALE, 0, INIT_SCALE]]], dtype), [shape[0], 1, 1]
            ),
        )
        super().build(input_shape)

    def call(self, z: tf.Tensor, noise: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Rounds z, or adds noise in training.

        Args:
          z: [B, H/64, W/64, N] float32.
          noise: None to round z, or a tensor of z's shape that is added to it.

        Returns:
          z_hat (the original's `z_tilde`) and its likelihoods, both of z's shape.
        """
        z_hat = self.rounded(z) if noise is None else z + noise
        return z_hat, self.likelihoods(z_hat)

    def logits(self, values: tf.Tensor, stop_gradient: bool = False) -> tf.Tensor:
        """Returns the logits of the cumulative distribution.

        Args:
          values: [N, 1, P] float32, P values of each channel.
          stop_gradient: whether to leave the density's variables out of the gradient.

        Returns:
          [N, 1, P] float32.
        """
        pass_on = tf.stop_gradient if stop_gradient else tf.identity
        t = values
        for i, (matrix, bias) in enumerate(zip(self.matrices, self.biases)):
            t = tf.nn.softplus(pass_on(matrix)) @ t + pass_on(bias)
            if i < len(self.factors):
                t += tf.tanh(pass_on(self.factors[i])) * tf.tanh(t)
        return t

    @property
    def medians(self) -> tf.Tensor:
        """[N] float32, the middle of each channel's quantiles, to which rounding is relative."""
        return self.quantiles[:, 0, 1]

    def symbols(self, z: tf.Tensor) -> tf.Tensor:
        """Returns the integers that code z: floor(z + 1/2 - median), int32 of z's shape."""
        return tf.cast(tf.floor(z + (0.5 - self.medians)), tf.int32)

    def dequantize(self, symbols: tf.Tensor) -> tf.Tensor:
        """Returns the z_hat that symbols stand for, [B, H/64, W/64, N] float32."""
        return tf.cast(symbols, tf.float32) + self.medians

    def rounded(self, z: tf.Tensor) -> tf.Tensor:
        """Returns z rounded relative to the medians, float32 of z's shape."""
        return self.dequantize(self.symbols(z))

    def likelihoods(self, z: tf.Tensor) -> tf.Tensor:
        """Returns each element's probability: the density's mass on [z - 1/2, z + 1/2].

        Args:
          z: [B, H/64, W/64, N] float32.

        Returns:
          The same shape, at least 1e-9.
        """
        shape = tf.shape(z)
        values = tf.reshape(tf.transpose(z, [3, 0, 1, 2]), [shape[3], 1, -1])
        lower = self.logits(values - 0.5)
        upper = self.logits(values + 0.5)
        # Evaluated on the side where sigmoids are small, their difference keeps its digits.
        sign = tf.stop_gradient(-tf.sign(lower + upper))
        mass = tf.abs(tf.sigmoid(sign * upper) - tf.sigmoid(sign * lower))
        mass = tf.reshape(mass, tf.gather(shape, [3, 0, 1, 2]))
        return tfc.lower_bound(tf.transpose(mass, [1, 2, 3, 0]), LIKELIHOOD_BOUND)

    def auxiliary_loss(self) -> tf.Tensor:
        """Returns the loss that moves the quantiles to the density's median and tails.

        It is the sum of the distances of the quantiles' logits from those of probabilities 2^-9,
        1/2 and 1 - 2^-9. Its gradient reaches the quantiles only.
        """
        target = np.log(2 / TAIL_MASS - 1)
        logits = self.logits(self.quantiles, stop_gradient=True)
        return tf.reduce_sum(tf.abs(logits - tf.constant([-target, 0, target], tf.float32)))

    def _table_span(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers of symbols below and above the median in each channel's table."""
        quantiles = self.quantiles.numpy()[:, 0]
        below = np.maximum(np.ceil(quantiles[:, 1] - quantiles[:, 0]), 0).astype(np.int32)
        above = np.maximum(np.ceil(quantiles[:, 2] - quantiles[:, 1]), 0).astype(np.int32)
        return below, above

    def table_offsets(self) -> np.ndarray:
        """Returns the first symbol of each channel's table for the range coder, [N] int32."""
        return -self._table_span()[0]

    def range_coder_tables(self) -> dict[str, np.ndarray]:
        """Makes the tables for coding z's symbols, each of total 2^16.

        A table's last interval stands for all symbols outside the quantiles.

        Returns:
          dict: `entropy_bottleneck/quantized_cdf` [N, L] int32, rows zero-filled at the right,
          and `entropy_bottleneck/cdf_length` [N] int32.

        Raises:
          CheckpointError: quantiles so far apart that their symbols outnumber a table's total.
        """
        below, above = self._table_span()
        lengths = below + above + 3
        for channel in np.flatnonzero((lengths < 3) | (lengths > 2**CDF_PRECISION)):
            raise CheckpointError(f"{self.name}/quantiles: channel {channel}: too far apart")
        tables = np.zeros([len(lengths), lengths.max()], np.int32)
        samples = np.arange(lengths.max() - 2) - below[:, None] + self.medians.numpy()[:, None]
        likelihoods = self.likelihoods(samples.T[None, None].astype(np.float32)).numpy()[0, 0].T
        for table, length, pmf in zip(tables, lengths, likelihoods):
            pmf = pmf[: length - 2]
            pmf = np.append(pmf, max(1 - pmf.sum(), 0))
            table[:length] = tfc.pmf_to_quantized_cdf(pmf, precision=CDF_PRECISION)
        return {f"{self.name}/quantized_cdf": tables, f"{self.name}/cdf_length": lengths}
