"""Curves: files read and written, BD-rate and BD-PSNR, and the distance of a point."""

import math

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from gmm_attention.errors import CurveError
from gmm_attention.evaluation.curves import (
    Curve,
    compare,
    distance,
    file_name,
    read_curve,
    read_curves,
    write_curve,
)

RDDATA = ROOT / "RDdata"
PAPER = "Proposed_optimized_by_MSE"
ATTN = "CompressAI-cheng2020-attn_optimized_by_MSE"
ATTN_8 = "CompressAI-cheng2020-attn-8bit_optimized_by_MSE"
ATTN_MS = "CompressAI-cheng2020-attn_optimized_by_MSSSIM"
PAPER_MS = "Proposed_optimized_by_MSSSIM"

# Published beside the figures: anchor, curve, BD-rate in per cent and BD-PSNR in dB (akima).
PUBLISHED = [
    ("VTM", PAPER, 3.3845, -0.1421),
    ("BPG444", PAPER, -19.4503, 0.9131),
    ("JPEG", PAPER, -66.3190, 5.5629),
    ("VTM", ATTN, 5.4645, -0.2253),
    ("BPG444", ATTN, -17.6078, 0.8402),
    ("JPEG", ATTN, -65.0577, 5.4824),
    (PAPER, ATTN, 2.0047, -0.0832),
    (ATTN, PAPER, -1.9653, 0.0832),
    ("VTM", "CompressAI-cheng2020-anchor_optimized_by_MSE", 3.5875, -0.1512),
    ("VTM", ATTN_8, 5.7394, -0.2364),
    ("VTM", "HM", 23.3035, -1.0086),
    ("VTM", "CompressAI-mbt2018_optimized_by_MSE", 11.0137, -0.4914),
    ("VTM", "CompressAI-bmshj2018-hyperprior_optimized_by_MSE", 30.4663, -1.2548),
    ("VTM", "ELIC2022_optimized_by_MSE", -7.0605, 0.3271),
    ("VTM", "Cheng2020-checkerboard-6M_optimized_by_MSE", 3.9041, -0.1590),
    ("VTM", "Cheng2020-parallel_optimized_by_MSE", 4.0743, -0.1661),
]
PUBLISHED_MS_SSIM = [
    ("VTM", PAPER_MS, -47.7845, 2.9535),
    ("VTM", ATTN_MS, -45.1194, 2.5411),
    (PAPER_MS, ATTN_MS, 4.8080, -0.2219),
]


def rddata(name, metric="PSNR", image_set="Kodak"):
    return read_curve(RDDATA / f"data_{image_set}_{name}_{metric}.dat")


def a_curve(*points, name="a", metric="PSNR", image_set="S"):
    return Curve(image_set, name, metric, *zip(*points))


# Files.


@given(
    st.lists(st.floats(1e-3, 24), min_size=1, max_size=20),
    st.data(),
)
def test_what_is_written_is_read_back(tmp_path_factory, rates, data):
    rates = sorted({round(rate, 3) for rate in rates})
    qualities = [data.draw(st.floats(-5, 90)) for _ in rates]
    curve = Curve("Kodak", "a_b-c.d", "MSSSIM", tuple(rates), tuple(qualities))
    path = write_curve(tmp_path_factory.getbasetemp(), curve)
    assert path.endswith("data_Kodak_a_b-c.d_MSSSIM.dat")
    read = read_curve(path)
    assert read[:3] == curve[:3]
    assert read.bpp == pytest.approx(curve.bpp, abs=1e-9)
    assert read.quality == pytest.approx(curve.quality, abs=1e-6)


@pytest.mark.parametrize(
    "content, cause",
    [
        (b"", "holds no points"),
        (b"\n \n", "holds no points"),
        (b"0.1\t30\n0.2\n", "line 2: not two numbers"),
        (b"0.1\t30\t0.9\n", "line 1: not two numbers"),
        (b"bpp\tpsnr\n", "line 1: not two numbers"),
        (b"0.2\t30\n0.1\t29\n", "line 2: the rate does not rise"),
        (b"0.2\t30\n0.2\t31\n", "line 2: the rate does not rise"),
        (b"nan\t30\n", "line 1: no bpp and dB"),
        (b"0.1\tinf\n", "line 1: no bpp and dB"),
        (b"-0.1\t30\n", "line 1: no bpp and dB"),
        (b"\x89PNG\r\n", "no text"),
    ],
)
def test_a_bad_file_is_named_with_its_cause(tmp_path, content, cause):
    path = tmp_path / "data_Kodak_x_PSNR.dat"
    path.write_bytes(content)
    with pytest.raises(CurveError) as caught:
        read_curve(path)
    assert str(caught.value).startswith(f"{path}: ") and cause in str(caught.value)
    assert "; " in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["curve.dat", "data_Kodak_x.dat", "data_Kodak_x_SSIM.dat"])
def test_a_file_of_another_name_is_refused(tmp_path, name):
    (tmp_path / name).write_text("0.1\t30\n")
    with pytest.raises(CurveError, match="not a curve's name"):
        read_curve(tmp_path / name)


def test_missing_files_and_empty_folders_are_named(tmp_path):
    for path, cause in [(tmp_path / "data_a_b_PSNR.dat", "cannot be read"), (tmp_path, "no curve")]:
        with pytest.raises(CurveError, match=f"{path}: {cause}"):
            read_curves([path])


def test_a_curve_given_twice_is_refused(tmp_path):
    path = write_curve(tmp_path, a_curve((0.1, 30)))
    assert len(read_curves([tmp_path])) == 1
    with pytest.raises(CurveError, match="given twice"):
        read_curves([tmp_path, path])


# Differences.


@pytest.mark.parametrize("anchor, name, rate, quality", PUBLISHED)
def test_differences_are_the_published_ones(anchor, name, rate, quality):
    difference = compare(rddata(name), rddata(anchor))
    assert difference.rate == pytest.approx(rate, abs=1e-3)
    assert difference.quality == pytest.approx(quality, abs=1e-3)


@pytest.mark.parametrize("anchor, name, rate, quality", PUBLISHED_MS_SSIM)
def test_differences_of_ms_ssim_are_the_published_ones(anchor, name, rate, quality):
    difference = compare(rddata(name, "MSSSIM"), rddata(anchor, "MSSSIM"))
    assert difference.rate == pytest.approx(rate, abs=1e-3)
    assert difference.quality == pytest.approx(quality, abs=1e-3)


def test_another_set_has_its_own_curves():
    difference = compare(rddata(ATTN, "PSNR", "CLIC2020pro"), rddata("VTM", "PSNR", "CLIC2020pro"))
    assert difference.rate == pytest.approx(6.0176, abs=1e-3)
    with pytest.raises(CurveError, match="other images"):
        compare(rddata(PAPER, "PSNR", "CLIC"), rddata("VTM", "PSNR", "CLIC2020pro"))
    with pytest.raises(CurveError, match="another metric"):
        compare(rddata(PAPER), rddata(PAPER, "MSSSIM"))


@pytest.mark.parametrize("path", sorted(RDDATA.glob("*.dat")), ids=lambda path: path.stem[5:])
def test_a_curve_does_not_differ_from_itself(path):
    curve = read_curve(path)
    ends = curve.quality[0], curve.quality[-1]
    assert compare(curve, curve) == (0, 0, ends, 1)


def test_the_overlap_is_told():
    anchor = a_curve((0.1, 30), (0.2, 33), (0.4, 36))
    difference = compare(a_curve((0.2, 32), (0.4, 35), (0.8, 38)), anchor)
    assert difference.overlap == (32, 36)
    assert difference.share == pytest.approx(4 / 8)
    # At twice the rate there are 2 dB more: at each quality 2 ** (1 / 3) times the rate.
    assert difference.rate == pytest.approx(100 * (2 ** (1 / 3) - 1))
    assert difference.quality == pytest.approx(-1)


def test_two_points_are_enough():
    difference = compare(a_curve((0.2, 30), (0.4, 33)), a_curve((0.1, 30), (0.2, 33)))
    assert difference.rate == pytest.approx(100)
    assert difference.quality is None  # the rates only touch


@pytest.mark.parametrize(
    "points, cause",
    [
        ([(0.5, 40), (0.6, 41)], "do not overlap"),
        ([(0.1, 30)], "a single point"),
        ([(0.1, 30), (0.2, 29)], "quality falls"),
        ([(0.1, 30), (0.2, 30)], "quality falls"),
    ],
)
def test_curves_that_cannot_be_compared_are_named(points, cause):
    anchor = a_curve((0.1, 30), (0.2, 33), name="anchor")
    for pair in (a_curve(*points), anchor), (anchor, a_curve(*points)):
        with pytest.raises(CurveError, match=cause) as caught:
            compare(*pair)
        assert "; " in str(caught.value)


def test_qualities_may_overlap_where_rates_do_not():
    difference = compare(a_curve((0.5, 30), (0.9, 33)), a_curve((0.1, 29), (0.2, 33)))
    assert difference.quality is None and difference.rate > 300


# A point beside a curve.


def test_the_points_of_a_curve_are_on_it():
    curve = rddata(PAPER)
    for bpp, quality in zip(curve.bpp, curve.quality):
        decibels, per_cent = distance(bpp, quality, curve)
        assert abs(decibels) < 1e-9 and abs(per_cent) < 1e-9


def test_distance_is_taken_at_the_points_own_rate_and_quality():
    curve = a_curve((0.1, 30), (0.2, 33), (0.4, 36), (0.8, 39))
    decibels, per_cent = distance(0.2 * 2**0.5, 33.5, curve)
    assert decibels == pytest.approx(-1)
    assert per_cent == pytest.approx(100 * (2 ** (1 / 3) - 1))


def test_no_curve_is_extended():
    curve = a_curve((0.1, 30), (0.2, 33))
    assert distance(0.05, 31, curve)[0] is None
    assert distance(0.3, 31, curve)[0] is None
    assert distance(0.15, 29, curve)[1] is None
    assert distance(0.15, 34, curve)[1] is None
    assert all(math.isfinite(value) for value in distance(0.15, 31, curve))
    with pytest.raises(CurveError, match="a single point"):
        distance(0.15, 31, a_curve((0.1, 30)))


def test_file_names_are_those_of_rddata():
    for path in RDDATA.glob("*.dat"):
        assert file_name(read_curve(path)) == path.name
