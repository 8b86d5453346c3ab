"""PSNR and MS-SSIM against independent implementations, TensorFlow's and scikit-image's."""

import io
import math

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from PIL import Image
from skimage.measure import block_reduce
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from gmm_attention import metrics
from gmm_attention.images import read_image

# Wang et al. 2003.
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def scikit_image_ms_ssim(image, reconstruction):
    """MS-SSIM of each channel by scikit-image's SSIM, averaged."""
    values = []
    for channel in range(3):
        x, y = (t[..., channel].astype(float) for t in (image, reconstruction))
        value = 1
        for scale, weight in enumerate(SCALES):
            if scale:
                odd = [(0, side % 2) for side in x.shape]
                x, y = (block_reduce(np.pad(t, odd, "symmetric"), 2, np.mean) for t in (x, y))
            # With a huge first constant the luminance term is one, and contrast is left.
            ssim = structural_similarity(
                x, y, data_range=255, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False, K1=0.01 if scale == 4 else 1e6,
            )  # fmt: skip
            value *= max(ssim, 0) ** weight
        values.append(value)
    return np.mean(values)


@pytest.fixture(scope="module", params=["coffee", "china", "rocket"])
def image(request):
    return read_image(ROOT / "valid" / f"{request.param}.png")


@pytest.fixture(scope="module", params=[3, 30, 95])
def pair(request, image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=request.param)
    return image, np.array(Image.open(file))


def test_psnr_agrees_with_other_implementations(pair):
    image, reconstruction = pair
    psnr = metrics.psnr(image, reconstruction)
    assert psnr == pytest.approx(peak_signal_noise_ratio(*pair), abs=1e-3)
    assert psnr == pytest.approx(float(tf.image.psnr(image, reconstruction, 255)), abs=1e-3)


def test_ms_ssim_agrees_with_other_implementations(pair):
    image, reconstruction = pair
    ms_ssim = metrics.ms_ssim(image, reconstruction)
    assert ms_ssim == pytest.approx(scikit_image_ms_ssim(*pair), abs=1e-4)
    batch = (tf.constant(t[None]) for t in pair)
    assert ms_ssim == pytest.approx(float(tf.image.ssim_multiscale(*batch, 255)[0]), abs=1e-4)


def test_sides_too_small_for_five_scales_give_no_ms_ssim(image):
    assert metrics.ms_ssim(image[:160], image[:160]) is None
    assert metrics.ms_ssim(image[:, :1], image[:, :1]) is None
    assert metrics.ms_ssim(image[:161, :161], image[:161, :161]) == 1


def test_an_equal_picture_has_no_distortion(image):
    assert metrics.psnr(image, image) == math.inf
    assert metrics.decibels(metrics.ms_ssim(image, image)) == math.inf


def test_decibels():
    assert [metrics.decibels(v) for v in (0, 0.9, 0.99)] == pytest.approx([0, 10, 20])
