"""One training step: crops, a seed and a state -> the next state; and the measures of an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gmm_attention import padding
from gmm_attention.errors import TrainingError
from gmm_attention.metrics import ms_ssim, psnr
from gmm_attention.model import losses, variables
from gmm_attention.model.cheng2020 import Cheng2020
from gmm_attention.model.layers import Attention
from gmm_attention.training import optimizers, state
from gmm_attention.training.recipe import OPTIMIZERS, SYNTHESIS_INPUTS

QUANTILES = "entropy_bottleneck/quantiles"

# Factor of the learning rate for the quantiles. They follow the density but do not influence it,
# so that they may move faster than all else.
QUANTILES_RATE = 20


def uniform_noise(
    batch: int, height: int, width: int, num_filters: int, seed: tf.Tensor | Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws the noise that training adds to y and z, uniform in [-1/2, 1/2).

    Args:
      batch, height, width: of x; height and width in pixels, multiples of 64.
      num_filters: N.
      seed: int32 [2]; equal seeds give equal noise.

    Returns:
      Noise for y, float32 [B, H/16, W/16, N], and for z, float32 [B, H/64, W/64, N].
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    return tuple(
        tf.random.stateless_uniform(
            [batch, height // stride, width // stride, num_filters], seeds[i], -0.5, 0.5
        )
        for i, stride in enumerate((16, 64))
    )


def build_model(
    num_filters: int,
    num_mixtures: int,
    attention: bool,
    precision: str = "float32",
    optimizer: str = "adam",
) -> Cheng2020:
    """Builds a Cheng2020 with the weights that training starts from.

    Args:
      num_filters, num_mixtures, attention, precision: see Cheng2020.
      optimizer: "muon" starts with an x_hat that is mid-gray everywhere, and sums gradients in a
        fixed order. "adam" starts with an x_hat that is some hundred times too large, so that the
        first hundred steps do little but shrink it, and sums gradients in TensorFlow's order. Both
        stay as they are so that earlier runs with "adam" in float32 can be repeated bit for bit.
    """
    model = variables.build_model(num_filters, num_mixtures, attention, precision=precision)
    for name, variable in variables.by_name(model).items():
        # At its initial parameters each inverse GDN multiplies by about ten. With the original's
        # kernels x_hat would start at 10^5 or more, and its gradient would drown all others.
        if name.startswith("synthesis/") and "kernel" in name:
            variable.assign(0.5 * variable)
        if optimizer == "muon" and name == "synthesis/Block_3/layer_2/bias":
            variable.assign(tf.fill(variable.shape, 0.5))
        elif optimizer == "muon" and name == "synthesis/Block_3/layer_2/kernel_rdft":
            variable.assign(tf.zeros_like(variable))
    for transform in (model.analysis, model.synthesis):
        for layer in transform.submodules:
            if isinstance(layer, Attention):
                layer.ordered_gradients = optimizer == "muon"
    return model


def _part_of_cluster(resolver: Any) -> tuple[int, int]:
    """The number of this process among those that train, and how many there are.

    Args:
      resolver: cluster resolver of a tf.distribute strategy, or None.

    Raises:
      TrainingError: the process has another task than training.
    """
    if not resolver or not resolver.cluster_spec():
        return 0, 1
    jobs = resolver.cluster_spec().as_dict()
    tasks = [(job, i) for job in ("chief", "worker") for i in range(len(jobs.get(job, ())))]
    if (resolver.task_type, resolver.task_id) not in tasks:
        raise TrainingError(
            f"TF_CONFIG: task {resolver.task_type} {resolver.task_id} is not among the cluster's "
            "chief and workers; only these train"
        )
    return tasks.index((resolver.task_type, resolver.task_id)), len(tasks)


class TrainStep:
    """Steps of Adam or Muon on a model, with a moving average of its weights.

    It is made and called under the same tf.distribute strategy, if any: its variables are created
    in the strategy's scope, and each replica gets its share of a batch. `state` is all of its
    state: from equal states, equal arguments give equal results.

    Args:
      model: a Cheng2020 whose variables exist.
      average_model: another of the same N, K and attention; its variables become the moving
        average.
      metric: distortion in the loss, "mse" or "ms-ssim".
      average_decay: share of the moving average that each step keeps, in the long run.
      clip_norm: largest norm of all gradients together, without that of the quantiles; 0 for no
        limit.
      xla: compile forward and backward pass with XLA.
      optimizer: "adam", or "muon" for the kernels (see `optimizers.muon_matrices`) and Adam for
        all other weights.
      synthesis_input: "noise" gives synthesis and hyper_synthesis the noisy latents from which
        the rates are computed, "rounded" gives them rounded ones (see Cheng2020).

    Attributes:
      model, average_model, metric, average_decay, clip_norm: as given.
      strategy: the tf.distribute strategy.
      weights: dict of str to tf.Variable, by the names of `variables.by_name`.
      matrices: dict of the kernels that Muon moves, see `optimizers.muon_matrices`.
      state: dict of str to tf.Variable: `weights/NAME`, `average/NAME`, either `muon_m/NAME` or
        `adam_m/NAME` and `adam_v/NAME`, and two counts of steps: `updates`, those in the
        optimizer's state, and `averaged`, those in the moving average.
      part: (number of this process, number of processes) in the strategy's cluster.
      chief: whether this process, the first of them, writes files.

    Raises:
      ValueError: optimizer or synthesis_input is unknown.
      TrainingError: TF_CONFIG gives this process another task than training.
    """

    def __init__(
        self,
        model: Cheng2020,
        average_model: Cheng2020,
        metric: str,
        average_decay: float = 0.999,
        clip_norm: float = 1.0,
        xla: bool = False,
        optimizer: str = "adam",
        synthesis_input: str = "noise",
    ) -> None:
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {OPTIMIZERS}, not {optimizer!r}")
        if synthesis_input not in SYNTHESIS_INPUTS:
            raise ValueError(
                f"synthesis_input must be one of {SYNTHESIS_INPUTS}, not {synthesis_input!r}"
            )
        self._round_for_synthesis = synthesis_input == "rounded"
        self.model, self.average_model = model, average_model
        self.metric, self.average_decay, self.clip_norm = metric, average_decay, clip_norm
        self.strategy = tf.distribute.get_strategy()
        self.part = _part_of_cluster(self.strategy.cluster_resolver)
        self.chief = self.part[0] == 0
        self.weights: dict[str, tf.Variable] = variables.by_name(model)
        averages = variables.by_name(average_model)
        self.matrices = optimizers.muon_matrices(model) if optimizer == "muon" else {}
        self._adam_rate = optimizers.ADAM_RATE if self.matrices else 1.0
        if self.matrices:
            # On GPUs, matrix products would be too inexact for Muon, see `optimizers.orthogonal`.
            tf.config.experimental.enable_tensor_float_32_execution(False)
        self.state: dict[str, tf.Variable] = {}
        for name, weight in self.weights.items():
            averages[name].assign(weight)
            self.state[f"weights/{name}"] = weight
            self.state[f"average/{name}"] = averages[name]
            for moment in ("muon_m",) if name in self.matrices else ("adam_m", "adam_v"):
                self.state[f"{moment}/{name}"] = tf.Variable(tf.zeros_like(weight), trainable=False)
        for count in ("updates", "averaged"):
            # Floats, since TensorFlow keeps integers off a GPU; they count exactly up to 2^24.
            self.state[count] = tf.Variable(0.0, trainable=False)
        self._gradients = tf.function(self.gradients, autograph=False, jit_compile=xla or None)
        self._step = tf.function(self.step, autograph=False)
        self._sum = tf.function(self._sum_of_replicas, autograph=False)
        self._measure = tf.function(
            self.measure,
            input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8)],
            autograph=False,
        )

    def __call__(
        self, images: np.ndarray, seed: Sequence[int], learning_rate: float, lmbda: float
    ) -> dict[str, tf.Tensor]:
        """Takes a step.

        Args:
          images: uint8 [B, H, W, 3], H and W multiples of 64: this process' part of the batch,
            which is split evenly between its replicas.
          seed: two integers, from which the noise is drawn.
          learning_rate: of this step.
          lmbda: weight of the distortion in the loss.

        Returns:
          dict of scalar tensors: the loss and its parts (see losses.rate_distortion),
          `auxiliary_loss`, `gradient_norm`, and `skipped`: 1 if the loss or the gradients were not
          finite and the state was left as it was, otherwise 0.
        """
        metrics = self._step(
            self._split_between_replicas(images),
            tf.constant(seed, tf.int32),
            tf.constant(learning_rate, tf.float32),
            tf.constant(lmbda, tf.float32),
        )
        return {k: self.strategy.experimental_local_results(v)[0] for k, v in metrics.items()}

    def _split_between_replicas(self, images: np.ndarray) -> Any:
        replicas = self.strategy.num_replicas_in_sync // self.part[1]
        if replicas == 1:
            return tf.constant(images)
        parts = np.split(images, replicas)
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group % replicas])
        )

    def step(
        self, images: tf.Tensor, seed: tf.Tensor, learning_rate: tf.Tensor, lmbda: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """`__call__` for a graph, on tensors or on the strategy's PerReplica values."""
        return self.strategy.run(self._replica_step, (images, seed, learning_rate, lmbda))

    def gradients(
        self, images: tf.Tensor, seed: tf.Tensor, lmbda: tf.Tensor, part: int, parts: int
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """The loss of one part of a batch, and its gradients.

        Args:
          images: uint8 [B, H, W, 3], number `part` of the `parts` equal parts of the batch.
          seed: int32 [2], from which the noise of the whole batch is drawn.
          lmbda: float32, weight of the distortion.
          part, parts: which part of the batch, from 0, and how many there are.

        Returns:
          dict of scalars, see `__call__`; list of gradients, in the order of `weights`.
        """
        x = tf.cast(images, tf.float32) / 255
        batch, height, width, _ = x.shape
        whole = uniform_noise(parts * batch, height, width, self.model.num_filters, seed)
        noise = [tf.slice(t, [part * batch, 0, 0, 0], [batch, *t.shape[1:]]) for t in whole]
        weights = list(self.weights.values())
        with tf.GradientTape() as tape:
            x_hat, likelihoods = self.model(x, noise, self._round_for_synthesis)
            metrics = losses.rate_distortion(x, x_hat, likelihoods, lmbda, self.metric)
            auxiliary_loss = self.model.entropy_bottleneck.auxiliary_loss()
            # The sum mixes no gradients: the auxiliary loss reaches the quantiles only, and the
            # loss all other variables.
            total = metrics["loss"] + auxiliary_loss
        return {**metrics, "auxiliary_loss": auxiliary_loss}, tape.gradient(total, weights)

    def _replica_step(self, images, seed, learning_rate, lmbda):
        context = tf.distribute.get_replica_context()
        part, parts = context.replica_id_in_sync_group, context.num_replicas_in_sync
        metrics, gradients = self._gradients(images, seed, lmbda, part, parts)
        if parts > 1:
            mean = tf.distribute.ReduceOp.MEAN
            metrics, gradients = context.all_reduce(mean, (metrics, gradients))
        others = [g for name, g in zip(self.weights, gradients) if name != QUANTILES]
        norm = tf.linalg.global_norm(others)
        finite = tf.math.is_finite(tf.linalg.global_norm(gradients))
        finite &= tf.math.is_finite(metrics["loss"])
        scale = tf.minimum(1.0, self.clip_norm / norm) if self.clip_norm else tf.ones([])
        # Clipping does not apply to the quantiles.
        clipped = {
            name: gradient if name == QUANTILES else scale * gradient
            for name, gradient in zip(self.weights, gradients)
        }
        # Every replica computes the same moves.
        momenta = {name: self.state[f"muon_m/{name}"] for name in self.matrices}
        moves = optimizers.muon_moves(self.matrices, self.weights, momenta, clipped)
        # What follows is the same for many weights. Computed for each, it was a third of the graph.
        correction = optimizers.adam_correction(self.state["updates"])
        adam_rate = self._adam_rate * learning_rate * correction
        quantiles_rate = QUANTILES_RATE * learning_rate * correction
        # The first steps average over fewer steps, or the initial weights would stay in for long.
        averaged = self.state["averaged"]
        decay = tf.minimum(self.average_decay, (1 + averaged) / (10 + averaged))
        rates = learning_rate, adam_rate, quantiles_rate
        context.merge_call(self._update, (clipped, moves, finite, decay, rates))
        return {**metrics, "gradient_norm": norm, "skipped": 1 - tf.cast(finite, tf.float32)}

    def _update(self, strategy, gradients, muon_moves, finite, decay, rates):
        muon_rate, adam_rate, quantiles_rate = rates
        for name, gradient in gradients.items():
            average = self.state[f"average/{name}"], decay
            update: Callable[..., None]
            args: tuple[Any, ...]
            if name in self.matrices:
                update, rate = self._update_by_muon, muon_rate
                args = (self.state[f"muon_m/{name}"], *average, *muon_moves[name])
            else:
                update = self._update_by_adam
                rate = quantiles_rate if name == QUANTILES else adam_rate
                moments = [self.state[f"{kind}/{name}"] for kind in ("adam_m", "adam_v")]
                args = (*moments, *average, gradient)
            strategy.extended.update(self.weights[name], update, (*args, finite, rate))
        for count in ("updates", "averaged"):
            strategy.extended.update(self.state[count], self._update_count, (finite,))

    @staticmethod
    def _update_count(count: tf.Variable, finite: tf.Tensor) -> None:
        count.assign_add(tf.cast(finite, count.dtype))

    def _update_by_adam(self, weight, m, v, average, decay, gradient, finite, learning_rate):
        new_m, new_v, move = optimizers.adam_move(m, v, gradient, learning_rate)
        self._move(weight, average, decay, move, [(m, new_m), (v, new_v)], finite)

    def _update_by_muon(self, weight, m, average, decay, new_m, move, finite, learning_rate):
        self._move(weight, average, decay, learning_rate * move, [(m, new_m)], finite)

    def _move(self, weight, average, decay, move, moments, finite):
        """Assigns a weight, its average, and its moments: pairs of variable and new value."""
        new_weight = weight - move
        new_average = average + (1 - decay) * (new_weight - average)
        # After a loss or gradient that is not finite, everything stays as it was.
        for old, new in (*moments, (weight, new_weight), (average, new_average)):
            old.assign(tf.where(finite, new, old))

    def agree(self, flag: bool) -> bool:
        """Whether any of the strategy's processes passes True, see `protocols.Trainer`."""
        if self.part[1] == 1:
            return flag
        return float(self._sum(tf.constant(float(flag)))) > 0

    def alike(self, number: int) -> bool:
        """Whether the strategy's processes pass the same integer, see `protocols.Trainer`."""
        # The sum is exact in float32, since numbers are below 2^20.
        count = self.part[1]
        return count == 1 or float(self._sum(tf.constant(float(number)))) == count * number

    def _sum_of_replicas(self, value):
        def replica_sum(value):
            context = tf.distribute.get_replica_context()
            # all_reduce needs the value on the replica's device; tf.identity copies it there.
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))

        return self.strategy.experimental_local_results(self.strategy.run(replica_sum, (value,)))[0]

    def measure(self, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Runs the moving average on an image, with rounding in place of noise.

        Args:
          image: uint8 [1, H, W, 3], H and W multiples of 64.

        Returns:
          bits of y and bits of z, float32 scalars, from their likelihoods; the reconstruction,
          uint8 [1, H, W, 3].
        """
        x_hat, likelihoods = self.average_model(tf.cast(image, tf.float32) / 255)
        bits = [losses.bits_per_pixel(likelihoods[name], 1) for name in ("y", "z")]
        return (*bits, tf.cast(tf.round(255 * tf.clip_by_value(x_hat, 0, 1)), tf.uint8))

    def validate(self, image: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """Measures an image of any size with the moving average; no file is written.

        Args:
          image: uint8 [H, W, 3].

        Returns:
          dict of floats: `bpp_y`, `bpp_z`, `psnr` (dB), `ms_ssim` (NaN if a side is under 161
          pixels); the reconstruction, uint8 [H, W, 3].
        """
        height, width = image.shape[:2]
        bits_y, bits_z, padded = self._measure(padding.pad(image)[None])
        reconstruction = padding.crop(padded.numpy()[0], height, width)
        similarity = ms_ssim(image, reconstruction)
        measures = {
            "bpp_y": float(bits_y) / (height * width),
            "bpp_z": float(bits_z) / (height * width),
            "psnr": psnr(image, reconstruction),
            "ms_ssim": float("nan") if similarity is None else similarity,
        }
        return measures, reconstruction

    def arrays(self) -> dict[str, np.ndarray]:
        """The values of `state`, by the same names."""
        return {name: variable.numpy() for name, variable in self.state.items()}

    def restore(self, arrays: Mapping[str, np.ndarray], source: str | os.PathLike[str]) -> None:
        """Replaces the state, see `protocols.Trainer`. Raises CheckpointError."""
        shapes = {name: tuple(variable.shape) for name, variable in self.state.items()}
        completed = state.complete(arrays, shapes, source)
        for name, variable in self.state.items():
            variable.assign(completed[name])
