"""Parity with tensors that the authors' TF1 code computed; needs ../shared/reference."""

import json
import pathlib

import imageio.v3 as iio
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_compression.python.ops import gen_ops

from gmm_attention import export, images
from gmm_attention.codec.image_codec import load
from gmm_attention.model import gaussian_mixture, variables
from gmm_attention.tf1_import import names, reader
from gmm_attention.training import losses

REFERENCE = pathlib.Path(__file__).resolve().parents[2] / "shared" / "reference"
CASES = [
    "n32/coffee_84x100",
    "n32/china_192x176",
    "n32/astronaut_136x200",
    "n16/coffee_84x100",
    "n16/noise_72x64",
    "n16/flat_90x50",
    "n16dead/coffee_84x100",
]
WITH_ACTIVATIONS = ["n32/coffee_84x100", "n16/coffee_84x100"]
TENSOR_TOLERANCE = 1e-4  # of the largest magnitude: float32 sums in another order give some 1e-6
GRADIENT_TOLERANCE = 1e-3  # tf.image's MS-SSIM alone carries 3e-4

pytestmark = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="needs ../shared/reference, outside this repository"
)

_codecs = {}


def codec_of(case):
    folder = case.split("/")[0]
    if folder not in _codecs:
        _codecs[folder] = load(REFERENCE / folder / "model")
    return _codecs[folder]


def stored(case):
    with np.load(REFERENCE / f"{case}.tensors.npz") as file:
        return dict(file)


def padded(case):
    return images.pad(iio.imread(REFERENCE / f"{case}.png"))[None].astype(np.float32) / 255


def assert_agrees(actual, expected, tolerance=TENSOR_TOLERANCE):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("case", CASES)
def test_tensors_agree_with_the_original(case):
    model, expected = codec_of(case).model, stored(case)
    y = model.analysis(padded(case))
    assert_agrees(y, expected["y"])
    z = model.hyper_analysis(y)
    assert_agrees(z, expected["z"])
    z_hat = model.entropy_bottleneck(z)[0]
    assert_agrees(z_hat, expected["z_tilde"])
    phi = model.hyper_synthesis(z_hat)
    assert_agrees(phi, expected["phi"])
    y_hat = tf.round(y)
    np.testing.assert_array_equal(y_hat, expected["y_hat"])
    weights, means, scales = model.entropy_parameters([y_hat, phi])
    assert_agrees(means, expected["means"])
    assert_agrees(scales, expected["scales"])
    assert_agrees(weights, expected["probs"])
    assert_agrees(model.synthesis(y_hat), expected["x_hat"])


@pytest.mark.parametrize("case", WITH_ACTIVATIONS)
def test_named_activations_agree_with_the_original(case):
    model, expected = codec_of(case).model, stored(case)
    actual = {}
    t = padded(case)
    for i, block in enumerate(model.analysis.blocks):
        actual[f"analysis|Block_{i}_residual"] = block.residual(t)
        if i == 0:
            actual["analysis|Block_0_layer_2"] = block.layer_2(t)
        t = actual[f"analysis|Block_{i}"] = block(t)
        if i == 1:
            attention = model.analysis.attention[0]
            actual["analysis|NLAB_0_mask"] = attention.mask(t)
            t = actual["analysis|NLAB_0"] = attention(t)
    t = tf.constant(expected["y_hat"])
    for i, block in enumerate(model.synthesis.blocks):
        if i % 2 == 0:
            t = actual[f"synthesis|NLAB_{i // 2}"] = model.synthesis.attention[i // 2](t)
        residual = actual[f"synthesis|Block_{i}_residual"] = block.residual(t)
        if i == 0:
            actual["synthesis|Block_0_layer_2"] = block.upsampled(residual)
        t = actual[f"synthesis|Block_{i}"] = block(t)
    hyper_analysis, hyper_synthesis = model.hyper_analysis, model.hyper_synthesis
    actual["hyper_analysis|layer_0"] = hyper_analysis.convolutions[0](expected["y"])
    first = hyper_synthesis.convolutions[0](expected["z_tilde"])
    actual["hyper_synthesis|layer_1"] = hyper_synthesis.convolutions[1](first)
    actual["entropy_parameter|masked"] = model.entropy_parameters.masked(expected["y_hat"])
    with np.load(REFERENCE / f"{case}.activations.npz") as file:
        assert len(file.files) > 15
        for name in file.files:
            assert_agrees(actual[name], file[name])


@pytest.mark.parametrize("case", CASES)
def test_cross_entropy_of_y_agrees_with_the_original(case):
    expected = json.loads((REFERENCE / f"{case}.json").read_text())
    figures = codec_of(case).inspect(iio.imread(REFERENCE / f"{case}.png"))
    assert figures["bits_y"] == pytest.approx(expected["bits_y"], rel=5e-4)
    assert figures["bits_z"] == pytest.approx(expected["bits_z"], rel=5e-4)


@pytest.mark.parametrize("case", CASES)
def test_reconstruction_is_the_original_decoders_picture(case):
    codec, image = codec_of(case), iio.imread(REFERENCE / f"{case}.png")
    decoded = codec.decompress(codec.compress(image))
    original = iio.imread(REFERENCE / f"{case}.orig.png").astype(int)
    assert np.abs(decoded - original).max() <= 1


@pytest.mark.parametrize("case", CASES)
def test_coded_y_costs_what_the_float_model_says(case):
    codec, image = codec_of(case), iio.imread(REFERENCE / f"{case}.png")
    _, y_string, _ = codec.encode(image)
    bits = json.loads((REFERENCE / f"{case}.json").read_text())["bits_y_live"]
    # The coder's end takes up to a few bytes, and small scales cost what INTEGER's tables round.
    assert 8 * len(y_string) <= bits * 1.002 + 32


@pytest.mark.parametrize("case", CASES)
def test_z_string_and_tables_are_the_originals(case):
    """tensorflow-compression's coder with our tables reads and writes the original's string."""
    arrays = export.load(REFERENCE / case.split("/")[0] / "model")[1]
    expected = stored(case)
    model = codec_of(case).model
    symbols = model.entropy_bottleneck.symbols(tf.constant(expected["z"])).numpy()[0]
    coder = {
        "index": tf.broadcast_to(tf.range(symbols.shape[-1]), symbols.shape),
        "cdf": tf.constant(arrays["entropy_bottleneck/quantized_cdf"]),
        "cdf_size": tf.constant(arrays["entropy_bottleneck/cdf_length"]),
        "offset": tf.constant(arrays["entropy_bottleneck/offset"]),
    }
    options = {"precision": 16, "overflow_width": 4, "debug_level": 1}
    original = expected["z_string"].tobytes()
    decoded = gen_ops.unbounded_index_range_decode(encoded=original, **coder, **options)
    np.testing.assert_array_equal(decoded, symbols)
    ours = gen_ops.unbounded_index_range_encode(data=symbols, **coder, **options).numpy()
    assert len(original) - 1 <= len(ours) <= len(original)  # release 2.14 may end a byte earlier
    assert ours[: len(ours) - 1] == original[: len(ours) - 1]
    again = gen_ops.unbounded_index_range_decode(encoded=ours, **coder, **options)
    np.testing.assert_array_equal(again, symbols)


@pytest.fixture(scope="module")
def training():
    model, _ = reader.read(REFERENCE / "n16" / "model")
    with np.load(REFERENCE / "n16" / "training.npz") as file:
        expected = dict(file)
    named = {names.original_name(n): v for n, v in variables.by_name(model).items()}
    return model, named, expected


@pytest.mark.parametrize(
    "metric, lmbda, kind", [("mse", 0.015, "mse"), ("ms-ssim", 14.0, "msssim")]
)
def test_losses_and_gradients_agree_with_the_original(training, metric, lmbda, kind):
    model, named, expected = training
    variables = [v for name, v in named.items() if name != "entropy_bottleneck/quantiles"]

    @tf.function(autograph=False)
    def compute():
        x = tf.constant(expected["x"] / np.float32(255))
        with tf.GradientTape() as tape:
            x_hat, likelihoods = model(x, noise=(expected["noise_y"], expected["noise_z"]))
            parts = losses.rate_distortion(x, x_hat, likelihoods, lmbda, metric)
        return x_hat, likelihoods, parts, tape.gradient(parts["loss"], variables)

    x_hat, likelihoods, parts, gradients = compute()
    assert_agrees(x_hat, expected["x_tilde"])
    assert_agrees(likelihoods["y"], expected["likelihoods_y"])
    assert_agrees(likelihoods["z"], expected["likelihoods_z"])
    assert float(parts["loss"]) == pytest.approx(float(expected[f"loss_{kind}"]), rel=1e-4)
    for name in ("bpp_y", "bpp_z"):
        assert float(parts[name]) == pytest.approx(float(expected[name]), rel=1e-5)
    distortion = "mse" if metric == "mse" else "ms_ssim"
    assert float(parts[distortion]) == pytest.approx(float(expected[distortion]), rel=1e-4)
    by_variable = {v.ref(): g for v, g in zip(variables, gradients)}
    stored_gradients = [name for name in expected if name.startswith(f"grad_{kind}|")]
    assert len(stored_gradients) == len(variables)
    for stored_name in stored_gradients:
        name = stored_name.split("|", 1)[1].replace("|", "/")
        actual = by_variable[named[name].ref()]
        assert_agrees(actual, expected[stored_name], GRADIENT_TOLERANCE)
        if "/reparam_" in name:  # GDN's bounds stop the same elements
            np.testing.assert_array_equal(actual == 0, expected[stored_name] == 0)


def test_auxiliary_loss_and_its_gradient_agree_with_the_original(training):
    model, named, expected = training
    bottleneck = model.entropy_bottleneck
    with tf.GradientTape() as tape:
        loss = bottleneck.auxiliary_loss()
    gradients = tape.gradient(loss, [*bottleneck.matrices, bottleneck.quantiles])
    assert gradients[:-1] == [None] * len(bottleneck.matrices)
    assert float(loss) == pytest.approx(float(expected["aux"]), rel=1e-5)
    assert_agrees(
        gradients[-1], expected["grad_aux|entropy_bottleneck|quantiles"], GRADIENT_TOLERANCE
    )


@pytest.mark.parametrize("case", ["n16/coffee_84x100", "n32/coffee_84x100"])
def test_stored_likelihoods_give_the_stored_bits(case):
    """The cross-entropy's formula by itself, on the original's own mixture."""
    t = stored(case)
    bits = gaussian_mixture.bits(t["y_hat"], t["probs"], t["means"], t["scales"])
    expected = json.loads((REFERENCE / f"{case}.json").read_text())["bits_y"]
    assert float(tf.reduce_sum(bits)) == pytest.approx(expected, rel=1e-6)
