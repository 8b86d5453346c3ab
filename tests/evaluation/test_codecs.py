"""Other codecs at the rate of a model."""

import numpy as np
import pytest

from gmm_attention import metrics
from gmm_attention.errors import CodecError, ImageError
from gmm_attention.evaluation import codecs, one_image


@pytest.mark.parametrize("name", codecs.FORMATS)
def test_a_codec_comes_as_near_to_a_rate_as_its_qualities_allow(name, large):
    codecs.check(name)
    bpp = 1.0
    figures, reconstruction = one_image.measure_format(name, large, bpp)
    quality = figures["quality"]
    data = codecs.encode(name, large, quality)
    assert figures["bpp"] == 8 * len(data) / (176 * 200)
    np.testing.assert_array_equal(reconstruction, codecs.decode(name, data))
    assert figures["psnr"] == metrics.psnr(large, reconstruction) > 25
    distances = [
        abs(8 * len(codecs.encode(name, large, q)) / (176 * 200) - bpp)
        for q in range(max(quality - 2, 0), quality + 3)
    ]
    assert min(distances) == abs(figures["bpp"] - bpp) < 0.1


@pytest.mark.parametrize("name", codecs.FORMATS)
def test_rates_out_of_reach_give_the_smallest_and_the_largest_file(name, large):
    qualities = [codecs.quality_near(name, large[:64, :64], size) for size in (1, 10**9)]
    smallest = len(codecs.encode(name, large[:64, :64], qualities[0]))
    assert smallest == len(codecs.encode(name, large[:64, :64], 0))
    assert qualities[1] == codecs.FORMATS[name].best_quality


def test_an_image_that_a_format_cannot_hold_is_refused():
    with pytest.raises(ImageError, match=r"^WebP cannot hold this image \(.+\); leave webp away$"):
        codecs.encode("webp", np.zeros([1, 16384, 3], np.uint8), 10)


@pytest.mark.parametrize("name", ["webp", "avif"])
def test_a_missing_codec_is_named_with_the_cure(name, monkeypatch):
    monkeypatch.setattr(codecs.features, "check", lambda feature: feature != name)
    with pytest.raises(CodecError, match="pip install"):
        codecs.check(name)
    codecs.check("jpeg")


def test_a_missing_plugin_is_named_with_the_cure(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_jxl", None)
    with pytest.raises(CodecError, match="pip install pillow-jxl-plugin"):
        codecs.check("jxl")
