"""The curves in RDdata/: complete, readable, in order, and with the published digits."""

import csv

import pytest
from conftest import ROOT

from gmm_attention.evaluation.curves import file_name, read_curve, read_curves

RDDATA = ROOT / "RDdata"
FIGURES = ROOT.parent / "shared" / "figures" / "curves"

POINTS = {"MSE": 6, "MSSSIM": 4}
CURVES = [
    f"data_{images}_Proposed_optimized_by_{loss}_{metric}.dat"
    for images in ("Kodak", "CLIC")
    for loss in POINTS
    for metric in ("PSNR", "MSSSIM")
]

# Names of other curves, in RDdata and in the published figures.
SETS = {"Kodak": "kodak", "CLIC": "clic", "CLIC2020pro": "clic2020pro"}
NAMES = {
    "Proposed": "cheng2020-paper",
    "ELIC2022": "elic2022-paper",
    "Cheng2020-parallel": "cheng2020-parallel-paper",
    "Cheng2020-checkerboard-6M": "cheng2020-checkerboard-6M-paper",
    "Minnen2020-CC10": "minnen2020-cc10-paper",
}
# Published as trained for MS-SSIM; see RDdata/README.md.
NO_LOSS = ("ELIC2022", "Cheng2020-parallel")
ANCHORS = ("VTM", "HM", "BPG444", "AV1", "JPEG", "JPEG2000", "WebP")


def published_name(curve):
    """The name of the CSV file with the figures of a curve."""
    name, _, loss = curve.name.partition("_optimized_by_")
    eight_bits = "_8bit" if name.endswith("-8bit") else ""
    name = name[: -len("-8bit")] if eight_bits else name
    if curve.name in NO_LOSS:
        loss = "MSSSIM"
    loss = {"": "", "MSE": "_mse", "MSSSIM": "_ms-ssim"}[loss]
    return f"{SETS[curve.image_set]}_{NAMES.get(name, name.lower())}{loss}{eight_bits}.csv"


def test_all_curves_of_the_paper_are_there():
    assert sorted(path.name for path in RDDATA.glob("*Proposed*.dat")) == sorted(CURVES)


def test_the_anchors_are_there():
    names = {curve[:3] for curve in read_curves([RDDATA])}
    for image_set in ("Kodak", "CLIC2020pro"):
        for metric in ("PSNR", "MSSSIM"):
            assert names >= {(image_set, anchor, metric) for anchor in ANCHORS}
    readme = (RDDATA / "README.md").read_text(encoding="utf-8")
    for name in {name.partition("_optimized_by_")[0] for _, name, _ in names}:
        assert f"`{name.replace('-8bit', '')}`" in readme


@pytest.mark.parametrize("path", sorted(RDDATA.glob("*.dat")), ids=lambda path: path.stem[5:])
def test_more_bits_give_more_quality(path):
    curve = read_curve(path)
    for column in (curve.bpp, curve.quality):
        assert all(below < above for below, above in zip(column, column[1:]))
    assert all(0.02 < bpp < 6 and 7 < quality < 50 for bpp, quality in zip(*curve[3:]))


@pytest.mark.parametrize("name", CURVES)
def test_the_papers_curves_have_all_their_points(name):
    curve = read_curve(RDDATA / name)
    assert len(curve.bpp) == POINTS[curve.name.rpartition("_")[2]]


# Of some models only one metric is published.
WITH_BOTH_METRICS = [
    name
    for name in sorted(path.name for path in RDDATA.glob("*_PSNR.dat"))
    if (RDDATA / name.replace("_PSNR", "_MSSSIM")).exists()
]


@pytest.mark.parametrize("name", WITH_BOTH_METRICS)
def test_both_metrics_are_of_the_same_rates(name):
    psnr = read_curve(RDDATA / name)
    ms_ssim = read_curve(RDDATA / file_name(psnr._replace(metric="MSSSIM")))
    assert ms_ssim.bpp == psnr.bpp


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


def test_every_digit_is_the_publishers():
    if not FIGURES.is_dir():
        pytest.skip("needs ../shared/figures, outside this repository")
    used = set()
    for path in RDDATA.glob("*.dat"):
        curve = read_curve(path)
        with open(FIGURES / published_name(curve), newline="") as file:
            rows = list(csv.DictReader(file))
        column = {"PSNR": "psnr_db", "MSSSIM": "ms_ssim_db"}[curve.metric]
        words = [word for row in rows for word in (row["bpp"], row[column])]
        assert path.read_text(encoding="ascii").split() == words
        used.add(published_name(curve))
    assert used == {path.name for path in FIGURES.iterdir()}
