"""One training step: a batch of crops and a seed to new weights."""

import tensorflow as tf

from gmm_attention.model.variables import by_name
from gmm_attention.training import losses

# The quantiles only follow the density that the other variables make; they may run ahead.
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


class TrainStep:
    """Adam steps on a built model, on one device, with a moving average of its weights.

    Args:
      model: a Cheng2020 whose variables exist.
      metric: distortion of the loss, "mse" or "ms-ssim".
      average_decay: share of the moving average that a step keeps, in the long run.
      clip_norm: largest norm of all gradients together (but the quantiles').

    Call with images (uint8 [B, H, W, 3], H and W multiples of 64), seed (int32 [2]),
    learning_rate and lmbda (float32 scalars); returns the loss and its parts, a dict of scalars.
    """

    def __init__(self, model, metric, average_decay=0.999, clip_norm=1.0):
        self.model, self.metric, self.clip_norm = model, metric, clip_norm
        self.named = by_name(model)
        quantiles = "entropy_bottleneck/quantiles"
        self.quantiles = [self.named[quantiles]]
        self.weights = [v for name, v in self.named.items() if name != quantiles]
        self.optimizer = tf.keras.optimizers.Adam()
        self.optimizer.build(self.weights)
        self.quantiles_optimizer = tf.keras.optimizers.Adam()
        self.quantiles_optimizer.build(self.quantiles)
        self.average_decay = average_decay
        self.averages = {n: tf.Variable(v, trainable=False) for n, v in self.named.items()}
        self._step = tf.function(self._take_step, autograph=False)

    def __call__(self, images, seed, learning_rate, lmbda):
        return self._step(
            images,
            tf.constant(seed, tf.int32),
            tf.constant(learning_rate, tf.float32),
            tf.constant(lmbda, tf.float32),
        )

    def _take_step(self, images, seed, learning_rate, lmbda):
        x = tf.cast(images, tf.float32) / 255
        noise = uniform_noise(*x.shape[:3], self.model.num_filters, seed)
        with tf.GradientTape(persistent=True) as tape:
            x_hat, likelihoods = self.model(x, noise=noise)
            metrics = losses.rate_distortion(x, x_hat, likelihoods, lmbda, self.metric)
            auxiliary_loss = self.model.entropy_bottleneck.auxiliary_loss()
        gradients = tape.gradient(metrics["loss"], self.weights)
        gradients, norm = tf.clip_by_global_norm(gradients, self.clip_norm)
        quantiles_gradients = tape.gradient(auxiliary_loss, self.quantiles)

        def update():
            self.optimizer.learning_rate.assign(learning_rate)
            self.optimizer.apply_gradients(zip(gradients, self.weights))
            self.quantiles_optimizer.learning_rate.assign(QUANTILES_RATE * learning_rate)
            self.quantiles_optimizer.apply_gradients(zip(quantiles_gradients, self.quantiles))
            # A shorter memory at first, or the average would keep what training began with.
            steps = tf.cast(self.optimizer.iterations, tf.float32)
            decay = tf.minimum(self.average_decay, (1 + steps) / (10 + steps))
            for name, average in self.averages.items():
                average.assign_sub((1 - decay) * (average - self.named[name]))

        # A loss or gradient that is not finite never reaches the weights.
        tf.cond(tf.math.is_finite(norm), update, lambda: None)
        return {**metrics, "auxiliary_loss": auxiliary_loss, "gradient_norm": norm}
