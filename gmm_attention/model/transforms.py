"""The four transforms: x -> y -> z -> phi, and y_hat -> x_hat.

Names follow the original graph: its `analysis/Block_0_layer_2` is `analysis/Block_0/layer_2` here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from gmm_attention.model.layers import GDN, Attention, Convolution, leaky_relu
from gmm_attention.strips import Stage


class AnalysisBlock(tf.keras.Model):
    """One of the four halvings of the analysis, [B, H, W, C] to [B, H/2, W/2, N]."""

    def __init__(self, num_filters: int, index: int, rdft: bool, dtype: str | None = None):
        super().__init__(name=f"Block_{index}", dtype=dtype)
        conv = functools.partial(Convolution, num_filters, corr=True, rdft=rdft, dtype=dtype)
        self.first, self.last = index == 0, index == 3
        if not self.first:
            self.layer_0 = conv(kernel_support=3, activation=leaky_relu, name="layer_0")
            self.layer_1 = conv(kernel_support=3, activation=leaky_relu, name="layer_1")
        if self.last:
            # In float32: y is quantized in steps of 1, which bfloat16 does not resolve for large y.
            self.layer_2 = conv(
                kernel_support=3, strides_down=2, use_bias=False, name="layer_2", dtype=None
            )
        else:
            self.shortcut = conv(kernel_support=1, name="shortcut")
            self.layer_2 = conv(
                kernel_support=3, strides_down=2, activation=leaky_relu, name="layer_2"
            )
            self.layer_3 = conv(
                kernel_support=3, activation=GDN(False, "gdn", dtype), name="layer_3"
            )

    def residual(self, t: tf.Tensor) -> tf.Tensor:
        """Returns the sum of t and its convolutions, or t itself in the first block."""
        return t if self.first else t + self.layer_1(self.layer_0(t))

    def halve(self, t: tf.Tensor) -> tf.Tensor:
        """Halves the sides of the residual's result."""
        if self.last:
            return self.layer_2(t)
        # Every other pixel and an unstrided convolution give the numbers of a strided one. Of a
        # strided 1x1 convolution with fewer than 16 input channels, the gradient in TF 2.14's
        # oneDNN corrupts the heap. A mean over windows of one pixel is a slice, t[:, ::2, ::2], at
        # a tenth of its time and that of its gradient.
        shortcut = self.shortcut(tf.nn.avg_pool2d(t, 1, 2, "VALID"))
        return self.layer_3(self.layer_2(t)) + shortcut

    def call(self, t: tf.Tensor) -> tf.Tensor:
        return self.halve(self.residual(t))

    def stages(self) -> list[Stage]:
        """Returns the block as a chain of steps that each depend on few rows; see `strips`."""
        halve = Stage(self.halve, halo=1 if self.last else 3, down=2)
        return [halve] if self.first else [Stage(self.residual, halo=2), halve]


class Analysis(tf.keras.Model):
    """g_a: x [B, H, W, 3] to y [B, H/16, W/16, N], float32.

    Args:
      num_filters, attention, rdft: see `Cheng2020`.
      dtype: Keras' policy for all but the last steps, such as "mixed_bfloat16".

    Source: original network.py, `analysis`.
    """

    def __init__(
        self, num_filters: int, attention: bool = True, rdft: bool = True, dtype: str | None = None
    ):
        super().__init__(name="analysis", dtype=dtype)
        self.blocks = [AnalysisBlock(num_filters, i, rdft, dtype) for i in range(4)]
        if attention:
            self.attention = [
                Attention(num_filters, rdft, name="NLAB_0", dtype=dtype),
                Attention(num_filters, rdft, name="NLAB_1"),
            ]
        else:
            self.attention = [tf.identity, tf.identity]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        t = self.blocks[0](x)
        t = self.attention[0](self.blocks[1](t))
        t = self.blocks[2](t)
        return self.attention[1](self.blocks[3](t))

    def stages(self) -> list[Stage]:
        """Returns the transform as a chain of steps that each depend on few rows; see `strips`."""
        first, second = (_attention_stages(attention) for attention in self.attention)
        blocks = [block.stages() for block in self.blocks]
        return [*blocks[0], *blocks[1], *first, *blocks[2], *blocks[3], *second]


def _attention_stages(attention: Callable[[tf.Tensor], tf.Tensor]) -> list[Stage]:
    return [Stage(attention, halo=3)] if isinstance(attention, Attention) else []


class SynthesisBlock(tf.keras.Model):
    """One of the four doublings of the synthesis, [B, H, W, N] to [B, 2H, 2W, N or 3]."""

    def __init__(self, num_filters: int, index: int, rdft: bool, dtype: str | None = None):
        super().__init__(name=f"Block_{index}", dtype=dtype)
        conv = functools.partial(Convolution, corr=False, rdft=rdft, dtype=dtype)
        self.last = index == 3
        self.layer_0 = conv(num_filters, 3, activation=leaky_relu, name="layer_0")
        self.layer_1 = conv(num_filters, 3, activation=leaky_relu, name="layer_1")
        if self.last:
            # In float32: near 1 the values of bfloat16 are as far apart as those of 8-bit pixels.
            self.layer_2 = conv(12, 3, name="layer_2", dtype=None)
        else:
            self.shortcut = conv(4 * num_filters, 1, name="shortcut")
            self.layer_2 = conv(4 * num_filters, 3, activation=leaky_relu, name="layer_2")
            self.layer_3 = conv(num_filters, 3, activation=GDN(True, "igdn", dtype), name="layer_3")

    def residual(self, t: tf.Tensor) -> tf.Tensor:
        """Returns the sum of t and its convolutions."""
        t = tf.cast(t, self.compute_dtype)  # Keras casts the input of `call`, but not of a stage
        return t + self.layer_1(self.layer_0(t))

    def upsampled(self, t: tf.Tensor) -> tf.Tensor:
        """Returns layer_2's result with doubled sides, by sub-pixel convolution."""
        return tf.nn.depth_to_space(self.layer_2(t), 2)

    def double(self, t: tf.Tensor) -> tf.Tensor:
        """Doubles the sides of the residual's result."""
        if self.last:
            return self.upsampled(t)
        shortcut = tf.nn.depth_to_space(self.shortcut(t), 2)
        return self.layer_3(self.upsampled(t)) + shortcut

    def call(self, t: tf.Tensor) -> tf.Tensor:
        return self.double(self.residual(t))

    def stages(self) -> list[Stage]:
        """Returns the block as a chain of steps that each depend on few rows; see `strips`."""
        double = Stage(self.double, halo=1 if self.last else 2, up=2)
        return [Stage(self.residual, halo=2), double]


class Synthesis(tf.keras.Model):
    """g_s: y_hat [B, H/16, W/16, N] to x_hat [B, H, W, 3], float32, before clipping to [0, 1].

    Args:
      num_filters, attention, rdft: see `Cheng2020`.
      dtype: Keras' policy for all but the last step, such as "mixed_bfloat16".

    Source: original network.py, `synthesis`.
    """

    def __init__(
        self, num_filters: int, attention: bool = True, rdft: bool = True, dtype: str | None = None
    ):
        super().__init__(name="synthesis", dtype=dtype)
        self.blocks = [SynthesisBlock(num_filters, i, rdft, dtype) for i in range(4)]
        if attention:
            self.attention = [
                Attention(num_filters, rdft, name=f"NLAB_{i}", dtype=dtype) for i in range(2)
            ]
        else:
            self.attention = [tf.identity, tf.identity]

    def call(self, y_hat: tf.Tensor) -> tf.Tensor:
        t = self.blocks[0](self.attention[0](y_hat))
        t = self.blocks[1](t)
        t = self.blocks[2](self.attention[1](t))
        return self.blocks[3](t)

    def stages(self) -> list[Stage]:
        """Returns the transform as a chain of steps that each depend on few rows; see `strips`."""
        first, second = (_attention_stages(attention) for attention in self.attention)
        blocks = [block.stages() for block in self.blocks]
        return [*first, *blocks[0], *blocks[1], *second, *blocks[2], *blocks[3]]


class LayerStack(tf.keras.Model):
    """A chain of convolutions layer_0, layer_1, and so on."""

    def __init__(self, convolutions: Sequence[Convolution], name: str):
        super().__init__(name=name)
        self.convolutions = convolutions

    def call(self, t: tf.Tensor) -> tf.Tensor:
        for convolution in self.convolutions:
            t = convolution(t)
        return t

    def stages(self) -> list[Stage]:
        """Returns the layers as steps, where they keep or halve the sides; see `strips`."""
        return [Stage(c, halo=1, down=c.strides_down[0]) for c in self.convolutions]


def hyper_analysis(num_filters: int, rdft: bool = True) -> LayerStack:
    """h_a: y [B, H/16, W/16, N] to z [B, H/64, W/64, N]; it takes y itself, not abs(y).

    Source: original network.py, `hyper_analysis`.
    """
    conv = functools.partial(Convolution, num_filters, 3, corr=True, rdft=rdft)
    layers = [
        conv(activation=leaky_relu, name="layer_0"),
        conv(activation=leaky_relu, name="layer_1"),
        conv(strides_down=2, activation=leaky_relu, name="layer_2"),
        conv(activation=leaky_relu, name="layer_3"),
        conv(strides_down=2, name="layer_4"),
    ]
    return LayerStack(layers, name="hyper_analysis")


def hyper_synthesis(num_filters: int, rdft: bool = True) -> LayerStack:
    """h_s: z_hat [B, H/64, W/64, N] to phi [B, H/16, W/16, 2N].

    Source: original network.py, `hyper_synthesis`.
    """
    conv = functools.partial(Convolution, kernel_support=3, corr=False, rdft=rdft)
    layers = [
        conv(num_filters, activation=leaky_relu, name="layer_0"),
        conv(num_filters, strides_up=2, activation=leaky_relu, name="layer_1"),
        conv(num_filters * 3 // 2, activation=leaky_relu, name="layer_2"),
        conv(num_filters * 3 // 2, strides_up=2, activation=leaky_relu, name="layer_3"),
        conv(2 * num_filters, name="layer_4"),
    ]
    return LayerStack(layers, name="hyper_synthesis")
