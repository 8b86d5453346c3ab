"""The real DFT of kernels, and the activation."""

import numpy as np
import pytest
import tensorflow as tf

from gmm_attention.model.layers import leaky_relu, rdft_matrix


def test_rdft_matrix_is_orthonormal_and_holds_the_kernels_fourier_transform():
    matrix = rdft_matrix(3)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(9), atol=1e-12)
    kernel = np.random.default_rng(0).normal(size=[3, 3])
    coefficients = (matrix.T @ kernel.reshape(9)).reshape(3, 3)
    fourier = np.fft.fft2(kernel) / 3
    assert coefficients[0, 0] == pytest.approx(fourier[0, 0].real)
    assert coefficients[0, 1] == pytest.approx(np.sqrt(2) * fourier[0, 1].real)
    assert coefficients[0, 2] == pytest.approx(np.sqrt(2) * fourier[0, 1].imag)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_leaky_relu_and_its_gradient_have_the_originals_slope(dtype):
    values = tf.constant([-3.0, -0.5, 0.25, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = tf.cast(leaky_relu(tf.cast(values, dtype)), tf.float32)
    np.testing.assert_allclose(result, [-0.6, -0.1, 0.25, 2.0], rtol=1 / 256)
    gradient = tape.gradient(result, values, tf.constant([1.0, 2.0, 4.0, 8.0]))
    np.testing.assert_allclose(gradient, [0.2, 0.4, 4.0, 8.0], rtol=1 / 256)
