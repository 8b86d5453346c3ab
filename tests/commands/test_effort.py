"""encoder.py --effort, --lambda and targets: what a user types, sees and finds in the folder."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import ROOT, files, needs_tensorflow

from gmm_attention import cli
from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.checkpoints import locate
from gmm_attention.codec.efforts import LEVELS
from gmm_attention.commands import decoder, encoder

LAMBDA = 0.0075  # the tiny model's


@pytest.fixture
def photographs(tmp_path, photograph, run):
    """Three in photos/."""
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(images(photograph)):
        iio.imwrite(tmp_path / "photos" / f"{number}.png", image)
    return tmp_path / "photos"


def images(photograph):
    return photograph[20:80, 40:104], photograph[30:94, :100], photograph[10:138, 60:188]


@pytest.fixture(scope="module")
def searched(photograph, tiny_codec):
    """Bytes of the files of these photographs at effort 2, by name, from another codec."""
    result = {}
    for number, image in enumerate(images(photograph)):
        npz, y_string, _ = tiny_codec.encode(image, effort=2)
        result.update({f"{number}.npz": npz, f"{number}.bin": y_string})
    return result


def encode(run, *options, source="photos", output="coded", **kwargs):
    return run(encoder, "--input", source, "--output", output, *options, **kwargs)


def contents(folder):
    return {name: (Path(folder) / name).read_bytes() for name in files(folder)}


def assert_one_line(text, *parts):
    assert re.fullmatch("[^\n]+\n", text), text
    for part in parts:
        assert str(part) in text


def figures(run, folder):
    """Bits per pixel, and squared errors, of coded files as the decoder reads them, by name."""
    assert run(decoder, "--input", folder, "--output", f"{folder} decoded")[::2] == (0, "")
    result = {}
    for path in sorted(Path(folder).glob("*.npz")):
        image = iio.imread(f"photos/{path.stem}.png")
        picture = iio.imread(f"{folder} decoded/{path.stem}.png")
        bits = 8 * sum(os.path.getsize(path.with_suffix(s)) for s in (".npz", ".bin"))
        error = np.mean((image.astype(float) - picture) ** 2)
        result[path.stem] = bits / (image.shape[0] * image.shape[1]), error
    return result


def losses(run, folder):
    return {name: LAMBDA * error + bpp for name, (bpp, error) in figures(run, folder).items()}


# Better files.


@needs_tensorflow
def test_files_of_an_effort_cost_less_and_are_the_same_each_time(run, photographs, searched):
    assert encode(run, output="before")[::2] == (0, "")
    assert encode(run, "--effort", 2, output="after")[::2] == (0, "")
    assert contents("after") == searched
    before, after = losses(run, "before"), losses(run, "after")
    assert len(after) == 3 and all(after[name] <= before[name] for name in before)
    assert sum(after.values()) < sum(before.values())


@needs_tensorflow
def test_a_larger_lambda_gives_better_pictures_for_more_bits(run, photographs):
    for lmbda in ("0.00001", "0.1"):
        assert encode(run, "--effort", 1, "--lambda", lmbda, output=lmbda).status == 0
    low, high = figures(run, "0.00001"), figures(run, "0.1")
    for name in low:
        assert low[name][0] < high[name][0] and low[name][1] > high[name][1]


@needs_tensorflow
def test_an_image_comes_to_a_target(run, photographs, caplog):
    options = "--effort", 1, "--lambda", 0.02
    assert encode(run, *options, source="photos/2.png", output="other lambda").status == 0
    ((bpp, error),) = figures(run, "other lambda").values()
    psnr = 10 * np.log10(255**2 / error)
    for kind, target in (("bpp", bpp), ("psnr", psnr)):
        options = "--effort", 1, f"--target-{kind}", target
        finished = encode(run, *options, source="photos/2.png", output=kind)
        assert finished.status == 0
        (reached,) = figures(run, kind).values()
        if kind == "bpp":
            assert reached[0] == pytest.approx(bpp, rel=0.02)
            line = rf"target {bpp:.4f} bpp, reached {reached[0]:.4f} \([-+]\d\.\d%\)"
        else:
            assert reached[1] == pytest.approx(error, rel=0.021)
            figure = f"{10 * np.log10(255**2 / reached[1]):.2f}"
            line = rf"target {psnr:.2f} dB, reached {figure} \([-+]0\.\d\d dB\)"
        assert re.fullmatch(line, finished.out.splitlines()[-1])
    assert caplog.messages == []


@needs_tensorflow
@pytest.mark.parametrize("kind, target", [("bpp", 50), ("psnr", 60)])
def test_a_target_out_of_reach_is_told_for_each_image(run, photographs, caplog, kind, target):
    assert encode(run, "--effort", 1, f"--target-{kind}", target).status == 0
    for (name, reached), message in zip(figures(run, "coded").items(), caplog.messages):
        if kind == "bpp":
            nearest = f"{reached[0]:.4f} bpp is the nearest to the target of 50.0000 "
        else:
            nearest = f"{10 * np.log10(255**2 / reached[1]):.2f} dB is the nearest to the target "
        assert message.startswith(f"photos/{name}.png: {nearest}") and "; give " in message
    assert len(caplog.messages) == 3


# The model.


@pytest.fixture
def measured_models(tmp_path, tiny_path, monkeypatch):
    """Two copies of the tiny model in models/, of which only figures on Kodak differ."""
    monkeypatch.setattr(locate, "PACKAGE", "nothing_of_this_name_is_installed")
    for name, bpp, psnr in [("for-efforts-1", 0.1, 27.0), ("for-efforts-2", 0.3, 30.0)]:
        shutil.copytree(tiny_path, tmp_path / "models" / name)
        settings = checkpoints.load_settings(tiny_path)
        settings["measured"] = {"Kodak": {"images": 24, "bpp": bpp, "psnr": psnr}}
        checkpoints.save_settings(tmp_path / "models" / name, settings)
    return ["models/for-efforts-1", "models/for-efforts-2"]


def encode_by(capsys, *options):
    arguments = "--input", "photos/0.png", "--output", "coded", "--jobs", 1, *options
    status = encoder.main(list(map(str, arguments)))
    return status, *capsys.readouterr()


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("target, number", [(20, 1), (28.4, 1), (28.6, 2), (40, 2)])
def test_the_model_nearest_to_a_psnr_is_taken(
    photographs, measured_models, capsys, target, number, given
):
    models = ["--model", *measured_models] if given else []
    status, out, err = encode_by(capsys, "--target-psnr", target, *models)
    assert (status, err) == (0, "")
    measured = {1: "27.00", 2: "30.00"}[number]
    first, second, *_, last = out.splitlines()
    assert first == (
        f"target {target:.2f} dB: models/for-efforts-{number}, {measured} dB on Kodak, is nearest"
    )
    assert second.startswith(f"models/for-efforts-{number}: fingerprint ")
    reached = float(re.search(r"PSNR \(dB\): (\S+)", out)[1])
    match = re.fullmatch(rf"target {target:.2f} dB, reached (\S+) \((\S+) dB\)", last)
    assert float(match[1]) == reached
    assert float(match[2]) == pytest.approx(reached - target, abs=0.011)


@needs_tensorflow
def test_the_model_is_chosen_before_the_search(photographs, measured_models, capsys, tiny_path):
    options = "--effort", 1, "--target-bpp", 0.25
    status, out, _ = encode_by(capsys, *options)
    assert status == 0 and out.startswith("target 0.2500 bpp: models/for-efforts-2, 0.3000 bpp on ")
    # One that is given needs no figures: the search can come to a target with any.
    status, out, _ = encode_by(capsys, *options, "--model", tiny_path)
    assert status == 0 and out.startswith(f"{tiny_path}: fingerprint ")


def test_a_model_whose_psnr_nobody_measured_is_not_taken(photographs, tiny_path, capsys):
    status, out, err = encode_by(capsys, "--target-psnr", 30, "--model", tiny_path)
    assert (status, out) == (1, "")
    assert_one_line(err, f"{tiny_path}: no model whose PSNR on Kodak is known; ", "--record")


@pytest.mark.parametrize("lmbda", [pytest.param("0.01", marks=needs_tensorflow), None])
def test_without_a_lambda_one_is_to_be_given(run, photographs, tiny_path, tmp_path, lmbda):
    model = tmp_path / "of no lambda"
    shutil.copytree(tiny_path, model)
    settings = checkpoints.load_settings(tiny_path)
    del settings["lambda"]
    checkpoints.save_settings(model, settings)
    options = ["--lambda", lmbda] if lmbda else []
    status, out, err = encode(run, "--effort", 1, *options, model=model)
    if lmbda:
        assert (status, err) == (0, "") and len(files("coded")) == 6
    else:
        assert (status, out) == (1, "") and not os.path.exists("coded")
        assert_one_line(err, f"{model}: its settings do not say for which lambda ", "--lambda")


@pytest.mark.parametrize(
    "options",
    [
        ["--lambda", "0.01"],
        ["--effort", "0", "--lambda", "0.01"],
        ["--effort", "1", "--lambda", "0"],
        ["--target-bpp", "0.2", "--target-psnr", "30"],
        ["--target-psnr", "nan"],
        ["--effort", "7"],
        ["--effort", "-1"],
        ["--effort", "1.5"],
    ],
)
def test_bad_usage_exits_with_2(run, photographs, options, capsys):
    with pytest.raises(SystemExit) as caught:
        encode(run, *options)
    assert caught.value.code == 2
    assert "usage: " in capsys.readouterr().err
    assert not os.path.exists("coded")


# With other options.


@needs_tensorflow
def test_what_is_done_is_skipped_and_in_the_summary(run, photographs):
    options = "--effort", 1, "--summary", "s.json"
    first = encode(run, *options)
    rows = json.loads(Path("s.json").read_text())
    printed = re.findall(r"Actual bits per pixel for this image: (\S+)", first.out)
    assert [row["name"] for row in rows] == ["0", "1", "2"]
    assert [f"{row['bpp']:.4f}" for row in rows] == printed
    before = contents("coded")
    finished = encode(run, *options, "--skip-existing")
    assert (finished.status, finished.err) == (0, "")
    assert "\n3 of 3 images are done already\n" in finished.out
    assert contents("coded") == before and json.loads(Path("s.json").read_text()) == rows


@needs_tensorflow
def test_one_file_and_pipes_hold_the_same(run, photographs, tiny_codec, monkeypatch):
    expected = tiny_codec.compress(iio.imread("photos/1.png"), effort=1)
    assert expected != tiny_codec.compress(iio.imread("photos/1.png"))
    assert run(encoder, "photos/1.png", "-o", "a.gmm", "--effort", 1)[::2] == (0, "")
    assert Path("a.gmm").read_bytes() == expected
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", open("photos/1.png"))
    monkeypatch.setattr(sys, "__stdout__", SimpleNamespace(buffer=output))
    finished = run(encoder, "-", "--effort", 1)
    assert (finished.status, finished.out) == (0, "")
    assert output.getvalue() == expected


# The progress.


@needs_tensorflow
def test_the_bar_shows_the_search(run, photographs, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    err, steps = encode(run, "--effort", 1).err, LEVELS[1].steps
    shown = re.findall(
        r"(\d)/3(?:, \d+ s left)?, step (\d+)/(\d+), loss \d+\.\d{4} \((.*?)%\)", err
    )
    assert [line[:3] for line in shown] == [
        (str(image), str(step), str(steps)) for image in range(3) for step in range(1, steps + 1)
    ]
    assert all(float(change) <= 0 for *_, change in shown[1:])
    assert float(shown[-1][3]) < 0 and err.endswith("\r\033[K")


@needs_tensorflow
@pytest.mark.parametrize("terminal", [False, True])
def test_without_a_terminal_or_with_quiet_no_search_shows(run, photographs, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    finished = encode(run, "--effort", 1, *(["--quiet"] if terminal else []))
    assert (finished.status, finished.err) == (0, "")


# Interrupts. Here the process sends the signals to itself, at known steps of the search.


@pytest.fixture
def signals():
    """Ctrl-C raises KeyboardInterrupt, also where tests run in a shell's background."""
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    yield
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


@pytest.fixture
def second_search(monkeypatch):
    """Calls a function in the middle of the search for the second image."""

    def set_function(function, effort=1):
        steps, seen = LEVELS[effort].steps, []

        def show(text):
            if text.startswith(f"step {steps // 2}/{steps}, "):
                seen.append(text)
                if len(seen) == 2:
                    function()

        monkeypatch.setattr(cli, "show_beside_bar", show)

    return set_function


def interrupt():
    signal.raise_signal(signal.SIGINT)


@needs_tensorflow
def test_an_interrupt_ends_the_search_and_keeps_what_it_found(
    run, photographs, signals, second_search, searched
):
    assert encode(run, output="before").status == 0
    second_search(interrupt, effort=2)
    finished = encode(run, "--effort", 2, "--summary", "s.json")
    assert (finished.status, finished.err) == (130, "interrupted\n")
    assert files("coded") == ["0.bin", "0.npz", "1.bin", "1.npz"]
    assert [row["name"] for row in json.loads(Path("s.json").read_text())] == ["0"]
    before, after = losses(run, "before"), losses(run, "coded")
    assert contents("coded")["1.bin"] != searched["1.bin"] and after["1"] < before["1"]
    # What was interrupted counts as done.
    interrupted = contents("coded")
    finished = encode(run, "--effort", 2, "--skip-existing")
    assert finished.status == 0 and "\n2 of 3 images are done already\n" in finished.out
    assert contents("coded") == {**searched, **interrupted}


@needs_tensorflow
def test_an_interrupt_holds_for_an_image_that_fails_too(
    run, photographs, signals, second_search, monkeypatch
):
    def interrupt_and_fill_the_disk():
        def refuse(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", refuse)
        interrupt()

    second_search(interrupt_and_fill_the_disk)
    finished = encode(run, "--effort", 1)
    assert (finished.status, finished.err) == (130, "interrupted\n")
    assert files("coded") == ["0.bin", "0.npz"]


@needs_tensorflow
def test_a_second_interrupt_leaves_no_half_file(
    run, photographs, signals, second_search, monkeypatch
):
    def interrupt_now_and_while_files_are_written():
        monkeypatch.setattr(os, "replace", lambda *_: interrupt())
        interrupt()

    second_search(interrupt_now_and_while_files_are_written)
    finished = encode(run, "--effort", 1)
    assert (finished.status, finished.err) == (130, "interrupted\n")
    assert files("coded") == ["0.bin", "0.npz"]
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@needs_tensorflow
def test_sigterm_ends_a_search_at_once(run, photographs, signals, second_search):
    second_search(lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as caught:
        encode(run, "--effort", 1)
    assert caught.value.code == 128 + signal.SIGTERM
    assert files("coded") == ["0.bin", "0.npz"]


@needs_tensorflow
def test_an_interrupt_that_the_program_is_to_ignore_ends_no_search(
    run, photographs, signals, second_search
):
    assert encode(run, "--effort", 1, output="whole").status == 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as for what a shell script has in the background
    second_search(interrupt)
    assert encode(run, "--effort", 1)[::2] == (0, "")
    assert contents("coded") == contents("whole")


@pytest.mark.slow
@needs_tensorflow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_a_program_with_workers(run, photographs, searched, tiny_path, number):
    large = np.tile(iio.imread(ROOT / "valid" / "chelsea.png"), (3, 3, 1))
    iio.imwrite("photos/large 0.png", large)
    for other in range(1, 4):
        shutil.copy("photos/large 0.png", f"photos/large {other}.png")
    command = [sys.executable, ROOT / "encoder.py", "--input", "photos", "--output", "coded"]
    command += ["--model", tiny_path, "--jobs", "2", "--effort", "2"]
    process = subprocess.Popen(
        command,
        start_new_session=True,
        # A shell that runs tests in the background starts them with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not process.stdout.readline().startswith("[3/7] "):
        assert process.poll() is None
    time.sleep(3)  # both search for large ones now, for longer than the test waits
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as the terminal does: to all of its processes
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=30)
    interrupted = number == signal.SIGINT
    assert process.returncode == (130 if interrupted else 128 + number)
    assert err == ("interrupted\n" if interrupted else "")
    coded = contents("coded")
    large = {name for name in coded if name.startswith("large")}
    names = ["large 0", "large 1"] if interrupted else []
    assert large == {f"{name}.{suffix}" for name in names for suffix in ("bin", "npz")}
    # What they did is what one process does.
    assert {name: data for name, data in coded.items() if name not in large} == searched
    assert run(decoder, "--input", "coded", "--output", "decoded")[::2] == (0, "")
