"""One training step: a batch of crops and a seed to new weights, and the measure of an image."""

import numpy as np
import tensorflow as tf

from gmm_attention import images
from gmm_attention.errors import TrainingError
from gmm_attention.evaluation.metrics import ms_ssim, psnr
from gmm_attention.model import variables
from gmm_attention.model.layers import Attention, Convolution
from gmm_attention.training import losses, optimizers, state
from gmm_attention.training.recipe import OPTIMIZERS, SYNTHESIS_INPUTS

# The quantiles only follow the density that the other variables make; they may run ahead.
QUANTILES = "entropy_bottleneck/quantiles"
QUANTILES_RATE = 20


def uniform_noise(batch, height, width, num_filters, seed):
    """Noise for y and z from a seed of two integers, uniform in [-1/2, 1/2)."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    return tuple(
        tf.random.stateless_uniform(
            [batch, height // stride, width // stride, num_filters], seeds[i], -0.5, 0.5
        )
        for i, stride in enumerate((16, 64))
    )


def build_model(num_filters, num_mixtures, attention, bfloat16=False, optimizer="adam"):
    """A Cheng2020 to train, at its first weights.

    Args:
      bfloat16: round operands and results of analysis' and synthesis' convolutions to bfloat16.
      optimizer: "muon" begins at an x_hat of mid-gray, where the original's is some hundred times
        too large and the first hundred steps go into that alone, and sums gradients in a fixed
        order. "adam" keeps the start and the sums that it had, to the last bit.
    """
    model = variables.build_model(num_filters, num_mixtures, attention)
    for name, variable in variables.by_name(model).items():
        # As initialised, each inverse GDN multiplies by some ten: x_hat would start at 10^5 and
        # more, and its gradient drown all others.
        if name.startswith("synthesis/") and "kernel" in name:
            variable.assign(0.5 * variable)
        if optimizer == "muon" and name == "synthesis/Block_3/layer_2/bias":
            variable.assign(tf.fill(variable.shape, 0.5))
        elif optimizer == "muon" and name == "synthesis/Block_3/layer_2/kernel_rdft":
            variable.assign(tf.zeros_like(variable))
    for transform in (model.analysis, model.synthesis):
        for layer in transform.submodules:
            if bfloat16 and isinstance(layer, Convolution):
                layer.operand_dtype = tf.bfloat16
            elif isinstance(layer, Attention):
                layer.ordered_gradients = optimizer == "muon"
    return model


def _part_of_cluster(resolver):
    """This process' number among those of a cluster resolver, and how many they are."""
    if not resolver or not resolver.cluster_spec():
        return 0, 1
    jobs = resolver.cluster_spec().as_dict()
    tasks = [(job, i) for job in ("chief", "worker") for i in range(len(jobs.get(job, ())))]
    if (resolver.task_type, resolver.task_id) not in tasks:
        raise TrainingError(
            f"TF_CONFIG: task {resolver.task_type} {resolver.task_id} is none of its cluster's "
            "chief and workers, which alone train"
        )
    return tasks.index((resolver.task_type, resolver.task_id)), len(tasks)


class TrainStep:
    """Steps of Adam or Muon on a model, with a moving average of its weights.

    To be made and called under one tf.distribute strategy, if any: its variables are made in the
    strategy's scope, and each replica gets its part of a batch. There is no other state than
    `state`: from equal states, equal arguments give equal results.

    Args:
      model: a Cheng2020 whose variables exist.
      average_model: another of the same kind; its variables become the moving average.
      metric: distortion of the loss, "mse" or "ms-ssim".
      average_decay: share of the moving average that a step keeps, in the long run.
      clip_norm: largest norm of all gradients together (but the quantiles'), 0 for no limit.
      xla: compile forward and backward pass by XLA.
      optimizer: "adam", or "muon" for the kernels (see `optimizers.muon_matrices`) and Adam for
        all else.
      synthesis_input: "noise", y with the noise that its rate is of, or "rounded" (see Cheng2020).

    Attributes:
      state: dict of str to tf.Variable: `weights/NAME`, `average/NAME`, either `muon_m/NAME` or
        `adam_m/NAME` and `adam_v/NAME`, and two counts: `updates`, which the optimizer's state
        has seen, and `averaged`, which the moving average has.
      part: (number of this process, number of processes), of the strategy's cluster.
      chief: whether this process, the first of them, writes files.
    """

    def __init__(
        self,
        model,
        average_model,
        metric,
        average_decay=0.999,
        clip_norm=1.0,
        xla=False,
        optimizer="adam",
        synthesis_input="noise",
    ):
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
        self.weights = variables.by_name(model)
        averages = variables.by_name(average_model)
        self.matrices = optimizers.muon_matrices(model) if optimizer == "muon" else {}
        self.state = {}
        for name, weight in self.weights.items():
            averages[name].assign(weight)
            self.state[f"weights/{name}"] = weight
            self.state[f"average/{name}"] = averages[name]
            for moment in ("muon_m",) if name in self.matrices else ("adam_m", "adam_v"):
                self.state[f"{moment}/{name}"] = tf.Variable(tf.zeros_like(weight), trainable=False)
        for count in ("updates", "averaged"):
            # Not integers, which TensorFlow keeps off a GPU; these are exact up to 2^24.
            self.state[count] = tf.Variable(0.0, trainable=False)
        self._gradients = tf.function(self.gradients, autograph=False, jit_compile=xla or None)
        self._step = tf.function(self.step, autograph=False)
        self._sum = tf.function(self._sum_of_replicas, autograph=False)
        self._measure = tf.function(
            self.measure,
            input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8)],
            autograph=False,
        )

    def __call__(self, images, seed, learning_rate, lmbda):
        """Takes a step.

        Args:
          images: uint8 [B, H, W, 3], H and W multiples of 64: this process' part of the batch,
            which its replicas share in equal parts.
          seed: int32 [2], from which the noise is drawn.
          learning_rate, lmbda: floats.

        Returns:
          dict of scalar tensors: the loss and its parts (see losses.rate_distortion),
          `auxiliary_loss`, `gradient_norm`, and `skipped`, 1 where loss or gradients were not
          finite, so that the state was left as it was.
        """
        metrics = self._step(
            self._shared_out(images),
            tf.constant(seed, tf.int32),
            tf.constant(learning_rate, tf.float32),
            tf.constant(lmbda, tf.float32),
        )
        return {k: self.strategy.experimental_local_results(v)[0] for k, v in metrics.items()}

    def _shared_out(self, images):
        replicas = self.strategy.num_replicas_in_sync // self.part[1]
        if replicas == 1:
            return tf.constant(images)
        parts = np.split(images, replicas)
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group % replicas])
        )

    def step(self, images, seed, learning_rate, lmbda):
        """`__call__` as a graph, of tensors or the strategy's distributed values."""
        return self.strategy.run(self._replica_step, (images, seed, learning_rate, lmbda))

    def gradients(self, images, seed, lmbda, part, parts):
        """The loss of one part of a batch, and its gradients.

        Args:
          images: uint8 [B, H, W, 3]: part number `part` of `parts` of the batch.
          seed: int32 [2], from which the noise of the whole batch is drawn.
          lmbda: float32, weight of the distortion.

        Returns:
          dict of scalars; list of gradients, in the order of the weights.
        """
        x = tf.cast(images, tf.float32) / 255
        batch, height, width, _ = x.shape
        noise = uniform_noise(parts * batch, height, width, self.model.num_filters, seed)
        noise = [tf.slice(t, [part * batch, 0, 0, 0], [batch, *t.shape[1:]]) for t in noise]
        weights = list(self.weights.values())
        with tf.GradientTape() as tape:
            x_hat, likelihoods = self.model(x, noise, self._round_for_synthesis)
            metrics = losses.rate_distortion(x, x_hat, likelihoods, lmbda, self.metric)
            auxiliary_loss = self.model.entropy_bottleneck.auxiliary_loss()
            # Each reaches variables of its own: the loss all but the quantiles.
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
        muon_moves = self._muon_moves(gradients, scale)
        arguments = gradients, muon_moves, finite, scale, learning_rate
        context.merge_call(self._update, arguments)
        return {**metrics, "gradient_norm": norm, "skipped": 1 - tf.cast(finite, tf.float32)}

    def _muon_moves(self, gradients, scale):
        """See `optimizers.muon_moves`; each replica computes them, from equal gradients."""
        scaled = {n: scale * g for n, g in zip(self.weights, gradients) if n in self.matrices}
        momenta = {name: self.state[f"muon_m/{name}"] for name in self.matrices}
        return optimizers.muon_moves(self.matrices, momenta, scaled)

    def _update(self, strategy, gradients, muon_moves, finite, scale, learning_rate):
        for name, gradient in zip(self.weights, gradients):
            average = self.state[f"average/{name}"], self.state["averaged"]
            if name in self.matrices:
                update = self._update_by_muon
                args = (self.state[f"muon_m/{name}"], *average, *muon_moves[name])
            else:
                update = self._update_quantiles if name == QUANTILES else self._update_by_adam
                moments = [self.state[f"{kind}/{name}"] for kind in ("adam_m", "adam_v")]
                args = (*moments, self.state["updates"], *average, gradient, scale)
            strategy.extended.update(self.weights[name], update, (*args, finite, learning_rate))
        for count in ("updates", "averaged"):
            strategy.extended.update(self.state[count], self._update_count, (finite,))

    @staticmethod
    def _update_count(count, finite):
        count.assign_add(tf.cast(finite, count.dtype))

    def _update_quantiles(self, weight, *args):
        *others, _, finite, learning_rate = args
        return self._update_by_adam(weight, *others, 1.0, finite, QUANTILES_RATE * learning_rate)

    def _update_by_adam(
        self, weight, m, v, updates, average, averaged, gradient, scale, finite, learning_rate
    ):
        new_m, new_v, move = optimizers.adam_move(m, v, updates, scale * gradient, learning_rate)
        self._move(weight, average, averaged, move, [(m, new_m), (v, new_v)], finite)

    def _update_by_muon(self, weight, m, average, averaged, new_m, move, finite, learning_rate):
        self._move(weight, average, averaged, learning_rate * move, [(m, new_m)], finite)

    def _move(self, weight, average, averaged, move, moments, finite):
        """Assigns a weight, its average and its moments, pairs of variable and new value."""
        # A shorter memory at first, or the average would keep what training began with.
        decay = tf.minimum(self.average_decay, (1 + averaged) / (10 + averaged))
        new_weight = weight - move
        new_average = average + (1 - decay) * (new_weight - average)
        # A loss or gradient that is not finite never reaches the weights.
        for old, new in (*moments, (weight, new_weight), (average, new_average)):
            old.assign(tf.where(finite, new, old))

    def agree(self, flag):
        """Whether any of the strategy's processes says so; all of them must ask."""
        if self.part[1] == 1:
            return flag
        return float(self._sum(tf.constant(float(flag)))) > 0

    def alike(self, number):
        """Whether all of the strategy's processes give the same integer; all of them must ask."""
        count = self.part[1]
        return count == 1 or float(self._sum(tf.constant(float(number)))) == count * number

    def _sum_of_replicas(self, value):
        def replica_sum(value):
            context = tf.distribute.get_replica_context()
            # The copy lies on the replica's device, which an argument does not.
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))

        return self.strategy.experimental_local_results(self.strategy.run(replica_sum, (value,)))[0]

    def measure(self, image):
        """Codes an image with the moving average, by rounding.

        Args:
          image: uint8 [1, H, W, 3], H and W multiples of 64.

        Returns:
          bits of y and of z, by their likelihoods, float32; the reconstruction, uint8 [1, H, W, 3].
        """
        x_hat, likelihoods = self.average_model(tf.cast(image, tf.float32) / 255)
        bits = [losses.bits_per_pixel(likelihoods[name], 1) for name in ("y", "z")]
        return (*bits, tf.cast(tf.round(255 * tf.clip_by_value(x_hat, 0, 1)), tf.uint8))

    def validate(self, image):
        """Codes an image with the moving average, without files.

        Args:
          image: uint8 [H, W, 3].

        Returns:
          dict of floats: `bpp_y`, `bpp_z`, `psnr` (dB), `ms_ssim` (NaN where a side is under 161
          pixels); the reconstruction, uint8 [H, W, 3].
        """
        height, width = image.shape[:2]
        bits_y, bits_z, padded = self._measure(images.pad(image)[None])
        reconstruction = images.crop(padded.numpy()[0], height, width)
        similarity = ms_ssim(image, reconstruction)
        measures = {
            "bpp_y": float(bits_y) / (height * width),
            "bpp_z": float(bits_z) / (height * width),
            "psnr": psnr(image, reconstruction),
            "ms_ssim": float("nan") if similarity is None else similarity,
        }
        return measures, reconstruction

    def arrays(self):
        """dict of str to numpy array: `state` as it is now."""
        return {name: variable.numpy() for name, variable in self.state.items()}

    def restore(self, arrays, source):
        """Takes back what `arrays` gave, or a part of it (see `state.complete`).

        Args:
          source: file that the arrays come from, for the message.

        Raises:
          CheckpointError: they do not fit, see `state.complete`.
        """
        shapes = {name: tuple(variable.shape) for name, variable in self.state.items()}
        arrays = state.complete(arrays, shapes, source)
        for name, variable in self.state.items():
            variable.assign(arrays[name])
