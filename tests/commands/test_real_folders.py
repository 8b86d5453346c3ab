"""encoder.py and decoder.py in folders and pipes as users have them."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import ROOT, files, load_once, needs_tensorflow, unless_root
from PIL import Image

import gmm_attention as ga
from gmm_attention import metrics
from gmm_attention.commands import decoder, encoder


@pytest.fixture
def photographs(tmp_path, photograph):
    """Two in photos/."""
    (tmp_path / "photos").mkdir()
    for number in range(2):
        iio.imwrite(tmp_path / "photos" / f"{number}.png", photograph[number : 30 + number, :40])
    return tmp_path / "photos"


ENCODE = ("--input", "photos", "--output", "coded")
DECODE = ("--input", "coded", "--output", "decoded")


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def script(name, *arguments, tiny_path, **kwargs):
    command = [sys.executable, ROOT / name, *arguments, "--model", tiny_path]
    return subprocess.run(list(map(str, command)), capture_output=True, **kwargs)


# Nothing is destroyed.


def test_the_decoder_keeps_the_photograph_beside_its_coded_files(run, photographs):
    originals = contents("photos")
    assert run(encoder, "--input", "photos", "--output", "photos").status == 0
    status, out, err = run(decoder, "--input", "photos", "--output", "photos")
    assert status == 1 and "0 images, 2 failed" in out
    for number, line in enumerate(err.splitlines()):
        assert line.startswith(f"photos/{number}.png: is there already, and was not written by ")
        assert line.endswith("or allow its loss by --overwrite")
    assert {path: path.read_bytes() for path in originals} == originals
    assert run(decoder, "--input", "photos", "--output", "photos", "--overwrite").status == 0
    assert contents("photos").items().isdisjoint(originals.items())
    # What the decoder wrote, it replaces without being told.
    assert run(decoder, "--input", "photos", "--output", "photos").status == 0


def write_archive(path):
    np.savez(path, weights=np.zeros(3))


@pytest.mark.parametrize(
    "name, write",
    [
        ("0.npz", write_archive),
        ("0.bin", lambda path: Path(path).write_bytes(b"weights of PyTorch")),
    ],
)
def test_the_encoder_keeps_files_of_others(run, photographs, name, write):
    Path("coded").mkdir()
    write(f"coded/{name}")
    before = contents("coded")
    status, _, err = run(encoder, *ENCODE)
    assert (
        status == 1 and err.startswith(f"coded/{name}: is there already") and err.count("\n") == 1
    )
    assert before.items() <= contents("coded").items()
    assert files("coded") == sorted([name, "1.npz", "1.bin"])
    assert run(encoder, *ENCODE, "--overwrite").status == 0
    assert files("coded") == ["0.bin", "0.npz", "1.bin", "1.npz"]


def test_nothing_tells_that_a_bin_beside_an_empty_npz_is_ours(run, photographs):
    Path("coded").mkdir()
    Path("coded/0.npz").touch()
    Path("coded/0.bin").write_bytes(b"weights of PyTorch")
    assert run(encoder, *ENCODE).err.startswith("coded/0.bin: is there already")
    assert Path("coded/0.bin").read_bytes() == b"weights of PyTorch"


@pytest.mark.parametrize("command, name", [(encoder, "coded/0.npz"), (decoder, "decoded/0.png")])
def test_pipes_and_devices_in_an_output_folder_are_no_outputs(run, photographs, command, name):
    assert run(encoder, *ENCODE[:2], "--output", "from").status == 0
    for make in (os.mkfifo, lambda path: os.symlink("/dev/null", path)):
        Path(name).parent.mkdir(exist_ok=True)
        make(name)
        source = "photos" if command is encoder else "from"
        status, _, err = run(command, "--input", source, "--output", name.partition("/")[0])
        assert status == 1 and err.startswith(f"{name}: cannot be written: it is not a regular")
        os.unlink(name)


def test_a_folder_is_not_named_like_a_file_by_mistake(run, photographs, capsys):
    for command, source, output in (
        (encoder, "photos/0.png", "a.npz"),
        (encoder, "photos/0.png", "a.png"),
        (decoder, "a.gmm", "a.jpg"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(command, source, "-o", output)
        assert caught.value.code == 2 and f"--output {output}: give a f" in capsys.readouterr().err


def test_single_outputs_of_others_are_kept(run, photographs):
    Path("a.gmm").write_bytes(b"some data")
    shutil.copy("photos/1.png", "b.png")
    assert "a.gmm: is there already" in run(encoder, "photos/0.png", "-o", "a.gmm").err
    assert Path("a.gmm").read_bytes() == b"some data"
    assert run(encoder, "photos/0.png", "-o", "a.gmm", "--overwrite").status == 0
    assert run(encoder, "photos/0.png", "-o", "a.gmm").status == 0
    assert "b.png: is there already" in run(decoder, "a.gmm", "-o", "b.png").err
    assert Path("b.png").read_bytes() == Path("photos/1.png").read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_summary_replaces_summaries_alone(run, photographs, suffix):
    path = Path(f"s.{suffix}")
    path.write_text("name,price\nx,3\n" if suffix == "csv" else '[{"price": 3}]')
    before = path.read_text()
    status, _, err = run(encoder, *ENCODE, "--summary", path)
    assert status == 1 and err.startswith(f"{path}: is there already") and err.count("\n") == 1
    assert path.read_text() == before and not os.path.exists("coded")
    assert run(encoder, *ENCODE, "--summary", path, "--overwrite").status == 0
    assert run(encoder, *ENCODE, "--summary", path).status == 0
    # Neither the decoder's, whose figures are fewer, nor one that only begins alike.
    assert "is there already" in run(decoder, *DECODE, "--summary", path).err
    path.write_text("name,width,height,lens\n" if suffix == "csv" else '[{"name": "Bob"}]')
    for options in ([], ["--skip-existing"] if suffix == "csv" else []):
        assert "is there already" in run(encoder, *ENCODE, "--summary", path, *options).err


def test_outputs_are_no_new_photographs(run, photographs, caplog):
    assert run(encoder, "--input", ".", "--output", "images").status == 0
    assert run(decoder, "--input", "images", "--output", "recon").status == 0
    before = contents(".")
    status, out, _ = run(encoder, "--input", ".", "--output", "images")
    assert status == 0 and "\n2 images: on average" in out
    assert caplog.messages == [
        "2 pictures that this program made are passed over: recon/photos/0.png, recon/photos/1.png"
    ]
    assert contents(".") == before
    # By its name, such a picture is taken.
    assert run(encoder, "recon/photos/0.png", "-o", "again.gmm").status == 0


def test_foreign_files_beside_coded_ones_are_passed_over(run, photographs, caplog):
    assert run(encoder, *ENCODE).status == 0
    write_archive("coded/weights.npz")
    Path("coded/pytorch_model.bin").write_bytes(b"PK\3\4 and so on")
    Path("coded/.hidden").mkdir()
    write_archive("coded/.hidden/0.npz")
    status, out, err = run(decoder, *DECODE)
    assert (status, err) == (0, "") and "\n2 images: " in out
    assert caplog.messages == [
        "2 files that are no coded images are passed over: coded/pytorch_model.bin, "
        "coded/weights.npz"
    ]
    for name in ("coded/weights.npz", "coded/pytorch_model.bin"):
        status, _, err = run(decoder, "--input", name, "--output", "decoded")
        assert status == 1 and err.count("\n") == 1 and "coded/" in err


# Dates.


def date(path):
    return os.stat(path).st_mtime_ns


def set_date(path, seconds):
    os.utime(path, ns=(seconds * 10**9 + 123_456_700,) * 2)


def test_files_and_pictures_have_the_date_of_the_photograph(run, photographs):
    set_date("photos/0.png", 1_000_000_000)
    assert run(encoder, *ENCODE).status == run(decoder, *DECODE).status == 0
    for path in ("coded/0.npz", "coded/0.bin", "decoded/0.png"):
        assert date(path) == date("photos/0.png") == 1_000_000_000_123_456_700
    assert run(encoder, "photos/0.png", "-o", "0.gmm").status == 0
    assert run(decoder, "0.gmm", "-o", "0.png").status == 0
    assert date("0.gmm") == date("0.png") == date("photos/0.png")


def done(run, command, options):
    status, out, err = run(command, *options, "--skip-existing")
    assert (status, err) == (0, "")
    (line,) = (line for line in out.splitlines() if line.endswith(" done already"))
    return line.partition(" images")[0]


def test_nothing_is_done_twice_and_nothing_is_missed(run, photographs, photograph):
    def again():
        return done(run, encoder, ENCODE), done(run, decoder, DECODE)

    assert again() == ("0 of 2", "0 of 2")
    assert again() == ("2 of 2", "2 of 2")
    # A photograph of the same size in its place, be it newer or, as from a backup, older.
    for seconds in (2_000_000_000, 1_000_000_000):
        pictures = contents("decoded")
        iio.imwrite("photos/0.png", 255 - iio.imread("photos/0.png"))
        set_date("photos/0.png", seconds)
        assert again() == ("1 of 2", "1 of 2")
        assert again() == ("2 of 2", "2 of 2")
        changed = {path for path, data in contents("decoded").items() if pictures[path] != data}
        assert changed == {Path("decoded/0.png")}
    # Another picture of ours that carries the right date.
    before = date("decoded/0.png")
    shutil.copy("decoded/1.png", "decoded/0.png")
    os.utime("decoded/0.png", ns=(before, before))
    assert again() == ("2 of 2", "1 of 2")


# Gray.


def test_a_gray_photograph_comes_back_gray(run, photograph, tmp_path):
    (tmp_path / "photos").mkdir()
    gray = Image.fromarray(photograph).convert("L")
    gray.save("photos/gray.png")
    gray.convert("RGB").save("photos/rgb.jpg", quality=95)
    Image.fromarray(photograph).save("photos/colour.png")
    summary = "--summary", "s.json"
    assert run(encoder, *ENCODE, *summary).status == run(decoder, *DECODE).status == 0
    rows = {row["name"]: row for row in json.loads(Path("s.json").read_text())}
    for name, mode in (("gray", "L"), ("rgb", "L"), ("colour", "RGB")):
        with Image.open(f"decoded/{name}.png") as picture:
            assert picture.mode == mode
            shown = np.asarray(picture.convert("RGB"))
        original = photograph if mode == "RGB" else np.dstack([np.asarray(gray)] * 3)
        if name != "rgb":
            assert rows[name]["psnr"] == pytest.approx(metrics.psnr(original, shown), abs=1e-5)
        assert Path(f"coded/{name}.npz").read_bytes()[3] == (1 if mode == "RGB" else 2)


# Messages.


def test_no_library_speaks_on_the_terminal(tmp_path, photograph, tiny_path):
    (tmp_path / "photos").mkdir()
    # Palette with transparency in bytes, for which Pillow warns; 16 bits, for which we do.
    indices = Image.fromarray(photograph[:30, :30]).quantize(16)
    indices.save(tmp_path / "photos" / "a.png", transparency=bytes([255] * 16))
    Image.fromarray(photograph[:30, :30, 0].astype(np.uint16) * 257).save(
        tmp_path / "photos" / "deep.png"
    )
    for options, expected in ((), b"photos/deep.png: 16 bits per sample"), (("--quiet",), b""):
        finished = script("encoder.py", *ENCODE, *options, cwd=tmp_path, tiny_path=tiny_path)
        assert finished.returncode == 0
        assert finished.stderr.startswith(expected)
        assert finished.stderr.count(b"\n") == bool(expected)


STRANGE = "new\nline \x1b[31mred \u202etxt \udcff.png"


def test_strange_names_stay_one_line_and_exact_in_summaries(tmp_path, photograph, tiny_path):
    (tmp_path / "photos").mkdir()
    name = STRANGE if sys.platform == "linux" else STRANGE.replace("\udcff", "")
    iio.imwrite(tmp_path / "photos" / name, photograph[:30, :30])
    (tmp_path / "photos" / f"broken {name}").write_bytes(b"")
    for summary in ("s.csv", "s.json"):
        finished = script(
            *("encoder.py", *ENCODE, "--summary", summary), cwd=tmp_path, tiny_path=tiny_path
        )
        assert finished.returncode == 1
        error, out = finished.stderr.decode(), finished.stdout.decode()
        assert error.count("\n") == 1 and r"broken new\nline \x1b[31mred \u202etxt" in error
        assert not set("\x1b\u202e") & set(error + out)
        assert out.count(r"new\nline") == 4  # the image, its two files, and the one that failed
        path = tmp_path / summary
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        rows = (
            json.loads(text)
            if summary == "s.json"
            else list(
                csv.DictReader(open(path, newline="", encoding="utf-8", errors="surrogateescape"))
            )
        )
        assert {row["name"] for row in rows} == {name[:-4], f"broken {name[:-4]}"}
    decoded = script("decoder.py", *DECODE, cwd=tmp_path, tiny_path=tiny_path)
    assert decoded.returncode == 0 and files(tmp_path / "decoded") == [name]


# Folders.


def test_what_cannot_be_reached_is_named_and_the_rest_is_done(run, photographs, caplog):
    outside = photographs.parent / "outside"
    outside.mkdir()
    shutil.copy("photos/0.png", outside / "behind.png")
    (photographs / "link").symlink_to(outside)
    (photographs / "circle").symlink_to(photographs)
    (photographs / "broken.png").symlink_to("nowhere.png")
    (photographs / "loop.png").symlink_to("loop.png")
    os.mkfifo(photographs / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(photographs)  # a socket's path must be short
        server.bind("socket.png")
        os.chdir(before)
        status, out, err = run(encoder, *ENCODE)
    assert status == 1 and "\n2 images: " in out
    assert len(err.splitlines()) == 2
    for name in ("broken.png", "loop.png"):
        assert f"photos/{name}: " in err and f"failed: photos/{name}: " in out
    told = "\n".join(caplog.messages)
    for name in ("link", "circle", "pipe.png", "socket.png"):
        assert f"photos/{name}" in told
    assert files("coded") == ["0.bin", "0.npz", "1.bin", "1.npz"]


@unless_root
def test_a_folder_that_cannot_be_read_is_named_and_the_rest_is_done(run, photographs):
    (photographs / "closed").mkdir(mode=0)
    status, out, err = run(encoder, *ENCODE)
    assert status == 1 and err.startswith("photos/closed: ") and "\n2 images: " in out


def test_what_is_excluded_is_passed_over(run, photographs):
    (photographs / "raw").mkdir()
    for name in ("raw/0.png", "0_edited.png"):
        shutil.copy("photos/0.png", photographs / name)
    assert run(encoder, *ENCODE, "--exclude", "*_edited*", "--exclude", "raw/*").status == 0
    assert files("coded") == ["0.bin", "0.npz", "1.bin", "1.npz"]
    assert run(decoder, *DECODE, "--exclude", "1.*").status == 0
    assert files("decoded") == ["0.png"]


def test_formats_that_are_not_read_are_counted(run, photographs, caplog):
    for name in ("a.heic", "b.HEIC", "c.gif", "d.txt"):
        (photographs / name).write_bytes(b"some data")
    assert run(encoder, *ENCODE).status == 0
    (note,) = caplog.messages
    assert note.startswith("3 files of formats that are not read: 2 .heic, 1 .gif")


# Several inputs, single files, pipes.


@pytest.mark.parametrize("form", ["--input", "without an option", "after the model"])
def test_several_inputs(run, photographs, tiny_path, form):
    shutil.copytree("photos", "more/photos")
    shutil.copy("photos/0.png", "a b.png")
    inputs = ["a b.png", "photos", "more/photos"]
    if form == "after the model":
        status = encoder.main(["--output", "coded", "--model", str(tiny_path), *inputs])
    else:
        status = run(encoder, *(["--input"] if form == "--input" else []), *inputs,
                     "--output", "coded").status  # fmt: skip
    assert status == 0
    names = [name for name in files("coded") if name.endswith(".npz")]
    assert len(names) == 5 and names[0] == "a b.npz"
    assert all(name.startswith("photos/") for name in names[1:])
    assert run(decoder, "coded/a b.npz", "coded/photos", "-o", "decoded").status == 0
    assert len([name for name in files("decoded") if name.endswith(".png")]) == 5


def test_one_missing_input_of_several_is_named(run, photographs):
    status, out, err = run(encoder, "photos", "none.png", "--output", "coded")
    assert status == 1 and err.startswith("none.png: ") and err.count("\n") == 1
    assert "failed: none.png: " in out and len(files("coded")) >= 4


def test_one_image_to_one_file_and_back(run, photographs, tiny_codec):
    assert run(encoder, "photos/0.png", "-o", "a.gmm")[::2] == (0, "")
    image = iio.imread("photos/0.png")
    data = Path("a.gmm").read_bytes()
    assert data == tiny_codec.compress(image)
    assert run(decoder, "a.gmm", "-o", "a.png")[::2] == (0, "")
    np.testing.assert_array_equal(iio.imread("a.png"), tiny_codec.decompress(data))
    # In a folder such a file counts as an image too, also beside a pair of the same name.
    assert run(encoder, "photos/0.png", "-o", "coded").status == 0
    assert run(encoder, "photos/0.png", "-o", "coded/0.gmm").status == 0
    assert run(decoder, *DECODE).status == 0
    assert len(files("decoded")) == 2
    status, _, err = run(encoder, "photos", "-o", "b.gmm")
    assert status == 1 and err == "b.gmm: holds one image, and 2 are given; give a folder\n"
    Path("a.gmm").write_bytes(data[:-1])
    assert run(decoder, "a.gmm", "-o", "a.png").err.startswith(
        "a.gmm: truncated or damaged: wrong "
    )


def test_standard_input_and_output(tmp_path, photographs, tiny_path, tiny_codec):
    photo = (photographs / "0.png").read_bytes()
    expected = tiny_codec.compress(iio.imread(photographs / "0.png"))
    picture = tiny_codec.decompress(expected)

    def call(name, *arguments, **kwargs):
        return script(name, *arguments, cwd=tmp_path, tiny_path=tiny_path, **kwargs)

    for arguments in (["-"], ["--input", "-", "--output", "-"], ["photos/0.png", "-o", "-"]):
        finished = call("encoder.py", *arguments, input=photo)
        assert finished.returncode == 0 and finished.stdout == expected
        assert b"Actual bits per pixel" in finished.stderr
    finished = call("decoder.py", "-", "--quiet", input=expected)
    assert (finished.returncode, finished.stderr) == (0, b"")
    np.testing.assert_array_equal(iio.imread(finished.stdout), picture)
    assert call("encoder.py", "-", "-o", "coded", input=photo).returncode == 0
    assert files(tmp_path / "coded") == ["stdin.bin", "stdin.npz"]
    for name, data in (("encoder.py", b""), ("decoder.py", b"no coded image")):
        finished = call(name, "-", input=data)
        assert finished.returncode == 1 and finished.stdout == b""
        assert b"\nstandard input: " in b"\n" + finished.stderr


def test_standard_input_beside_files_of_its_name(run, photographs, monkeypatch):
    shutil.copy("photos/0.png", "stdin.png")
    monkeypatch.setattr(sys, "stdin", open("photos/1.png"))
    assert run(encoder, "stdin.png", "-", "-o", "coded").status == 0
    assert files("coded") == ["stdin-2.bin", "stdin-2.npz", "stdin.bin", "stdin.npz"]


@pytest.mark.parametrize(
    "command, status, words",
    [
        ("encoder.py - -o x.gmm <&-", 1, b"standard input: cannot be read: it is closed"),
        (
            "encoder.py photos/0.png -o - >&-",
            1,
            b"standard output: cannot be written: it ",
        ),
        ("encoder.py photos/0.png -o x.gmm 2>&-", 0, b""),
        ("encoder.py photos/0.png -o x.gmm >/dev/full", 1, b"standard output: cannot be written"),
        ("encoder.py photos/0.png -o - >/dev/full", 1, b"standard output: cannot be written"),
        ("encoder.py /dev/zero -o x.gmm", 1, b"/dev/zero: has more than 2^30 bytes, or no end"),
        ("encoder.py /dev/null -o x.gmm", 1, b"/dev/null: the file is empty"),
        ("encoder.py photos/0.png -o /dev/null --quiet", 0, b""),
    ],
)
def test_streams_that_are_closed_full_or_endless(
    tmp_path, photographs, tiny_path, command, status, words
):
    name, rest = command.split(" ", 1)
    command = f"'{sys.executable}' '{ROOT}/{name}' --model '{tiny_path}' --input {rest}"
    finished = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True)
    assert finished.returncode == status
    assert words in finished.stderr and b"Traceback" not in finished.stderr


def test_pipes_by_name(tmp_path, photographs, tiny_path, tiny_codec):
    command = (
        f"'{sys.executable}' '{ROOT}/encoder.py' <(cat photos/0.png) -o >(cat > a.gmm; echo) "
        f"--quiet --model '{tiny_path}' && sleep 1 && "
        f"'{sys.executable}' '{ROOT}/decoder.py' <(cat a.gmm) -o /dev/stdout --quiet "
        f"--model '{tiny_path}' | cat > a.png"
    )
    finished = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True)
    assert (finished.returncode, finished.stderr) == (0, b"")
    expected = tiny_codec.compress(iio.imread(photographs / "0.png"))
    assert (tmp_path / "a.gmm").read_bytes() == expected
    np.testing.assert_array_equal(iio.imread(tmp_path / "a.png"), tiny_codec.decompress(expected))


# The model that a file needs.


@pytest.fixture
def two_models(run, photographs, tiny_path, tmp_path):
    """Coded files of two exported models in coded/, and both models in models/."""
    settings = json.loads((tiny_path / "settings.json").read_text())
    with np.load(tiny_path / "weights.npz") as file:
        arrays = dict(file)
    arrays["synthesis/Block_0/layer_0/bias"] = arrays["synthesis/Block_0/layer_0/bias"] + 1
    other = tmp_path / "models" / "the other of two"
    other.mkdir(parents=True)
    np.savez(other / "weights.npz", **arrays)
    del settings["fingerprint"]  # as an export of long ago
    (other / "settings.json").write_text(json.dumps(settings))
    shutil.copytree(tiny_path, tmp_path / "models" / "tiny")
    assert run(encoder, "photos/0.png", "--output", "coded").status == 0
    assert run(encoder, "photos/1.png", "--output", "coded", model=other).status == 0
    return "models/tiny", "models/the other of two"


def test_each_file_is_decoded_by_the_model_that_made_it(two_models, capsys):
    expected = {}
    for number, model in enumerate(two_models):
        pair = (Path(f"coded/{number}.{suffix}").read_bytes() for suffix in ("npz", "bin"))
        expected[f"{number}.png"] = ga.load(model).decode(*pair)
    for options in ([], ["--model", *two_models], ["--model", *two_models[::-1], "coded"]):
        shutil.rmtree("decoded", ignore_errors=True)
        arguments = options if "coded" in options else [*DECODE[:2], *options]
        assert decoder.main(["--output", "decoded", "--jobs", "2", *arguments]) == 0
        assert capsys.readouterr().err == ""
        for name, picture in expected.items():
            np.testing.assert_array_equal(iio.imread(f"decoded/{name}"), picture)


def test_a_model_that_is_not_here_is_named_with_those_looked_at(two_models, capsys):
    shutil.rmtree("models/the other of two")
    fingerprint = Path("coded/1.npz").read_bytes()[4:8].hex()
    assert decoder.main([*DECODE, "--jobs", "1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"coded/1.npz: made by a model of fingerprint {fingerprint}, which is ")
    tiny = load_once("models/tiny").fingerprint.hex()
    assert f"models/tiny ({tiny})" in error and "--model" in error and error.count("\n") == 1
    assert files("decoded") == ["0.png"]


def test_where_no_model_fits_each_file_is_named(two_models, capsys):
    for folder in Path("models").iterdir():
        shutil.rmtree(folder)
    Path("coded/0.npz").write_bytes(Path("coded/0.npz").read_bytes()[:-1])
    assert decoder.main([*DECODE, "--jobs", "1"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("coded/0.npz: truncated or damaged")
    assert lines[1].startswith("coded/1.npz: made by a model of fingerprint ")


def test_a_model_that_nobody_named_and_nobody_can_read_stops_nothing(two_models, capsys):
    broken = Path("models/a broken one")
    shutil.copytree("models/the other of two", broken)
    (broken / "weights.npz").write_bytes(b"damaged")
    assert decoder.main([*DECODE, "--jobs", "1"]) == 0
    assert decoder.main(["--info", "coded/1.npz"]) == 0
    assert "Model: models/the other of two (" in capsys.readouterr().out
    assert decoder.main([*DECODE, "--jobs", "1", "--model", "models/tiny", str(broken)]) == 1
    assert str(broken) in capsys.readouterr().err


def test_a_mistyped_image_behind_a_model_is_named(two_models, capsys):
    assert decoder.main(["--model", "models/tiny", "nix.gmm", "-o", "x.png"]) == 1
    assert capsys.readouterr().err.startswith("nix.gmm: ")
    with pytest.raises(SystemExit) as caught:
        encoder.main(["--model", "models/tiny", "nix.png", "-o", "x.gmm"])
    assert caught.value.code == 2 and "'nix.png'" in capsys.readouterr().err


@needs_tensorflow
def test_checkpoints_are_told_apart_as_well(two_models, other_path, run, capsys):
    assert run(encoder, "photos/0.png", "-o", "coded/2.gmm", model=other_path).status == 0
    models = ["models/tiny", str(other_path), "models/the other of two"]
    assert decoder.main([*DECODE, "--jobs", "1", "--model", *models]) == 0
    assert files("decoded") == ["0.png", "1.png", "2.png"]


def test_what_a_file_says_of_itself(two_models, capsys):
    pair = [Path(f"coded/0.{suffix}").read_bytes() for suffix in ("npz", "bin")]
    info = ga.info(len(pair[0]).to_bytes(4, "little") + pair[0] + pair[1])
    assert (info.version, info.height, info.width, info.gray) == (1, 30, 40, False)
    assert info.fingerprint == load_once("models/tiny").fingerprint.hex()
    assert info.model == "models/tiny"
    assert info.header_bytes == 14 + 2 + 1 + 4  # two sides of one byte each, N = 8
    assert info.header_bytes + info.z_bytes == info.npz_bytes == len(pair[0])
    assert info.y_bytes == len(pair[1])
    assert info.bpp == 8 * (len(pair[0]) + len(pair[1])) / 1200
    assert decoder.main(["--info", "coded/0.npz"]) == 0
    out = capsys.readouterr().out
    for part in (
        "coded/0.npz, coded/0.bin\n",
        "Size: 40x30 pixels, RGB\n",
        f"Model: models/tiny (fingerprint {info.fingerprint})\n",
        f"Bytes: header 21, z {info.z_bytes}, y {len(pair[1])}\n",
        f"Bits per pixel: {info.bpp:.4f}\n",
        "Format version: 1\n",
    ):
        assert part in out
    shutil.rmtree("models")
    unknown = ga.info(len(pair[0]).to_bytes(4, "little") + pair[0] + pair[1])
    assert unknown.model is unknown.header_bytes is unknown.z_bytes is None
    Path("coded/1.bin").write_bytes(b"damaged")
    assert decoder.main(["--info", "coded"]) == 1
    out, err = capsys.readouterr()
    assert "Model: not here" in out and err.startswith("coded/1.bin: ")
    with pytest.raises(ga.BitstreamError):
        ga.info(b"no coded image")
