"""Padding to multiples of 64 and cropping back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_attention.padding import SIDE_MULTIPLE, crop, pad


def noise(*shape, dtype=np.uint8):
    limit = np.iinfo(dtype).max
    return np.random.default_rng(7).integers(0, limit, shape, endpoint=True).astype(dtype)


sides = st.integers(1, 200)


@settings(deadline=None)
@given(height=st.integers(33, 200), width=st.integers(33, 200))
def test_pad_equals_the_originals_where_that_works(height, width):
    image = noise(height, width, 3)
    amounts = ((0, -height % 64), (0, -width % 64), (0, 0))
    np.testing.assert_array_equal(pad(image), np.pad(image, amounts, mode="reflect"))


@settings(deadline=None)
@given(height=sides, width=sides, dtype=st.sampled_from([np.uint8, np.float32]))
def test_crop_undoes_pad(height, width, dtype):
    image = noise(height, width, 3).astype(dtype)
    padded = pad(image)
    assert padded.dtype == dtype
    assert [side % SIDE_MULTIPLE for side in padded.shape[:2]] == [0, 0]
    assert padded.shape[0] - height < SIDE_MULTIPLE and padded.shape[1] - width < SIDE_MULTIPLE
    np.testing.assert_array_equal(crop(padded, height, width), image)


@pytest.mark.parametrize("length", range(1, 33))
def test_pad_reflects_again_and_again_where_one_reflection_is_too_short(length):
    line = noise(length, 1, 3)
    there_and_back = np.concatenate([line, line[1:-1][::-1]])  # the ends are not repeated
    expected = np.resize(there_and_back, (64, 1, 3))
    np.testing.assert_array_equal(pad(line)[:, :1], expected)
    np.testing.assert_array_equal(pad(line.swapaxes(0, 1))[:1], expected.swapaxes(0, 1))


def test_pad_of_one_pixel_is_that_pixel():
    assert (pad(np.full((1, 1, 3), 9, np.uint8)) == np.full((64, 64, 3), 9)).all()


@pytest.mark.parametrize("shape", [(5, 7), (0, 7, 3), (5, 7, 4), (1, 5, 7, 3)])
def test_pad_takes_nothing_but_rgb(shape):
    with pytest.raises(ValueError, match="H, W, 3"):
        pad(np.zeros(shape))


@pytest.mark.parametrize("height, width", [(65, 64), (64, 65), (0, 64), (64, -1)])
def test_crop_to_what_is_not_there_is_an_error(height, width):
    with pytest.raises(ValueError, match="crop"):
        crop(np.zeros((64, 64, 3)), height, width)
