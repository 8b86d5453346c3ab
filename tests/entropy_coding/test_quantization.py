"""Weights as 16-bit integers, and the tables of exp and of the normal distribution."""

import math
from functools import cache

import numpy as np
import pytest
from integer_model import random_arrays, uniform

from gmm_attention.entropy_coding import quantization
from gmm_attention.errors import CheckpointError


@cache
def drawn_arrays(num_filters=8, num_mixtures=3, seed=0):
    return quantization.integer_arrays(random_arrays(num_filters, num_mixtures, seed))


def test_exponents_are_the_largest_that_fit_int16():
    kernel = uniform([3, 3, 5, 40], 1) * 2.0 ** np.arange(-30, 10)
    kernel[..., 3] = 0
    kernel[..., 4] = 32767.5 / 2**15  # rounds to 32768
    kernel[..., 5] = 32767.4 / 2**15
    weights, exponents = quantization.quantize_kernel(kernel, "layer")
    assert weights.dtype == np.int16 and exponents.dtype == np.int8
    for channel, exponent in enumerate(exponents.tolist()):
        exact = kernel[..., channel] * 2.0**exponent
        np.testing.assert_array_equal(weights[..., channel], np.rint(exact))
        assert abs(weights[..., channel].astype(int)).max() <= 32767
        assert exponent == 40 or np.rint(2 * abs(exact)).max() > 32767
    assert exponents[3] == 40 and not weights[..., 3].any()
    assert exponents[4] == 14 and exponents[5] == 15


def test_quantized_weights_are_within_half_a_unit():
    kernel = uniform([3, 3, 8, 16], 2)
    weights, exponents = quantization.quantize_kernel(kernel, "layer")
    units = 2.0 ** -exponents.astype(int)
    assert np.all(abs(weights * units - kernel) <= units / 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 32768.0])
def test_refuses_weights_that_are_not_finite_or_too_large(bad):
    kernel = uniform([1, 1, 4, 6], 3)
    kernel[0, 0, 2, 5] = bad
    with pytest.raises(CheckpointError, match="some/layer: channel 5"):
        quantization.quantize_kernel(kernel, "some/layer")


def test_a_large_bias_lowers_the_exponent_of_tiny_weights():
    arrays = random_arrays(8)
    arrays["entropy_parameter/layer_1/kernel"][..., 7] = 0
    arrays["entropy_parameter/layer_1/bias"][7] = 5.25
    result = quantization.integer_arrays(arrays)
    exponent = int(result["entropy_parameter/layer_1/exponent"][7])
    assert result["entropy_parameter/layer_1/bias"][7] == 5.25 * 2.0 ** (exponent + 10)


def test_weights_after_the_centre_are_ignored():
    arrays = random_arrays(8)
    kernel = arrays["entropy_parameter/masked/kernel"]
    kernel[2, 2:] = kernel[3:] = 1e30
    result = quantization.integer_arrays(arrays)
    expected = drawn_arrays()
    for name in expected:
        np.testing.assert_array_equal(result[name], expected[name], name)


def test_exp_table_is_the_exponential_function():
    table = quantization.exp_table()
    expected = [2**20 * math.exp(-i / 256) for i in range(2816)] + [0]
    assert len(table) == 2817
    assert np.max(np.abs(table - expected)) <= 0.5 + 1e-6


def test_gaussian_table_is_the_normal_distribution_function():
    table = quantization.gaussian_table()
    x = [(i - 1152.5) / 256 for i in range(2306)]
    end = math.erf(4.5 / math.sqrt(2))
    expected = [2**14 * (1 + math.erf(value / math.sqrt(2)) / end) for value in x]
    assert len(table) == 2306 and table[0] == 0 and table[-1] == 2**15
    assert np.max(np.abs(table - expected)[1:-1]) <= 0.5 + 1e-6
    np.testing.assert_array_equal(table + table[::-1], 2**15)
