"""Figures of one image, by its real files or by the cross-entropy."""

import subprocess
import sys

import numpy as np
from conftest import ROOT

from gmm_attention import metrics
from gmm_attention.evaluation import one_image


def test_figures_are_those_of_the_real_files(tiny_codec, large):
    figures, reconstruction = one_image.measure(tiny_codec, large)
    npz, y_string, _ = tiny_codec.encode(large)
    assert figures["bpp"] == 8 * (len(npz) + len(y_string)) / (176 * 200)
    assert figures["side_bpp"] == 8 * len(npz) / (176 * 200)
    np.testing.assert_array_equal(reconstruction, tiny_codec.decode(npz, y_string))
    assert figures["psnr"] == metrics.psnr(large, reconstruction)
    assert figures["ms_ssim"] == metrics.ms_ssim(large, reconstruction)
    assert (figures["height"], figures["width"]) == (176, 200)
    assert figures["encode_seconds"] > 0 and figures["decode_seconds"] > 0


def test_an_estimate_is_the_cross_entropy(tiny_codec, large):
    estimate = one_image.estimate(tiny_codec, large)
    figures, _ = one_image.measure(tiny_codec, large)
    inspected = tiny_codec.inspect(large)
    assert estimate["bpp"] == (inspected["bits_y"] + inspected["bits_z"]) / (176 * 200)
    assert estimate["side_bpp"] == inspected["bits_z"] / (176 * 200)
    # The header and little else is missing.
    assert 0 < figures["bpp"] - estimate["bpp"] < 0.02 * figures["bpp"] + 8 * 30 / (176 * 200)
    for name in ("psnr", "ms_ssim"):
        assert estimate[name] == figures[name]
    assert "encode_seconds" not in estimate


def test_figures_of_another_codec_need_no_tensorflow():
    code = """
import sys
import numpy as np
from gmm_attention.evaluation import one_image
figures, _ = one_image.measure_format("jpeg", np.zeros([161, 161, 3], np.uint8), 0.5)
assert figures["ms_ssim"] == 1
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
