"""Better latents for one image: never worse, the same each time, for images of any kind."""

import math

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import EARLIER, ROOT, TRAINED, load_once, needs_tensorflow
from hypothesis import given
from hypothesis import strategies as st
from test_extreme_images import IMAGES

import gmm_attention as ga
from gmm_attention import metrics, requirements
from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.checkpoints import loading
from gmm_attention.codec import refinement
from gmm_attention.codec.efforts import LEVELS, Level, Wanted
from gmm_attention.codec.image_codec import ImageCodec
from gmm_attention.codec.refinement import Latents, Refinement
from gmm_attention.runtimes.protocol import Window


@pytest.fixture(scope="module")
def codec():
    """That of a trained model, which gives pictures worth a search."""
    return load_once(str(ROOT / EARLIER), runtime="onnx")


@pytest.fixture(scope="module")
def image(photograph):
    """uint8 [90, 128, 3], of an eye."""
    return photograph[10:100, 60:188]


def rate(image, data):
    """Bits per pixel."""
    return 8 * len(data) / (image.shape[0] * image.shape[1])


def squared_error(codec, image, data):
    return 255**2 / 10 ** (metrics.psnr(image, codec.decompress(data)) / 10)


def loss(codec, image, data):
    """lambda D + R of real files, in bits per pixel, for a model trained by MSE."""
    distortion = squared_error(codec, image, data)
    return codec.settings["lambda"] * distortion + rate(image, data)


@needs_tensorflow
@pytest.mark.parametrize("kind", IMAGES)
def test_no_image_gets_worse(tiny_codec, kind):
    image = IMAGES[kind]
    before, after = tiny_codec.compress(image), tiny_codec.compress(image, effort=1)
    assert loss(tiny_codec, image, after) <= loss(tiny_codec, image, before)


@needs_tensorflow
def test_more_effort_finds_more(codec, image):
    losses = [loss(codec, image, codec.compress(image, effort=effort)) for effort in (0, 1, 2)]
    assert losses[1] < 0.97 * losses[0] and losses[2] < 0.99 * losses[1]


@needs_tensorflow
def test_channels_of_z_that_carry_nothing_stay():
    """Moved as far as others, they made this NAME.npz four times as long."""
    codec = load_once(str(ROOT / TRAINED), runtime="onnx")
    image = iio.imread(ROOT / "valid" / "coffee.png")[100:356, 200:456]
    npz, refined = (codec.encode(image, effort=effort)[0] for effort in (0, 2))
    assert len(refined) < 1.5 * len(npz)


@needs_tensorflow
def test_the_same_image_gives_the_same_bytes(codec, image):
    first = codec.compress(image, effort=2)
    assert ga.load(codec.name, runtime="onnx").compress(image, effort=2) == first


@needs_tensorflow
def test_a_large_image_is_searched_part_by_part(codec, large, monkeypatch):
    image = np.hstack([large, large[:, ::-1]])[:, :390]
    losses = [loss(codec, image, codec.compress(image, effort=e)) for e in (0, 1)]
    # z has 3x7 positions, so there are two parts of at most 3x4, each 3x5 with its halo.
    monkeypatch.setattr(refinement, "_POSITIONS", 15 * 48 / 128)
    seen = []
    monkeypatch.setattr(refinement, "_LEAST_SIDE", 3)
    in_parts = codec.compress(image, effort=1, listen=seen.append)
    steps = 2 * LEVELS[1].steps
    assert [(p.step, p.steps) for p in seen] == [(i + 1, steps) for i in range(steps)]
    gain = losses[0] - losses[1]
    assert losses[0] - loss(codec, image, in_parts) > 0.9 * gain > 0


@given(st.integers(1, 70), st.integers(1, 70), st.one_of(st.integers(1, 30), st.integers(100, 500)))
def test_parts_cover_an_image_once_within_bounds(height, width, positions):
    covered = np.zeros([height, width], int)
    for part in refinement._parts(height, width, positions):
        covered[part] += 1
        outer = refinement._widened(part, refinement._HALO, covered.shape)
        assert np.prod([s.stop - s.start for s in outer]) <= max(positions, 9 * 9)
        for s, side in zip(part, covered.shape):
            assert s.stop - s.start >= min(side, 4)
    assert (covered == 1).all()


@needs_tensorflow
@pytest.mark.parametrize("share", [0.93, 1, 1.04])
def test_targets_are_reached_within_two_per_cent(codec, image, share):
    before = codec.compress(image)
    bpp = share * rate(image, before)
    data = codec.compress(image, effort=1, target_bpp=bpp)
    assert rate(image, data) == pytest.approx(bpp, rel=0.02)
    if share == 1:  # what the network gives would meet the target, too
        assert loss(codec, image, data) < 0.97 * loss(codec, image, before)
    psnr = metrics.psnr(image, codec.decompress(before)) + np.log(share)
    data = codec.compress(image, effort=1, target_psnr=psnr)
    expected = 255**2 / 10 ** (psnr / 10)
    assert squared_error(codec, image, data) == pytest.approx(expected, rel=0.02)


@needs_tensorflow
def test_the_nearest_files_to_a_target_out_of_reach(codec, image, monkeypatch):
    monkeypatch.setattr(refinement, "_MOST_SEARCHES", 3)
    sizes = [len(codec.compress(image, effort=1, target_bpp=bpp)) for bpp in (1e-3, 50)]
    assert sizes[0] < 0.8 * len(codec.compress(image)) < 1.2 * sizes[1]


@given(
    st.floats(-3, 3),
    st.floats(0.1, 1.5),
    st.floats(-0.3, 0.3),
)
def test_few_lambdas_are_tried_for_a_target(target, slope, bend):
    """Of rates that grow with lambda along a bent curve, as those of a network do."""
    tried = []
    here = 0.0
    while len(tried) < refinement._MOST_SEARCHES:
        off = slope * here + bend * np.tanh(here) * slope - target * slope
        tried.append((here, off))
        if abs(off) <= 0.0198:
            return
        here = refinement._next(tried)
    raise AssertionError(tried)


def test_pictures_without_error_are_above_any_target():
    exact = Wanted(effort=1, target_psnr=40.0).above_target(1.0, math.inf)
    assert math.isfinite(refinement._next([(0.0, exact), (-1.0, exact)]))


@needs_tensorflow
def test_a_listener_ends_the_search_with_the_best_so_far(codec, image):
    seen = []

    def listen(progress):
        seen.append(progress)
        return len(seen) == 12

    data = codec.compress(image, effort=2, listen=listen)
    assert len(seen) == 12 and seen[0].loss == seen[0].first > seen[-1].loss
    assert loss(codec, image, data) < 0.99 * loss(codec, image, codec.compress(image))
    seen.clear()
    assert codec.compress(image, effort=2, target_bpp=9, listen=listen)
    assert len(seen) == 12  # a target is given up, too


@needs_tensorflow
def test_lambda_weighs_rate_against_distortion(codec, image):
    low, own, high = (codec.compress(image, effort=1, lmbda=x) for x in (0.001, 0.0032, 0.01))
    assert own == codec.compress(image, effort=1)
    assert len(low) < len(own) < len(high)
    errors = [squared_error(codec, image, data) for data in (low, own, high)]
    assert errors == sorted(errors, reverse=True)


@pytest.fixture
def variant(tiny_path, tmp_path):
    """Makes a copy of the tiny model with other settings, None for those that are left out."""

    def make(**changes):
        arrays, settings = checkpoints.load(tiny_path)
        settings = {k: v for k, v in {**settings, **changes}.items() if v is not None}
        checkpoints.save(tmp_path / "variant", arrays, settings)
        return ga.load(tmp_path / "variant", runtime="onnx")

    return make


@needs_tensorflow
def test_a_model_trained_by_ms_ssim_is_refined_for_it(variant, large):
    codec = variant(**{"metric": "ms-ssim", "lambda": 12})

    def ms_ssim_loss(image, data):
        ms_ssim = metrics.ms_ssim(image, codec.decompress(data))
        return 12 * (1 - ms_ssim) + 8 * len(data) / (image.shape[0] * image.shape[1])

    for image in (large, large[:161, :163]):  # the smallest that MS-SSIM can measure
        before, after = codec.compress(image), codec.compress(image, effort=1)
        assert ms_ssim_loss(image, after) < 0.99 * ms_ssim_loss(image, before)
    small = large[:160]
    assert codec.compress(small, effort=1) == codec.compress(small)


@needs_tensorflow
def test_a_metric_that_nobody_knows(variant, photograph):
    with pytest.raises(ga.CheckpointError, match="variant: trained for 'MS-SSIM', by which"):
        variant(metric="MS-SSIM").compress(photograph, effort=1)


@needs_tensorflow
def test_parts_of_any_image_are_large_enough_for_ms_ssim(variant, large, monkeypatch):
    codec = variant(**{"metric": "ms-ssim", "lambda": 12})
    monkeypatch.setattr(refinement, "_POSITIONS", 1)
    image = np.tile(large, [3, 3, 1])[:513, :577]  # z has 9x10 positions, the last of one pixel
    seen = []
    assert codec.compress(image, effort=1, listen=lambda p: seen.append(p) or len(seen) == 24)
    assert len(seen) == 24 == 4 * LEVELS[1].steps


@needs_tensorflow
def test_gray_photographs_are_searched_by_gray_pictures(codec, image, monkeypatch):
    gray = np.repeat(image[..., 1:2], 3, axis=2)
    data = codec.compress(gray, effort=1)
    monkeypatch.setattr(refinement, "Window", lambda *fields: Window(*fields)._replace(gray=False))
    assert loss(codec, gray, data) < loss(codec, gray, codec.compress(gray, effort=1))


class FoolishSearch:
    """A LatentSearch that takes latents for better and better which are worse and worse."""

    metric = "mse"
    memory_errors = ()

    def begin(self, window, lmbda):
        self.window, self.steps = window, 0
        return self

    def step(self, temperature, rate, noise):
        self.steps += 1

    def rounded(self):
        y_hat = np.rint(self.window.y).astype(np.int32) + self.steps
        return y_hat, np.zeros(self.window.z.shape, np.int32), -self.steps


def test_what_is_better_is_decided_by_files(tiny_path, photograph):
    loaded = load_once(str(tiny_path), runtime="onnx")
    made = ImageCodec(loading.load(tiny_path), loaded.runtime, FoolishSearch)
    assert made.compress(photograph, effort=1) == loaded.compress(photograph)


class RestlessSearch(FoolishSearch):
    """One that leaves its best latents, those after five steps, for others."""

    def rounded(self):
        y_hat = np.full(self.window.y.shape, self.steps, np.int32)
        return y_hat, np.zeros(self.window.z.shape, np.int32), abs(self.steps - 5)


def test_the_best_latents_of_a_search_are_kept(photograph):
    y_hat, z_symbols = np.zeros([12, 16, 8], np.int32), np.zeros([3, 4, 8], np.int32)
    latents = Latents(y_hat.astype(np.float32), z_symbols.astype(np.float32), y_hat, z_symbols)
    refined = Refinement(
        RestlessSearch(), photograph, False, latents, np.zeros(8), lambda z, y: y, None
    )
    assert (refined._searched(Level(9, 0.1, 0.0), lmbda=0.1) == 5).all()
    assert (refined._searched(Level(3, 0.1, 0.0), lmbda=0.1) == 3).all()


@needs_tensorflow
def test_a_model_that_knows_no_lambda_needs_one(variant, photograph):
    codec = variant(**{"lambda": None})
    with pytest.raises(ga.CodecError, match="variant: its settings do not say .*--lambda"):
        codec.compress(photograph, effort=1)
    assert codec.compress(photograph, effort=1, lmbda=0.0075)


def test_effort_says_what_it_needs(variant, photograph, monkeypatch):
    monkeypatch.setattr(requirements, "has_tensorflow", lambda: False)
    with pytest.raises(ga.CodecError, match="variant: an effort above 0 needs tensorflow 2.14.1"):
        variant().compress(photograph, effort=1)


@pytest.mark.parametrize(
    "options",
    [
        {"effort": 9},
        {"effort": -1},
        {"lmbda": 0.1},
        {"target_bpp": 1.0},
        {"effort": 1, "lmbda": 0.0},
        {"effort": 1, "lmbda": "0.1"},
        {"effort": 1, "target_psnr": -30.0},
        {"effort": 1, "target_bpp": float("nan")},
        {"effort": 1, "target_bpp": 1.0, "target_psnr": 30.0},
    ],
)
def test_arguments_that_make_no_sense(tiny_codec, photograph, options):
    with pytest.raises(ValueError):
        tiny_codec.compress(photograph, **options)
