"""The paper's curves in RDdata/: complete, readable, in order, and with the published digits."""

from pathlib import Path

import pytest

RDDATA = Path(__file__).parent.parent / "RDdata"

POINTS = {"MSE": 6, "MSSSIM": 4}
CURVES = [
    f"data_{images}_Proposed_optimized_by_{loss}_{metric}.dat"
    for images in ("Kodak", "CLIC")
    for loss in POINTS
    for metric in ("PSNR", "MSSSIM")
]


def read_curve(name):
    lines = (RDDATA / name).read_text(encoding="ascii").splitlines()
    return [tuple(float(number) for number in line.split("\t")) for line in lines]


def test_all_curves_are_there():
    assert sorted(path.name for path in RDDATA.glob("*Proposed*.dat")) == sorted(CURVES)


@pytest.mark.parametrize("name", CURVES)
def test_more_bits_give_more_quality(name):
    points = read_curve(name)
    assert len(points) == POINTS[name.split("_")[-2]]
    assert all(len(point) == 2 for point in points)
    for column in zip(*points):
        assert all(below < above for below, above in zip(column, column[1:]))
    assert all(0.05 < bpp < 1 and 10 < decibels < 40 for bpp, decibels in points)


@pytest.mark.parametrize("name", [name for name in CURVES if name.endswith("PSNR.dat")])
def test_both_metrics_are_of_the_same_models(name):
    other = read_curve(name.replace("PSNR.dat", "MSSSIM.dat"))
    assert [bpp for bpp, _ in read_curve(name)] == [bpp for bpp, _ in other]


def test_kodak_psnr_has_the_published_digits():
    text = (RDDATA / "data_Kodak_Proposed_optimized_by_MSE_PSNR.dat").read_text(encoding="ascii")
    assert text.split() == [
        *("0.098115338", "27.98974522"),
        *("0.173912113", "29.82447267"),
        *("0.299725056", "31.8515377"),
        *("0.456783226", "33.87737664"),
        *("0.679351191", "35.62697935"),
        *("0.829", "36.654"),
    ]
