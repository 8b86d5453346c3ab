"""--precision bfloat16: other pictures by little, the same kind of files."""

import imageio.v3 as iio
import numpy as np
import pytest
import tensorflow as tf
from coded_pairs import unpack_latents
from conftest import ROOT, TRAINED, load_once

import gmm_attention as ga
from gmm_attention import metrics, start_up
from gmm_attention.codec import image_codec
from gmm_attention.commands import decoder, encoder
from gmm_attention.errors import CodecError
from gmm_attention.runtimes import tensorflow_runtime


@pytest.fixture(scope="module")
def both(needs_bfloat16):
    return load_once(str(ROOT / TRAINED)), load_once(str(ROOT / TRAINED), "bfloat16")


@pytest.mark.parametrize("name", ["coffee.png", "chelsea.png"])
def test_the_picture_and_the_rate_change_by_little(both, name):
    image = iio.imread(ROOT / "valid" / name)[100:260, 60:300]
    bits, psnr = [], []
    for codec in both:
        data = codec.compress(image)
        bits.append(len(data))
        # Either decodes it.
        psnr.append([metrics.psnr(image, decoder.decompress(data)) for decoder in both])
    assert bits[1] == pytest.approx(bits[0], rel=0.02)
    assert np.ptp(psnr) < 0.05


def test_what_one_encodes_the_other_decodes_to_the_same_latents(both):
    image = iio.imread(ROOT / "valid" / "coffee.png")[:100, :150]
    for codec in both:
        npz, y_string, y_hat = codec.encode(image)
        for other in both:
            np.testing.assert_array_equal(unpack_latents(other, npz, y_string)[1], y_hat)


def test_latents_and_pixels_are_not_rounded_to_bfloat16(both):
    """Large latents would be rounded to more than a step, bright pixels to two."""
    image = iio.imread(ROOT / "valid" / "coffee.png")[:128, :128]
    arrays = both[1].inspect(image)
    for name in ("y", "x_hat"):
        rounded = tf.cast(tf.cast(arrays[name], tf.bfloat16), tf.float32).numpy()
        assert np.mean(rounded != arrays[name]) > 0.9


@pytest.mark.usefixtures("needs_bfloat16")
def test_networks_without_attention_have_it_too():
    from gmm_attention.codec.strip_transform import StripTransform
    from gmm_attention.model import variables
    from gmm_attention.runtimes.tensorflow_runtime import _transform as transform

    model = variables.build_model(8, 3, attention=False, rdft=False, precision="bfloat16")
    x = np.random.default_rng(0).random([1, 64, 128, 3], np.float32)
    analysis, synthesis = transform(model.analysis, 8), transform(model.synthesis, 3)
    y = StripTransform(analysis, 16).whole(lambda *_: x, [64, 128])
    x_hat = StripTransform(synthesis, 1).whole(lambda *_: y[None], y.shape[:2])
    assert y.shape == (4, 8, 8) and x_hat.shape == x.shape[1:]
    assert y.dtype == x_hat.dtype == np.float32


@pytest.mark.usefixtures("needs_bfloat16")
def test_the_programs_take_it(tmp_path, monkeypatch, tiny_path, photograph):
    iio.imwrite(tmp_path / "a.png", photograph)
    monkeypatch.setattr(image_codec, "load", load_once)
    options = ["--model", str(tiny_path), "--quiet", "--jobs", "1"]
    coded, folders = str(tmp_path / "coded"), []
    for first in ("float32", "bfloat16"):
        arguments = ["--input", str(tmp_path / "a.png"), "--output", coded, "--precision", first]
        assert encoder.main(arguments + options) == 0
        for second in ("float32", "bfloat16"):
            folders.append(tmp_path / first / second)
            arguments = ["--input", coded, "--output", str(folders[-1]), "--precision", second]
            assert decoder.main(arguments + options) == 0
    pictures = [iio.imread(folder / "a.png").astype(int) for folder in folders]
    assert all(np.abs(picture - pictures[0]).mean() < 2 for picture in pictures)
    # Both ran in what they were asked for.
    assert (pictures[0] != pictures[1]).any() and (pictures[2] != pictures[3]).any()


def test_a_processor_without_bfloat16_is_told(tmp_path, monkeypatch, tiny_path, photograph, capsys):
    iio.imwrite(tmp_path / "a.png", photograph[:20, :20])
    start_up._load.cache_clear()
    monkeypatch.setattr(tensorflow_runtime, "has_bfloat16", lambda: False)
    arguments = ["--input", str(tmp_path / "a.png"), "--output", str(tmp_path / "coded")]
    arguments += ["--model", str(tiny_path)]
    assert encoder.main([*arguments, "--precision", "bfloat16"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("bfloat16: ") and "--precision float32" in err and err.count("\n") == 1
    assert not (tmp_path / "coded").exists()
    with pytest.raises(CodecError):
        ga.load(str(tiny_path), precision="bfloat16")


def test_another_precision_is_a_mistake(tiny_path):
    with pytest.raises(ValueError, match="float32, bfloat16"):
        ga.load(str(tiny_path), precision="float16")
