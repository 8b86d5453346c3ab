"""Folders of images: several at a time, interrupted runs, summaries."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import ROOT, files, needs_tensorflow, wait_until

from gmm_attention import metrics
from gmm_attention.commands import decoder, encoder


def contents(folder):
    return {name: (Path(folder) / name).read_bytes() for name in files(folder)}


@pytest.fixture
def photographs(tmp_path, photograph):
    """Five in photos/, of two sizes."""
    (tmp_path / "photos").mkdir()
    for number in range(5):
        width = 70 if number in (1, 2) else 20
        iio.imwrite(tmp_path / "photos" / f"{number}.png", photograph[number : 40 + number, :width])
    return tmp_path / "photos"


ENCODE = ("--input", "photos", "--output", "coded")
DECODE = ("--input", "coded", "--output", "decoded")


# Several at a time.


@pytest.mark.parametrize(
    "runtime, several",
    [("onnx", 3), pytest.param("tensorflow", 2, marks=[needs_tensorflow, pytest.mark.slow])],
)
def test_several_at_a_time_give_the_same_files(run, photographs, runtime, several):
    (photographs / "3.png").write_bytes(b"no picture")
    results = {}
    for jobs in (1, several):
        options = ["--jobs", jobs, "--runtime", runtime, "--summary", f"{jobs}.csv"]
        status, out, err = run(encoder, "--input", "photos", "--output", f"coded{jobs}", *options)
        assert status == 1
        assert err.startswith("photos/3.png: ") and err.count("\n") == 1
        assert out.endswith("\nfailed: photos/3.png\n")
        names = [line.split()[1] for line in out.splitlines() if line.startswith("[")]
        assert names == [f"photos/{i}.png" for i in (0, 1, 2, 4)]
        # A pair whose halves do not belong together.
        shutil.copy(f"coded{jobs}/1.bin", f"coded{jobs}/3.bin")
        shutil.copy(f"coded{jobs}/0.npz", f"coded{jobs}/3.npz")
        options = ["--input", f"coded{jobs}", "--output", f"decoded{jobs}", *options[:4]]
        status, out, err = run(decoder, *options)
        assert status == 1 and out.endswith(f"\nfailed: coded{jobs}/3.npz\n")
        rows = list(csv.DictReader(Path(f"{jobs}.csv").open()))
        for row in rows:
            del row["seconds"]
        results[jobs] = contents(f"coded{jobs}"), contents(f"decoded{jobs}"), rows
    assert results[1] == results[several]
    assert files("decoded1") == [f"{i}.png" for i in (0, 1, 2, 4)]


def test_want_of_memory_for_one_image_leaves_the_others(run, photographs, monkeypatch):
    psnr = metrics.psnr

    def hungry(image, picture):
        if image.shape[1] == 70:
            raise MemoryError
        return psnr(image, picture)

    monkeypatch.setattr(metrics, "psnr", hungry)
    status, out, err = run(encoder, *ENCODE)
    assert status == 1
    text = "not enough memory; free some, or give --jobs 1"
    assert err == f"photos/1.png: {text}\nphotos/2.png: {text}\n"
    assert out.endswith("\nfailed: photos/1.png\nfailed: photos/2.png\n")
    assert len(files("coded")) == 6


# Interrupted runs.


def test_an_interrupted_folder_goes_on_where_it_stopped(tmp_path, tiny_path, photograph):
    (tmp_path / "photos").mkdir()
    for number in range(120):
        iio.imwrite(tmp_path / "photos" / f"{number:03}.png", photograph[: 40 + number])
    command = [sys.executable, ROOT / "encoder.py", "--input", "photos", "--output", "coded"]
    command += ["--model", tiny_path, "--jobs", "2", "--summary", "coded/summary.json"]
    command += ["--skip-existing"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    process = subprocess.Popen(
        command,
        start_new_session=True,
        # A shell that runs tests in the background starts them with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **pipes,
    )
    while not process.stdout.readline().startswith("[2/120] "):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to all of its processes
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")
    left = [name for name in files(tmp_path / "coded") if name != "summary.json"]
    assert all(name[3:] in (".npz", ".bin") for name in left)
    assert 4 <= len(left) < 240
    first = json.loads((tmp_path / "coded" / "summary.json").read_text())
    assert 2 <= len(first) <= len(left) // 2
    times = {name: (tmp_path / "coded" / name).stat().st_mtime_ns for name in left}

    finished = subprocess.run(command, **pipes)
    assert (finished.returncode, finished.stderr) == (0, "")
    whole = {name[:3] for name in left if {f"{name[:3]}.npz", f"{name[:3]}.bin"} <= set(left)}
    assert len(whole) >= len(first)
    assert f"\n{len(whole)} of 120 images are done already\n" in finished.stdout
    assert len(files(tmp_path / "coded")) == 241
    for name in whole:
        for path in (tmp_path / "coded" / f"{name}.npz", tmp_path / "coded" / f"{name}.bin"):
            assert path.stat().st_mtime_ns == times[path.name]
    rows = json.loads((tmp_path / "coded" / "summary.json").read_text())
    assert [row["name"] for row in rows] == [f"{i:03}" for i in range(120)]
    by_name = {row["name"]: row for row in rows}
    for row in first:  # with the figures that they had
        assert by_name[row["name"]] == row and row["psnr"] > 0


@pytest.fixture
def running(tmp_path, tiny_path, photograph):
    """An encoder of 30 photographs that has coded one, and its two worker processes."""
    (tmp_path / "photos").mkdir()
    for number in range(30):
        iio.imwrite(tmp_path / "photos" / f"{number:02}.png", photograph)
    command = [sys.executable, ROOT / "encoder.py", "--input", "photos", "--output", "coded"]
    command += ["--model", tiny_path, "--jobs", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    with subprocess.Popen(command, **pipes) as process:
        while not process.stdout.readline().startswith("[1/30] "):
            assert process.poll() is None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
        workers = [child for child, line in lines.items() if b"spawn_main" in line]
        assert len(workers) == 2
        yield process, workers
        process.kill()


def assert_no_half_file(folder):
    assert all(name.endswith((".npz", ".bin")) for name in files(folder))


def exist(processes):
    return [one for one in processes if Path(f"/proc/{one}").exists()]


def test_sigterm_leaves_no_process_and_no_half_file(running, tmp_path):
    process, workers = running
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + signal.SIGTERM, "")
    assert not exist(workers)
    assert_no_half_file(tmp_path / "coded")


def test_a_worker_that_dies_ends_the_run_with_a_line(running, tmp_path):
    process, workers = running
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.count("\n") == 1
    assert err.startswith("a worker died, most likely because memory ran out; give fewer --jobs: ")
    assert "--skip-existing goes on" in err
    assert not exist(workers)


@pytest.mark.slow
def test_kill_9_leaves_no_process_and_no_half_file(running, tmp_path):
    process, workers = running
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not exist(workers))
    assert_no_half_file(tmp_path / "coded")


def done_already(out):
    return [line for line in out.splitlines() if line.endswith(" done already")]


def test_what_is_whole_and_new_is_not_coded_again(run, photographs):
    assert run(encoder, *ENCODE)[0] == 0
    before = contents("coded")
    status, out, err = run(encoder, *ENCODE, "--skip-existing")
    assert (status, err) == (0, "") and done_already(out) == ["5 of 5 images are done already"]
    assert "\n0 images; start-up " in out
    damaged = bytearray(before["1.bin"])
    damaged[len(damaged) // 2] ^= 1
    Path("coded/1.bin").write_bytes(damaged)
    Path("coded/2.npz").write_bytes(before["2.npz"][:-1])
    Path("coded/3.bin").unlink()
    status, out, err = run(encoder, *ENCODE, "--skip-existing")
    assert (status, err) == (0, "") and done_already(out) == ["2 of 5 images are done already"]
    assert contents("coded") == before


def age(path):
    os.utime(path, (1, 1))


@pytest.mark.parametrize("change", ["a newer photograph", "another size", "another model"])
def test_what_was_made_of_something_else_is_coded_again(run, photographs, change, trained_path):
    assert run(encoder, *ENCODE)[0] == 0
    before = contents("coded")
    options, expected = {}, "4 of 5"
    if change == "another model":
        options, expected = {"model": trained_path}, "0 of 5"
    else:
        image = 255 - iio.imread("photos/1.png")
        iio.imwrite("photos/1.png", image[: 30 if change == "another size" else None])
        if change == "another size":
            age("photos/1.png")
        else:
            age("coded/1.bin")
    status, out, err = run(encoder, *ENCODE, "--skip-existing", **options)
    assert (status, err) == (0, "")
    assert done_already(out) == [f"{expected} images are done already"]
    assert contents("coded")["1.npz"] != before["1.npz"]


def test_a_photograph_that_exif_turns_is_known_again(run, photographs):
    shutil.copy(ROOT / "valid" / "rocket_exif6.jpg", "photos")
    assert run(encoder, *ENCODE)[0] == 0
    _, out, _ = run(encoder, *ENCODE, "--skip-existing")
    assert done_already(out) == ["6 of 6 images are done already"]


def test_pictures_that_are_whole_and_new_are_not_decoded_again(run, photographs):
    run(encoder, *ENCODE)
    run(decoder, *DECODE)
    before = contents("decoded")
    assert done_already(run(decoder, *DECODE, "--skip-existing")[1]) == [
        "5 of 5 images are done already"
    ]
    damaged = bytearray(before["0.png"])
    damaged[len(damaged) // 2] ^= 1
    Path("decoded/0.png").write_bytes(damaged)
    Path("decoded/1.png").write_bytes(before["1.png"][:-20])
    Path("decoded/2.png").write_bytes(before["3.png"])  # of another size
    age("decoded/3.png")
    Path("coded/4.bin").write_bytes(b"damaged")
    status, out, err = run(decoder, *DECODE, "--skip-existing")
    assert status == 1 and err.startswith("coded/4.bin: ")
    assert done_already(out) == ["0 of 5 images are done already"]
    assert contents("decoded") == before


# Summaries.


def test_a_summary_tells_of_each_image(run, photographs, photograph):
    (photographs / "deep er").mkdir()
    iio.imwrite(photographs / "deep er" / "large.png", photograph[:, :170])  # has no MS-SSIM
    (photographs / "3.png").write_bytes(b"")
    status, out, _ = run(encoder, *ENCODE, "--summary", "new/s.csv")
    assert status == 1
    with open("new/s.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["0", "1", "2", "3", "4", "deep er/large"]
    assert "photos/3.png: " in rows["3"].pop("error")
    assert set(rows.pop("3").values()) == {"3", ""}
    for name, row in rows.items():
        num_bytes = sum(Path(f"coded/{name}.{s}").stat().st_size for s in ("npz", "bin"))
        image = iio.imread(f"photos/{name}.png")
        assert (int(row["height"]), int(row["width"])) == image.shape[:2]
        assert int(row["bytes"]) == num_bytes
        pixels = image.shape[0] * image.shape[1]
        assert float(row["bpp"]) == pytest.approx(8 * num_bytes / pixels, abs=1e-6)
        assert f"PSNR (dB): {float(row['psnr']):.2f}\n" in out
        assert float(row["seconds"]) > 0 and row["ms_ssim"] == "" and row["error"] == ""
    status, out, err = run(encoder, *ENCODE, "--summary", "s.json", "--quiet")
    assert (status, out) == (1, "")
    for row in json.loads(Path("s.json").read_text()):
        if row["name"] != "3":
            for name in ("width", "height", "bytes", "bpp", "psnr"):
                assert row[name] == float(rows[row["name"]][name])
            assert row["ms_ssim"] is row["error"] is None
    run(decoder, *DECODE, "--summary", "d.json", "--quiet")
    decoded = json.loads(Path("d.json").read_text())
    assert [row["name"] for row in decoded] == list(rows)
    for row in decoded:
        assert row["bytes"] == int(rows[row["name"]]["bytes"]) and row["seconds"] > 0


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_summary_keeps_the_figures_of_what_is_done_already(run, photographs, suffix):
    options = ("--summary", f"s.{suffix}", "--skip-existing", "--quiet")
    path = Path(f"s.{suffix}")
    (photographs / "1.png").rename("1.png")
    assert run(encoder, *ENCODE, *options)[0] == 0
    first = path.read_text()
    Path("1.png").rename(photographs / "1.png")
    assert run(encoder, *ENCODE, *options) == (0, "", "")
    lines = path.read_text().splitlines()
    assert set(first.splitlines()) <= set(lines) and len(lines) > len(first.splitlines())
    assert run(encoder, *ENCODE, *options) == (0, "", "")
    assert path.read_text().splitlines() == lines
    # Without the earlier summary, what the files tell.
    path.unlink()
    assert run(encoder, *ENCODE, *options) == (0, "", "")
    text = path.read_text()
    rows = json.loads(text) if suffix == "json" else list(csv.DictReader(text.splitlines()))
    assert len(rows) == 5
    for row in rows:
        assert row["bytes"] and row["bpp"] and not row["psnr"] and not row["seconds"]


@pytest.mark.parametrize("command", [encoder, decoder])
def test_a_summary_is_csv_or_json(command, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--summary", "s.txt"])
    assert caught.value.code == 2 and "'s.txt' ends neither with .csv" in capsys.readouterr().err


def test_a_summary_that_cannot_be_written_or_read_is_told(run, photographs):
    Path("s.json").mkdir()
    status, _, err = run(encoder, *ENCODE, "--summary", "s.json")
    assert status == 1 and err.startswith("s.json: cannot be written: ") and err.count("\n") == 1
    assert not os.path.exists("coded")  # told before the work
    Path("bad.json").write_text('{"name": 1}')
    status, _, err = run(encoder, *ENCODE, "--summary", "bad.json", "--skip-existing")
    assert status == 1 and err.startswith("bad.json: cannot be read: ") and err.count("\n") == 1


# Sizes.


@pytest.mark.parametrize("size", [(17, 20000), (20000, 17), (1, 1), (67, 129)], ids=str)
def test_any_size_goes_through(run, size, tmp_path):
    height, width = size
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, [height, width, 3], np.uint8)
    iio.imwrite("photos/a.png", noise)
    assert run(encoder, *ENCODE)[0] == 0
    assert run(decoder, *DECODE)[0] == 0
    assert iio.imread("decoded/a.png").shape == noise.shape
