"""Likelihoods of y under the mixture."""

import numpy as np
import pytest
import tensorflow as tf

from gmm_attention.model import gaussian_mixture


def test_likelihoods_of_all_integers_sum_to_one():
    y = np.arange(-60, 61, dtype=np.float32)[:, None]
    weights = np.tile(np.float32([0.5, 0.3, 0.2]), [121, 1, 1])
    means = np.tile(np.float32([-3.3, 0.2, 11.0]), [121, 1, 1])
    scales = np.tile(np.float32([0.01, 1.7, 6.0]), [121, 1, 1])
    total = tf.reduce_sum(gaussian_mixture.likelihoods(y, weights, means, scales))
    assert float(total) == pytest.approx(1, abs=2e-4)  # each is at least 1e-6


@pytest.mark.parametrize("y, tail", [(-255.0, "upper"), (256.0, "lower")])
def test_the_ends_of_the_alphabet_take_the_tails(y, tail):
    mixture = np.ones([1, 1], np.float32), np.full([1, 1], y * 2, np.float32), np.ones([1, 1])
    likelihood = gaussian_mixture.likelihoods(tf.constant([y]), *mixture[:2], tf.ones([1, 1]))
    assert float(likelihood[0]) == pytest.approx(1)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e-4])
@pytest.mark.parametrize("distance", [0.0, 0.5, 1e-6, 300.0])
def test_vanishing_scales_leave_gradients_finite(scale, distance):
    mixture = [tf.constant([[w]]) for w in (1.0, distance, scale)]
    y = tf.constant([0.0])
    with tf.GradientTape() as tape:
        tape.watch([y, *mixture])
        likelihood = gaussian_mixture.likelihoods(y, *mixture)
    for gradient in tape.gradient(likelihood, [y, *mixture]):
        assert np.all(np.isfinite(gradient))
    assert np.float32(1e-6) <= likelihood[0] <= 1
