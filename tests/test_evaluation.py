"""Evaluation from Python: rows and means, other codecs, where the bits go, and figures."""

import math
import xml.etree.ElementTree as ElementTree

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from gmm_attention.errors import CodecError, ImageError
from gmm_attention.evaluation import bits, codecs, measurement, metrics, plots, results
from gmm_attention.evaluation.curves import read_curve, read_curves, write_curve
from gmm_attention.files import append_row, read_rows

RDDATA = ROOT / "RDdata"


@pytest.fixture(scope="module")
def large(photograph):
    """uint8 [176, 200, 3], large enough for MS-SSIM."""
    return iio.imread(ROOT / "valid" / "chelsea.png")[80:256, 100:300]


# One image.


def test_figures_are_those_of_the_real_files(tiny_codec, large):
    figures, reconstruction = measurement.measure(tiny_codec, large)
    npz, y_string, _ = tiny_codec.encode(large)
    assert figures["bpp"] == 8 * (len(npz) + len(y_string)) / (176 * 200)
    assert figures["side_bpp"] == 8 * len(npz) / (176 * 200)
    np.testing.assert_array_equal(reconstruction, tiny_codec.decode(npz, y_string))
    assert figures["psnr"] == metrics.psnr(large, reconstruction)
    assert figures["ms_ssim"] == metrics.ms_ssim(large, reconstruction)
    assert (figures["height"], figures["width"]) == (176, 200)
    assert figures["encode_seconds"] > 0 and figures["decode_seconds"] > 0


def test_an_estimate_is_the_cross_entropy(tiny_codec, large):
    estimate = measurement.estimate(tiny_codec, large)
    figures, _ = measurement.measure(tiny_codec, large)
    inspected = tiny_codec.inspect(large)
    assert estimate["bpp"] == (inspected["bits_y"] + inspected["bits_z"]) / (176 * 200)
    assert estimate["side_bpp"] == inspected["bits_z"] / (176 * 200)
    # The header and little else is missing.
    assert 0 < figures["bpp"] - estimate["bpp"] < 0.02 * figures["bpp"] + 8 * 30 / (176 * 200)
    for name in ("psnr", "ms_ssim"):
        assert estimate[name] == figures[name]
    assert "encode_seconds" not in estimate


# Other codecs.


@pytest.mark.parametrize("name", codecs.FORMATS)
def test_a_codec_comes_as_near_to_a_rate_as_its_qualities_allow(name, large):
    codecs.check(name)
    bpp = 1.0
    figures, reconstruction = measurement.measure_format(name, large, bpp)
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


# Rows and means.


def row(image, **figures):
    identity = {
        "set": "s",
        "codec": results.OWN,
        "model": "m",
        "rate": results.FILES,
        "inputs": f"of {image}",
    }
    return {**identity, "image": image, **figures}


def test_rows_are_on_the_disk_at_once_and_found_again(tmp_path):
    path = tmp_path / "images.csv"
    added = results.Results(path).add(**row("a", bpp=0.25, psnr=30.0, ms_ssim=0.9, height=3))
    assert added["bpp"] == 0.25 and added["ms_ssim_db"] == pytest.approx(10)
    assert added["side_bpp"] is None
    again = results.Results(path)
    assert again.get(row("a")) == added
    assert again.get(row("b")) is None
    assert again.get({**row("a"), "inputs": "others"}) is None
    assert again.get({**row("a"), "rate": results.ESTIMATE}) is None
    # Another path of the same weights is the same model.
    assert again.get({**row("a"), "model": "elsewhere"}) == added


def test_what_a_kill_left_of_a_row_is_dropped(tmp_path):
    path = tmp_path / "images.csv"
    measured = results.Results(path)
    for name in "ab":
        measured.add(**row(name, bpp=0.25, psnr=30.0))
    whole = path.read_bytes()
    last = whole.splitlines()[-1]
    for end in range(len(whole) - len(last), len(whole)):
        path.write_bytes(whole[:end])
        again = results.Results(path)
        assert again.get(row("a")) and not again.get(row("b"))
        again.add(**row("b", bpp=0.25, psnr=30.0))
        assert path.read_bytes() == whole


def test_rows_that_are_no_numbers_or_have_other_columns_are_not_believed(tmp_path):
    path = tmp_path / "images.csv"
    results.Results(path).add(**row("a", bpp=0.25, psnr=30.0))
    path.write_text(path.read_text().replace("0.25", "much"))
    assert results.Results(path).get(row("a")) is None
    path.write_text("image,bpp\na,0.25\n")
    results.Results(path).add(**row("a", bpp=0.5, psnr=30.0))
    assert results.Results(path).get(row("a"))["bpp"] == 0.5
    assert (tmp_path / "images.csv.old").read_text() == "image,bpp\na,0.25\n"


@pytest.mark.parametrize("name", ["caf\udce9", "two\u2028lines", "a\x85b\x0cc", 'a "quoted", one'])
def test_any_name_is_found_again(tmp_path, name):
    path = tmp_path / "images.csv"
    for _ in range(2):
        measured = results.Results(path)
        assert measured.get(row(name)) or measured.add(**row(name, bpp=0.25, psnr=30.0))
    assert path.read_bytes().count(b"\r\n") == 2


def test_lossless_pictures_have_infinite_quality(tmp_path):
    path = tmp_path / "images.csv"
    results.Results(path).add(**row("a", bpp=5.0, psnr=math.inf, ms_ssim=1.0))
    assert results.Results(path).get(row("a"))["ms_ssim_db"] == math.inf


def test_means_are_taken_as_the_paper_takes_them(tmp_path):
    measured = results.Results(tmp_path / "images.csv")
    rows = [
        measured.add(**row("a", bpp=0.2, side_bpp=0.01, psnr=30.0, ms_ssim=0.9)),
        measured.add(**row("b", bpp=0.4, side_bpp=0.03, psnr=36.0, ms_ssim=0.99)),
        measured.add(**row("c", bpp=0.6, side_bpp=0.02, psnr=33.0, ms_ssim=None)),
    ]
    means = results.means(rows)
    assert means.images == 3
    assert means[4:7] == pytest.approx((0.4, 0.02, 33))
    assert means.ms_ssim == pytest.approx(0.945)
    assert means.ms_ssim_db == pytest.approx(-10 * math.log10(1 - 0.945))
    assert means.ms_ssim_mean_db == pytest.approx(15)
    assert means.encode_seconds is None
    results.write_means(tmp_path / "means.csv", [means])
    columns, (written,) = read_rows(tmp_path / "means.csv")
    assert columns == list(results.Means._fields)
    assert written["ms_ssim"] == "0.945" and written["encode_seconds"] == ""


def a_means(**fields):
    return results.Means(results.OWN, "m", results.FILES, 24, **{
        **dict.fromkeys(results.Means._fields[4:]), "bpp": 0.2, "psnr": 30.0, **fields,
    })  # fmt: skip


def test_curves_go_through_means_and_are_read_back(tmp_path):
    points = [
        a_means(bpp=0.4, psnr=33.0, ms_ssim_db=12.0),
        a_means(ms_ssim_db=10.0),
        a_means(ms_ssim_db=10.0),
    ]
    drawn = results.curves_of(points, "Kodak", "mine_optimized_by_MSE")
    assert [curve.metric for curve in drawn] == ["PSNR", "MSSSIM"]
    assert drawn[0].bpp == (0.2, 0.4) and drawn[1].quality == (10, 12)
    for curve in drawn:
        assert read_curve(write_curve(tmp_path, curve)) == curve
    assert sorted(read_curves([tmp_path])) == sorted(drawn)


@pytest.mark.parametrize("quality", [None, math.inf])
def test_no_curve_is_drawn_through_missing_or_infinite_values(quality):
    drawn = results.curves_of([a_means(ms_ssim_db=9.0), a_means(ms_ssim_db=quality)], "S", "n")
    assert [curve.metric for curve in drawn] == ["PSNR"]
    assert results.curves_of([], "S", "n") == []


def test_a_full_disk_leaves_no_half_row(tmp_path):
    path = tmp_path / "rows.csv"
    append_row(path, {"a": 1})
    with pytest.raises(CodecError, match="cannot be written"):
        append_row(tmp_path / "none" / "rows.csv", {"a": 1})
    assert path.read_text().split() == ["a", "1"]


# Where the bits go.


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


# Figures.


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


def test_a_plot_that_cannot_be_written_is_an_error(tmp_path, photograph):
    with pytest.raises(CodecError, match="cannot be written"):
        plots.side_by_side(str(tmp_path / "none" / "crops.png"), [("", photograph)])
