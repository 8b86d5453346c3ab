"""A search for latents that cost less, by gradients of the float network; imports TensorFlow.

Source: Yang, Bamler, Mandt, "Improving Inference for Neural Image Compression", NeurIPS 2020, with
its stochastic Gumbel annealing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gmm_attention.checkpoints import integers
from gmm_attention.checkpoints.loading import LoadedModel, build_network
from gmm_attention.checkpoints.locate import Kind
from gmm_attention.errors import CheckpointError, naming
from gmm_attention.model import gaussian_mixture, losses, variables
from gmm_attention.model.layers import Attention, copies
from gmm_attention.runtimes.protocol import Window
from gmm_attention.runtimes.tensorflow_runtime import (
    MEMORY_ERRORS,
    check_process,
    has_bfloat16,
    one_at_a_time,
)

# Adam's decay rates, as usual.
_BETA_1, _BETA_2 = 0.9, 0.999

# How near to an integer a latent may come before its chance to be rounded the other way is zero.
_NEAREST = 1e-5

# Adam divides each gradient by the root mean square of those that it has seen of this latent, here
# also of those around it, so many positions in both directions. A latent alone has too few of them
# in 50 steps, and the draws make them uneven. Squares of z are shared by its channels, too: most of
# them carry nothing, and by their own squares Adam would move them as far as the others, which
# costs bits.
_AROUND = 5

# Keeps Adam from dividing by zero where there is no gradient, as in latents that are not free.
_SMALLEST = 1e-12

# Sides that all scales of MS-SSIM halve without a rest are multiples of it.
_SCALES = 16


class _Tensors(NamedTuple):
    """A Window as tensors, with a batch axis; `free` for y and for z, 1 where they are searched."""

    x: tf.Tensor
    corner: tf.Tensor
    free: list[tf.Tensor]
    gray: tf.Tensor
    lmbda: tf.Tensor


class _WindowSearch:
    """The search for the latents of one window, see WindowSearch."""

    def __init__(self, search: TensorFlowSearch, window: Window, lmbda: float):
        self._search, self._number = search, 0
        with one_at_a_time:
            free = window.free.astype(np.float32)[None, ..., None]
            self._window = _Tensors(
                tf.constant(window.image[None].astype(np.float32) / 255),
                tf.constant(window.corner, tf.int32),
                [tf.constant(free.repeat(4, axis=1).repeat(4, axis=2)), tf.constant(free)],
                tf.constant(window.gray),
                tf.constant(lmbda, tf.float32),
            )
            self._latents = [tf.constant(t[None]) for t in (window.y, window.z)]
            self._moments = [[tf.zeros_like(t) for t in self._latents]] * 2

    def step(self, temperature: float, rate: float, noise: float) -> None:
        self._number += 1
        numbers = self._number, temperature, rate, noise
        scalars = [tf.constant(value, tf.float32) for value in numbers]
        with one_at_a_time:
            self._latents, self._moments = self._search.move(
                self._latents, self._moments, self._window, scalars
            )

    def rounded(self) -> tuple[np.ndarray, np.ndarray, float]:
        bottleneck = self._search.network.entropy_bottleneck
        with one_at_a_time:
            y, z = self._latents
            y_hat, symbols = tf.round(y), bottleneck.symbols(z)
            cost = self._search.cost([y_hat, bottleneck.dequantize(symbols)], self._window)
            return y_hat.numpy()[0].astype(np.int32), symbols.numpy()[0], float(cost)


class TensorFlowSearch:
    """A LatentSearch by stochastic Gumbel annealing.

    A latent between two integers stands for a choice of one of them. Each step draws all choices at
    random, softened by a temperature, and moves the latents by the gradient of lambda D + R at what
    was drawn. As the temperature falls, the draws come near to what rounding gives.

    Threads take turns, as in `TensorFlowRuntime`.

    Args:
      loaded: the model.

    Attributes:
      metric, memory_errors: see LatentSearch.

    Raises:
      CheckpointError: there is no network of the model's settings, or no such metric.
    """

    memory_errors = MEMORY_ERRORS

    def __init__(self, loaded: LoadedModel):
        # Steps in bfloat16 find as much in less time (docs/EFFORT.md).
        precision = "bfloat16" if has_bfloat16() else "float32"
        with naming(loaded.name):
            self.network = build_network(loaded.settings, Kind.EXPORTED, precision)
        variables.assign(self.network, integers.float_arrays(loaded.exported), loaded.name)
        for layer in self.network.synthesis.attention:
            if isinstance(layer, Attention):
                layer.ordered_gradients = True  # the same image is to give the same files
        self.metric = loaded.settings.get("metric", "mse")
        if self.metric not in losses.METRICS:
            raise CheckpointError(
                f"{loaded.name}: trained for {self.metric!r}, by which no effort can be made; its "
                f"settings.json must say one of {', '.join(losses.METRICS)}, or leave --effort away"
            )
        number = tf.TensorSpec([], tf.float32)
        latents = [tf.TensorSpec([1, None, None, self.network.num_filters], tf.float32)] * 2
        window = _Tensors(
            tf.TensorSpec([1, None, None, 3], tf.float32),
            tf.TensorSpec([2], tf.int32),
            [tf.TensorSpec([1, None, None, 1], tf.float32)] * 2,
            tf.TensorSpec([], tf.bool),
            number,
        )
        # Of unknown sides, so that they are made once for windows of all sizes.
        self.move = tf.function(
            self._move, [latents, [latents] * 2, window, [number] * 4], autograph=False
        )
        self.cost = tf.function(self._cost, [latents, window], autograph=False)

    def begin(self, window: Window, lmbda: float) -> _WindowSearch:
        check_process()
        return _WindowSearch(self, window, lmbda)

    def _move(
        self,
        latents: Sequence[tf.Tensor],
        moments: Sequence[Sequence[tf.Tensor]],
        window: _Tensors,
        scalars: Sequence[tf.Tensor],
    ) -> tuple[list[tf.Tensor], list[list[tf.Tensor]]]:
        """A step of Adam: the new latents, and the new first and second moments."""
        number, temperature, rate, noise = scalars
        y, z = latents
        medians = self.network.entropy_bottleneck.medians
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(latents)
            drawn = [
                _drawn(y, temperature, noise, number),
                medians + _drawn(z - medians, temperature, noise, -number),
            ]
            cost = self._cost(drawn, window)
        new_latents, new_means, new_squares = [], [], []
        for t, gradient, free, mean, square in zip(
            latents, tape.gradient(cost, latents), window.free, *moments
        ):
            gradient = tf.where(tf.math.is_finite(gradient), gradient, 0)
            around = tf.nn.avg_pool2d(gradient**2, _AROUND, 1, "SAME")
            if t is z:
                shared = tf.reduce_mean(around, axis=-1, keepdims=True)
                around = tf.broadcast_to(shared, tf.shape(around))
            mean = _BETA_1 * mean + (1 - _BETA_1) * gradient * free
            square = _BETA_2 * square + (1 - _BETA_2) * around
            unbiased = mean / (1 - _BETA_1**number), square / (1 - _BETA_2**number)
            new_latents.append(t - rate * unbiased[0] / (tf.sqrt(unbiased[1]) + _SMALLEST))
            new_means.append(mean)
            new_squares.append(square)
        return new_latents, [new_means, new_squares]

    def _cost(self, latents: Sequence[tf.Tensor], window: _Tensors) -> tf.Tensor:
        """lambda D + R of y_hat and z_hat, or of what stands for them, in bits."""
        y_hat, z_hat = latents
        of_context, of_likelihoods, of_pixels = copies(y_hat, 3)
        phi = self.network.hyper_synthesis(z_hat)
        mixture = self.network.entropy_parameters([of_context, phi])
        likelihoods = (
            gaussian_mixture.likelihoods(of_likelihoods, *mixture),
            self.network.entropy_bottleneck.likelihoods(z_hat),
        )
        rate = tf.add_n([losses.bits_per_pixel(t, 1) for t in likelihoods])
        top, left = tf.unstack(window.corner)
        height, width = tf.unstack(tf.shape(window.x)[1:3])
        x_hat = self.network.synthesis(of_pixels)[:, top : top + height, left : left + width]
        # The decoder makes gray pixels of their mean, and clips.
        mean = tf.reduce_mean(x_hat, axis=-1, keepdims=True)
        x_hat = tf.where(window.gray, tf.broadcast_to(mean, tf.shape(x_hat)), x_hat)
        x_hat = tf.clip_by_value(x_hat, 0, 1)
        num_pixels = tf.cast(height * width, tf.float32)
        if self.metric == "ms-ssim":
            distortion = 1 - losses.ms_ssim(*map(_whole_scales, (window.x, x_hat)))[0]
        else:
            distortion = 255**2 * tf.reduce_mean(tf.math.squared_difference(window.x, x_hat))
        return window.lmbda * num_pixels * distortion + rate


def _drawn(t: tf.Tensor, temperature: tf.Tensor, noise: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Draws integers near t, softened; the number of the step decides what is drawn.

    Source: Yang et al. 2020, section 3.2: the nearer an integer, the likelier it is, by -atanh of
    its distance divided by the temperature, and what is drawn is the mean of the two integers by
    weights from a Gumbel-softmax of the same temperature. There the noise is 1.
    """
    below = tf.floor(t)
    distance = tf.clip_by_value(t - below, _NEAREST, 1 - _NEAREST)
    logit = (tf.atanh(distance) - tf.atanh(1 - distance)) / temperature
    seed = tf.stack([tf.cast(number, tf.int32), 0])
    uniform = tf.random.stateless_uniform(tf.shape(t), seed, _NEAREST, 1 - _NEAREST)
    # The difference of two Gumbel variables is logistic.
    logistic = tf.math.log(uniform) - tf.math.log1p(-uniform)
    return below + tf.sigmoid((logit + noise * logistic) / temperature)


def _whole_scales(x: tf.Tensor) -> tf.Tensor:
    """Repeats the last pixels so that all scales of MS-SSIM see the whole image."""
    height, width = tf.unstack(tf.shape(x)[1:3])
    more = [[0, 0], [0, -height % _SCALES], [0, -width % _SCALES], [0, 0]]
    return tf.pad(x, more, "SYMMETRIC")
