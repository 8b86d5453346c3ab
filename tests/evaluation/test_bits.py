"""Where the bits of a coded image go."""

import numpy as np
import pytest

from gmm_attention.evaluation import bits, report


def test_all_bits_are_accounted_for(tiny_codec, large):
    apart = bits.bits_of(tiny_codec, large)
    npz, y_string, y_hat = tiny_codec.encode(large)
    assert apart.file_y + apart.file_z + apart.header == 8 * (len(npz) + len(y_string))
    inspected = tiny_codec.inspect(large)
    assert apart.y_channels.sum() == pytest.approx(inspected["bits_y"])
    assert apart.z_channels.sum() == pytest.approx(inspected["bits_z"])
    np.testing.assert_array_equal(apart.live, y_hat.any(axis=(0, 1)))
    # 176x200 pixels in blocks of 16, the last one of a row cut off.
    assert apart.block_bpp.shape == (11, 13)
    y, z = (inspected[f"element_bits_{name}"].sum(axis=-1) for name in "yz")
    for i, j in [(0, 0), (3, 4), (10, 12)]:
        expected = (y[i, j] + z[i // 4, j // 4] / 16) / 256
        assert apart.block_bpp[i, j] == pytest.approx(expected)


def test_bits_in_the_padding_are_told(tiny_codec, large):
    apart = bits.bits_of(tiny_codec, large)
    total = apart.y_channels.sum() + apart.z_channels.sum()
    assert 256 * apart.block_bpp.sum() == pytest.approx((1 - apart.padding) * total)
    assert apart.padding > 0.05
    assert bits.bits_of(tiny_codec, large[:128, :192]).padding == pytest.approx(0, abs=1e-9)


def test_the_blocks_of_an_image_without_padding_hold_all_bits(tiny_codec, large):
    apart = bits.bits_of(tiny_codec, large[:128, :192])
    total = apart.y_channels.sum() + apart.z_channels.sum()
    assert 256 * apart.block_bpp.sum() == pytest.approx(total)


def test_an_image_whose_latents_cost_nothing(tiny_codec, large, monkeypatch):
    arrays = tiny_codec.inspect(large)
    for name in "yz":
        arrays[f"element_bits_{name}"] = np.zeros_like(arrays[f"element_bits_{name}"])
    monkeypatch.setattr(tiny_codec, "inspect", lambda _: arrays)
    apart = bits.bits_of(tiny_codec, large)
    assert apart.padding == 0
    line = report.bits_table({"m": [("black", apart)]}).splitlines()[1]
    assert line.split()[-2:] == ["-", "-"]
