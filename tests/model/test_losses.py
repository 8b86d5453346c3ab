"""The loss: MS-SSIM as TensorFlow computes it, and with a gradient where TensorFlow's has none."""

import numpy as np
import pytest
import tensorflow as tf

from gmm_attention.model import losses


def test_ms_ssim_is_that_of_tensorflow(photograph):
    x = tf.image.resize(photograph[None, :, :160] / 255, [192, 256])
    x_hat = x + tf.random.stateless_normal(x.shape, [0, 1], 0, 0.1)
    expected = tf.image.ssim_multiscale(x, x_hat, max_val=1.0)
    np.testing.assert_allclose(losses.ms_ssim(x, x_hat), expected, rtol=1e-5)


def test_ms_ssim_has_a_gradient_before_x_hat_resembles_x(photograph):
    """Where tf.image's is NaN, so that no step of a fresh model would be taken."""
    x = tf.constant(photograph[None, :160, :] / 255, tf.float32)
    x = tf.image.resize(x, [192, 256])
    x_hat = tf.Variable(1 - x)
    for _ in range(40):
        with tf.GradientTape() as tape:
            distortion = 1 - tf.reduce_mean(losses.ms_ssim(x, x_hat))
        gradient = tape.gradient(distortion, x_hat)
        assert np.isfinite(gradient).all() and tf.norm(gradient) > 0
        x_hat.assign_sub(2 * gradient / tf.norm(gradient))
    assert losses.ms_ssim(x, x_hat) > 0.5 > losses.ms_ssim(x, 1 - x)


def test_an_unknown_metric_is_refused():
    x = tf.zeros([1, 64, 64, 3])
    with pytest.raises(ValueError, match="metric"):
        losses.rate_distortion(x, x, {"y": tf.ones([1]), "z": tf.ones([1])}, 1.0, "psnr")
