"""evaluate.py, and encoder.py --target-bpp: what a user types, sees and finds in the folder."""

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import ROOT, files, load_once, needs_tensorflow, wait_until

from gmm_attention import metrics, requirements, start_up
from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.checkpoints import locate
from gmm_attention.codec import image_codec
from gmm_attention.commands import encoder, evaluate
from gmm_attention.evaluation import many_images, one_image, plots
from gmm_attention.evaluation.curves import read_curve

PAPER = "Proposed_optimized_by_MSE"


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a command in a folder with RDdata, each model loaded once."""
    monkeypatch.setattr(image_codec, "load", load_once)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RDdata").symlink_to(ROOT / "RDdata")

    def run(*arguments, command=evaluate):
        status = command.main([*map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def photographs(tmp_path):
    """A folder kodak/ of three images, one of them in a sub-folder and too small for MS-SSIM."""
    cat = iio.imread(ROOT / "valid" / "chelsea.png")
    (tmp_path / "kodak" / "small").mkdir(parents=True)
    iio.imwrite(tmp_path / "kodak" / "a.png", cat[80:250, 100:290])
    iio.imwrite(tmp_path / "kodak" / "b.png", cat[100:264, 100:300])
    iio.imwrite(tmp_path / "kodak" / "small" / "c.png", cat[100:150, 100:170])
    return tmp_path / "kodak"


@pytest.fixture
def wider(tmp_path, tiny_path):
    """The tiny model twice, as one of another lambda."""
    shutil.copytree(tiny_path, tmp_path / "models" / "wider")
    settings = checkpoints.load_settings(tmp_path / "models" / "wider")
    checkpoints.save_settings(tmp_path / "models" / "wider", {**settings, "lambda": 0.1})
    return tmp_path / "models" / "wider"


def assert_one_line(text, *parts):
    assert re.fullmatch("[^\n]+\n", text), text
    for part in parts:
        assert str(part) in text


# Measuring.


def test_a_folder_gives_rows_means_curves_and_plots(run, photographs, tiny_path, tiny_codec):
    status, out, err = run("--images", "kodak", "--models", tiny_path)
    assert (status, err) == (0, "")
    settings = checkpoints.load_settings(tiny_path)
    loss = {"mse": "_optimized_by_MSE", None: ""}[settings.get("metric")]
    name = f"gmm-attention{loss}"
    assert files("evaluation") == sorted(
        [
            *("images.csv", "means.csv"),
            *(f"data_Kodak_{name}_{metric}.dat" for metric in ("PSNR", "MSSSIM")),
            *(f"Kodak_{m}.{suffix}" for m in ("PSNR", "MSSSIM") for suffix in ("png", "svg")),
        ]
    )
    measured = rows("evaluation/images.csv")
    assert [row["image"] for row in measured] == ["a", "b", "small/c"]
    for row in measured:
        image = iio.imread(photographs / f"{row['image']}.png")
        npz, y_string, _ = tiny_codec.encode(image)
        num_pixels = image.shape[0] * image.shape[1]
        assert float(row["bpp"]) == pytest.approx(8 * (len(npz) + len(y_string)) / num_pixels)
        assert float(row["side_bpp"]) == pytest.approx(8 * len(npz) / num_pixels)
        assert (row["codec"], row["rate"]) == ("gmm-attention", "files")
        assert row["runtime"] == tiny_codec.runtime.title
        if row["image"] == "small/c":
            assert row["ms_ssim"] == row["ms_ssim_db"] == ""
        else:
            decibels = -10 * math.log10(1 - float(row["ms_ssim"]))
            assert float(row["ms_ssim_db"]) == pytest.approx(decibels)
        assert f"{tiny_path}: {row['image']}: {float(row['bpp']):.4f} bpp, PSNR " in out
    assert "small/c: " in out and "no MS-SSIM: a side is under 161 pixels" in out
    assert "five scales (1 of these); its means are of the others" in out
    (means,) = rows("evaluation/means.csv")
    bpp = sum(float(row["bpp"]) for row in measured) / 3
    psnr = sum(float(row["psnr"]) for row in measured) / 3
    ms_ssim = sum(float(row["ms_ssim"]) for row in measured[:2]) / 2
    assert float(means["bpp"]) == pytest.approx(bpp)
    assert float(means["psnr"]) == pytest.approx(psnr)
    assert float(means["ms_ssim_db"]) == pytest.approx(-10 * math.log10(1 - ms_ssim))
    assert float(means["ms_ssim_mean_db"]) == pytest.approx(
        sum(float(row["ms_ssim_db"]) for row in measured[:2]) / 2
    )
    curve = read_curve(f"evaluation/data_Kodak_{name}_PSNR.dat")
    assert curve.bpp == pytest.approx((bpp,)) and curve.quality == pytest.approx((psnr,))
    assert "MS-SSIM in dB is that of the mean" in out
    assert f"{PAPER}  " in out and "over 24 images, these over 3" in out


def test_the_same_command_measures_nothing_again(run, photographs, tiny_path, monkeypatch):
    _, first, _ = run("--images", "kodak", "--models", tiny_path)
    before = Path("evaluation/images.csv").read_bytes()
    monkeypatch.setattr(many_images, "_measure", None)
    status, again, err = run("--images", "kodak", "--models", tiny_path)
    assert (status, err) == (0, "")
    assert Path("evaluation/images.csv").read_bytes() == before
    assert again.startswith("3 of 3 images are in evaluation/images.csv already\n")
    assert again.partition("\nKodak\n")[2] == first.partition("\nKodak\n")[2]


def test_a_stopped_run_goes_on_with_what_is_missing(run, photographs, tiny_path):
    assert run("--images", "kodak", "--models", tiny_path)[0] == 0
    whole = Path("evaluation/images.csv").read_bytes()
    Path("evaluation/images.csv").write_bytes(whole[:-30])
    status, out, _ = run("--images", "kodak", "--models", tiny_path)
    assert status == 0 and "2 of 3 images are in" in out and "small/c" in out
    assert [row["image"] for row in rows("evaluation/images.csv")] == ["a", "b", "small/c"]


def test_changed_images_and_models_are_measured_again(run, photographs, tiny_path, trained_path):
    assert run("--images", "kodak", "--models", tiny_path)[0] == 0
    iio.imwrite(photographs / "a.png", 255 - iio.imread(photographs / "a.png"))
    _, out, _ = run("--images", "kodak", "--models", tiny_path)
    assert "2 of 3 images are in" in out
    _, out, _ = run("--images", "kodak", "--models", trained_path)
    assert "already" not in out
    assert len(rows("evaluation/images.csv")) == 3 + 1 + 3


MEASURED_BY = re.compile(r"^(.*): measured by ((?:ONNX Runtime|TensorFlow) .*)$", re.MULTILINE)


def other_rates(model, path):
    """Writes a copy of a model as good as 1.5 times the kernels of the analysis."""
    arrays, settings = checkpoints.load(model)
    name = next(n for n in arrays if n.startswith("analysis/Block_3") and n.endswith("exponent"))
    checkpoints.save(path, {**arrays, name: arrays[name] - 5}, settings)


def test_what_measures_is_said_once_for_each_model(run, photographs, tiny_path):
    other_rates(tiny_path, "models/other")
    options = ["--images", "kodak", "--models", tiny_path]
    _, out, _ = run(*options, "models/other")
    assert [name for name, _ in MEASURED_BY.findall(out)] == [str(tiny_path), "models/other"]
    assert "measured by" not in run(*options)[1]  # nothing is measured


@needs_tensorflow
def test_rows_of_another_runtime_are_not_taken(run, photographs, tiny_path):
    options = ["--images", "kodak/small/c.png", "--models", tiny_path, "--runtime"]
    for runtime, title in (("onnx", "ONNX Runtime"), ("tensorflow", "TensorFlow")):
        status, out, _ = run(*options, runtime)
        assert status == 0 and "already" not in out
        ((_, measured_by),) = MEASURED_BY.findall(out)
        assert measured_by.startswith(title)
    assert "1 of 1 images are in" in run(*options, "onnx")[1]
    first, second = rows("evaluation/images.csv")
    assert first["inputs"] != second["inputs"]
    assert float(first["bpp"]) == pytest.approx(float(second["bpp"]), rel=1e-3)
    assert float(first["psnr"]) == pytest.approx(float(second["psnr"]), abs=1e-3)


# With an effort.


@needs_tensorflow
def test_figures_with_an_effort_stand_beside_those_without(
    run, photographs, tiny_path, monkeypatch
):
    iio.imwrite("cat.png", iio.imread(photographs / "a.png")[:96, :120])
    options = ["--images", "cat.png", "--models", tiny_path]
    assert run(*options)[0] == 0
    curve = Path("evaluation/data_cat_gmm-attention_optimized_by_MSE_PSNR.dat")
    without = curve.read_bytes()

    captions = []
    monkeypatch.setattr(plots, "side_by_side", lambda _, crops: captions.extend(dict(crops)))
    options += ["--effort", 1]
    status, out, err = run(*options, "--codecs", "jpeg", "--crop", 0, 0, 9, 9)
    assert (status, err) == (0, "")
    first, second, jpeg = rows("evaluation/images.csv")
    assert [row["effort"] for row in (first, second, jpeg)] == ["0", "1", "1"]
    before, after = (
        0.0075 * 255**2 / 10 ** (float(row["psnr"]) / 10) + float(row["bpp"])
        for row in (first, second)
    )
    assert after < before
    bpp = float(second["bpp"])
    assert captions[1].startswith(f"gmm-attention at effort 1\n{bpp:.3f} bpp\n")
    means = rows("evaluation/means.csv")
    assert [(row["codec"], row["effort"]) for row in means] == [
        ("gmm-attention", "1"),
        ("JPEG", "1"),
    ]
    assert float(means[0]["bpp"]) == pytest.approx(bpp)
    name = "gmm-attention-effort-1"
    searched = read_curve(f"evaluation/data_cat_{name}_optimized_by_MSE_PSNR.dat")
    assert searched.bpp == pytest.approx((bpp,)) and curve.read_bytes() == without
    assert f"<!-- {name}, MSE -->" in Path("evaluation/cat_PSNR.svg").read_text()
    assert f"{tiny_path} at effort 1: cat: {bpp:.4f} bpp" in out
    assert f"JPEG at the rate of {tiny_path} at effort 1  " in out

    monkeypatch.setattr(many_images, "_measure", None)
    for again in (options, options[:-2]):
        status, out, err = run(*again)
        assert (status, err) == (0, "") and "1 of 1 images are in" in out
    assert len(rows("evaluation/images.csv")) == 3
    assert "effort" not in out


def test_a_search_that_cannot_be_made_is_told_once(run, photographs, wider, monkeypatch):
    options = ["--images", "kodak", "--models", wider, "--effort", 1]
    with monkeypatch.context() as patch:
        patch.setattr(requirements, "has_tensorflow", lambda: False)
        status, out, err = run(*options)
    assert (status, out) == (1, "")
    assert_one_line(err, "--effort needs tensorflow", "or leave --effort away")
    settings = checkpoints.load_settings(wider)
    del settings["lambda"]
    checkpoints.save_settings(wider, settings)
    monkeypatch.setattr(requirements, "need_tensorflow", lambda *_: None)
    status, out, err = run(*options)
    assert (status, out) == (1, "")
    assert_one_line(err, f"{wider}: its settings do not say for which lambda", "; leave --effort")
    assert not os.path.exists("evaluation")


# Names of models.


def test_a_model_of_the_clone_goes_by_its_path_however_it_is_given(run, photographs, wider):
    for model in ("wider", "models/wider", "models//wider/"):
        assert run("--images", "kodak", "--models", model)[0] == 0
        assert {row["model"] for row in rows("evaluation/means.csv")} == {"models/wider"}
    assert len(rows("evaluation/images.csv")) == 3


def test_an_installed_model_goes_by_its_name(run, photographs, wider, tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "gmm_attention_models"
    shutil.copytree(wider, package / "installed")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(package.parent)
    options = ["--images", "kodak", "--models", "installed"]
    status, out, err = run(*options, "--bits", "--record", "--set", "Three")
    assert (status, err) == (0, "")
    assert MEASURED_BY.search(out)[1] == "installed" and str(package) not in out
    for name in ("images", "means", "bits"):
        assert {row["model"] for row in rows(f"evaluation/{name}.csv")} == {"installed"}
    measured = checkpoints.load_settings(package / "installed")["measured"]
    assert measured["Three"]["images"] == 3
    status, out, _ = run("--input", "kodak", "--model", "installed", command=encoder)
    assert status == 0 and out.startswith("installed: fingerprint ")


def test_an_interrupt_keeps_what_was_measured(run, photographs, tiny_path, monkeypatch):
    measure = many_images._measure

    def interrupted(setup, estimate, path):
        if path.endswith("b.png"):
            raise KeyboardInterrupt
        return measure(setup, estimate, path)

    monkeypatch.setattr(many_images, "_measure", interrupted)
    status, _, err = run("--images", "kodak", "--models", tiny_path)
    assert (status, err) == (130, "interrupted\n")
    assert [row["image"] for row in rows("evaluation/images.csv")] == ["a"]


def test_a_broken_image_does_not_stop_the_rest(run, photographs, tiny_path):
    (photographs / "b.png").write_bytes(b"no picture")
    status, out, err = run("--images", "kodak", "--models", tiny_path)
    assert status == 1
    assert_one_line(err, "kodak/b.png: ", "; ")
    assert [row["image"] for row in rows("evaluation/images.csv")] == ["a", "small/c"]
    assert f"{tiny_path}: the means are of 2 of 3 images." in out
    assert "; 1 measurements failed" in out
    for path in photographs.rglob("*.png"):
        path.write_bytes(b"")
    status, out, err = run("--images", "kodak", "--models", tiny_path)
    assert status == 1 and err.count("\n") == 3


def test_want_of_memory_for_one_image_leaves_the_others(run, photographs, tiny_path, monkeypatch):
    measure = one_image.measure

    def hungry(codec, image, effort):
        if image.shape == iio.imread(photographs / "b.png").shape:
            raise MemoryError
        return measure(codec, image, effort)

    monkeypatch.setattr(one_image, "measure", hungry)
    status, _, err = run("--images", "kodak", "--models", tiny_path)
    assert (status, err) == (1, "kodak/b.png: not enough memory; free some, or give --jobs 1\n")
    assert [row["image"] for row in rows("evaluation/images.csv")] == ["a", "small/c"]


def test_an_estimate_is_named_so(run, photographs, tiny_path, tiny_codec):
    status, out, _ = run("--images", "kodak", "--models", tiny_path, "--estimate")
    assert status == 0
    assert "bpp (estimated), " in out and f"{tiny_path} (estimated rate)" in out
    for row in rows("evaluation/images.csv"):
        image = iio.imread(photographs / f"{row['image']}.png")
        inspected = tiny_codec.inspect(image)
        expected = (inspected["bits_y"] + inspected["bits_z"]) / (image.shape[0] * image.shape[1])
        assert float(row["bpp"]) == pytest.approx(expected)
        assert row["rate"] == "estimate" and row["encode_seconds"] == ""
    assert any("gmm-attention-estimate" in name for name in files("evaluation"))
    # Real files are another measurement.
    _, out, _ = run("--images", "kodak", "--models", tiny_path)
    assert "already" not in out


def test_two_models_make_a_curve_that_is_compared(run, photographs, tiny_path, wider):
    settings = {**checkpoints.load_settings(wider), "metric": "mse"}
    checkpoints.save_settings(wider, settings)
    other_rates(wider, "models/other")
    status, out, err = run("--images", "kodak", "--models", wider, "models/other", "--name", "two")
    assert (status, err) == (0, "")
    curve = read_curve("evaluation/data_Kodak_two_optimized_by_MSE_PSNR.dat")
    assert len(curve.bpp) == 2
    assert re.search(rf"beside +{wider}: \S+ bpp +models/other: \S+ bpp\n", out)
    # Its own curve can be read back and be compared with others.
    again = ["--curves", "RDdata", "evaluation", "--set", "Kodak", "--anchor", "VTM"]
    _, out, _ = run(*again)
    assert "two_optimized_by_MSE" in out


def test_own_photographs_need_no_published_curve(run, photographs, wider, tmp_path):
    (tmp_path / "kodak").rename(tmp_path / "mine")
    other_rates(wider, "models/other")
    options = ["--images", "mine", "--models", wider, "models/other", "--codecs", "webp", "jpeg"]
    status, out, err = run(*options)
    assert (status, err) == (0, "")
    assert "PSNR, against Pillow-WebP" in out and "PSNR and rate, beside" in out
    _, out, _ = run(*options, "--anchor", "gmm-attention_optimized_by_MSE")
    assert "PSNR, against gmm-attention_optimized_by_MSE" in out


def test_what_cannot_be_compared_stops_nothing(run, photographs, tiny_path, tmp_path):
    (tmp_path / "data_Kodak_far_PSNR.dat").write_text("20\t70\n21\t60\n")
    curves = ["--curves", "data_Kodak_far_PSNR.dat", "--anchor", "far"]
    status, out, err = run("--images", "kodak", "--models", tiny_path, *curves, "--bits")
    assert (status, err) == (0, "") and "quality falls" in out
    assert {"Kodak_PSNR.png", "bits.csv"} <= set(files("evaluation"))


@pytest.mark.parametrize("arguments", [["--device", "gpu"], []])
def test_what_is_wrong_with_a_model_is_told_once(run, photographs, wider, arguments, monkeypatch):
    start_up._load.cache_clear()
    if not arguments:
        (wider / "weights.npz").write_bytes(b"damaged")
    status, out, err = run("--images", "kodak", "--models", wider, *arguments)
    assert (status, out) == (1, "")
    assert_one_line(err, "--device gpu: " if arguments else "weights.npz: damaged: ")


def test_other_codecs_run_at_the_models_rates(run, photographs, tiny_path):
    status, out, _ = run(
        "--images", "kodak", "--models", tiny_path, "--codecs", "jpeg", "avif"
    )  # fmt: skip
    assert status == 0
    measured = rows("evaluation/images.csv")
    assert [row["codec"] for row in measured] == 3 * ["gmm-attention"] + 3 * ["JPEG"] + 3 * ["AVIF"]
    for row in measured[3:]:
        assert row["model"] == str(tiny_path) and row["side_bpp"] == ""
        assert 0 <= float(row["quality"]) <= 100
    assert f"JPEG at the rate of {tiny_path}" in out and "off the rate of" in out
    assert "data_Kodak_Pillow-JPEG_PSNR.dat" in files("evaluation")
    _, out, _ = run("--images", "kodak", "--models", tiny_path, "--codecs", "jpeg", "avif")
    assert out.count("3 of 3 images are in") == 3


def test_where_the_bits_go(run, photographs, tiny_path, tiny_codec):
    status, out, _ = run("--images", "kodak", "--models", tiny_path, "--bits")
    assert status == 0 and "where the bits go" in out
    measured = rows("evaluation/bits.csv")
    assert [row["image"] for row in measured] == ["a", "b", "small/c"]
    for row, sizes in zip(measured, rows("evaluation/images.csv")):
        num_pixels = int(row["height"]) * int(row["width"])
        total = sum(int(row[name]) for name in ("y_bits", "z_bits", "header_bits"))
        assert total / num_pixels == pytest.approx(float(sizes["bpp"]))
    channels = rows("evaluation/channels.csv")
    assert [int(row["channel"]) for row in channels] == list(range(8))
    y_bpp = [int(r["height"]) * int(r["width"]) / float(r["y_cross_entropy"]) for r in measured]
    assert sum(float(row["y_bpp"]) for row in channels) == pytest.approx(
        sum(1 / value for value in y_bpp) / 3, rel=1e-3
    )
    assert files(f"evaluation/bits/{tiny_path.name}") == [
        *("a.png", "b.png", "small", "small/c.png"),
    ]


def test_crops_side_by_side(run, photographs, tiny_path):
    options = ["--images", "kodak/a.png", "--models", tiny_path, "--codecs", "jpeg", "webp"]
    assert run(*options, "--crop", 10, 20, 100, 80)[0] == 0
    drawn = iio.imread("evaluation/crops.png")
    original = iio.imread(photographs / "a.png")[20:100, 10:110].repeat(3, 0).repeat(3, 1)
    assert (drawn[8 : 8 + 240, 8 : 8 + 300, :3] == original).all()
    status, _, err = run(*options, "--crop", 100, 20, 100, 80)
    assert status == 1
    assert_one_line(err, "kodak/a.png: --crop 100 20 100 80", "190x170", "; ")


def test_measured_figures_are_recorded_for_the_encoder(run, photographs, wider):
    before = (wider / "weights.npz").read_bytes()
    options = ["--images", "kodak", "--models", wider, "--record"]
    status, out, err = run(*options)
    assert (status, out) == (1, "")
    assert_one_line(err, "kodak: 3 images are not Kodak, which has 24: ", "--set")
    assert run(*options, "--set", "Three")[0] == 0
    settings = json.loads((wider / "settings.json").read_text())
    (means,) = rows("evaluation/means.csv")
    assert settings["measured"]["Three"]["images"] == 3
    assert settings["measured"]["Three"]["bpp"] == pytest.approx(float(means["bpp"]), abs=1e-6)
    assert (wider / "weights.npz").read_bytes() == before
    (photographs / "b.png").write_bytes(b"")
    status, _, err = run(*options, "--set", "Three")
    assert status == 1 and "1 images failed, so nothing is recorded" in err


def test_quiet_prints_nothing(run, photographs, tiny_path):
    assert run("--images", "kodak", "--models", tiny_path, "--quiet") == (0, "", "")
    assert "means.csv" in files("evaluation")


def test_a_single_image_is_no_set(run, photographs, tiny_path):
    status, out, _ = run("--images", "kodak/a.png", "--models", tiny_path)
    assert status == 0 and "no published curves of 'a' (of CLIC, CLIC2020pro, Kodak)" in out
    assert PAPER not in out


def test_without_rddata_there_is_nothing_to_compare_with(run, photographs, tiny_path):
    Path("RDdata").unlink()
    status, out, err = run("--images", "kodak", "--models", tiny_path)
    assert (status, err) == (0, "") and "no published curves of 'kodak' (of nothing)" in out


# Curves alone.


def test_curves_alone_need_no_images(run):
    status, out, err = run("--curves", "--anchor", "VTM")
    assert (status, err) == (0, "") and files(".") == ["RDdata"]
    line = next(line for line in out.splitlines() if line.startswith(f"{PAPER} "))
    assert "+3.38 %" in line and "-0.14 dB" in line and "27.99 to 36.65 dB" in line
    assert out.count("against VTM") == 4  # two sets, two metrics
    _, out, _ = run("--curves", "--set", "Kodak")
    assert f"Kodak, PSNR, against {PAPER}" in out and "CLIC" not in out
    _, out, _ = run("--curves", "--set", "CLIC2020pro")
    assert "CLIC2020pro, PSNR, against VTM" in out


def test_curves_alone_are_drawn_if_asked_for(run):
    status, _, _ = run("--curves", "--output", "plots", "--set", "Kodak", "--draw", "VTM", PAPER)
    assert status == 0
    assert files("plots") == [f"Kodak_{m}.{s}" for m in ("MSSSIM", "PSNR") for s in ("png", "svg")]


def test_an_anchor_of_one_metric_says_so_for_the_other(run):
    _, out, _ = run("--curves", "--set", "Kodak", "--anchor", "ELIC2022")
    assert "Kodak, PSNR: there is no curve ELIC2022" in out
    assert "Kodak, MS-SSIM in dB, against ELIC2022" in out


def test_a_bad_anchor_is_named_itself(run, tmp_path):
    (tmp_path / "data_S_one_PSNR.dat").write_text("0.1\t20\n")
    (tmp_path / "data_S_fall_PSNR.dat").write_text("0.5\t40\n0.7\t39\n")
    pair = ["data_S_one_PSNR.dat", "data_S_fall_PSNR.dat"]
    status, _, err = run("--curves", *pair, "--anchor", "one")
    assert status == 1
    assert_one_line(err, "data_S_one_PSNR.dat: a single point is no curve; ")


def test_curves_that_do_not_overlap_are_a_clear_error(run, tmp_path):
    (tmp_path / "data_S_low_PSNR.dat").write_text("0.1\t20\n0.2\t22\n")
    (tmp_path / "data_S_high_PSNR.dat").write_text("0.5\t40\n0.7\t42\n")
    pair = ["data_S_low_PSNR.dat", "data_S_high_PSNR.dat"]
    status, _, err = run("--curves", *pair, "--anchor", "low")
    assert status == 1
    assert_one_line(err, "high (0.500 to 0.700 bpp, 40.00 to 42.00 dB)", "do not overlap; ")


# Errors.


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--images"],
        ["--images", "kodak", "--jobs", "0"],
        ["--images", "kodak", "--codecs", "gif"],
        ["--images", "kodak", "--crop", "0", "0", "9", "9"],
        ["--images", "kodak/a.png", "--models", "a", "b", "--crop", "0", "0", "9", "9"],
        ["--images", "kodak", "--record", "--estimate"],
        ["--images", "kodak", "--effort", "4"],
        ["--images", "kodak", "--effort", "1", "--record"],
        ["--images", "kodak", "--effort", "1", "--estimate"],
        ["--images", "kodak", "--effort", "1", "--bits"],
        ["--curves", "--effort", "1"],
        ["--images", "kodak", "--set", "a_b"],
        ["--images", "kodak", "--name", "a/b"],
        ["--curves", "--bits"],
        ["--curves", "--codecs", "jpeg"],
        ["--curves", "--draw", "VTM"],
    ],
)
def test_bad_usage_exits_with_2(run, photographs, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        evaluate.main(arguments)
    assert caught.value.code == 2 and "usage: " in capsys.readouterr().err
    assert not os.path.exists("evaluation")


def test_what_is_wrong_is_told_before_anything_is_measured(run, photographs, tiny_path, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "data_Kodak_x_PSNR.dat").write_text("0.1\n")
    good = ["--images", "kodak", "--models", tiny_path]
    for arguments, parts in [
        (["--images", "none", *good[2:]], ["none: cannot be read"]),
        (["--images", "empty", *good[2:]], ["empty: no image in this folder"]),
        ([*good[:2], "--models", "models/none"], ["models/none", "exported model"]),
        ([*good, "none/model-7"], ["none/model-7"]),
        ([*good, "--curves", "none"], ["none: cannot be read"]),
        ([*good, "--curves", "empty"], ["empty: no curve in this folder"]),
        ([*good, "--curves", "bad"], ["bad/data_Kodak_x_PSNR.dat: line 1"]),
        ([*good, "--anchor", "H.264"], ["--anchor H.264: no curve has this name", "VTM"]),
        ([*good, "--draw", "VTM", "nothing"], ["--draw nothing: no curve has this name"]),
        (["--curves", "--set", "Tecnick"], ["--set Tecnick: no curve of this set", "Kodak"]),
        ([*good, "--output", "kodak/a.png"], ["kodak/a.png: cannot be made"]),
    ]:
        status, out, err = run(*arguments)
        assert (status, out) == (1, ""), arguments
        assert_one_line(err, *parts)
    assert not os.path.exists("evaluation")


def test_models_of_one_curve_share_n(run, photographs, tiny_path, other_path):
    shutil.copytree(other_path, "n16")
    settings = {**checkpoints.load_settings("n16"), "metric": "mse", "lambda": 0.015}
    checkpoints.save_settings("n16", settings)
    status, out, err = run("--images", "kodak", "--models", tiny_path, "n16")
    assert (status, out) == (1, "")
    assert_one_line(err, f"{tiny_path} has N = 8, n16 has N = 16: ", "--name")


def test_settings_that_belong_to_another_n_are_refused(run, photographs, wider):
    checkpoints.save_settings(wider, {**checkpoints.load_settings(wider), "num_filters": 16})
    status, _, err = run("--images", "kodak/a.png", "--models", wider)
    assert status == 1
    assert_one_line(err, wider)


def test_the_committed_results_are_those_of_the_models_that_are_here():
    # Models of each N have results of their own.
    results = (ROOT / "docs" / "evaluation").rglob("means.csv")
    means = {row["model"]: row for path in results for row in rows(path)
             if row["codec"] == "gmm-attention"}  # fmt: skip
    models = [path.parent for path in (ROOT / "models").glob("*/settings.json")]
    assert set(means) == {path.relative_to(ROOT).as_posix() for path in models}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in models:
        measured = checkpoints.load_settings(path)["measured"]["Kodak"]
        row = means[path.relative_to(ROOT).as_posix()]
        assert measured["images"] == int(row["images"]) == 24
        for name in ("bpp", "psnr", "ms_ssim"):
            assert measured[name] == pytest.approx(float(row[name]), rel=1e-5)
        figures = f"{measured['bpp']:.3f} | {measured['psnr']:.2f} | {measured['ms_ssim']:.4f}"
        assert figures in readme


# Pictures without distortion, and other extremes.


@pytest.fixture
def exact(monkeypatch):
    """Has the model reproduce images of one colour exactly."""
    measure = one_image.measure

    def measured(codec, image, effort):
        figures, picture = measure(codec, image, effort)
        if image.min() == image.max():
            picture = image
            figures.update(psnr=metrics.psnr(image, image), ms_ssim=metrics.ms_ssim(image, image))
        return figures, picture

    monkeypatch.setattr(one_image, "measure", measured)


def test_an_image_of_one_colour_leaves_means_and_curves_usable(run, photographs, wider, exact):
    iio.imwrite(photographs / "flat.png", np.full([170, 180, 3], 128, np.uint8))
    options = ["--images", "kodak", "--models", wider, "--codecs", "jpeg", "--set", "Four"]
    status, out, err = run(*options, "--bits", "--record")
    assert (status, err) == (0, "")
    name = str(wider)
    assert (
        f"\n{name}: flat is reproduced exactly, its PSNR is infinite; the mean PSNR is of the "
        "other 3.\n"
    ) in out
    assert f"{name}: the MS-SSIM of flat is 1, which is infinite in dB; the mean of dB" in out
    assert f"\nJPEG at the rate of {name}: flat is reproduced exactly" in out
    measured = {row["image"]: row for row in rows("evaluation/images.csv")[:4]}
    assert measured["flat"]["psnr"] == measured["flat"]["ms_ssim_db"] == "inf"
    del measured["flat"]
    psnr = sum(float(row["psnr"]) for row in measured.values()) / 3
    for row in rows("evaluation/means.csv"):
        assert row["images"] == "4" and row["psnr_images"] == "3"
        assert all(math.isfinite(float(row[n])) for n in ("bpp", "psnr", "ms_ssim", "ms_ssim_db"))
    assert float(rows("evaluation/means.csv")[0]["psnr"]) == pytest.approx(psnr)
    curve = read_curve("evaluation/data_Four_gmm-attention_optimized_by_MSE_PSNR.dat")
    assert curve.quality == pytest.approx((psnr,))
    recorded = checkpoints.load_settings(wider)["measured"]["Four"]
    assert recorded["psnr"] == pytest.approx(psnr, abs=1e-4)
    # The row is believed when the run goes on.
    assert run(*options)[1].count("4 of 4 images are in evaluation/images.csv already") == 2


def test_nothing_but_images_of_one_colour(run, photographs, wider, exact, tmp_path):
    for path in photographs.rglob("*.png"):
        iio.imwrite(path, np.full([170, 180, 3], 128, np.uint8))
    options = ["--images", "kodak", "--models", wider, "--codecs", "jpeg", "--set", "Three"]
    status, out, err = run(*options, "--bits", "--record")
    assert (status, err) == (0, "")
    assert "models/wider: a, b and small/c are reproduced exactly, their PSNR is infinite; " in out
    assert "there is no mean PSNR, and no curve of it." in out
    assert not [name for name in files("evaluation") if "PSNR" in name or "MSSSIM" in name]
    assert all(row["psnr"] == "" for row in rows("evaluation/means.csv"))
    recorded = checkpoints.load_settings(wider)["measured"]["Three"]
    assert "psnr" not in recorded and recorded["images"] == 3
    options = ["--images", "kodak/a.png", "--models", wider, "--crop", 0, 0, 99, 50]
    assert run(*options)[0] == 0 and "crops.png" in files("evaluation")


@pytest.mark.parametrize("estimate", [[], pytest.param(["--estimate"], marks=pytest.mark.slow)])
def test_images_of_any_shape_and_content(run, tiny_path, tmp_path, estimate):
    (tmp_path / "odd").mkdir()
    rng = np.random.default_rng(0)
    checkerboard = (np.indices([170, 171]).sum(axis=0) % 2 * 255).astype(np.uint8)
    pictures = {
        "pixel": np.zeros([1, 1, 3], np.uint8),
        "row": rng.integers(0, 256, [1, 2000, 3], np.uint8),
        "column": rng.integers(0, 256, [2000, 1, 3], np.uint8),
        "black": np.zeros([165, 170, 3], np.uint8),
        "white": np.full([165, 170, 3], 255, np.uint8),
        "gray": rng.integers(0, 256, [170, 165], np.uint8),
        "checkerboard": checkerboard,
        "a$b_{$c$": rng.integers(0, 256, [20, 30, 3], np.uint8),
        "two\nlines": rng.integers(0, 256, [20, 30, 3], np.uint8),
    }
    for name, picture in pictures.items():
        iio.imwrite(tmp_path / "odd" / f"{name}.png", picture)
    options = ["--images", "odd", "--models", tiny_path, "--bits", "--codecs", "jpeg", "webp"]
    status, out, err = run(*options, *estimate)
    assert (status, err) == (0, "") and r"two\nlines: " in out
    assert {row["image"] for row in rows("evaluation/bits.csv")} == set(pictures)
    assert len(files(f"evaluation/bits/{tiny_path.name}")) == len(pictures)


def test_a_crop_of_one_column_is_drawn_and_a_huge_one_refused(run, tmp_path, tiny_path):
    iio.imwrite(tmp_path / "tall.png", np.zeros([3000, 1, 3], np.uint8))
    options = ["--images", "tall.png", "--models", tiny_path, "--crop", 0, 0, 1, 3000]
    assert run(*options)[0] == 0 and "crops.png" in files("evaluation")


# What is there already.


FOREIGN = b"notes of my own\n"


@pytest.mark.parametrize(
    "name, options",
    [
        ("images.csv", []),
        ("data_Kodak_gmm-attention_optimized_by_MSE_PSNR.dat", []),
        ("Kodak_PSNR.png", []),
        ("Kodak_MSSSIM.svg", []),
        ("bits/tiny/small/c.png", ["--bits"]),
        *(
            pytest.param(name, options, marks=pytest.mark.slow)
            for name, options in (
                ("means.csv", []),
                ("data_Kodak_Pillow-JPEG-XL_MSSSIM.dat", ["--codecs", "jxl"]),
                ("bits.csv", ["--bits"]),
                ("channels.csv", ["--bits"]),
            )
        ),
    ],
)
def test_foreign_files_are_kept(run, photographs, tiny_path, name, options, monkeypatch):
    path = Path("results", name)
    path.parent.mkdir(parents=True)
    path.write_bytes(FOREIGN)
    command = ["--images", "kodak", "--models", tiny_path, "--output", "results", *options]
    with monkeypatch.context() as patch:
        patch.setattr(many_images, "_measure", None)  # nothing is measured before
        status, out, err = run(*command)
    assert (status, out) == (1, "")
    assert_one_line(err, f"{path}: is there already, and was not written by this program; ")
    assert path.read_bytes() == FOREIGN
    assert run(*command, "--overwrite")[0] == 0
    assert path.read_bytes() != FOREIGN
    assert run(*command)[0] == 0
    if name == "images.csv":  # a table is moved, not lost
        assert Path("results/images.csv.old").read_bytes() == FOREIGN


def test_foreign_crops_and_plots_of_curves_are_kept(run, photographs, tiny_path):
    Path("out").mkdir()
    for name, arguments in [
        ("crops.png", ["--images", "kodak/a.png", "--models", tiny_path, "--crop", 0, 0, 9, 9]),
        ("Kodak_PSNR.svg", ["--curves", "--set", "Kodak"]),
        ("CLIC2020pro_PSNR.png", ["--curves", "--anchor", "VTM"]),
    ]:
        path = Path("out", name)
        path.write_bytes(FOREIGN)
        status, out, err = run(*arguments, "--output", "out")
        assert (status, out) == (1, "")
        assert_one_line(err, f"{path}: is there already, ")
        assert path.read_bytes() == FOREIGN
        assert run(*arguments, "--output", "out", "--overwrite")[0] == 0
        assert path.read_bytes() != FOREIGN
        path.unlink()


def test_other_files_in_the_folder_do_not_matter(run, photographs, tiny_path):
    Path("out").mkdir()
    names = ["notes.txt", "bits.csv", "crops.png", "CLIC_PSNR.png", "data_Kodak_VTM_PSNR.dat"]
    for name in names:
        Path("out", name).write_bytes(FOREIGN)
    for arguments in (["--images", "kodak", "--models", tiny_path], ["--curves", "--set", "Kodak"]):
        assert run(*arguments, "--output", "out")[0] == 0
    assert all(Path("out", name).read_bytes() == FOREIGN for name in names)


def test_rows_of_the_version_before_are_taken_over(run, photographs, tiny_path, monkeypatch):
    command = ["--images", "kodak/small/c.png", "--models", tiny_path]
    assert run(*command)[0] == 0
    path = Path("evaluation/images.csv")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b",effort,", b",").replace(b",files,0,", b",files,"))
    monkeypatch.setattr(many_images, "_measure", None)
    status, out, err = run(*command)
    assert (status, err) == (0, "") and "1 of 1 images are in" in out
    assert path.read_bytes() == whole


def test_rows_of_another_version_are_moved_aside(run, photographs, tiny_path, caplog):
    command = ["--images", "kodak", "--models", tiny_path]
    assert run(*command)[0] == 0
    path = Path("evaluation/images.csv")
    older = path.read_text().replace("quality,runtime,", "quality,")
    path.write_text(older)
    status, out, _ = run(*command)
    assert status == 0 and "already" not in out
    (message,) = caplog.messages
    assert message.startswith(f"{path}: has other columns than this version's; it is moved aside")
    assert Path("evaluation/images.csv.old").read_text() == older
    assert len(rows(path)) == 3


# Folders that hold more than images.


def test_what_is_passed_over_is_told(run, photographs, tiny_path, caplog):
    (photographs / "film.heic").write_bytes(b"heic")
    command = ["--images", "kodak", "--models", tiny_path]
    assert run(*command)[0] == 0
    (message,) = caplog.messages
    assert "film.heic" in message


@pytest.mark.parametrize("options", [[], ["--quiet"]])
def test_what_cannot_be_reached_fails_and_the_rest_is_done(run, photographs, wider, options):
    (photographs / "gone.png").symlink_to("nowhere.png")
    command = ["--images", "kodak", "--models", wider, "--set", "Three", *options]
    status, _, err = run(*command)
    assert status == 1 and "kodak/gone.png" in err and err.count("\n") == 1
    assert [row["images"] for row in rows("evaluation/means.csv")] == ["3"]
    status, _, err = run(*command, "--record")
    assert status == 1 and "Three" not in checkpoints.load_settings(wider).get("measured", {})


def test_a_set_of_another_size_is_told(run, photographs, tiny_path, tmp_path):
    for name, sizes in [("CLIC", "41 (professional validation)"), ("tecnick", "100")]:
        (tmp_path / "kodak").rename(tmp_path / name)
        status, out, err = run("--images", name, "--models", tiny_path)
        assert (status, err) == (0, "")
        assert f"figures of {name} are means over {sizes} images, these over 3.\n" in out
        (tmp_path / name).rename(tmp_path / "kodak")


# In processes of their own.


def start(*arguments, **kwargs):
    return subprocess.Popen(
        [sys.executable, ROOT / "evaluate.py", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def test_several_processes_measure_the_same(run, photographs, tiny_path, tmp_path):
    assert run("--images", "kodak", "--models", tiny_path, "--bits", "--codecs", "webp")[0] == 0
    (photographs / "broken.png").write_bytes(b"no picture")
    options = ["--images", "kodak", "--models", tiny_path, "--bits", "--codecs", "webp"]
    process = start(*options, "--jobs", 2, "--output", "two", cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.count("kodak/broken.png: ") == err.count("\n") == 2  # measured, and taken apart
    assert "Times are of up to 2 processes at once." in out
    measured = {}
    for folder in ("evaluation", "two"):
        measured[folder] = sorted(
            tuple(v for k, v in row.items() if k != "jobs" and not k.endswith("seconds"))
            for row in rows(f"{folder}/images.csv")
        )
    assert measured["two"] == measured["evaluation"]
    assert rows("two/bits.csv") == rows("evaluation/bits.csv")


def test_a_killed_run_goes_on(photographs, tiny_path, tmp_path):
    options = ["--images", "kodak", "--models", tiny_path]
    process = start(*options, cwd=tmp_path)
    path = tmp_path / "evaluation" / "images.csv"
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 2, seconds=60)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = path.read_bytes()
    process = start(*options, cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    whole = [row["image"] for row in rows(path)]
    assert sorted(whole) == ["a", "b", "small/c"]
    assert path.read_bytes().startswith(before[: before.rindex(b"\n") + 1])


def processes_in(folder):
    """Processes that work in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.resolve() == folder.resolve():
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


def ignores_interrupts(pid):
    """Whether a process ignores Ctrl-C, as it does while it ends its workers."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(re.search(r"^SigIgn:\s*(\w+)$", status, re.MULTILINE)[1], 16)
    return bool(mask & 1 << (signal.SIGINT - 1))


@pytest.mark.parametrize("moment", ["a worker starts", "images are measured"])
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_an_interrupt_ends_all_processes(photographs, tiny_path, tmp_path, moment, again):
    options = ["--images", "kodak", "--models", tiny_path, "--jobs", 2, "--codecs", "avif"]
    process = start(
        *options,
        cwd=tmp_path,
        start_new_session=True,
        # A shell that runs tests in the background starts them with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    path = tmp_path / "evaluation" / "images.csv"
    if moment == "a worker starts":
        wait_until(lambda: workers_in(tmp_path), seconds=60)
    else:
        wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 2, seconds=60)
    os.killpg(process.pid, signal.SIGINT)
    if again:
        wait_until(lambda: process.poll() is not None or ignores_interrupts(process.pid))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert processes_in(tmp_path) == []


def test_a_process_that_dies_is_told(photographs, tiny_path, tmp_path):
    process = start("--images", "kodak", "--models", tiny_path, "--jobs", 2, cwd=tmp_path)
    workers = wait_until(lambda: workers_in(tmp_path), seconds=60)
    os.kill(workers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert_one_line(err, "a worker died", "--jobs")
    assert processes_in(tmp_path) == []


def workers_in(folder):
    """Worker processes that work in a folder."""
    return [pid for pid in processes_in(folder) if is_worker(pid)]


def is_worker(pid):
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_killed_parent_leaves_no_process(photographs, tiny_path, tmp_path):
    process = start("--images", "kodak", "--models", tiny_path, "--jobs", 2, cwd=tmp_path)
    wait_until(lambda: workers_in(tmp_path), seconds=60)
    time.sleep(1)
    process.kill()
    process.communicate()
    wait_until(lambda: not processes_in(tmp_path))


def test_help_does_not_wait_for_tensorflow():
    code = (
        "import atexit, runpy, sys\n"
        "heavy = 'tensorflow', 'onnxruntime', 'onnx', 'matplotlib', 'scipy', 'distributed'\n"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules]))\n"
        "sys.argv = ['evaluate.py', '--help']\n"
        "runpy.run_path('evaluate.py', run_name='__main__')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 0 and finished.stderr == ""
    assert finished.stdout.endswith("\n[]\n")
    for option in ("--images", "--models", "--curves", "--anchor", "--codecs", "--crop", "--jobs"):
        assert option in finished.stdout


# The encoder's choice by rate.


@pytest.fixture
def no_installed_models(monkeypatch):
    """Where gmm-attention-models is installed, its models would be chosen too."""
    monkeypatch.setattr(locate, "PACKAGE", "nothing_of_this_name_is_installed")


@pytest.fixture
def measured_models(tmp_path, tiny_path, no_installed_models):
    for name, bpp in [("a", 0.1), ("b", 0.3), ("c", None)]:
        shutil.copytree(tiny_path, tmp_path / "models" / name)
        settings = checkpoints.load_settings(tiny_path)
        if bpp:
            settings["measured"] = {"Kodak": {"images": 24, "bpp": bpp}}
        checkpoints.save_settings(tmp_path / "models" / name, settings)


def encode(run, *options):
    return run("--input", "kodak", "--output", "coded", *options, command=encoder)


@pytest.mark.parametrize("target, model", [(0.05, "a"), (0.19, "a"), (0.21, "b"), (4, "b")])
def test_the_model_nearest_to_a_rate_is_taken(run, photographs, measured_models, target, model):
    status, out, err = encode(run, "--target-bpp", target)
    assert (status, err) == (0, "")
    first, second, *_, last = out.splitlines()
    rate = {"a": 0.1, "b": 0.3}[model]
    assert first == (
        f"target {target:.4f} bpp: models/{model}, {rate:.4f} bpp on Kodak, is nearest"
    )
    assert second.startswith(f"models/{model}: fingerprint ")
    total = [float(rate) for rate in re.findall(r"Actual bits per pixel .*: (\S+)", out)]
    reached = sum(total) / len(total)
    match = re.fullmatch(rf"target {target:.4f} bpp, reached (\S+) \(([-+]\S+)%\)", last)
    assert float(match[1]) == pytest.approx(reached, abs=1e-4)
    assert float(match[2]) == pytest.approx(100 * (reached / target - 1), rel=1e-2, abs=0.1)


def test_the_choice_is_among_the_models_given(run, photographs, measured_models):
    _, out, _ = encode(run, "--target-bpp", 0.1, "--model", "models/b", "models/c")
    assert "models/b, 0.3000 bpp on Kodak" in out
    status, out, err = encode(run, "--target-bpp", 0.1, "--model", "models/c")
    assert (status, out) == (1, "")
    assert_one_line(err, "models/c: no model whose rate on Kodak is known; ", "--record")
    status, _, err = encode(run, "--target-bpp", 0.1, "--model", "models/none")
    assert status == 1 and "models/none" in err


def test_no_model_to_choose_from_is_an_error(run, photographs, no_installed_models):
    status, out, err = encode(run, "--target-bpp", 0.1)
    assert (status, out) == (1, "")
    assert_one_line(err, "models: no model whose rate on Kodak is known; ")


@pytest.mark.parametrize(
    "options", [["--model", "a", "b"], ["--target-bpp", "0"], ["--target-bpp", "x"]]
)
def test_bad_targets_are_bad_usage(run, photographs, options, capsys):
    with pytest.raises(SystemExit) as caught:
        encode(run, *options)
    assert caught.value.code == 2
