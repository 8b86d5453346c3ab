"""encoder.py and decoder.py: what a user types, sees and finds in the folders."""

import json
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import ROOT, files, load_once, needs_tensorflow

from gmm_attention import cli, metrics, requirements
from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.codec import file_format
from gmm_attention.codec.image_codec import ImageCodec
from gmm_attention.commands import decoder, encoder
from gmm_attention.entropy_coding import range_coder
from gmm_attention.errors import ImageError

VALID = ROOT / "valid"


def blocks(output):
    """What the encoder prints for each image, by the image's path."""
    pattern = (
        r"\[\d+/\d+\] (?P<path>.+) -> (?P<npz>.+), (?P<bin>.+)\n"
        r"Time: \d+\.\d\d s\n"
        r"Actual bits per pixel for this image: (?P<bpp>\d+\.\d{4})\n"
        r"Side bits per pixel for z: (?P<side_bpp>\d+\.\d{4})\n"
        r"PSNR \(dB\): (?P<psnr>\d+\.\d\d)\n"
        r"MS-SSIM: (?P<ms_ssim>n/a|\d\.\d{4})\n"
    )
    return {match["path"]: match.groupdict() for match in re.finditer(pattern, output)}


def assert_one_line(text, *parts):
    assert re.fullmatch("[^\n]+\n", text), text
    for part in parts:
        assert str(part) in text


# In processes of their own.


def python(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, **kwargs
    )


@pytest.fixture(scope="module")
def workflow(tmp_path_factory, tiny_path, photograph):
    """A folder in which both scripts ran without an argument, and what they printed."""
    folder = tmp_path_factory.mktemp("work flow")
    (folder / "valid" / "some holiday").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "models" / cli.DEFAULT_MODEL).symlink_to(tiny_path)
    iio.imwrite(folder / "valid" / "a.png", photograph[:50, :40])
    iio.imwrite(folder / "valid" / "a.jpg", photograph[:40, :50])
    iio.imwrite(folder / "valid" / "some holiday" / "at the sea.png", photograph[:1, :1])
    china = iio.imread(VALID / "china.png")
    iio.imwrite(folder / "valid" / "large.webp", china[100:300, 100:280], lossless=True)
    encoded = python(ROOT / "encoder.py", cwd=folder)
    decoded = python(ROOT / "decoder.py", cwd=folder)
    return folder, encoded, decoded


def test_without_arguments_both_scripts_do_the_papers_workflow(workflow):
    folder, encoded, decoded = workflow
    for finished in (encoded, decoded):
        assert (finished.returncode, finished.stderr) == (0, "")
    stems = ["a.jpg", "a.png", "large", "some holiday/at the sea"]
    for place, suffixes in [("images", (".npz", ".bin")), ("recon", (".png",))]:
        expected = [stem + suffix for stem in stems for suffix in suffixes]
        assert files(folder / place) == sorted([*expected, "some holiday"])


def ms_ssim(image, decoded):
    if not requirements.has_tensorflow():
        return metrics.ms_ssim(image, decoded)
    import tensorflow as tf

    return float(tf.image.ssim_multiscale(image[None], decoded[None], max_val=255)[0])


def test_printed_figures_are_those_of_the_files(workflow):
    folder, encoded, _ = workflow
    figures = blocks(encoded.stdout)
    assert len(figures) == 4
    for path, printed in figures.items():
        image = iio.imread(folder / path)
        stem = printed["npz"][:-4]
        sizes = [(folder / printed[kind]).stat().st_size for kind in ("npz", "bin")]
        decoded = iio.imread(folder / "recon" / f"{os.path.relpath(stem, 'images')}.png")
        assert decoded.shape == image.shape
        num_pixels = image.shape[0] * image.shape[1]
        error = np.mean((image.astype(float) - decoded) ** 2)
        assert printed["bpp"] == f"{8 * sum(sizes) / num_pixels:.4f}"
        assert printed["side_bpp"] == f"{8 * sizes[0] / num_pixels:.4f}"
        assert printed["psnr"] == f"{10 * np.log10(255**2 / error):.2f}"
        if min(image.shape[:2]) < 161:
            assert printed["ms_ssim"] == "n/a"
        else:
            assert float(printed["ms_ssim"]) == pytest.approx(ms_ssim(image, decoded), abs=2e-4)
    assert sum(printed["ms_ssim"] == "n/a" for printed in figures.values()) == 3


def test_the_encoders_last_line_is_the_average(workflow):
    _, encoded, _ = workflow
    figures = blocks(encoded.stdout).values()
    mean = {
        name: np.mean([float(printed[name]) for printed in figures if printed[name] != "n/a"])
        for name in ("bpp", "side_bpp", "psnr", "ms_ssim")
    }
    summary = re.fullmatch(
        r"4 images: on average (\S+) bpp \(side (\S+)\), PSNR (\S+) dB, MS-SSIM (\S+) \(of 1\), "
        r"\S+ s; start-up \S+ s, then \S+ s",
        encoded.stdout.splitlines()[-1],
    )
    for printed, name in zip(summary.groups(), ("bpp", "side_bpp", "psnr", "ms_ssim")):
        assert float(printed) == pytest.approx(mean[name], rel=1e-3, abs=0.006)


def test_the_decoder_names_what_it_wrote(workflow):
    _, _, decoded = workflow
    assert "images/some holiday/at the sea.npz -> recon/some holiday/at the sea.png (1x1)" in (
        decoded.stdout
    )
    assert re.search(
        r"\n4 images: on average \S+ s; (ONNX Runtime|TensorFlow) \S+ on the [CG]PU, "
        r"start-up \S+ s, then \S+ s\n$",
        decoded.stdout,
    )


def test_another_process_gives_the_same_bytes(workflow, tiny_codec, photograph):
    folder, _, _ = workflow
    npz, y_string, _ = tiny_codec.encode(photograph[:50, :40])
    assert (folder / "images" / "a.png.npz").read_bytes() == npz
    assert (folder / "images" / "a.png.bin").read_bytes() == y_string


def test_quiet_on_the_cpu_prints_nothing(workflow, tmp_path, tiny_path):
    folder, _, _ = workflow
    images = folder / "images"
    options = ["--model", tiny_path, "--device", "cpu", "--quiet"]
    finished = python(
        ROOT / "decoder.py", "--input", images, "--output", tmp_path / "deep" / "er", *options
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
    assert files(tmp_path / "deep" / "er") == files(folder / "recon")


@pytest.mark.parametrize("script", ["encoder.py", "decoder.py"])
def test_help_does_not_wait_for_tensorflow(script):
    code = (
        "import atexit, runpy, sys\n"
        "heavy = 'tensorflow', 'onnxruntime', 'onnx', 'matplotlib', 'scipy', 'distributed'\n"
        "atexit.register(lambda: print([name for name in heavy if name in sys.modules]))\n"
        f"sys.argv = [{script!r}, '--help']\n"
        f"runpy.run_path({script!r}, run_name='__main__')\n"
    )
    finished = python("-c", code, cwd=ROOT)
    assert finished.returncode == 0 and finished.stderr == ""
    assert finished.stdout.endswith("\n[]\n")
    for word in (
        *("--input", "--output", "--model", "--runtime", "--cluster", "--device", "--quiet"),
        "models/model-1399000",
    ):
        assert word in finished.stdout


@pytest.mark.parametrize(
    "name, title",
    [
        ("onnx", "ONNX Runtime"),
        pytest.param("tensorflow", "TensorFlow", marks=needs_tensorflow),
    ],
)
def test_a_gpu_that_is_not_there_is_reported_once(tiny_path, tmp_path, name, title):
    finished = python(
        ROOT / "encoder.py", "--input", VALID, "--output", tmp_path / "coded", "--device", "gpu",
        "--model", tiny_path, "--runtime", name, "--jobs", 2,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert finished.returncode == 1 and finished.stdout == ""
    assert_one_line(finished.stderr, f"--device gpu: {title} sees no GPU", "; ")
    assert files(tmp_path) == []


@pytest.mark.parametrize("reader", ["a terminal of another encoding", "one that has gone"])
def test_what_is_printed_does_not_stop_the_work(photograph, tiny_path, tmp_path, reader):
    (tmp_path / "in").mkdir()
    for name in ("caf\udce9.png", "été.png", "z.png"):
        iio.imwrite(tmp_path / "in" / name, photograph[:20, :20])
    command = [sys.executable, ROOT / "encoder.py", "--input", tmp_path / "in"]
    command += ["--output", tmp_path / "out", "--model", tiny_path]
    gone = reader == "one that has gone"
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONIOENCODING": "utf-8" if gone else "ascii"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if gone:
        process.stdout.close()
    error = process.stderr.read()
    assert (process.wait(), error) == (1 if gone else 0, b"")
    if not gone:
        assert len(files(tmp_path / "out")) == 6


# In this process, with each model loaded once.


@pytest.fixture
def photographs(tmp_path, photograph, run):
    """Three good ones in photos/."""
    (tmp_path / "photos").mkdir()
    for number in range(3):
        iio.imwrite(tmp_path / "photos" / f"{number}.png", photograph[number:, : 20 + number])
    return tmp_path / "photos"


@pytest.fixture
def coded(photographs, run, tmp_path):
    """The three pairs in coded/, of which tests break the middle one."""
    assert run(encoder, "--input", "photos", "--output", "coded").status == 0
    assert files("coded") == ["0.bin", "0.npz", "1.bin", "1.npz", "2.bin", "2.npz"]
    return tmp_path / "coded"


def encode(run, **kwargs):
    return run(encoder, "--input", "photos", "--output", "coded", **kwargs)


def decode(run, **kwargs):
    return run(decoder, "--input", "coded", "--output", "decoded", **kwargs)


@pytest.mark.parametrize("command", [encoder, decoder])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--size"],
        ["--device", "tpu"],
        ["photo.png", "photo.jpg", "-o", "-"],
        ["-", "-", "--output", "folder"],
        ["-", "--cluster", "tcp://nobody:1"],
        ["--input"],
        ["--lambda", "1"],
        ["--max-pixels", "0"],
        ["--jobs", "0"],
        ["--precision", "float16"],
        ["--runtime", "jax"],
        ["--summary", "summary.txt"],
        ["--max-pixels", str(2**28 + 1)],
    ],
)
def test_bad_usage_exits_with_2(command, arguments, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert "usage: " in capsys.readouterr().err
    assert files(tmp_path) == []


def test_a_single_file_is_coded_and_decoded(run, photographs, tiny_codec):
    finished = run(encoder, "--input", "photos/1.png", "--output", "coded")
    assert finished.status == 0 and finished.err == ""
    assert files("coded") == ["1.bin", "1.npz"]
    _, _, y_hat = tiny_codec.encode(iio.imread("photos/1.png"))
    expected = tiny_codec.reconstruct(y_hat, 159, 21)
    for suffix in (".npz", ".bin", ""):
        finished = run(decoder, "--input", f"coded/1{suffix}", "--output", f"decoded {suffix}")
        assert finished.status == 0 and finished.err == ""
        assert files(f"decoded {suffix}") == ["1.png"]
        np.testing.assert_array_equal(iio.imread(f"decoded {suffix}/1.png"), expected)


def test_a_file_may_be_coded_into_its_own_folder(run, photographs):
    assert run(encoder, "--input", "photos", "--output", "photos").status == 0
    assert run(decoder, "--input", "photos", "--output", ".").status == 0
    assert files("photos") == sorted(f"{i}.{s}" for i in range(3) for s in ("png", "npz", "bin"))
    assert [name for name in files(".") if "/" not in name] == ["0.png", "1.png", "2.png", "photos"]


def test_quiet_prints_nothing(run, photographs):
    assert run(encoder, "--input", "photos", "--output", "coded", "--quiet") == (0, "", "")
    assert run(decoder, "--input", "coded", "--output", "decoded", "--quiet") == (0, "", "")
    assert files("decoded") == ["0.png", "1.png", "2.png"]


def test_a_bar_shows_on_a_terminal_and_is_wiped(run, photographs, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    finished = encode(run)
    assert re.search(r"\[ +\] 0/3\r.*\[#{10} +\] 1/3, \d+ s left", finished.err, re.DOTALL)
    assert finished.err.endswith("\r\033[K")


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", None])
def test_a_broken_image_does_not_stop_the_others(run, photographs, data):
    whole = (photographs / "1.png").read_bytes()
    (photographs / "1.png").write_bytes(whole[: len(whole) // 2] if data is None else data)
    finished = encode(run)
    assert finished.status == 1
    assert_one_line(finished.err, "photos/1.png: ", "; ")
    assert files("coded") == ["0.bin", "0.npz", "2.bin", "2.npz"]
    assert list(blocks(finished.out)) == ["photos/0.png", "photos/2.png"]
    assert "\n2 images, 1 failed: on average" in finished.out
    assert decode(run).status == 0


@pytest.mark.parametrize("method", ["encode", "reconstruct"])
def test_errors_of_the_codec_name_the_image(run, photographs, monkeypatch, method):
    original, calls = getattr(ImageCodec, method), []

    def refuse(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:  # after that of 0.png
            raise ImageError("the model gives latents that are not finite; use other weights")
        return original(*arguments, **options)

    monkeypatch.setattr(ImageCodec, method, refuse)
    finished = encode(run)
    assert finished.status == 1
    assert_one_line(finished.err, "photos/1.png: the model gives latents that are not finite; ")
    assert files("coded") == ["0.bin", "0.npz", "2.bin", "2.npz"]


def test_all_images_broken_still_gives_a_summary(run, photographs):
    for path in photographs.iterdir():
        path.write_bytes(b"")
    finished = encode(run)
    assert finished.status == 1 and finished.err.count("\n") == 3
    assert re.search(r"\n0 images, 3 failed; start-up", finished.out)
    assert not os.path.exists("coded")


@pytest.mark.parametrize("command", [encoder, decoder])
def test_nothing_to_do_is_an_error(run, command, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no picture")
    for path in ("none", "none/too", "empty", "text"):
        finished = run(command, "--input", path, "--output", "results")
        assert finished.status == 1
        assert_one_line(finished.err, f"{path}: ", "; ")
    assert files(tmp_path) == ["empty", "text"]


@pytest.mark.parametrize("command, folder", [(encoder, "photos"), (decoder, "coded")])
def test_a_missing_model_is_an_error(run, coded, command, folder, tmp_path):
    for model in ("none", "models/model-7", "photos", "photos/1.png"):
        finished = run(command, "--input", folder, "--output", "results", model=model)
        assert (finished.status, finished.out) == (1, "")
        assert_one_line(finished.err, model, "--model takes")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("command, folder", [(encoder, "photos"), (decoder, "coded")])
def test_images_of_too_many_pixels_are_refused_by_their_headers(run, coded, command, folder):
    # photos/0.png has 160x20 pixels, the others more.
    options = ["--input", folder, "--output", "results", "--max-pixels", 160 * 20]
    finished = run(command, *options)
    assert finished.status == 1
    assert len(finished.err.splitlines()) == 2
    for line, name in zip(finished.err.splitlines(), ("1", "2")):
        assert line.startswith(f"{folder}/{name}.") and "the limit of 3200; " in line
    assert files("results") == (["0.bin", "0.npz"] if command is encoder else ["0.png"])


def test_a_header_that_claims_2_to_the_31_pixels_is_refused_at_once(run, coded, tiny_codec):
    npz, y_string = ((coded / f"1.{suffix}").read_bytes() for suffix in ("npz", "bin"))
    whole = file_format.unpack(npz, y_string, 8, tiny_codec.fingerprint, ("", "", ""))
    claims = whole._replace(height=2**15, width=2**16)
    (coded / "1.npz").write_bytes(file_format.pack(claims, tiny_codec.fingerprint)[0])
    assert_only_the_middle_one_failed(decode(run), "cannot hold an image of 65536x32768 pixels")


def test_a_png_that_claims_2_to_the_31_pixels_is_refused_at_once(run, photographs):
    data = bytearray((photographs / "1.png").read_bytes())
    data[16:24] = struct.pack(">II", 2**16, 2**15)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (photographs / "1.png").write_bytes(data)
    finished = encode(run)
    assert finished.status == 1
    assert_one_line(finished.err, "photos/1.png: 65536x32768 pixels are more than the limit of ")


# Runtimes.


@needs_tensorflow
def test_either_runtime_decodes_what_the_other_encoded(run, photographs):
    pictures = {}
    for encoding, decoding in [("onnx", "tensorflow"), ("tensorflow", "onnx"), ("onnx", "onnx")]:
        coded, decoded = f"coded by {encoding}", f"{encoding} {decoding}"
        options = ["--input", "photos", "--output", coded, "--runtime", encoding]
        assert run(encoder, *options)[::2] == (0, "")
        options = ["--input", coded, "--output", decoded, "--runtime", decoding]
        assert run(decoder, *options)[::2] == (0, "")
        pictures[decoded] = [iio.imread(f"{decoded}/{i}.png").astype(int) for i in range(3)]
    expected = pictures.pop("onnx onnx")
    for several in pictures.values():
        for picture, other in zip(several, expected):
            assert np.abs(picture - other).max() <= 1


def without(runtime, monkeypatch):
    monkeypatch.setattr(requirements, f"has_{runtime}", lambda: False)


@pytest.mark.parametrize("command", [encoder, decoder])
@pytest.mark.parametrize(
    "missing, arguments, parts",
    [
        ("tensorflow", ["--runtime", "tensorflow"], ["needs tensorflow 2.14.1"]),
        ("tensorflow", ["--precision", "bfloat16"], ["bfloat16", "needs tensorflow 2.14.1"]),
        ("onnx", ["--runtime", "onnx"], ["needs ONNX Runtime", "pip install onnxruntime onnx"]),
        (None, ["--runtime", "onnx", "--precision", "bfloat16"], ["needs --runtime tensorflow"]),
    ],
)
def test_what_a_runtime_lacks_is_told(run, coded, monkeypatch, command, missing, arguments, parts):
    if missing:
        without(missing, monkeypatch)
    folder = {encoder: "photos", decoder: "coded"}[command]
    finished = run(command, "--input", folder, "--output", "results", *arguments)
    assert (finished.status, finished.out) == (1, "")
    assert_one_line(finished.err, *parts)
    assert not os.path.exists("results")


@pytest.mark.parametrize("runtime", ["auto", "onnx", "tensorflow"])
def test_a_checkpoint_needs_tensorflow(run, photographs, tiny_path, monkeypatch, runtime, tmp_path):
    arrays, settings = checkpoints.load(tiny_path)
    checkpoints.save(tmp_path / "trained", arrays, {**settings, "exported": False})
    if runtime != "onnx":
        without("tensorflow", monkeypatch)
    arguments = "--input", "photos", "--output", "results", "--runtime", runtime
    finished = run(encoder, *arguments, model="trained")
    assert (finished.status, finished.out) == (1, "")
    told = "needs --runtime tensorflow" if runtime == "onnx" else "needs tensorflow 2.14.1"
    assert_one_line(finished.err, "trained: a model that is not exported ", told, "or export it")


def test_without_any_runtime_the_smaller_one_is_to_be_installed(run, photographs, monkeypatch):
    without("tensorflow", monkeypatch)
    without("onnx", monkeypatch)
    assert_one_line(encode(run).err, "pip install onnxruntime onnx")


@needs_tensorflow
def test_without_onnx_runtime_tensorflow_is_taken(run, photographs, monkeypatch):
    without("onnx", monkeypatch)
    assert ", TensorFlow 2." in encode(run).out.splitlines()[0]


# Outputs that cannot be written.


@pytest.mark.parametrize("command, folder", [(encoder, "photos"), (decoder, "coded")])
def test_a_file_in_place_of_the_output_folder_is_reported(run, coded, command, folder):
    for output in ("photos/0.png", "photos/0.png/deeper"):
        before = Path("photos/0.png").read_bytes()
        finished = run(command, "--input", folder, "--output", output)
        assert finished.status == 1
        lines = finished.err.splitlines()
        if command is decoder and output == "photos/0.png":  # a picture's name, of one picture
            assert lines == [f"{output}: holds one picture, and 3 are given; give a folder"]
        else:
            assert len(lines) == 3 and all(f"{output}: cannot be made: " in line for line in lines)
        assert Path("photos/0.png").read_bytes() == before


@pytest.mark.parametrize("command, folder", [(encoder, "photos"), (decoder, "coded")])
def test_a_read_only_output_folder_is_reported(run, coded, command, folder):
    # Not made by chmod, which does not bind root; nobody can make a file there.
    finished = run(command, "--input", f"{folder}", "--output", "/proc")
    assert finished.status == 1
    lines = finished.err.splitlines()
    assert len(lines) == 3 and all("cannot be written: " in line for line in lines)


@pytest.fixture
def full_disk(monkeypatch):
    """Lets no file grow beyond some bytes; Python ignores the signal, so that writing fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [0, 3, 8, 25])
def test_a_full_disk_leaves_the_older_pairs_and_nothing_else(run, coded, full_disk, size):
    before = {path.name: path.read_bytes() for path in coded.iterdir()}
    for path in Path("photos").iterdir():
        iio.imwrite(path, 255 - iio.imread(path))
    full_disk(size)
    finished = encode(run)
    full_disk(resource.RLIM_INFINITY)
    assert finished.status == 1
    lines = finished.err.splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines):
        assert re.match(rf"coded/{number}\.(npz|bin): cannot be written: File too large; ", line)
    assert {path.name: path.read_bytes() for path in coded.iterdir()} == before


@pytest.mark.parametrize("size", [0, 200])  # 200 suffice for the temporary files of range-coder
def test_a_full_disk_leaves_no_half_picture(run, coded, full_disk, size):
    full_disk(size)
    finished = decode(run)
    full_disk(resource.RLIM_INFINITY)
    assert finished.status == 1
    lines = finished.err.splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines):
        if size or not DECODES_FROM_FILES:
            assert line.startswith(f"decoded/{number}.png: cannot be written: File too large; ")
        else:
            assert line.endswith("file cannot be written: File too large; is the disk full?")
    assert not os.path.exists("decoded") or files("decoded") == []


DECODES_FROM_FILES = range_coder.reader.__module__.endswith("package_streams")


def test_without_a_place_for_temporary_files(run, coded, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert encode(run)[::2] == (0, "")
    finished = decode(run)
    if not DECODES_FROM_FILES:
        assert (finished.status, finished.err) == (0, "")
        return
    assert finished.status == 1
    lines = finished.err.splitlines()
    assert len(lines) == 3 and not os.path.exists("decoded")
    for line in lines:
        assert "a temporary file cannot be made: " in line and "none/" in line
        assert "; set TMPDIR" in line


@pytest.mark.parametrize("suffix", [".npz", ".bin"])
def test_a_folder_in_place_of_a_file_is_not_replaced(run, photographs, suffix, tmp_path):
    folder = tmp_path / "coded" / f"1{suffix}"
    folder.mkdir(parents=True)
    finished = encode(run)
    assert finished.status == 1
    assert_one_line(finished.err, f"coded/1{suffix}: cannot be written: it is a folder; ")
    assert files("coded") == sorted(["0.bin", "0.npz", f"1{suffix}", "2.bin", "2.npz"])


def test_a_folder_in_place_of_the_picture_is_not_replaced(run, coded, tmp_path):
    (tmp_path / "decoded" / "1.png").mkdir(parents=True)
    finished = decode(run)
    assert finished.status == 1
    assert_one_line(finished.err, "decoded/1.png: cannot be written: it is a folder; ")
    assert files("decoded") == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("command, folder", [(encoder, "photos"), (decoder, "coded")])
def test_an_interrupt_leaves_no_temporary_file(run, coded, command, folder, monkeypatch, tmp_path):
    def interrupt(*args):
        raise KeyboardInterrupt

    (tmp_path / "results").mkdir()
    monkeypatch.setattr(os, "replace", interrupt)
    finished = run(command, "--input", folder, "--output", "results")
    assert (finished.status, finished.err) == (130, "interrupted\n")
    assert files("results") == []


# Coded files that are not what they should be.


def assert_only_the_middle_one_failed(finished, *parts):
    assert finished.status == 1
    assert_one_line(finished.err, "coded/1.", "; ", *parts)
    assert files("decoded") == ["0.png", "2.png"]
    assert "\n2 images, 1 failed: on average" in finished.out


def assert_the_middle_one_was_passed_over(finished, caplog, *names):
    assert (finished.status, finished.err) == (0, "")
    assert files("decoded") == ["0.png", "2.png"]
    (note,) = caplog.messages
    assert "passed over" in note and all(name in note for name in names)


def test_a_missing_file_of_a_pair_is_named(run, coded, caplog):
    (coded / "1.bin").unlink()
    assert_only_the_middle_one_failed(decode(run), "coded/1.bin: missing; ")
    # Nothing tells that NAME.bin alone is ours.
    (coded / "1.bin").write_bytes(b"some bytes")
    (coded / "1.npz").unlink()
    assert_the_middle_one_was_passed_over(decode(run), caplog, "coded/1.bin")


def test_a_folder_in_place_of_a_coded_file_is_named(run, coded, caplog):
    (coded / "1.bin").unlink()
    (coded / "1.bin").mkdir()
    assert_only_the_middle_one_failed(decode(run), "coded/1.bin: cannot be read: ")
    (coded / "1.bin").rmdir()
    (coded / "1.npz").rename(coded / "1.bin")
    (coded / "1.npz").mkdir()
    assert_the_middle_one_was_passed_over(decode(run), caplog, "coded/1.bin")


@pytest.mark.parametrize("suffix", [".npz", ".bin"])
@pytest.mark.parametrize("part", [slice(0), slice(-1), slice(None, None, -1)])
def test_a_damaged_file_does_not_stop_the_others(run, coded, suffix, part, caplog):
    path = coded / f"1{suffix}"
    path.write_bytes(path.read_bytes()[part])
    if suffix == ".npz" and part.step:  # it does not begin as ours do
        assert_the_middle_one_was_passed_over(decode(run), caplog, "coded/1.npz", "coded/1.bin")
    else:
        assert_only_the_middle_one_failed(decode(run), f"coded/1{suffix}: ")


def test_swapped_files_are_named(run, coded):
    (coded / "0.bin").rename(coded / "swap")
    (coded / "1.bin").rename(coded / "0.bin")
    (coded / "swap").rename(coded / "1.bin")
    finished = decode(run)
    assert finished.status == 1 and finished.err.count("not the file that belongs to") == 2
    assert files("decoded") == ["2.png"]


def test_another_models_files_are_not_decoded(run, coded, other_path, tiny_codec):
    finished = decode(run, model=other_path)
    assert finished.status == 1
    lines = finished.err.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert tiny_codec.fingerprint.hex() in line and "another model" in line
        assert load_once(str(other_path)).fingerprint.hex() in line and "export" in line
    assert not os.path.exists("decoded")
    assert re.search(r"^0 images, 3 failed; TensorFlow \S+ on the [CG]PU, start-up", finished.out)


def test_the_model_that_made_the_files_is_printed(run, photographs, tiny_path, tiny_codec):
    first = encode(run).out.splitlines()[0]
    assert re.fullmatch(
        f"{tiny_path}: fingerprint {tiny_codec.fingerprint.hex()}, "
        r"(ONNX Runtime|TensorFlow) \S+ on the [CG]PU, start-up \S+ s",
        first,
    )
    settings = json.loads((tiny_path / "settings.json").read_text())
    assert settings["fingerprint"] == tiny_codec.fingerprint.hex()
