"""Pictures that no camera takes: their latents come back exactly, and their pictures agree."""

import numpy as np
import pytest
from coded_pairs import unpack_latents
from conftest import ROOT, TRAINED, load_once, needs_tensorflow

rng = np.random.default_rng(0)
SIDES = 70, 130


def checkerboard(height, width):
    """Black and white pixels in turn."""
    pixels = np.indices([height, width]).sum(axis=0) % 2 * 255
    return np.stack([pixels] * 3, axis=-1).astype(np.uint8)


def stripes(axis, low, high):
    pixels = np.where(np.indices(SIDES)[axis] % 2, low, high)
    return np.stack([pixels, pixels[::-1], 255 - pixels], axis=-1).astype(np.uint8)


IMAGES = {
    "white noise": rng.integers(0, 256, [*SIDES, 3], np.uint8),
    "noise of extremes": rng.integers(0, 2, [*SIDES, 3], np.uint8) * np.uint8(255),
    "gray noise": np.repeat(rng.integers(0, 256, [*SIDES, 1], np.uint8), 3, axis=2),
    "checkerboard": checkerboard(*SIDES),
    "its inverse": 255 - checkerboard(*SIDES),
    "rows": stripes(0, 0, 255),
    "columns": stripes(1, 0, 255),
    "colours that fight": np.tile(np.array([[[255, 0, 0], [0, 255, 255]]], np.uint8), [64, 64, 1]),
    "one white pixel": np.pad(np.full([1, 1, 3], 255, np.uint8), [(33, 36), (64, 65), (0, 0)]),
    "black": np.zeros([*SIDES, 3], np.uint8),
    "white": np.full([*SIDES, 3], 255, np.uint8),
    "a black pixel": np.zeros([1, 1, 3], np.uint8),
    "a white pixel": np.full([1, 1, 3], 255, np.uint8),
    "a long row": rng.integers(0, 256, [1, 2000, 3], np.uint8),
    "a long column": rng.integers(0, 256, [2000, 1, 3], np.uint8),
    "a checked row": checkerboard(1, 2000),
    "two rows": checkerboard(2, 3),
}


TINY = "tests/data/tiny"


@pytest.mark.parametrize(
    "runtime, model",
    [
        ("onnx", TINY),
        ("onnx", TRAINED),
        pytest.param("tensorflow", TINY, marks=needs_tensorflow),
        pytest.param("tensorflow", TRAINED, marks=[needs_tensorflow, pytest.mark.slow]),
    ],
)
@pytest.mark.parametrize("kind", IMAGES)
def test_extreme_images_are_coded_exactly(runtime, model, kind):
    codec, image = load_once(str(ROOT / model), runtime=runtime), IMAGES[kind]
    z_symbols, y_hat = codec.analyse(image)
    npz, y_string, coded = codec.encode(image)
    np.testing.assert_array_equal(coded, y_hat)
    decoded = unpack_latents(codec, npz, y_string)
    np.testing.assert_array_equal(decoded[0], z_symbols)
    np.testing.assert_array_equal(decoded[1], y_hat)
    picture = codec.decode(npz, y_string)
    assert picture.shape == image.shape and picture.dtype == np.uint8
    gray = (image[..., :1] == image).all()
    np.testing.assert_array_equal(picture, codec.reconstruct(y_hat, *image.shape[:2], gray))
    assert (codec.decompress(codec.compress(image)) == picture).all()
