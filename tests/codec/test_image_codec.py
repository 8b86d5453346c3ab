"""The Python interface: load, compress, decompress, inspect."""

import math
import subprocess
import sys

import numpy as np
import pytest
from coded_pairs import latents_check, pack_latents, unpack_latents
from conftest import ROOT, load_once, needs_tensorflow
from hypothesis import given, settings
from hypothesis import strategies as st

import gmm_attention as ga
from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.commands import export
from gmm_attention.images import is_gray

N, K = 8, 3  # of the tiny model
rng = np.random.default_rng(0)
IMAGES = {
    "one pixel": lambda photograph: photograph[:1, :1],
    "gray": lambda photograph: np.repeat(photograph[..., 1:2], 3, axis=2),
    "5x7": lambda photograph: photograph[:5, :7],
    "a row": lambda photograph: photograph[:1],
    "33x32": lambda photograph: photograph[:33, :32],
    "64x64": lambda photograph: photograph[:64, :64],
    "65x63": lambda photograph: photograph[:65, :63],
    "160x200": lambda photograph: photograph,
    "black": lambda photograph: np.zeros([40, 70, 3], np.uint8),
    "white": lambda photograph: np.full([40, 70, 3], 255, np.uint8),
    "one colour": lambda photograph: np.full([70, 40, 3], [200, 30, 90], np.uint8),
    "noise": lambda photograph: rng.integers(0, 256, [66, 90, 3], dtype=np.uint8),
    "black and white noise": lambda photograph: rng.integers(0, 2, [66, 90, 3], np.uint8) * 255,
    "not contiguous": lambda photograph: photograph[::-2, ::3, ::-1],
}


@pytest.fixture(scope="module", params=["onnx", pytest.param("tensorflow", marks=needs_tensorflow)])
def tiny_codec(tiny_path, request):
    return load_once(str(tiny_path), runtime=request.param)


@pytest.mark.parametrize("kind", IMAGES)
def test_the_decoder_gives_the_encoders_reconstruction(tiny_codec, photograph, kind):
    image = IMAGES[kind](photograph)
    before = image.copy()
    data = tiny_codec.compress(image)
    decoded = tiny_codec.decompress(data)
    assert decoded.dtype == np.uint8
    npz, y_string, y_hat = tiny_codec.encode(image)
    gray = is_gray(image)
    np.testing.assert_array_equal(decoded, tiny_codec.reconstruct(y_hat, *image.shape[:2], gray))
    assert is_gray(decoded) or not gray
    np.testing.assert_array_equal(unpack_latents(tiny_codec, npz, y_string)[1], y_hat)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("kind", ["5x7", "160x200", "noise"])
def test_the_same_image_gives_the_same_bytes(tiny_codec, photograph, kind):
    image = IMAGES[kind](photograph)
    assert tiny_codec.compress(image) == tiny_codec.compress(image)


def test_the_same_weights_loaded_again_give_the_same_bytes(tiny_codec, tiny_path, photograph):
    runtime = "onnx" if "ONNX" in tiny_codec.runtime.title else "tensorflow"
    assert ga.load(tiny_path, runtime=runtime).compress(photograph) == tiny_codec.compress(
        photograph
    )


def test_what_is_decoded_resembles_what_was_coded(tiny_codec, photograph):
    decoded = tiny_codec.decompress(tiny_codec.compress(photograph))
    for other in (photograph[::-1], photograph[:, ::-1], 255 - photograph, photograph[..., ::-1]):
        errors = [np.abs(decoded - image.astype(float)).mean() for image in (photograph, other)]
        assert errors[0] < errors[1]


def test_the_package_imports_without_tensorflow():
    code = "import sys, gmm_attention; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# Latents that photographs rarely have.


def assert_survives(codec, z_symbols, y_hat):
    npz, y_string = pack_latents(codec, z_symbols, y_hat)
    decoded = unpack_latents(codec, npz, y_string)
    np.testing.assert_array_equal(decoded[0], z_symbols)
    np.testing.assert_array_equal(decoded[1], y_hat)
    return npz, y_string


def test_all_channels_zero(tiny_codec):
    z_symbols, y_hat = np.zeros([2, 1, N], int), np.zeros([8, 4, N], int)
    npz, y_string = assert_survives(tiny_codec, z_symbols, y_hat)
    assert y_string == b""
    image = tiny_codec.decode(npz, y_string)
    np.testing.assert_array_equal(image, tiny_codec.reconstruct(y_hat, 128, 64))


@pytest.mark.parametrize("channel", range(N))
def test_exactly_one_live_channel(tiny_codec, channel):
    y_hat = np.zeros([4, 8, N], int)
    y_hat[..., channel] = rng.integers(-3, 4, [4, 8])
    npz, y_string = assert_survives(tiny_codec, rng.integers(-1, 2, [1, 2, N]), y_hat)
    image = tiny_codec.decode(npz, y_string)
    np.testing.assert_array_equal(image, tiny_codec.reconstruct(y_hat, 64, 128))


@pytest.mark.parametrize("element", [(0, 0, 0), (7, 3, 7), (0, 3, 7), (7, 0, 0)])
def test_exactly_one_live_element(tiny_codec, element):
    y_hat = np.zeros([8, 4, N], int)
    for value in (1, -1, 600, -(2**15)):
        y_hat[element] = value
        assert_survives(tiny_codec, np.zeros([2, 1, N], int), y_hat)


@pytest.mark.parametrize("minmax", [1, 127, 255, 256, 511, 512, 5000, 2**15])
def test_latents_of_any_magnitude(tiny_codec, minmax):
    y_hat = rng.integers(-minmax, minmax, [4, 4, N], endpoint=True)
    y_hat[0, 0, :2] = minmax, -minmax
    z_symbols = rng.integers(-minmax, minmax, [1, 1, N], endpoint=True)
    z_symbols[0, 0, :2] = minmax, -minmax
    assert_survives(tiny_codec, z_symbols, y_hat)


@settings(max_examples=60)
@given(st.data())
def test_any_latents(tiny_codec, data):
    h, w = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    spread = data.draw(st.sampled_from([0.1, 1, 10, 300, 9000]))
    sparsity = data.draw(st.sampled_from([0, 0.5, 0.99]))
    z_symbols = np.rint(generator.laplace(0, spread, [h, w, N]))
    y_hat = np.rint(generator.laplace(0, spread, [4 * h, 4 * w, N]))
    y_hat *= generator.random(y_hat.shape) >= sparsity
    limits = -(2**15), 2**15
    assert_survives(
        tiny_codec, z_symbols.clip(*limits).astype(int), y_hat.clip(*limits).astype(int)
    )


# Rate and `inspect`.


@pytest.fixture(scope="module")
def inspected(tiny_codec, photograph):
    return tiny_codec.inspect(photograph)


def test_inspect_gives_arrays_without_the_batch_axis(inspected):
    h, w = 3 * 4, 4 * 4  # 160x200 padded to 192x256
    shapes = {
        "y": (h, w, N),
        "y_hat": (h, w, N),
        "z": (h // 4, w // 4, N),
        "z_hat": (h // 4, w // 4, N),
        "phi": (h, w, 2 * N),
        "weights": (h, w, N, K),
        "means": (h, w, N, K),
        "scales": (h, w, N, K),
        "x_hat": (160, 200, 3),
    }
    elements = {"element_bits_y": (h, w, N), "element_bits_z": (h // 4, w // 4, N)}
    assert set(inspected) == {*shapes, *elements, "bits_y", "bits_z"}
    for name, shape in shapes.items():
        assert type(inspected[name]) is np.ndarray and inspected[name].dtype == np.float32
        assert inspected[name].shape == shape
        assert np.isfinite(inspected[name]).all()
    assert isinstance(inspected["bits_y"], float) and isinstance(inspected["bits_z"], float)
    for name, shape in elements.items():
        assert inspected[name].shape == shape and inspected[name].min() >= 0
        assert inspected[name].sum() == pytest.approx(inspected[name[len("element_") :]])


def test_inspected_latents_are_those_that_are_coded(tiny_codec, photograph, inspected):
    npz, y_string, y_hat = tiny_codec.encode(photograph)
    np.testing.assert_array_equal(inspected["y_hat"], y_hat)
    np.testing.assert_array_equal(inspected["y_hat"], np.rint(inspected["y"]))
    assert np.abs(inspected["z_hat"] - inspected["z"]).max() <= 0.5 + 1e-5
    z_symbols, _ = unpack_latents(tiny_codec, npz, y_string)
    medians = inspected["z_hat"] - z_symbols
    np.testing.assert_allclose(medians, np.broadcast_to(medians[:1, :1], medians.shape), atol=1e-5)


def test_inspected_x_hat_is_the_picture_before_rounding(tiny_codec, photograph, inspected):
    x_hat = np.rint(np.clip(inspected["x_hat"], 0, 255))
    decoded = tiny_codec.decompress(tiny_codec.compress(photograph))
    assert np.abs(x_hat - decoded).max() <= 1  # multiplied by 255 before or after clipping
    assert np.mean(x_hat == decoded) > 0.999


def test_inspected_mixtures_are_distributions(inspected):
    np.testing.assert_allclose(inspected["weights"].sum(axis=-1), 1, atol=1e-5)
    assert inspected["weights"].min() >= 0 and inspected["scales"].min() >= 0


def test_inspected_bits_are_the_mixtures_cross_entropy(inspected):
    """Paper, eq. 9, over again."""
    y_hat, weights, means, scales = (
        inspected[name].astype(np.float64) for name in ("y_hat", "weights", "means", "scales")
    )
    cdf = np.vectorize(lambda t: math.erfc(-t / math.sqrt(2)) / 2)
    distances = y_hat[..., None] - means
    mass = cdf((distances + 0.5) / scales) - cdf((distances - 0.5) / scales)
    bits = -np.log2(np.clip((weights * mass).sum(axis=-1), 1e-6, 1)).sum()
    assert inspected["bits_y"] == pytest.approx(bits, rel=1e-4)


def test_real_bits_are_the_cross_entropy(tiny_codec, photograph, inspected):
    npz, y_string, _ = tiny_codec.encode(photograph)
    assert inspected["bits_y"] > 1000
    assert abs(8 * len(y_string) - inspected["bits_y"]) <= 0.02 * inspected["bits_y"] + 64
    # Besides z: 14 bytes, 2 for each side, one flag byte, 4 for the checksum; and z's tables are
    # good to 2^-16.
    z_bits = 8 * (len(npz) - 14 - 4 - 1 - 4)
    assert abs(z_bits - inspected["bits_z"]) <= 0.05 * inspected["bits_z"] + 64


# Wrong input.


@pytest.mark.parametrize(
    "image",
    [
        np.zeros([8, 8, 3]),
        np.zeros([8, 8, 3], np.int16),
        np.zeros([8, 8], np.uint8),
        np.zeros([8, 8, 1], np.uint8),
        np.zeros([8, 8, 4], np.uint8),
        np.zeros([1, 8, 8, 3], np.uint8),
        np.zeros([0, 8, 3], np.uint8),
        np.zeros([8, 0, 3], np.uint8),
        [[[1, 2, 3]]],
        None,
    ],
)
def test_nothing_but_8_bit_rgb_is_taken(tiny_codec, image):
    for method in (tiny_codec.compress, tiny_codec.encode, tiny_codec.inspect):
        with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]"):
            method(image)


def test_an_image_that_padding_would_blow_up_is_refused(tiny_codec):
    strip = np.broadcast_to(np.uint8(0), [1, 2**23, 3])  # 64 times as much when padded
    with pytest.raises(ga.ImageError, match="8388608x1 pixels, padded .*; "):
        tiny_codec.compress(strip)


@pytest.mark.parametrize("data", [b"", b"\0", b"\5\0\0\0GMM", b"\xff" * 100, bytes(100)])
def test_foreign_data_is_no_picture(tiny_codec, data):
    with pytest.raises(ga.BitstreamError, match="; "):
        tiny_codec.decompress(data)


# Weights that would give no picture.


def with_changed_weights(tiny_path, folder, name, exponent):
    """A codec of the tiny model with other powers of two in one of its layers."""
    arrays, settings = checkpoints.load(tiny_path)
    arrays[name] = np.full_like(arrays[name], exponent)
    checkpoints.save(folder, arrays, settings)
    return ga.load(folder)


@pytest.mark.parametrize("exponent", [-128, -100])
def test_latents_that_are_not_finite_are_refused(tiny_path, tmp_path, photograph, exponent):
    codec = with_changed_weights(tiny_path, tmp_path, "analysis/Block_1/layer_0/exponent", exponent)
    for method in (codec.compress, codec.inspect):
        with pytest.raises(ga.ImageError, match=f"{tmp_path} gives latents that are not finite; "):
            method(photograph)


def test_latents_beyond_the_coders_range_are_refused(tiny_path, tmp_path, photograph):
    codec = with_changed_weights(tiny_path, tmp_path, "analysis/Block_3/layer_2/exponent", -9)
    with pytest.raises(ga.ImageError, match="leaves the range .* that can be coded"):
        codec.compress(photograph)


def test_pixels_that_are_not_finite_are_no_picture(tiny_path, tmp_path, photograph):
    codec = with_changed_weights(tiny_path, tmp_path, "synthesis/Block_3/layer_2/exponent", -128)
    data = codec.compress(photograph)
    with pytest.raises(ga.CodecError, match=f"{tmp_path} gives pixels that are not finite; "):
        codec.decompress(data)


# A training checkpoint and its export are one model.


def test_a_checkpoint_and_its_export_decode_each_others_files(trained_path, photograph, tmp_path):
    assert export.main([str(trained_path), str(tmp_path / "exported")]) == 0
    trained, exported = load_once(str(trained_path)), ga.load(tmp_path / "exported")
    assert trained.fingerprint == exported.fingerprint
    assert exported.settings["fingerprint"] == trained.fingerprint.hex()
    for one, other in [(trained, exported), (exported, trained)]:
        npz, y_string, y_hat = one.encode(photograph)
        assert y_hat.any()
        reconstruction = one.reconstruct(y_hat, *photograph.shape[:2])
        decoded = other.decode(npz, y_string)
        assert np.abs(decoded.astype(int) - reconstruction).max() <= 1


@needs_tensorflow
@pytest.mark.parametrize("num_mixtures, attention", [(1, True), (5, False)])
def test_the_papers_ablations_code_too(photograph, tmp_path, num_mixtures, attention):
    from gmm_attention.model import variables

    model = variables.build_model(N, num_mixtures, attention)
    arrays = variables.arrays(model)
    arrays["analysis/Block_3/layer_2/kernel_rdft"] *= 50  # or all would be rounded to zero
    checkpoints.save(tmp_path, arrays, model.get_config())
    codec, image = ga.load(tmp_path), photograph[:70, :70]
    npz, y_string, y_hat = codec.encode(image)
    assert y_hat.any()
    np.testing.assert_array_equal(codec.decode(npz, y_string), codec.reconstruct(y_hat, 70, 70))
    assert codec.inspect(image)["weights"].shape == (8, 8, N, num_mixtures)


def test_a_flipped_check_is_what_the_format_says(tiny_codec, photograph):
    """The check covers z's symbols and y_hat, so a decoder that computes others cannot pass."""
    npz, y_string, _ = tiny_codec.encode(photograph)
    z_symbols, y_hat = unpack_latents(tiny_codec, npz, y_string)
    assert npz[12:14] == latents_check(z_symbols, y_hat).to_bytes(2, "little")
