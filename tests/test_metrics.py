"""PSNR and MS-SSIM against independent implementations, TensorFlow's and scikit-image's."""

import io
import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from gmm_attention import metrics

# Wang et al. 2003.
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

# What tf.image.psnr and tf.image.ssim_multiscale of TensorFlow 2.14.1 give for each pair, by the
# photograph's name and the quality of its JPEG: for where there is no TensorFlow.
BY_TENSORFLOW = {
    ("coffee", 3): (21.766520, 0.713250),
    ("coffee", 30): (29.148094, 0.954280),
    ("coffee", 95): (37.458878, 0.992925),
    ("china", 3): (19.687517, 0.797049),
    ("china", 30): (25.433598, 0.966421),
    ("china", 95): (36.296799, 0.996593),
    ("rocket", 3): (21.669004, 0.715236),
    ("rocket", 30): (29.538881, 0.945349),
    ("rocket", 95): (34.659836, 0.991142),
}


def scikit_image_ms_ssim(image, reconstruction):
    """MS-SSIM of each channel by scikit-image's SSIM, averaged."""
    from skimage.measure import block_reduce
    from skimage.metrics import structural_similarity

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
def name(request):
    return request.param


@pytest.fixture(scope="module")
def image(name):
    # As stored: of rocket.png, whose colours read_image converts, TensorFlow was given these.
    return np.asarray(Image.open(ROOT / "valid" / f"{name}.png"))


@pytest.fixture(scope="module", params=[3, 30, 95])
def quality(request):
    return request.param


@pytest.fixture(scope="module")
def pair(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return image, np.array(Image.open(file))


def test_figures_are_those_that_tensorflow_gave(pair, name, quality):
    psnr, ms_ssim = BY_TENSORFLOW[name, quality]
    assert metrics.psnr(*pair) == pytest.approx(psnr, abs=1e-3)
    assert metrics.ms_ssim(*pair) == pytest.approx(ms_ssim, abs=1e-4)


def test_figures_agree_with_tensorflow(pair):
    tf = pytest.importorskip("tensorflow")
    psnr, ms_ssim = metrics.psnr(*pair), metrics.ms_ssim(*pair)
    assert psnr == pytest.approx(float(tf.image.psnr(*pair, 255)), abs=1e-3)
    batch = (tf.constant(t[None]) for t in pair)
    assert ms_ssim == pytest.approx(float(tf.image.ssim_multiscale(*batch, 255)[0]), abs=1e-4)


def test_figures_agree_with_scikit_image(pair):
    """Closer than with TensorFlow, since it computes in float64."""
    peak_signal_noise_ratio = pytest.importorskip("skimage.metrics").peak_signal_noise_ratio
    assert metrics.psnr(*pair) == pytest.approx(peak_signal_noise_ratio(*pair), abs=1e-3)
    assert metrics.ms_ssim(*pair) == pytest.approx(scikit_image_ms_ssim(*pair), abs=1e-6)


def test_sides_too_small_for_five_scales_give_no_ms_ssim(image):
    assert metrics.ms_ssim(image[:160], image[:160]) is None
    assert metrics.ms_ssim(image[:, :1], image[:, :1]) is None
    assert metrics.ms_ssim(image[:161, :161], image[:161, :161]) == 1


def test_an_equal_picture_has_no_distortion(image):
    assert metrics.psnr(image, image) == math.inf
    assert metrics.decibels(metrics.ms_ssim(image, image)) == math.inf


def test_the_least_distortion_is_seen():
    """One value of 120750 that is off by one, where the pixels' squares are largest."""
    image = np.full([161, 250, 3], 255, np.uint8)
    other = image.copy()
    other[80, 100, 1] = 254
    assert metrics.psnr(image, other) == pytest.approx(10 * math.log10(255**2 * image.size))
    assert 0.9999 < metrics.ms_ssim(image, other) < 1


def test_ms_ssim_does_not_depend_on_the_squares_that_are_halved_at_a_time(pair, monkeypatch):
    whole = metrics.ms_ssim(*pair)
    for tile in (16, 208):
        monkeypatch.setattr(metrics, "TILE", tile)
        assert metrics.ms_ssim(*pair) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("sides", [(3000, 4000), (161, 80000)], ids=str)
def test_large_images_take_little_memory(sides):
    image = np.zeros([*sides, 3], np.uint8)
    other = np.ones_like(image)
    tracemalloc.start()
    try:
        assert metrics.psnr(image, other) == pytest.approx(10 * math.log10(255**2))
        assert 0.9 < metrics.ms_ssim(image, other) < 1
        assert tracemalloc.get_traced_memory()[1] < 50e6  # about twice what they took
    finally:
        tracemalloc.stop()


def test_decibels():
    assert [metrics.decibels(v) for v in (0, 0.9, 0.99)] == pytest.approx([0, 10, 20])


def test_metrics_need_no_tensorflow():
    code = """
import sys
import numpy as np
from gmm_attention import metrics
image = np.zeros([161, 161, 3], np.uint8)
metrics.psnr(image, image), metrics.ms_ssim(image, image)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
