"""Latents to strings and back: round trips, rate, determinism, damage."""

import hashlib
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_model import random_arrays, random_latents, uniform

from gmm_attention.codec import wavefront
from gmm_attention.entropy_coding.integer_model import ImageContext, IntegerEntropyModel
from gmm_attention.entropy_coding.quantization import integer_arrays
from gmm_attention.errors import BitstreamError, ImageError

ALL_LIVE = b"\xff"  # flags of eight channels


@cache
def model(num_filters=8, num_mixtures=3):
    return IntegerEntropyModel(integer_arrays(random_arrays(num_filters, num_mixtures)))


def assert_round_trip(prediction, z_symbols, y_hat):
    strings = wavefront.encode_latents(prediction, z_symbols, y_hat)
    height, width, _ = z_symbols.shape
    decoded_z, decoded_y = wavefront.decode_latents(prediction, height, width, *strings)
    assert decoded_z.dtype == decoded_y.dtype == np.int32
    np.testing.assert_array_equal(decoded_z, z_symbols)
    np.testing.assert_array_equal(decoded_y, y_hat)
    assert wavefront.max_positions(prediction, len(strings[1])) >= height * width
    return strings


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_latents_round_trip(data):
    num_filters = data.draw(st.sampled_from([8, 16]))
    num_mixtures = data.draw(st.integers(1, 5))
    height, width = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    z, y = random_latents(height, width, num_filters, data.draw(st.integers(0, 9)))
    y[:, :, data.draw(st.lists(st.integers(0, num_filters - 1)))] = 0
    large = st.one_of(st.integers(-300, 300), st.integers(-(2**15), 2**15))
    for array in (z, y):
        for _ in range(data.draw(st.integers(0, 4))):
            array.ravel()[data.draw(st.integers(0, array.size - 1))] = data.draw(large)
    assert_round_trip(model(num_filters, num_mixtures), z, y)


def test_the_largest_values_round_trip():
    z, y = random_latents(2, 2, 8)
    z[...] = np.where(z < 0, -(2**15), 2**15)
    y[...] = np.where(y < 0, -(2**15), 2**15)
    assert_round_trip(model(), z, y)


def test_pieces_end_where_steps_end(monkeypatch):
    z, y = random_latents(3, 4, 8)
    y[::3, ::2] *= 100
    strings = assert_round_trip(model(), z, y)
    for piece in (1, 2, 7, 10**6):
        monkeypatch.setattr(wavefront, "PIECE", piece)
        assert wavefront.encode_latents(model(), z, y) == strings
        assert_round_trip(model(), z, y)


def test_tail_symbols_may_be_decoded_in_parts(monkeypatch):
    z, y = random_latents(2, 2, 8)
    monkeypatch.setattr(wavefront, "TAILS", 3)
    assert_round_trip(model(), z, 20 * y)


@pytest.mark.parametrize("scale", [0, 32, 2**17, 2**21])
def test_extreme_scales_round_trip(scale, monkeypatch):
    mixtures = ImageContext.mixtures

    def with_scale(*args):
        result = mixtures(*args)
        result[2] = scale
        return result

    monkeypatch.setattr(ImageContext, "mixtures", with_scale)
    z, y = random_latents(1, 2, 8)
    assert_round_trip(model(), z, 50 * y)


def test_all_channels_dead_give_no_y_string():
    z, y = random_latents(2, 2, 8)
    flags, _, y_string = assert_round_trip(model(), z, np.zeros_like(y))
    assert flags == b"\x00" and y_string == b""


@pytest.mark.parametrize("channel", [0, 5, 7])
def test_exactly_one_live_channel_round_trips(channel):
    z, y = random_latents(2, 2, 8)
    y[:, :, np.arange(8) != channel] = 0
    flags, _, _ = assert_round_trip(model(), z, y)
    assert flags == bytes([128 >> channel])


def test_a_single_nonzero_element_round_trips():
    z, y = random_latents(1, 1, 8)
    for position in ((0, 0), (3, 3)):
        y[...] = 0
        y[position][2] = 1
        assert_round_trip(model(), z, y)


def test_values_beyond_the_format_are_refused():
    z, y = random_latents(1, 1, 8)
    y[0, 0, 0] = 2**15 + 1
    with pytest.raises(ImageError, match="y "):
        wavefront.encode_latents(model(), z, y)
    y[0, 0, 0] = 0
    z[0, 0, 0] = -(2**15) - 1
    with pytest.raises(ImageError, match="z "):
        wavefront.encode_latents(model(), z, y)


def ideal_bits(prediction, z_symbols, y_hat):
    """Sums -log2 of the mixtures' probabilities, 2^-16 at least, of y_hat, all channels live."""
    image = ImageContext(prediction, z_symbols, np.ones(prediction.num_filters, bool), 10**6)
    image.y_hat[...] = y_hat
    height, width, _ = y_hat.shape
    rows, columns = np.divmod(np.arange(height * width), width)
    mixtures = image.mixtures(rows, columns, image.hyper_part(rows, columns))
    weights = np.exp((mixtures[0] - mixtures[0].max(axis=0)) / 256)
    weights /= weights.sum(axis=0)
    means, scales = mixtures[1] / 1024, np.maximum(np.abs(mixtures[2]) / 1024, 1 / 32)
    erf = np.vectorize(math.erf)
    y = y_hat.reshape(height * width, -1)
    upper, lower = (erf((y + x - means) / scales / math.sqrt(2)) for x in (0.5, -0.5))
    likelihoods = np.sum(weights * (upper - lower) / 2, axis=0)
    return -np.sum(np.log2(np.maximum(likelihoods, 2.0**-16)))


def test_strings_are_as_long_as_the_mixtures_say():
    prediction = model(16)
    z, _ = random_latents(5, 5, 16)
    z = np.clip(z, prediction.z_offsets, prediction.z_offsets + prediction.z_escapes - 1)
    z_string = wavefront.encode_latents(prediction, z, np.zeros([20, 20, 16], np.int32))[1]
    noise = np.rint(127.5 + 127.5 * uniform([20000], 1)).astype(np.uint8).tobytes()
    # What noise decodes to follows the model's distribution.
    _, y = wavefront.decode_latents(prediction, 5, 5, 2 * ALL_LIVE, z_string, noise)
    flags, z_string, y_string = wavefront.encode_latents(prediction, z, y)
    assert flags == 2 * ALL_LIVE
    ideal = ideal_bits(prediction, z, y)
    assert abs(8 * len(y_string) - ideal) < 0.002 * ideal + 8

    symbols = z - prediction.z_offsets
    channels = np.arange(16)
    cdfs = prediction.z_cdfs
    bits = 16 - np.log2(cdfs[channels, symbols + 1] - cdfs[channels, symbols])
    assert abs(8 * len(z_string) - bits.sum()) < 0.001 * bits.sum() + 8


def test_max_positions_is_close_for_the_cheapest_symbols():
    z = np.empty([20, 30, 8], np.int32)
    z[...] = np.argmax(np.diff(model().z_cdfs), axis=1) + model().z_offsets
    _, z_string, _ = wavefront.encode_latents(model(), z, np.zeros([80, 120, 8], np.int32))
    assert 600 <= wavefront.max_positions(model(), len(z_string)) < 620


# Damage


def assert_within_the_format(latents, height, width):
    z, y = latents
    assert z.shape == (height, width, 8) and y.shape == (4 * height, 4 * width, 8)
    assert max(np.abs(z).max(), np.abs(y).max()) <= 2**15


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=400), st.binary(min_size=1, max_size=1))
def test_garbage_gives_an_error_or_latents_within_the_format(z_string, y_string, flags):
    try:
        latents = wavefront.decode_latents(model(), 2, 1, flags, z_string, y_string)
    except BitstreamError:
        return
    assert_within_the_format(latents, 2, 1)


# Each string is refused in place of the named ones, and decoded in place of the others: the bound
# grants 64 bits beyond a string's end, which can be enough for this small y.
@pytest.mark.parametrize(
    "byte, length, refused",
    [
        (0, 0, {"z"}),
        (0, 1, {"z", "y"}),
        (0, 5000, set()),
        (0x55, 0, {"z"}),
        (0x55, 1, {"z", "y"}),
        (0x55, 5000, set()),
        (0xFF, 0, {"z"}),
        (0xFF, 1, {"z"}),
        (0xFF, 5000, set()),
    ],
)
def test_constant_strings_come_to_an_end(byte, length, refused):
    string = bytes([byte] * length)
    z, y = random_latents(2, 2, 8)
    _, z_string, y_string = wavefront.encode_latents(model(), z, y)
    for name, strings in {"z": (string, y_string), "y": (z_string, string)}.items():
        if name in refused:
            with pytest.raises(BitstreamError, match=f"{name}'s string is too short"):
                wavefront.decode_latents(model(), 2, 2, ALL_LIVE, *strings)
        else:
            assert_within_the_format(
                wavefront.decode_latents(model(), 2, 2, ALL_LIVE, *strings), 2, 2
            )


def test_strings_that_are_too_short_are_refused():
    z, y = random_latents(3, 3, 8)
    flags, z_string, y_string = wavefront.encode_latents(model(), z, y)
    with pytest.raises(BitstreamError):
        wavefront.decode_latents(model(), 3, 3, flags, z_string, y_string[: len(y_string) // 4])
    with pytest.raises(BitstreamError):
        wavefront.decode_latents(model(), 3, 3, flags, z_string[: len(z_string) // 4], y_string)


def test_flags_must_fit_model_and_string():
    z, y = random_latents(1, 1, 8)
    flags, z_string, y_string = wavefront.encode_latents(model(), z, y)
    for bad in (b"", flags + b"\x00"):
        with pytest.raises(BitstreamError, match="flags"):
            wavefront.decode_latents(model(), 1, 1, bad, z_string, y_string)
    with pytest.raises(BitstreamError, match="no channel is live"):
        wavefront.decode_latents(model(), 1, 1, b"\x00", z_string, y_string)


# Determinism


def digest():
    """Hashes the strings of a model and latents with tails, escapes and a dead channel."""
    prediction = IntegerEntropyModel(integer_arrays(random_arrays(16, seed=1)))
    z, y = random_latents(3, 4, 16, seed=1)
    y[:, :, 3] = 0
    y[5, 5], y[6, ::3] = 1000, -30
    z[1, 1] = -40
    strings = assert_round_trip(prediction, z, y)
    return hashlib.sha256(b"|".join(strings)).hexdigest()


DIGEST = "38c53fc81cb7abcf4c59b61bdfd73f4bcc8b3e286d4ed3970f116f5c49628cec"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OPENBLAS_NUM_THREADS": "1"},
        {"OPENBLAS_CORETYPE": "Prescott"},
        {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "3"},
        {"OPENBLAS_CORETYPE": "Haswell"},
        {"NPY_DISABLE_CPU_FEATURES": "SSE42 AVX AVX2 FMA3 AVX512F AVX512CD AVX512_SKX"},
    ],
    ids=lambda environment: " ".join(environment.values()) or "none",
)
def test_strings_are_the_same_with_any_blas_and_instruction_set(environment):
    """A change of this digest is a change of the file format."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", "import test_wavefront; print(test_wavefront.digest())"],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert result.stdout.split() == [DIGEST]
