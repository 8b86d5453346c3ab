"""Rows of measurements, their means, and the curves through these."""

import math

import pytest
from conftest import ROOT

from gmm_attention.evaluation import results
from gmm_attention.evaluation.curves import read_curve, read_curves, write_curve
from gmm_attention.files import read_rows

RDDATA = ROOT / "RDdata"


def row(image, **figures):
    identity = {
        "set": "s",
        "codec": results.OWN,
        "model": "m",
        "rate": results.FILES,
        "effort": "0",
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
    assert again.get({**row("a"), "effort": "1"}) is None
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
    measured = results.Results(path)
    assert measured.get(row(name)) is None
    added = measured.add(**row(name, bpp=0.25, psnr=30.0))
    assert results.Results(path).get(row(name)) == added
    assert path.read_bytes().count(b"\r\n") == 2


def test_lossless_pictures_have_infinite_quality(tmp_path):
    path = tmp_path / "images.csv"
    results.Results(path).add(**row("a", bpp=5.0, psnr=math.inf, ms_ssim=1.0))
    assert results.Results(path).get(row("a"))["ms_ssim_db"] == math.inf


@pytest.mark.parametrize("column", ["bpp", "psnr", "ms_ssim", "encode_seconds"])
@pytest.mark.parametrize("value", ["nan", "-inf", "inf"])
def test_numbers_that_no_measurement_gives_are_not_believed(tmp_path, column, value):
    path = tmp_path / "images.csv"
    figures = {"bpp": 0.25, "psnr": 30.5, "ms_ssim": 0.75, "encode_seconds": 1.5}
    results.Results(path).add(**row("a", **figures))
    path.write_text(path.read_text().replace(str(figures[column]), value))
    found = results.Results(path).get(row("a"))
    if (column, value) == ("psnr", "inf"):
        assert found["psnr"] == math.inf
    else:
        assert found is None


def test_rates_that_would_be_written_as_zero_or_equal_make_no_point(tmp_path):
    points = [a_means(bpp=b, psnr=30 + b) for b in (0.0, 4e-10, 0.1, 0.1 + 4e-10, 0.2)]
    (curve,) = results.curves_of(points, "S", "n")
    assert curve.bpp == (0.1, 0.2)
    assert read_curve(write_curve(tmp_path, curve)).bpp == (0.1, 0.2)
    assert results.curves_of(points[:2], "S", "n") == []


def test_means_are_taken_as_the_paper_takes_them(tmp_path):
    measured = results.Results(tmp_path / "images.csv")
    rows = [
        measured.add(**row("a", bpp=0.2, side_bpp=0.01, psnr=30.0, ms_ssim=0.9)),
        measured.add(**row("b", bpp=0.4, side_bpp=0.03, psnr=36.0, ms_ssim=0.99)),
        measured.add(**row("c", bpp=0.6, side_bpp=0.02, psnr=33.0, ms_ssim=None)),
    ]
    means = results.means(rows)
    assert means.images == 3
    assert means[5:8] == pytest.approx((0.4, 0.02, 33))
    assert means.ms_ssim == pytest.approx(0.945)
    assert means.ms_ssim_db == pytest.approx(-10 * math.log10(1 - 0.945))
    assert means.ms_ssim_mean_db == pytest.approx(15)
    assert means.encode_seconds is None
    results.write_means(tmp_path / "means.csv", [means])
    columns, (written,) = read_rows(tmp_path / "means.csv")
    assert columns == list(results.Means._fields)
    assert written["ms_ssim"] == "0.945" and written["encode_seconds"] == ""


def a_means(**fields):
    return results.Means(results.OWN, "m", results.FILES, 0, 24, **{
        **dict.fromkeys(results.Means._fields[5:]), "bpp": 0.2, "psnr": 30.0, **fields,
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
