"""The real DFT of kernels."""

import numpy as np
import pytest

from gmm_attention.model.layers import rdft_matrix


def test_rdft_matrix_is_orthonormal_and_holds_the_kernels_fourier_transform():
    matrix = rdft_matrix(3)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(9), atol=1e-12)
    kernel = np.random.default_rng(0).normal(size=[3, 3])
    coefficients = (matrix.T @ kernel.reshape(9)).reshape(3, 3)
    fourier = np.fft.fft2(kernel) / 3
    assert coefficients[0, 0] == pytest.approx(fourier[0, 0].real)
    assert coefficients[0, 1] == pytest.approx(np.sqrt(2) * fourier[0, 1].real)
    assert coefficients[0, 2] == pytest.approx(np.sqrt(2) * fourier[0, 1].imag)
