"""Images in strips: the numbers of the whole image at once, in memory that grows little with it."""

import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import ROOT, TRAINED, load_once, needs_tensorflow
from hypothesis import given
from hypothesis import strategies as st

from gmm_attention import metrics, padding, strips
from gmm_attention.codec import strip_transform
from gmm_attention.entropy_coding import integer_model

# Sides of images: one strip, several, with a last one of any size, along either axis.
SIZES = [(64, 64), (200, 300), (300, 200), (1, 700), (700, 1), (17, 1000), (1000, 17), (449, 449)]


def an_image(height, width):
    tiled = np.tile(iio.imread(ROOT / "valid" / "coffee.png"), (3, 2, 1))
    return np.ascontiguousarray(tiled[:height, :width])


RUNTIMES = ["onnx", pytest.param("tensorflow", marks=needs_tensorflow)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("model", ["tests/data/tiny", TRAINED])
def test_files_do_not_depend_on_the_strips(model, runtime, size, monkeypatch):
    """Byte for byte, on one machine: its convolutions add up alike whatever the size."""
    codec = load_once(str(ROOT / model), runtime=runtime)
    image = an_image(*size)
    whole = codec.encode(image)
    decoded = codec.decode(*whole[:2])
    x_hat = codec.inspect(image)["x_hat"]
    monkeypatch.setattr(strip_transform, "STRIP_PIXELS", 1)  # as narrow as strips get: 64 pixels
    monkeypatch.setattr(strip_transform, "STRIP_ROWS", 1)
    monkeypatch.setattr(integer_model, "STRIP", 1)
    in_strips = codec.encode(image)
    assert in_strips[:2] == whole[:2]
    np.testing.assert_array_equal(codec.decode(*whole[:2]), decoded)
    np.testing.assert_array_equal(codec.inspect(image)["x_hat"], x_hat)


@needs_tensorflow
@pytest.mark.parametrize("size", [(64, 64), (200, 300), (17, 1000)], ids=str)
def test_latents_and_pixels_are_those_of_the_keras_model(size, tiny_path):
    """Stage by stage they are called as a whole by nobody else."""
    codec = load_once(str(tiny_path), runtime="tensorflow")
    network, image = codec.runtime.network, an_image(*size)
    y = network.analysis(padding.pad(image)[None].astype(np.float32) / 255)
    z = network.hyper_analysis(y)
    inspected = codec.inspect(image)
    for name, whole in [("y", y), ("z", z)]:
        largest = np.abs(whole).max()
        np.testing.assert_allclose(inspected[name], whole[0], rtol=0, atol=1e-5 * largest)
    x_hat = network.synthesis(inspected["y_hat"][None]).numpy()[0]
    expected = np.clip(padding.crop(x_hat, *size), 0, 1) * 255
    np.testing.assert_allclose(
        inspected["x_hat"], expected, rtol=0, atol=255e-5 * np.abs(x_hat).max()
    )


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([(1, 1), (2, 1), (1, 2)])), max_size=6),
    st.integers(1, 6),
    st.integers(1, 5),
)
def test_chains_of_local_functions_are_exact(kinds, size, step):
    def stage(halo, down, up):
        def function(t):  # a sum over the neighbourhood, zero outside; then fewer or more rows
            padded = np.pad(t, [(halo, halo), (0, 0)])
            summed = sum(padded[i : i + len(t)] * (i + 1) for i in range(2 * halo + 1)) % 1009
            return np.repeat(summed[::down], up, axis=0)

        return strips.Stage(function, halo, down, up)

    stages = [stage(halo, *ratio) for halo, ratio in kinds]
    whole = source = np.arange(64 * size * 2).reshape(-1, 2)
    for one in stages:
        whole = one.function(whole)
    made = strips.chain(
        strips.Rows(len(source), lambda first, last: source[first:last]), stages, 0, np.concatenate
    )
    assert made.size == len(whole)
    parts = [
        made.take(first, min(first + step, len(whole))) for first in range(0, len(whole), step)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_strips_of_a_padded_image(height, width, data):
    image = np.arange(height * width * 3).reshape(height, width, 3)
    axis = data.draw(st.integers(0, 1))
    padded = padding.pad(image)
    last = data.draw(st.integers(1, padded.shape[axis]))
    first = data.draw(st.integers(0, last - 1))
    expected = padded[strips.along(axis, first, last)]
    np.testing.assert_array_equal(padding.pad_strip(image, axis, first, last), expected)


@pytest.mark.parametrize("sides", [(161, 161), (200, 333), (400, 161)], ids=str)
def test_metrics_do_not_depend_on_the_strips(sides, monkeypatch):
    image = an_image(*sides)
    other = np.clip(
        image.astype(int) + np.random.default_rng(0).integers(-9, 9, image.shape), 0, 255
    )
    pair = image, other.astype(np.uint8)
    whole = metrics.psnr(*pair), metrics.ms_ssim(*pair)
    monkeypatch.setattr(metrics, "STRIP_PIXELS", 1000)
    assert metrics.psnr(*pair) == whole[0]
    assert metrics.ms_ssim(*pair) == pytest.approx(whole[1], abs=5e-5)


MEASURE = """
import os, resource, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
from gmm_attention.codec import image_codec
from gmm_attention import metrics
from gmm_attention.images import read_image

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

codec = image_codec.load(sys.argv[1])
small = read_image(sys.argv[2])
codec.decompress(codec.compress(small))
before = peak()
height, width = 3000, 4000
image = np.tile(small, (-(-height // small.shape[0]), -(-width // small.shape[1]), 1))
image = np.ascontiguousarray(image[:height, :width])
npz, y_string, y_hat = codec.encode(image)
picture = codec.decode(npz, y_string)
assert np.array_equal(picture, codec.reconstruct(y_hat, height, width))
print(before, peak(), metrics.psnr(image, picture), metrics.ms_ssim(image, picture), peak())
"""


def test_twelve_megapixels_take_little_memory(tiny_path):
    """Resident maximum, in a process of its own: N = 8, which takes 30 KB a row of 4000 pixels."""
    finished = subprocess.run(
        [sys.executable, "-c", MEASURE, tiny_path, ROOT / "valid" / "china.png"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    before, coded, psnr, ms_ssim, measured = map(float, finished.stdout.split())
    # The image, its reconstruction and the latents are 0.12 GiB.
    assert coded - before < 0.6, finished.stdout
    assert measured - before < 1.0, finished.stdout
    assert psnr > 10 and 0 < ms_ssim < 1
