"""Convolution, GDN, residual block, attention and masked convolution; [B, H, W, C] to the same."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_compression as tfc


def leaky_relu(t: tf.Tensor) -> tf.Tensor:
    """Returns t where it is positive, elsewhere 0.2 t: the original's slope, not Keras' of 0.3."""
    if t.dtype != tf.bfloat16:
        return tf.nn.leaky_relu(t)

    # TensorFlow 2.14 computes this gradient four times as fast in float32, conversions included.
    @tf.custom_gradient
    def activation(t):
        def gradient(upstream):
            gradients, features = (tf.cast(each, tf.float32) for each in (upstream, t))
            result = tf.raw_ops.LeakyReluGrad(gradients=gradients, features=features, alpha=0.2)
            return tf.cast(result, tf.bfloat16)

        return tf.nn.leaky_relu(t), gradient

    return activation(t)


@functools.lru_cache
def rdft_matrix(size: int) -> np.ndarray:
    """Returns the inverse real DFT of square kernels as an orthonormal matrix.

    Args:
      size: side of the kernel.

    Returns:
      [size * size, size * size] float64. A flattened kernel is this matrix times its stored
      coefficients.

    Source: tensorflow-compression 1.2, `spectral_ops.irdft_matrix`.
    """
    # Each row of `axis` is the real DFT of a unit vector, with real and imaginary parts in turn.
    position, frequency = np.arange(size), np.arange(1, size)
    axis = np.empty((size, size))
    axis[:, 0] = 1
    angle = 2 * np.pi * position[:, None] * ((frequency + 1) // 2) / size
    axis[:, 1:] = np.sqrt(2) * np.where(frequency % 2, np.cos(angle), -np.sin(angle))
    if size % 2 == 0:
        axis[:, -1] /= np.sqrt(2)
    axis /= np.sqrt(size)
    return np.kron(axis, axis)


class RDFTParameter(tfc.Parameter):
    """A convolution kernel stored by its real DFT, as in the original.

    The class of this name in tensorflow-compression 2.14 keeps a complex DFT with redundant
    entries, which Adam moves by rounding noise. This one is orthonormal, as in release 1.2.
    """

    def __init__(self, initial_value: tf.Tensor | np.ndarray, name: str | None = None):
        super().__init__(name=name)
        initial_value = tf.convert_to_tensor(initial_value)
        self.shape = initial_value.shape
        self.dtype = initial_value.dtype
        matrix = tf.constant(rdft_matrix(self.shape[0]), self.dtype)
        taps = tf.reshape(initial_value, [matrix.shape[0], -1])
        rdft = tf.linalg.matmul(matrix, taps, transpose_a=True)
        self.variable = tf.Variable(rdft, name=f"{name}_rdft")

    def __call__(self, compute_dtype: Any = None) -> tf.Tensor:
        """Returns the kernel, [kh, kw, in, out]."""
        matrix = tf.constant(rdft_matrix(self.shape[0]), self.dtype)
        kernel = tf.reshape(matrix @ self.variable, self.shape)
        return kernel if compute_dtype is None else tf.cast(kernel, compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial_value": np.asarray(self()).tolist()}


class Convolution(tfc.SignalConv2D):
    """SignalConv2D with `same_zeros` padding, its kernel stored by its real DFT or plainly.

    Args:
      filters: number of output channels.
      kernel_support: side of the kernel.
      corr: whether to correlate with the kernel, as the analyses do, or to convolve.
      rdft: whether to store a kernel of more than one tap by its real DFT, as in training.
      use_bias: whether to add a bias.
      kwargs: further arguments of tfc.SignalConv2D.
    """

    def __init__(
        self,
        filters: int,
        kernel_support: int,
        corr: bool,
        rdft: bool = True,
        use_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(
            filters,
            kernel_support,
            corr=corr,
            use_bias=use_bias,
            padding="same_zeros",
            kernel_parameter="variable",
            **kwargs,
        )
        self.rdft = rdft and kernel_support > 1

    def build(self, input_shape: Any) -> None:
        if self.rdft:
            shape = self.kernel_support + (input_shape[-1], self.filters)
            initial_value = self.kernel_initializer(shape=shape, dtype=self.variable_dtype)
            self.kernel_parameter = RDFTParameter(initial_value, name="kernel")
        super().build(input_shape)

    def call(self, t: tf.Tensor) -> tf.Tensor:
        """Convolves [B, H, W, C] to [B, H', W', filters], smaller or larger by the strides."""
        if self.strides_up != (1, 1):
            return super().call(t)
        # The padding equals tensorflow-compression's, but avoids its EXPLICIT mode: oneDNN does not
        # compute the gradients of that, which makes them half as fast in float32 and 300 times
        # slower in bfloat16.
        kernel = self.kernel if self.corr else tf.reverse(self.kernel, [0, 1])
        stride, size = self.strides_down[0], self.kernel_support[0]
        if stride > 1:
            around = [size // 2, size // 2]
            t = tf.pad(t, [[0, 0], around, around, [0, 0]])
        t = tf.nn.conv2d(t, kernel, stride, "SAME" if stride == 1 else "VALID")
        if self.use_bias:
            t = tf.nn.bias_add(t, self.bias)
        return t if self.activation is None else self.activation(t)

    # Keras' own versions of these two methods, which `.weights.h5` files go through, omit the
    # parameters of tensorflow-compression's layers.
    def save_own_variables(self, store: Any) -> None:
        for i, variable in enumerate(self.weights):
            store[str(i)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        for i, variable in enumerate(self.weights):
            variable.assign(store[str(i)])


class GDN(tfc.GDN):
    """Generalized divisive normalization with the original's square and square root."""

    # tensorflow-compression's layer chooses its formula by these values. By its own, which are
    # tensors, a graph would choose anew in each run; by numbers the choice is made once.
    alpha = 2
    epsilon = 0.5

    def __init__(self, inverse: bool, name: str, dtype: str | None = None):
        super().__init__(
            inverse=inverse, alpha_parameter=2, epsilon_parameter=0.5, name=name, dtype=dtype
        )


class ResidualBlock(tf.keras.Model):
    """t + conv2(conv1(conv0(t))). Source: original network.py, `residualblock`."""

    def __init__(self, num_filters: int, rdft: bool, name: str, dtype: str | None = None):
        super().__init__(name=name, dtype=dtype)
        conv = functools.partial(Convolution, corr=True, rdft=rdft, dtype=dtype)
        self.conv0 = conv(num_filters // 2, 1, activation=tf.nn.relu, name="conv0")
        self.conv1 = conv(num_filters // 2, 3, activation=tf.nn.relu, name="conv1")
        self.conv2 = conv(num_filters, 1, name="conv2")

    def call(self, t: tf.Tensor) -> tf.Tensor:
        return t + self.conv2(self.conv1(self.conv0(t)))


def copies(t: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Returns `count` copies of t whose gradients are summed in the order of the list.

    TensorFlow's own sum of three or more begins with one that no other thread still reads, so that
    its last bit may differ from run to run.
    """

    @tf.custom_gradient
    def identities(t):
        return [tf.identity(t) for _ in range(count)], lambda *gradients: tf.reduce_sum(
            tf.stack(gradients), axis=0
        )

    return identities(t)


class Attention(tf.keras.Model):
    """t + mask * trunk, [B, H, W, N]. Source: original network.py, `NonLocalAttentionBlock`.

    Attributes:
      ordered_gradients: whether to sum the gradients of t's uses in a fixed order, see `copies`.
    """

    ordered_gradients: bool = False

    def __init__(self, num_filters: int, rdft: bool, name: str, dtype: str | None = None):
        super().__init__(name=name, dtype=dtype)
        block = functools.partial(ResidualBlock, num_filters, rdft, dtype=dtype)
        self.trunk_blocks = [block(name=f"trunk_RB_{i}") for i in range(3)]
        self.attention_blocks = [block(name=f"attention_RB_{i}") for i in range(3)]
        self.conv_1x1 = Convolution(
            num_filters, 1, corr=True, activation=tf.nn.sigmoid, name="conv_1x1", dtype=dtype
        )

    def trunk(self, t: tf.Tensor) -> tf.Tensor:
        for block in self.trunk_blocks:
            t = block(t)
        return t

    def mask(self, t: tf.Tensor) -> tf.Tensor:
        for block in self.attention_blocks:
            t = block(t)
        return self.conv_1x1(t)

    def call(self, t: tf.Tensor) -> tf.Tensor:
        shortcut, mask, trunk = copies(t, 3) if self.ordered_gradients else (t, t, t)
        return shortcut + self.mask(mask) * self.trunk(trunk)


class MaskedConvolution(tf.keras.layers.Layer):
    """The context model: a 5x5 convolution that sees only what comes before in raster order.

    It takes [B, H/16, W/16, N] to [B, H/16, W/16, filters]. The mask is of type A: the centre tap
    and all taps after it are zero, for all channels alike. The kernel is stored unmasked, as in the
    original.

    Source: original network.py, `entropy_parameter` (its `masked`).
    """

    def __init__(self, filters: int, name: str):
        super().__init__(name=name)
        self.filters = filters

    def build(self, input_shape: Any) -> None:
        shape = [5, 5, input_shape[-1], self.filters]
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="glorot_uniform")
        self.bias = self.add_weight(name="bias", shape=[self.filters], initializer="zeros")
        super().build(input_shape)

    def call(self, y_hat: tf.Tensor) -> tf.Tensor:
        mask = np.zeros([5, 5, 1, 1], np.float32)
        mask[:2] = mask[2, :2] = 1
        return tf.nn.bias_add(tf.nn.conv2d(y_hat, self.kernel * mask, 1, "SAME"), self.bias)
