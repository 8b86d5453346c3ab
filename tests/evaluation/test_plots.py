"""Plots, crops side by side, and maps of bits."""

import xml.etree.ElementTree as ElementTree

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from gmm_attention.errors import CodecError, ImageError
from gmm_attention.evaluation import bits, plots, results
from gmm_attention.evaluation.curves import Curve, read_curves

RDDATA = ROOT / "RDdata"


def a_means(**fields):
    return results.Means(results.OWN, "m", results.FILES, 24, **{
        **dict.fromkeys(results.Means._fields[4:]), "bpp": 0.2, "psnr": 30.0, **fields,
    })  # fmt: skip


@pytest.fixture(scope="module")
def figure(tmp_path_factory):
    path = tmp_path_factory.mktemp("plot") / "Kodak_PSNR"
    published = [c for c in read_curves([RDDATA]) if c[:3:2] == ("Kodak", "PSNR")]
    (own,) = results.curves_of([a_means(ms_ssim_db=None)], "Kodak", "mine_optimized_by_MSE")
    (beside,) = results.curves_of([a_means(ms_ssim_db=None)], "Kodak", "Pillow-JPEG")
    arguments = published, [own], [beside]
    plots.rate_distortion(str(path), *arguments)
    return path, arguments


def test_a_plot_is_a_png_for_print_and_an_svg(figure):
    path, _ = figure
    with Image.open(f"{path}.png") as image:
        assert image.size[0] >= 2000 and image.info["dpi"] == pytest.approx((300, 300), abs=1)
        colours = image.convert("RGB").getcolors(2**24)
    assert {(0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)} <= {colour for _, colour in colours}
    ElementTree.parse(f"{path}.svg")


def test_the_same_curves_give_the_same_files(figure, tmp_path):
    path, arguments = figure
    plots.rate_distortion(str(tmp_path / "again"), *arguments)
    for suffix in ("png", "svg"):
        assert (tmp_path / f"again.{suffix}").read_bytes() == (
            path.with_name(f"{path.name}.{suffix}").read_bytes()
        )


@pytest.mark.parametrize("metric", ["PSNR", "MSSSIM"])
def test_curves_that_are_drawn_by_themselves_are_told_apart(metric):
    assert set(plots.DRAWN[metric]) - {"Proposed_optimized_by_MSSSIM"} >= {
        "Proposed_optimized_by_MSE", "VTM", "BPG444", "JPEG",
    }  # fmt: skip
    styles = [plots._STYLES[name][1:] for name in plots.DRAWN[metric] if name != "ELIC2022"]
    assert len(set(styles)) == len(styles)


def test_crops_keep_every_pixel(tmp_path, photograph):
    crops = [(f"number {i}\n0.1 bpp", photograph[10 * i : 10 * i + 60, :90]) for i in range(4)]
    plots.side_by_side(str(tmp_path / "crops.png"), crops)
    drawn = iio.imread(tmp_path / "crops.png")[..., :3]
    scale, gap = 3, 8
    for i, (_, crop) in enumerate(crops):
        row, column = divmod(i, 3)
        top, left = gap + row * (60 * scale + 52), gap + column * (90 * scale + gap)
        shown = drawn[top : top + 60 * scale, left : left + 90 * scale]
        np.testing.assert_array_equal(shown, crop.repeat(scale, 0).repeat(scale, 1))
        below = drawn[top + 60 * scale : top + 60 * scale + 40, left : left + 90 * scale]
        assert below.min() < 100  # the caption


def test_a_map_of_bits_is_drawn(tmp_path, tiny_codec, large):
    apart = bits.bits_of(tiny_codec, large)
    plots.bits_map(str(tmp_path / "map.png"), large, apart, "a cat")
    drawn = iio.imread(tmp_path / "map.png")
    assert drawn.shape[0] > 500 and drawn[..., :3].std() > 20


@pytest.mark.parametrize("sides", [(1, 1), (1, 3000), (3000, 1), (16, 16)])
def test_a_map_of_an_image_of_any_shape_is_drawn(tmp_path, tiny_codec, sides):
    image = np.zeros([*sides, 3], np.uint8)
    plots.bits_map(str(tmp_path / "map.png"), image, bits.bits_of(tiny_codec, image), "black")
    assert iio.imread(tmp_path / "map.png").shape[0] > 500


def test_names_with_dollars_are_no_mathematics(tmp_path, tiny_codec, large):
    name = "$a_{$b$"
    curve = Curve(name, name, "PSNR", (0.1,), (30.0,))
    plots.rate_distortion(str(tmp_path / "plot"), [], [curve], [])
    assert name in (tmp_path / "plot.svg").read_text()  # in a comment beside the letters' outlines
    plots.side_by_side(str(tmp_path / "crops.png"), [(name, large)])
    plots.bits_map(str(tmp_path / "map.png"), large, bits.bits_of(tiny_codec, large), name)


def test_crops_that_are_too_large_to_draw_are_refused(tmp_path):
    image = np.broadcast_to(np.uint8(0), [10, 22000, 3])
    with pytest.raises(ImageError, match="crops of 22000x10 pixels side by side are too large"):
        plots.side_by_side(str(tmp_path / "crops.png"), [("a", image)] * 3)


def test_a_plot_that_cannot_be_written_is_an_error(tmp_path, photograph):
    with pytest.raises(CodecError, match="cannot be written"):
        plots.side_by_side(str(tmp_path / "none" / "crops.png"), [("", photograph)])
