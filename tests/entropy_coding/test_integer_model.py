"""The integer model: damaged arrays are refused, and its arithmetic is exact."""

import subprocess
import sys
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from integer_model import random_arrays, random_latents, uniform

from gmm_attention.entropy_coding import integer_model, quantization
from gmm_attention.entropy_coding.integer_model import ImageContext, IntegerEntropyModel
from gmm_attention.errors import CheckpointError


@cache
def drawn_arrays(num_filters=8, num_mixtures=3, seed=0):
    return quantization.integer_arrays(random_arrays(num_filters, num_mixtures, seed))


def rounded(numerator, exponent):
    """Rounds integers times 2^-exponent half to even, in Python's integers."""
    round_all = np.frompyfunc(lambda n, e: round(Fraction(int(n), 2 ** int(e))), 2, 1)
    return round_all(numerator, exponent)


def activated(sums, exponents, leaky):
    """The layers' rounding, leaky ReLU and clamp on exact integer sums."""
    x = rounded(sums, exponents)
    if leaky:
        x = np.where(x < 0, rounded(x * 3277, 14), x)
    return np.clip(x, -(2**22), 2**22).astype(np.int64)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("hyper_synthesis/layer_2/kernel", np.nan, "hyper_synthesis/layer_2: channel 1"),
        ("hyper_synthesis/layer_0/bias", np.inf, "hyper_synthesis/layer_0: channel 1"),
        ("entropy_parameter/masked/kernel", 1e9, "entropy_parameter/masked: channel 1"),
        ("entropy_parameter/layer_0/bias", 1e15, "entropy_parameter/layer_0: channel 1"),
        ("entropy_parameter/layer_1/kernel", 32767.0, "layer_1: channel 1: outputs could reach"),
        ("entropy_parameter/layer_2/kernel", -np.inf, "entropy_parameter/layer_2: channel 1"),
        ("entropy_bottleneck/medians", np.nan, "medians"),
        ("entropy_bottleneck/medians", 5000.0, "medians"),
    ],
)
def test_export_refuses_what_does_not_fit(name, value, message):
    arrays = random_arrays(8)
    arrays[name][..., 1] = value
    with pytest.raises(CheckpointError, match=message):
        IntegerEntropyModel(quantization.integer_arrays(arrays))


@pytest.mark.parametrize("name", sorted(drawn_arrays()))
def test_a_model_with_a_damaged_array_is_refused(name):
    array = drawn_arrays()[name]
    other_type = np.float32 if array.dtype != np.float32 else np.int32
    for damaged in (None, array[:-1], array.astype(other_type), array[None]):
        arrays = {**drawn_arrays(), name: damaged}
        if damaged is None:
            del arrays[name]
        with pytest.raises(CheckpointError, match=name.rsplit("/", 1)[0]):
            IntegerEntropyModel(arrays)


@pytest.mark.parametrize(
    "name, index, value",
    [
        ("hyper_synthesis/layer_4/exponent", 3, 41),
        ("hyper_synthesis/layer_4/exponent", 3, -1),
        ("hyper_synthesis/layer_3/exponent", 3, 0),  # leaky: outputs could reach 2^41
        ("hyper_synthesis/layer_4/bias", 3, 2**50),
        ("hyper_synthesis/layer_4/bias", 3, -(2**63)),
        ("entropy_parameter/masked/kernel", (2, 2, 0, 0), 1),
        ("entropy_bottleneck/quantized_cdf", (1, 0), 1),
        ("entropy_bottleneck/quantized_cdf", (1, 2), 0),
        ("entropy_bottleneck/cdf_length", 1, 2),
        ("entropy_bottleneck/cdf_length", 1, -1),
        ("entropy_bottleneck/cdf_length", 1, 25),
        ("entropy_bottleneck/offset", 1, 2**31 - 1),
        ("entropy_bottleneck/integer_medians", 1, -(2**31)),
        ("tables/exp", 0, 1),
        ("tables/exp", 1, 2**20),
        ("tables/exp", 2816, 1),
        ("tables/phi", 2305, 2**15 + 1),
        ("tables/phi", 1000, -1),
    ],
)
def test_a_model_with_a_damaged_number_is_refused(name, index, value):
    arrays = {key: array.copy() for key, array in drawn_arrays().items()}
    arrays[name][index] = value
    with pytest.raises(CheckpointError, match=name.rsplit("/", 1)[0]):
        IntegerEntropyModel(arrays)


def test_a_weight_of_minus_32768_counts_with_its_magnitude():
    arrays = {key: array.copy() for key, array in drawn_arrays().items()}
    arrays["entropy_parameter/layer_0/kernel"][...] = -32768
    arrays["entropy_parameter/layer_0/exponent"][...] = 0
    with pytest.raises(CheckpointError, match="layer_0: channel 0: outputs could reach 2\\^41"):
        IntegerEntropyModel(arrays)


@pytest.mark.parametrize("layer", quantization.layers(8, 3), ids=lambda layer: layer.name)
def test_float64_sums_equal_int64_sums_at_the_clamps(layer):
    arrays = drawn_arrays()
    weights = arrays[f"{layer.name}/kernel"].reshape(-1, layer.shape[3]).astype(np.int64)
    bias = arrays[f"{layer.name}/bias"] if layer.has_bias else 0
    # Row c is the worst input of output channel c, and worst again with the other sign.
    x = np.where(weights.T < 0, -layer.input_limit, layer.input_limit)
    x = np.concatenate([x, -x, x - (x > 0), x // 3])[:: len(x) // 8]
    exact = x @ weights + bias

    kernel, float_bias = integer_model._fold(arrays, layer)
    kernel = kernel.reshape(-1, layer.shape[3])
    order = np.argsort(uniform([len(kernel)], 4))
    for rows in (slice(None), order):
        sums = x[:, rows].astype(np.float64) @ kernel[rows]
        sums += 0 if float_bias is None else float_bias
        units = 2.0 ** (layer.input_fraction_bits - 10 + arrays[f"{layer.name}/exponent"])
        np.testing.assert_array_equal((sums * units).astype(np.int64), exact)


def test_float64_sums_equal_int64_sums_for_the_largest_layer_and_weights():
    x = np.where(uniform([4, 9 * 288], 5) < 0, -(2**22), 2**22)
    weights = np.where(uniform([9 * 288, 16], 6) < 0, -32767, 32767)
    weights[:, 0] = np.sign(x[0]) * 32767
    exact = x @ weights
    assert exact.max() == 9 * 288 * 32767 * 2**22
    sums = x.astype(np.float64) @ (weights * 2.0**-15)
    np.testing.assert_array_equal((sums * 2**15).astype(np.int64), exact)


def test_hyper_synthesis_equals_a_naive_integer_one():
    arrays = drawn_arrays()
    z_symbols, _ = random_latents(2, 3, 8)
    z_symbols[0, 0, 0] = 2**15  # clamped
    x = z_symbols.astype(np.int64) * 2**10 + arrays["entropy_bottleneck/integer_medians"]
    x = np.clip(x, -(2**22), 2**22)
    for i in range(5):
        name = f"hyper_synthesis/layer_{i}"
        stride = 2 if i in (1, 3) else 1
        kernel = arrays[f"{name}/kernel"].astype(np.int64)
        height, width, _ = x.shape
        # Zeros between the inputs, then a convolution in the strict sense: kernel flipped.
        spread = np.zeros([stride * height + 2, stride * width + 2, x.shape[2]], np.int64)
        spread[1:-1:stride, 1:-1:stride] = x
        sums = sum(
            spread[2 - a : 2 - a + stride * height, 2 - b : 2 - b + stride * width] @ kernel[a, b]
            for a in range(3)
            for b in range(3)
        )
        sums += arrays[f"{name}/bias"]
        x = activated(sums, arrays[f"{name}/exponent"], leaky=i < 4)
    np.testing.assert_array_equal(IntegerEntropyModel(arrays).phi(z_symbols), x)


def test_hyper_synthesis_in_blocks_equals_that_at_once(monkeypatch):
    model = IntegerEntropyModel(drawn_arrays())
    z_symbols, _ = random_latents(5, 3, 8)
    expected = model.phi(z_symbols)
    monkeypatch.setattr(integer_model, "BLOCK", 7)
    np.testing.assert_array_equal(model.phi(z_symbols), expected)


def predict(model, z_symbols, y_hat, live, most_positions=10**6):
    """Mixtures at all positions, [3, K, 4h, 4w, L]."""
    image = ImageContext(model, z_symbols, live, most_positions)
    image.y_hat[...] = y_hat[:, :, live]
    height, width, _ = y_hat.shape
    rows, columns = np.divmod(np.arange(height * width), width)
    result = image.mixtures(rows, columns, image.hyper_part(rows, columns))
    return result.reshape(*result.shape[:2], height, width, -1)


def test_mixtures_equal_naive_integer_ones():
    arrays = drawn_arrays(8, 2)
    model = IntegerEntropyModel(arrays)
    z_symbols, y_hat = random_latents(1, 2, 8)
    y_hat[1, 1:4] = [[2**15], [-(2**15)], [2**15]]  # clamped further on
    actual = predict(model, z_symbols, y_hat, np.ones(8, bool))

    def product(name, x, leaky):
        kernel = arrays[f"entropy_parameter/{name}/kernel"].astype(np.int64)
        sums = x @ kernel[0, 0] + arrays[f"entropy_parameter/{name}/bias"]
        return activated(sums, arrays[f"entropy_parameter/{name}/exponent"], leaky)

    padded = np.pad(y_hat.astype(np.int64), [(2, 2), (2, 2), (0, 0)])
    kernel = arrays["entropy_parameter/masked/kernel"].astype(np.int64)
    sums = sum(
        padded[a : a + 4, b : b + 8] @ kernel[a, b]
        for a in range(5)
        for b in range(5)
        if (a, b) < (2, 2)
    )
    sums += arrays["entropy_parameter/masked/bias"]
    exponents = arrays["entropy_parameter/masked/exponent"].astype(int) - 10
    masked = activated(sums * 2**10, exponents + 10, leaky=False)
    x = np.concatenate([masked, model.phi(z_symbols).astype(np.int64)], axis=-1)
    x = product("layer_1", product("layer_0", x, True), True)
    sums = x @ arrays["entropy_parameter/layer_2/kernel"][0, 0].astype(np.int64)
    sums = sums.reshape(4, 8, 2, 3, 8)
    exponents = arrays["entropy_parameter/layer_2/exponent"].astype(int).reshape(2, 3, 8)
    exponents[:, 0] += 2  # logits have 8 fractional bits, not 10
    expected = np.clip(rounded(sums, exponents), -(2**25), 2**25).astype(np.int32)
    np.testing.assert_array_equal(actual, expected.transpose(3, 2, 0, 1, 4))


def test_mixtures_do_not_depend_on_what_comes_later():
    model = IntegerEntropyModel(drawn_arrays())
    z_symbols, y_hat = random_latents(2, 3, 8)
    live = np.ones(8, bool)
    before = predict(model, z_symbols, y_hat, live)
    changed_y_hat = y_hat.copy()
    changed_y_hat[3, 5] += 1
    changed = (predict(model, z_symbols, changed_y_hat, live) != before).any(axis=(0, 1, 4))
    expected = np.zeros_like(changed)
    expected[3, 6:8] = expected[4:6, 3:8] = True
    np.testing.assert_array_equal(changed, expected)


def test_dead_channels_do_not_change_the_others():
    model = IntegerEntropyModel(drawn_arrays())
    z_symbols, y_hat = random_latents(2, 2, 8)
    live = np.array([1, 0, 0, 1, 1, 0, 1, 0], bool)
    y_hat[:, :, ~live] = 0
    everything = predict(model, z_symbols, y_hat, np.ones(8, bool))
    np.testing.assert_array_equal(predict(model, z_symbols, y_hat, live), everything[..., live])


def test_importing_the_coder_does_not_import_tensorflow():
    script = (
        "import sys\n"
        "import gmm_attention.codec.wavefront\n"
        "import gmm_attention.entropy_coding.integer_model\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
