"""Parity with tensors that the authors' TF1 code computed, see data/reference/README.md.

The larger cases need ../shared/reference, outside this repository, and are skipped without it.
"""

import functools
import json

import imageio.v3 as iio
import numpy as np
import pytest
import tensorflow as tf
from conftest import reference
from tensorflow_compression.python.ops import gen_ops

from gmm_attention import padding
from gmm_attention.checkpoints import tf1
from gmm_attention.checkpoints import tf1_names as names
from gmm_attention.codec import cross_entropy
from gmm_attention.codec.image_codec import load
from gmm_attention.errors import BitstreamError
from gmm_attention.model import losses, variables

CASES = [
    "n16/noise_72x64",
    "n16/flat_90x50",
    "n16/coffee_84x100",
    "n16dead/coffee_84x100",
    "n32/coffee_84x100",
    "n32/china_192x176",
    "n32/astronaut_136x200",
]
WITH_ACTIVATIONS = ["n32/coffee_84x100", "n16/coffee_84x100"]
TENSOR_TOLERANCE = 1e-4  # of the largest magnitude: float32 sums in another order give some 1e-6
GRADIENT_TOLERANCE = 1e-3  # tf.image's MS-SSIM alone carries 3e-4

load_once = functools.cache(load)


def model_path(case):
    return reference(f"{case.split('/')[0]}/model")


def codec_of(case):
    return load_once(model_path(case))


def path_of(case, suffix):
    return reference(case).with_suffix(suffix)


def stored(case):
    with np.load(path_of(case, ".tensors.npz")) as file:
        return dict(file)


def stored_figures(case):
    return json.loads(path_of(case, ".json").read_text())


def image_of(case):
    return iio.imread(path_of(case, ".png"))


def padded(case):
    return padding.pad(image_of(case))[None].astype(np.float32) / 255


def assert_agrees(actual, expected, tolerance=TENSOR_TOLERANCE):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("case", CASES)
def test_tensors_agree_with_the_original(case):
    model, expected = codec_of(case).runtime.network, stored(case)
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
    model, expected = codec_of(case).runtime.network, stored(case)
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
    with np.load(path_of(case, ".activations.npz")) as file:
        assert len(file.files) > 15
        for name in file.files:
            assert_agrees(actual[name], file[name])


@pytest.mark.parametrize("case", CASES)
def test_cross_entropy_of_y_agrees_with_the_original(case):
    expected = stored_figures(case)
    figures = codec_of(case).inspect(image_of(case))
    assert figures["bits_y"] == pytest.approx(expected["bits_y"], rel=5e-4)
    assert figures["bits_z"] == pytest.approx(expected["bits_z"], rel=5e-4)


@pytest.mark.parametrize("case", CASES)
def test_reconstruction_is_the_original_decoders_picture(case):
    codec, image = codec_of(case), image_of(case)
    decoded = codec.decompress(codec.compress(image))
    original = iio.imread(path_of(case, ".orig.png")).astype(int)
    assert np.abs(decoded - original).max() <= 1


@pytest.mark.parametrize("case", CASES)
def test_coded_y_costs_what_the_float_model_says(case):
    codec, image = codec_of(case), image_of(case)
    _, y_string, _ = codec.encode(image)
    bits = stored_figures(case)["bits_y_live"]
    # The coder's end takes up to a few bytes, and integer tables round the masses of small scales.
    assert 8 * len(y_string) <= bits * 1.002 + 32


@pytest.mark.parametrize("case", CASES)
def test_z_string_and_tables_are_the_originals(case):
    """tensorflow-compression's coder with our tables reads and writes the original's string."""
    codec, expected = codec_of(case), stored(case)
    arrays, model = codec.exported, codec.runtime.network
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
    arrays, _, settings = tf1.read(str(reference("n16/model")))
    model = variables.build_model(**settings)
    variables.assign(model, arrays, "n16")
    with np.load(path_of("n16/training", ".npz")) as file:
        expected = dict(file)
    named = {names.original_name(n): v for n, v in variables.by_name(model).items()}
    return model, named, expected


def gradients_of(expected, kind):
    """The gradients of one loss by variable; those that both losses share are stored once."""
    result = {}
    for prefix in ("grad_mse|", f"grad_{kind}|"):
        found = {n[len(prefix) :].replace("|", "/"): a for n, a in expected.items()
                 if n.startswith(prefix)}  # fmt: skip
        assert {n for n in found if n.startswith(("analysis/", "synthesis/"))}
        result.update(found)
    return result


@pytest.mark.parametrize(
    "metric, lmbda, kind", [("mse", 0.015, "mse"), ("ms-ssim", 14.0, "msssim")]
)
def test_losses_and_gradients_agree_with_the_original(training, metric, lmbda, kind):
    model, named, expected = training
    trained = [name for name in named if name != "entropy_bottleneck/quantiles"]

    @tf.function(autograph=False)
    def compute():
        x = tf.constant(expected["x"] / np.float32(255))
        with tf.GradientTape() as tape:
            x_hat, likelihoods = model(x, noise=(expected["noise_y"], expected["noise_z"]))
            parts = losses.rate_distortion(x, x_hat, likelihoods, lmbda, metric)
        return (
            x_hat,
            likelihoods,
            parts,
            tape.gradient(parts["loss"], [named[name] for name in trained]),
        )

    x_hat, likelihoods, parts, gradients = compute()
    assert_agrees(x_hat, expected["x_tilde"])
    assert_agrees(likelihoods["y"], expected["likelihoods_y"])
    assert_agrees(likelihoods["z"], expected["likelihoods_z"])
    assert float(parts["loss"]) == pytest.approx(float(expected[f"loss_{kind}"]), rel=1e-4)
    for name in ("bpp_y", "bpp_z"):
        assert float(parts[name]) == pytest.approx(float(expected[name]), rel=1e-5)
    distortion = "mse" if metric == "mse" else "ms_ssim"
    assert float(parts[distortion]) == pytest.approx(float(expected[distortion]), rel=1e-4)
    actual = dict(zip(trained, gradients))
    expected_gradients = gradients_of(expected, kind)
    assert set(expected_gradients) == set(trained)
    for name, gradient in expected_gradients.items():
        assert_agrees(actual[name], gradient, GRADIENT_TOLERANCE)
    bounded = [name for name in trained if "/reparam_" in name]
    assert bounded
    for name in bounded:  # the bounds of GDN stop the gradients of the same elements
        np.testing.assert_array_equal(actual[name] == 0, expected_gradients[name] == 0)


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


@pytest.mark.parametrize("case", CASES)
def test_files_of_the_original_are_recognised(case):
    files = [path_of(case, suffix).read_bytes() for suffix in (".orig.npz", ".orig.bin")]
    with pytest.raises(BitstreamError, match="files of the original code"):
        codec_of(case).decode(*files)


@pytest.mark.parametrize("case", CASES)
def test_stored_likelihoods_give_the_stored_bits(case):
    """The cross-entropy's formula by itself, on the original's own mixture."""
    t = stored(case)
    bits = cross_entropy.bits_of_y(t["y_hat"], t["probs"], t["means"], t["scales"])
    expected = stored_figures(case)["bits_y"]
    assert bits.sum() == pytest.approx(expected, rel=1e-6)
