"""Exactness, tables and the range coder: everything between weights and bytes but the order."""

import math
import resource
import subprocess
import sys
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_model import random_arrays, random_latents, uniform

from gmm_attention.entropy_coding import cdf, prediction, quantization, range_coder
from gmm_attention.entropy_coding.prediction import ImagePrediction, Prediction
from gmm_attention.errors import BitstreamError, CheckpointError, CodecError


@cache
def integer_model(num_filters=8, num_mixtures=3, seed=0):
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


# Weights


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
        quantization.integer_arrays(arrays)


def test_weights_after_the_centre_are_ignored():
    arrays = random_arrays(8)
    kernel = arrays["entropy_parameter/masked/kernel"]
    kernel[2, 2:] = kernel[3:] = 1e30
    result = quantization.integer_arrays(arrays)
    expected = integer_model()
    for name in expected:
        np.testing.assert_array_equal(result[name], expected[name], name)


@pytest.mark.parametrize("name", sorted(integer_model()))
def test_a_model_with_a_damaged_array_is_refused(name):
    array = integer_model()[name]
    other_type = np.float32 if array.dtype != np.float32 else np.int32
    for damaged in (None, array[:-1], array.astype(other_type), array[None]):
        arrays = {**integer_model(), name: damaged}
        if damaged is None:
            del arrays[name]
        with pytest.raises(CheckpointError, match=name.rsplit("/", 1)[0]):
            Prediction(arrays)


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
    arrays = {key: array.copy() for key, array in integer_model().items()}
    arrays[name][index] = value
    with pytest.raises(CheckpointError, match=name.rsplit("/", 1)[0]):
        Prediction(arrays)


def test_a_weight_of_minus_32768_counts_with_its_magnitude():
    arrays = {key: array.copy() for key, array in integer_model().items()}
    arrays["entropy_parameter/layer_0/kernel"][...] = -32768
    arrays["entropy_parameter/layer_0/exponent"][...] = 0
    with pytest.raises(CheckpointError, match="layer_0: channel 0: outputs could reach 2\\^41"):
        Prediction(arrays)


# Exactness


@pytest.mark.parametrize("layer", quantization.layers(8, 3), ids=lambda layer: layer.name)
def test_float64_sums_equal_int64_sums_at_the_clamps(layer):
    arrays = integer_model()
    weights = arrays[f"{layer.name}/kernel"].reshape(-1, layer.shape[3]).astype(np.int64)
    bias = arrays[f"{layer.name}/bias"] if layer.has_bias else 0
    # Row c is the worst input of output channel c, and worst again with the other sign.
    x = np.where(weights.T < 0, -layer.input_limit, layer.input_limit)
    x = np.concatenate([x, -x, x - (x > 0), x // 3])[:: len(x) // 8]
    exact = x @ weights + bias

    kernel, float_bias = prediction._fold(arrays, layer)
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
    arrays = integer_model()
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
    np.testing.assert_array_equal(Prediction(arrays).phi(z_symbols), x)


def test_hyper_synthesis_in_blocks_equals_that_at_once(monkeypatch):
    model = Prediction(integer_model())
    z_symbols, _ = random_latents(5, 3, 8)
    expected = model.phi(z_symbols)
    monkeypatch.setattr(prediction, "BLOCK", 7)
    np.testing.assert_array_equal(model.phi(z_symbols), expected)


def predict(model, z_symbols, y_hat, live, most_positions=10**6):
    """Mixtures at all positions, [3, K, 4h, 4w, L]."""
    image = ImagePrediction(model, z_symbols, live, most_positions)
    image.y_hat[...] = y_hat[:, :, live]
    height, width, _ = y_hat.shape
    rows, columns = np.divmod(np.arange(height * width), width)
    result = image.mixtures(rows, columns, image.hyper_part(rows, columns))
    return result.reshape(*result.shape[:2], height, width, -1)


def test_mixtures_equal_naive_integer_ones():
    arrays = integer_model(8, 2)
    model = Prediction(arrays)
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
    model = Prediction(integer_model())
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
    model = Prediction(integer_model())
    z_symbols, y_hat = random_latents(2, 2, 8)
    live = np.array([1, 0, 0, 1, 1, 0, 1, 0], bool)
    y_hat[:, :, ~live] = 0
    everything = predict(model, z_symbols, y_hat, np.ones(8, bool))
    np.testing.assert_array_equal(predict(model, z_symbols, y_hat, live), everything[..., live])


# Tables


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


EXTREMES = [0, 1, -1, 31, 32, 511, 512, 513, 1024, 5000, 2**16, 2**21, 2**25, -(2**25), -(2**20)]
integers = st.one_of(st.sampled_from(EXTREMES), st.integers(-4096, 4096),
                     st.integers(-(2**25), 2**25))  # fmt: skip


@st.composite
def mixtures(draw):
    num_mixtures = draw(st.integers(1, 5))
    elements = draw(st.integers(1, 4))
    size = 3 * num_mixtures * elements
    values = draw(st.lists(integers, min_size=size, max_size=size))
    return np.array(values, np.int32).reshape(3, num_mixtures, elements)


def full_table(model, element):
    """C(t) of one element from its definition, in Python's integers; and the first t."""
    phi = quantization.gaussian_table().tolist()
    weights, a, b = (array[:, element].tolist() for array in (model.weights, model.a, model.b))
    below, above = int(model.below[element]), int(model.above[element])
    assert sum(weights) == 2**16 - 2 - (below + above + 1) and min(weights) >= 0
    table = []
    for t in range(-below, above + 2):
        places = [min(max((x * t + y) >> 7, 0), 2305) for x, y in zip(a, b)]
        total = sum(w * phi[place] for w, place in zip(weights, places))
        assert total < 2**31 and all(abs(x * t + y) < 2**31 for x, y in zip(a, b))
        table.append(t + below + 1 + (total >> 15))
    return [0, *table, 2**16], -below


@settings(max_examples=30, deadline=None)
@given(mixtures())
def test_tables_and_intervals_are_those_of_the_definition(mixture):
    phi = quantization.gaussian_table()
    model = cdf.counts(mixture, quantization.exp_table())
    first_tables = cdf.first_tables(model, phi)
    tail_tables = {
        side: cdf.tail_tables(model, np.full(mixture.shape[2], side, np.int32), phi)
        for side in (1, -1)
    }
    for element in range(mixture.shape[2]):
        counts, first = full_table(model, element)
        assert counts[0] == 0 and counts[-1] == 2**16 and np.all(np.diff(counts) > 0)
        table = first_tables[element].tolist()
        assert table[0] == 0 and table[-1] == 2**16 and np.all(np.diff(table) > 0)

        # Every offset of the window, and some beyond.
        last = first + len(counts) - 4
        offsets = np.arange(first - 3, last + 4, dtype=np.int32)
        offsets = np.append(offsets, np.array([-(2**16), 2**16], np.int32))
        one = model.take(np.full(len(offsets), element))
        widths = np.zeros(len(counts) - 1)
        intervals = zip(
            offsets.tolist(), *(x.tolist() for x in cdf.first_intervals(one, offsets, phi))
        )
        for offset, low, high in intervals:
            symbol = table.index(low)
            assert table[symbol + 1] == high
            assert cdf.first_offsets(symbol) == np.clip(offset, -4, 4)
            if abs(offset) <= 3:
                place = offset - first + 1
                assert high - low == counts[place + 1] - counts[place]
                widths[place] = high - low
        tails = np.flatnonzero(abs(offsets) > 3)
        one = model.take(np.full(len(tails), element))
        for offset, low, high, total, excess in zip(
            offsets[tails].tolist(),
            *(x.tolist() for x in cdf.tail_intervals(one, offsets[tails], phi)),
        ):
            table = tail_tables[1 if offset > 0 else -1][element]
            assert table[0] == 0 and table[-1] == total and np.all(np.diff(table) > 0)
            symbol = table.index(low)
            assert table[symbol + 1] == high
            assert excess == (offset - last if offset > 0 else first - offset)
            assert symbol == min(abs(offset) - 4, len(table) - 2)
            assert (symbol == len(table) - 2) == (excess > 0)
            place = min(max(offset - first + 1, 0), len(counts) - 2)
            assert high - low == counts[place + 1] - counts[place]
            widths[place] = high - low
        np.testing.assert_array_equal(widths, np.diff(counts))


def test_counts_follow_the_mixture():
    mixture = np.array([[[0], [-300]], [[700], [-2048]], [[1500], [-800]]], np.int32)
    model = cdf.counts(mixture, quantization.exp_table())
    counts, first = full_table(model, 0)
    middle = int(model.middle[0])

    def normal(x, mean, scale):
        return 0.5 + 0.5 * math.erf((x - mean / 1024) / (scale / 1024) / math.sqrt(2))

    share = 1 / (1 + math.exp(-300 / 256))
    for place, count in enumerate(counts[1:-1]):
        edge = middle + first + place - 0.5
        expected = share * normal(edge, 700, 1500) + (1 - share) * normal(edge, -2048, 800)
        assert abs(count / 2**16 - expected) < 1e-3


@pytest.mark.parametrize("side", [-1, 1])
def test_components_far_from_the_window_count_on_their_side(side):
    mixture = np.zeros([3, 2, 1], np.int32)
    mixture[0] = [[512], [0]]
    mixture[1] = [[-side * 2**25], [side * 2**25]]
    model = cdf.counts(mixture, quantization.exp_table())
    counts, first = full_table(model, 0)
    share = (2**16 - len(counts)) / (1 + math.exp(2))  # of the second component
    below, above = counts[1], counts[-1] - counts[-2]
    assert abs((above if side > 0 else below) - share) < 8
    assert (below if side > 0 else above) < 8


def test_the_window_is_cut_around_the_likeliest_component():
    mixture = np.array([[[100], [0]], [[-(2**25)], [2**25]], [[2**21], [5]]], np.int32)
    model = cdf.counts(mixture, quantization.exp_table())
    assert model.middle[0] == -(2**15)
    assert model.below[0] == model.above[0] == 500


# Range coder


@st.composite
def interval_lists(draw):
    """Tables and the symbol to code with each."""
    tables, symbols = [], []
    for _ in range(draw(st.integers(0, 30))):
        total = draw(st.sampled_from([2, 3, 100, 2**16 - 1, 2**16]))
        cuts = draw(st.sets(st.integers(1, total - 1), min_size=1, max_size=10))
        table = [0, *sorted(cuts), total]
        tables.append(table)
        symbols.append(draw(st.integers(0, len(table) - 2)))
    return tables, symbols


def rows(tables, symbols):
    """Intervals in the form that range_coder.encode takes."""
    chosen = [[0, table[i], table[i + 1], table[-1]] for table, i in zip(tables, symbols)]
    return np.array(chosen, np.int32).reshape(-1, 4)


@settings(max_examples=100, deadline=None)
@given(interval_lists(), st.lists(st.integers(1, 2**18 - 1), max_size=5))
def test_symbols_and_escapes_round_trip_at_their_price(tables_and_symbols, numbers):
    tables, symbols = tables_and_symbols
    bits, owners = range_coder.escape_bits(numbers)
    assert len(bits) == len(owners) == sum(2 * number.bit_length() - 1 for number in numbers)
    string = range_coder.encode([rows(tables, symbols), bits])
    widths = np.array([table[i + 1] - table[i] for table, i in zip(tables, symbols)], int)
    totals = np.array([table[-1] for table in tables], int)
    with range_coder.decoder(string, "string") as decoder:
        assert decoder.symbols(tables) == symbols
        decoder.charge(widths, totals)
        assert decoder.escapes(len(numbers)) == numbers
    price = np.sum(np.log2(totals / widths)) + len(bits)
    least = range_coder.least_bits(widths, totals) + len(bits) * 0.999
    assert least <= price <= 8 * len(string) + 9 and 8 * len(string) <= price + 24
    assert least <= 8 * len(string) + 8


@pytest.mark.parametrize("total", [2, 2**16])
@pytest.mark.parametrize("width", [1, 2**16 - 1])
def test_no_symbols_cost_less_than_the_bound(total, width):
    width = min(width, total - 1)
    for low in (0, total - width):  # in the middle of a table, and at its end
        row = np.array([[0, low, low + width, total]], np.int32)
        if low + width == total:
            row[:, 1] = total - width
        piece = np.repeat(row, 20000, axis=0)
        string = range_coder.encode([piece])
        least = range_coder.least_bits(piece[:, 2] - piece[:, 1], piece[:, 3])
        assert least <= 8 * len(string) + 8


def test_decoding_past_the_end_is_noticed():
    tables = [[0, 1, 2]] * 80
    with range_coder.decoder(b"\x55", "string") as decoder:
        decoder.symbols(tables)
        with pytest.raises(BitstreamError, match="string is too short"):
            decoder.charge(np.ones(80, int), 2)


def test_endless_escapes_are_refused():
    with range_coder.decoder(bytes(100), "string") as decoder:
        with pytest.raises(BitstreamError, match="escape"):
            decoder.escapes(1)


@pytest.mark.parametrize("size", [0, 1, 8, 99])
def test_a_temporary_file_that_is_not_written_whole_is_an_error(size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))  # as if the disk were full
    try:
        with pytest.raises(CodecError, match="temporary file"):
            range_coder.encode([np.array([[0, 77, 78, 2**16]] * 50, np.int32)])
        with pytest.raises(CodecError, match="temporary file"):
            with range_coder.decoder(bytes(100), "string"):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_temporary_files_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(range_coder.tempfile, "tempdir", str(tmp_path))

    def broken():
        yield np.array([[0, 0, 1, 2]], np.int32)
        raise KeyError("the generator's own")

    with pytest.raises(KeyError):
        range_coder.encode(broken())
    with pytest.raises(BitstreamError):
        with range_coder.decoder(b"", "string") as decoder:
            decoder.charge(np.ones(100, int), 2)
    range_coder.encode([])
    assert not list(tmp_path.iterdir())


def test_importing_the_coder_does_not_import_tensorflow():
    script = (
        "import sys\n"
        "import gmm_attention.codec.latents\n"
        "import gmm_attention.entropy_coding.prediction\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
