"""encoder.py and decoder.py on a dask cluster that shares this machine's file system."""

import csv
import os
import re
import signal
import subprocess
import sys
import time

import calls
import imageio.v3 as iio
import pytest
from conftest import ROOT, files, wait_until

from gmm_attention.commands import decoder, encoder
from gmm_attention.errors import CodecError
from gmm_attention.pipeline import cluster as clusters
from gmm_attention.pipeline.cluster import Cluster

distributed = pytest.importorskip("distributed")


def local_cluster(count):
    return distributed.LocalCluster(
        n_workers=count, threads_per_worker=1, dashboard_address=":0", silence_logs="CRITICAL"
    )


@pytest.fixture(scope="module")
def shared_cluster():
    with local_cluster(2) as cluster:
        yield cluster


@pytest.fixture
def two_workers(shared_cluster):
    """A cluster whose workers have come back if an earlier test ended them."""
    wait_until(lambda: len(processes_of(shared_cluster)) == 2)
    return shared_cluster


def processes_of(cluster):
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        return sorted(client.run(os.getpid).values())


@pytest.fixture
def photographs(tmp_path, photograph, monkeypatch):
    """Five in photos/, one of them damaged, in the current folder, which is not the workers'."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(5):
        iio.imwrite(tmp_path / "photos" / f"{number}.png", photograph[: 40 + number, :70])
    (tmp_path / "photos" / "3.png").write_bytes(b"no picture")
    return tmp_path / "photos"


@pytest.fixture
def run(tiny_path, capsys):
    def run(command, *arguments):
        status = command.main([*map(str, arguments), "--model", os.path.relpath(tiny_path)])
        return status, *capsys.readouterr()

    return run


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_a_cluster_gives_the_files_of_one_process(run, photographs, two_workers, tmp_path):
    rows = {}
    for name, options in [
        ("here", ("--jobs", 1)),
        ("there", ("--cluster", two_workers.scheduler_address)),
    ]:
        options += ("--summary", f"{name}.csv")
        status, out, err = run(encoder, "--input", "photos", "--output", name, *options)
        assert status == 1 and err.count("\n") == 1 and "photos/3.png: " in err
        assert re.search(r"\nfailed: \S*photos/3.png\n$", out)
        done = re.findall(r"^\[\d/5\] \S*photos/(\d).png -> \S+\.npz", out, re.MULTILINE)
        assert done == ["0", "1", "2", "4"]
        assert re.search(r"^\S*tiny: fingerprint 083ba53b, ONNX Runtime \S+ on the CPU, ", out)
        status, out, err = run(decoder, "--input", name, "--output", f"{name}2", *options[:2])
        assert (status, err) == (0, "") and "\n4 images: " in out
    for suffix in ("", "2"):
        assert contents(tmp_path / f"there{suffix}") == contents(tmp_path / f"here{suffix}")
    assert len(files("there")) == 8 and len(files("there2")) == 4
    for name in ("here", "there"):
        with open(f"{name}.csv", newline="") as file:
            rows[name] = [(*row[:7], bool(row[8])) for row in csv.reader(file)]  # without seconds
    assert rows["there"] == rows["here"] and len(rows["there"]) == 6
    options = ("--cluster", two_workers.scheduler_address, "--skip-existing")
    _, out, _ = run(encoder, "--input", "photos", "--output", "there", *options)
    assert "4 of 5 images are done already" in out


def encode(address, tiny_path, **kwargs):
    """Starts an encoder of photos/."""
    command = [sys.executable, ROOT / "encoder.py", "--input", "photos", "--output", "coded"]
    command += ["--model", tiny_path, "--cluster", address]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, **kwargs)


def wait_for_the_first(process):
    while not process.stdout.readline().startswith("[1/"):
        assert process.poll() is None, process.communicate()


@pytest.fixture
def many(photographs, photograph):
    """Forty larger ones in photos/."""
    (photographs / "3.png").unlink()
    for number in range(40):
        iio.imwrite(photographs / f"{number}.png", photograph)
    return photographs


def test_the_images_of_a_worker_that_is_lost_are_done_again(many, tiny_path, two_workers):
    before = processes_of(two_workers)
    process = encode(two_workers.scheduler_address, tiny_path)
    wait_for_the_first(process)
    os.kill(before[0], signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert re.search(r"^40 images: ", out, re.MULTILINE)
    expected = {f"{i}.{suffix}" for i in range(40) for suffix in ("npz", "bin")}
    # What the worker wrote when it died stays, under a name that nobody takes for a coded file.
    assert {name for name in files("coded") if not name.startswith(".")} == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_the_cluster_alone(many, tiny_path, two_workers, number):
    before = processes_of(two_workers)
    process = encode(
        two_workers.scheduler_address,
        tiny_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for_the_first(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    if number == signal.SIGINT:
        assert (process.returncode, err) == (130, "interrupted\n")
    else:
        assert (process.returncode, err) == (128 + signal.SIGTERM, "")
    with Cluster(two_workers.scheduler_address) as cluster:
        assert cluster.submit(calls.length, "abc").result(timeout=20) == 3  # nothing is before it
    assert processes_of(two_workers) == before
    assert len(files("coded")) < 80
    # The images that had begun are finished.
    wait_until(lambda: all(name.endswith((".npz", ".bin")) for name in files("coded")))


def test_an_image_that_ends_every_worker_fails_alone(two_workers, tmp_path):
    with Cluster(two_workers.scheduler_address) as cluster:
        deadly = cluster.submit(calls.die, "a.png")
        with pytest.raises(CodecError, match="a.png: each worker that it was given to was lost"):
            deadly.result(timeout=60)
        assert cluster.submit(calls.length, "abc").result(timeout=60) == 3


def test_errors_come_back_as_they_are(two_workers):
    with Cluster(two_workers.scheduler_address) as cluster:
        with pytest.raises(MemoryError):
            cluster.submit(calls.out_of_memory, "a.png").result(timeout=20)
        with pytest.raises(TypeError, match="int"):
            cluster.submit(calls.length, 3).result(timeout=20)
        # Tuples of strings pass as such, whatever they look like to dask.
        assert cluster.submit(repr, ("a", "b")).result(timeout=20) == "('a', 'b')"


def test_a_scheduler_that_is_lost_ends_the_run_with_a_line(many, tiny_path):
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    command += ["--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = ""
        while not address:
            match = re.search(r"Scheduler at: +(tcp://\S+)", scheduler.stderr.readline())
            address = match[1] if match else ""
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1"]
        command += ["--no-dashboard", "--no-nanny"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        worker = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            process = encode(address, tiny_path)
            wait_for_the_first(process)
            scheduler.kill()
            _, err = process.communicate(timeout=60)
            assert process.returncode == 1
            assert err == (
                f"--cluster {address}: the connection to its scheduler is lost: "
                "--skip-existing goes on from here\n"
            )
        finally:
            worker.kill()
    finally:
        scheduler.kill()
        scheduler.communicate()


def test_where_the_package_is_missing_is_told(two_workers):
    """The call names a module that workers do not have; they survive it."""
    before = processes_of(two_workers)
    with Cluster(two_workers.scheduler_address) as cluster:
        sys.modules["only_here"] = module = type(sys)("only_here")
        try:
            exec("def function(item):\n    return item", module.__dict__)
            with pytest.raises(CodecError, match="a.png: No module named 'only_here' in a worker"):
                cluster.submit(module.function, "a.png").result(timeout=20)
        finally:
            del sys.modules["only_here"]
    assert processes_of(two_workers) == before


# What cannot begin.


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(clusters, "_PATIENCE", 1)


def assert_one_line(result, *parts):
    status, out, err = result
    assert (status, out) == (1, "") and re.fullmatch("[^\n]+\n", err), err
    for part in parts:
        assert part in err


@pytest.mark.parametrize("command", [encoder, decoder])
def test_a_cluster_that_cannot_be_reached(run, photographs, impatient, command):
    (photographs / "a.npz").touch()
    begin = time.monotonic()
    result = run(command, "--input", "photos", "--cluster", "tcp://127.0.0.1:1")
    assert_one_line(result, "--cluster tcp://127.0.0.1:1: cannot be reached: ", "tcp://host:8786")
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("address", ["nonsense", "ftp://host:8786", "tls://127.0.0.1:1"])
def test_an_address_that_is_none(photographs, tiny_path, address):
    """In a process of its own, since dask may complain when it ends."""
    begin = time.monotonic()
    process = encode(address, tiny_path)
    out, err = process.communicate()
    result = process.returncode, out, err
    assert_one_line(result, f"--cluster {address}: cannot be reached: ")
    assert time.monotonic() - begin < 10


def test_a_cluster_without_workers(run, photographs, impatient):
    with local_cluster(0) as cluster:
        result = run(encoder, "--input", "photos", "--cluster", cluster.scheduler_address)
    assert_one_line(result, "has no worker; start some: dask worker tcp://")


def test_when_no_worker_is_left_it_is_said(photographs, impatient, caplog):
    with local_cluster(1) as local, Cluster(local.scheduler_address) as cluster:
        local.scale(0)
        wait_until(lambda: "no worker is left; waiting for one" in caplog.text)
        waiting = cluster.submit(calls.length, "abc")
        local.scale(1)
        assert waiting.result(timeout=20) == 3
    assert caplog.text.count("no worker is left") == 1


def test_without_dask(run, photographs, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = run(encoder, "--input", "photos", "--cluster", "tcp://127.0.0.1:1")
    assert_one_line(result, "--cluster needs dask: ", "pip install 'gmm-attention[cluster]'")


@pytest.mark.parametrize("command", [encoder, decoder])
def test_jobs_are_not_for_a_cluster(command, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--cluster", "tcp://127.0.0.1:1", "--jobs", "2"])
    assert caught.value.code == 2 and "--jobs is for this machine" in capsys.readouterr().err
