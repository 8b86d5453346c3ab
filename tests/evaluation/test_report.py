"""The notes below the table of means."""

import math

import pytest

from gmm_attention.evaluation import report, results


def row(image, psnr=30.0, ms_ssim=0.9, bpp=0.2, codec=results.OWN):
    decibels = (
        None if ms_ssim is None else math.inf if ms_ssim == 1 else -10 * math.log10(1 - ms_ssim)
    )
    return {
        "codec": codec, "model": "models/m", "rate": results.FILES, "effort": "0", "image": image,
        "bpp": bpp, "side_bpp": 0.01, "psnr": psnr, "ms_ssim": ms_ssim, "ms_ssim_db": decibels,
        "jobs": 1, "encode_seconds": 1.0, "decode_seconds": 1.0,
    }  # fmt: skip


def notes(measured, effort=0, **formats):
    rows = {results.OWN: {"models/m": measured}}
    rows.update({title: {"models/m": r} for title, r in formats.items()})
    return report.means_notes(rows, len(measured), effort).splitlines()[1:]


FLAT = row("flat", math.inf, 1.0)


def test_an_image_without_distortion_is_named():
    measured = [*(row(f"{i}") for i in range(9)), FLAT]
    assert notes(measured) == [
        "models/m: flat is reproduced exactly, its PSNR is infinite; the mean PSNR is of the "
        "other 9.",
        "models/m: the MS-SSIM of flat is 1, which is infinite in dB; the mean of dB is of the "
        "other 9.",
    ]
    means = results.means(measured)
    assert (means.images, means.psnr_images, means.ms_ssim_images) == (10, 9, 10)
    assert means.psnr == 30 and means.ms_ssim == pytest.approx(0.91)
    assert means.ms_ssim_db == pytest.approx(-10 * math.log10(0.09))
    assert means.ms_ssim_mean_db == pytest.approx(10)


def test_small_images_have_no_part_in_the_count():
    measured = [row("a"), row("tiny", ms_ssim=None), row("dot", math.inf, None), FLAT]
    assert notes(measured)[:2] == [
        "models/m: dot and flat are reproduced exactly, their PSNR is infinite; the mean PSNR is "
        "of the other 2.",
        "models/m: the MS-SSIM of flat is 1, which is infinite in dB; the mean of dB is of the "
        "other.",
    ]


def test_many_images_are_counted():
    found = notes([*(row(f"{i}", math.inf, None) for i in range(9)), row("a", ms_ssim=None)])
    assert found[0].startswith("models/m: 0, 1, 2, 3, 4 and 4 more are reproduced exactly, ")


def test_where_all_are_exact_there_is_no_mean():
    measured = [FLAT, row("black", math.inf, 1.0)]
    assert notes(measured) == [
        "models/m: flat and black are reproduced exactly, their PSNR is infinite; there is no "
        "mean PSNR, and no curve of it.",
        "models/m: the MS-SSIM of flat and black is 1, which is infinite in dB; there is no mean "
        "of dB, and no curve of it.",
    ]
    means = results.means(measured)
    assert (means.psnr, means.ms_ssim_db, means.ms_ssim_mean_db) == (None, None, None)
    assert means.ms_ssim == 1 and means.psnr_images == 0
    assert results.curves_of([means], "s", "n") == []
    assert "  -  " in report.means_table([means])


def test_other_codecs_are_told_apart():
    found = notes([row("a"), row("flat")], JPEG=[row("a", codec="JPEG"), {**FLAT, "codec": "JPEG"}])
    assert found[0].startswith("JPEG at the rate of models/m: flat is reproduced exactly, ")


def test_an_effort_is_told_wherever_a_model_is_named():
    rows = [row("a"), FLAT]
    found = notes(rows, 2, JPEG=[{**row("a", bpp=0.3), "codec": "JPEG"}, {**FLAT, "codec": "JPEG"}])
    assert len(found) == 5 and all("models/m at effort 2" in line for line in found)
    means = results.means([{**measured, "effort": "2"} for measured in rows])
    assert means.title == "models/m at effort 2"
    assert means._replace(codec="JPEG").title == "JPEG at the rate of models/m at effort 2"


def test_no_share_is_taken_of_a_rate_of_zero():
    found = notes([row("a", bpp=0.0), row("b")], JPEG=[row("a", codec="JPEG"), row("b")])
    assert found == [
        "JPEG: 1 of 2 images are more than 5% off the rate of models/m, +inf% at most."
    ]


def test_a_name_stays_in_its_line():
    found = notes([{**FLAT, "image": "two\nlines\x1b[2J"}, row("a")])
    assert found[0].startswith(r"models/m: two\nlines\x1b[2J is reproduced exactly, ")
