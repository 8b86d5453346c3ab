"""Codecs in forked processes and in several threads: right results or a clear error, no hang.

What could hang or crash runs in a process of its own, in one of the functions `check_...`.
"""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, needs_tensorflow, wait_until

import gmm_attention as ga
from gmm_attention import forks
from gmm_attention.errors import CodecError

TINY = ROOT / "tests" / "data" / "tiny"
SECONDS = 100  # after which a process hangs
REFUSED = (
    b"TensorFlow was started before this process was forked, and would hang in it; load the codec "
    b'in the child only, or start processes by multiprocessing\'s "spawn"'
)

rng = np.random.default_rng(0)
IMAGES = [rng.integers(0, 256, [h, w, 3], np.uint8) for h, w in [(70, 200), (129, 65), (9, 300)]]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


tensorflow_is_slow = pytest.mark.parametrize(
    "runtime", ["onnx", pytest.param("tensorflow", marks=[needs_tensorflow, pytest.mark.slow])]
)


@pytest.fixture(params=["onnx", pytest.param("tensorflow", marks=needs_tensorflow)])
def runtime(request):
    return request.param


def run(function, *arguments):
    """Runs a function of this module in a process of its own."""
    name, shown = function.__name__, ", ".join(map(repr, arguments))
    finished = subprocess.run(
        [sys.executable, "-c", f"import test_fork_and_threads as t; t.{name}({shown})"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def digest(codec, image):
    data = codec.compress(image)
    return hashlib.sha256(data + codec.decompress(data).tobytes()).digest()


def digests(codec):
    return b"".join(digest(codec, image) for image in IMAGES)


# Forks.


def in_child(function):
    """What a function returns in a forked child, or its error; the child then ends as usual."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(SECONDS // 4)  # ends the child if it hangs
        try:
            result = function()
        except CodecError as error:
            result = str(error).encode()
        os.write(writer, result)
        sys.exit()
    os.close(writer)
    with open(reader, "rb") as file:
        result = file.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"status {status} after {result!r}"
    return result


def rounds(runtime, number):
    """Fewer with TensorFlow, whose child takes a second to end."""
    return range(number if runtime == "onnx" else 1)


def check_forks(runtime):
    alone = digests(ga.load(TINY, runtime="onnx")) if runtime == "onnx" else REFUSED
    codec = ga.load(TINY, runtime=runtime)
    assert in_child(lambda: digests(codec)) == alone  # loaded only
    own = digests(codec)
    assert in_child(lambda: b"codes nothing") == b"codes nothing"
    assert in_child(lambda: digests(codec)) == alone  # used
    assert in_child(lambda: in_child(lambda: digests(codec))) == alone
    assert in_child(lambda: digests(ga.load(TINY, runtime=runtime))) == alone  # loaded again

    def code():
        while not stop.is_set():
            digest(codec, IMAGES[0])

    stop = threading.Event()
    threads = [threading.Thread(target=code, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in rounds(runtime, 10):
        time.sleep(0.007 * number)
        assert in_child(lambda: digests(codec)) == alone
    stop.set()
    for thread in threads:
        thread.join()
    assert digests(codec) == own


@needs_fork
@tensorflow_is_slow
def test_a_forked_process_codes_the_same_or_says_that_it_cannot(runtime):
    run(check_forks, runtime)


def check_first_use(runtime):
    """Forks while other threads use a codec for the first time."""
    alone = digests(ga.load(TINY, runtime="onnx")) if runtime == "onnx" else REFUSED
    for number in rounds(runtime, 8):
        codec = ga.load(TINY, runtime=runtime)
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(digests, codec) for _ in range(2)]
            time.sleep(0.003 * number)
            result = in_child(lambda codec=codec: digests(codec))
            assert both[0].result() == both[1].result()
        assert result == alone


@needs_fork
@tensorflow_is_slow
def test_a_fork_in_the_midst_of_the_first_use(runtime):
    run(check_first_use, runtime)


def check_pool():
    global codec
    codec = ga.load(TINY, runtime="onnx")
    alone = [digest(codec, image) for image in IMAGES]
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(digest_in_pool, range(3))) == alone


def digest_in_pool(number):
    return digest(codec, IMAGES[number])


@needs_fork
def test_a_pool_of_forked_processes_codes_the_same():
    run(check_pool)


@needs_fork
def test_a_gpu_is_not_taken_into_a_forked_process(monkeypatch):
    codec = ga.load(TINY, runtime="onnx")
    codec.compress(IMAGES[0])
    monkeypatch.setattr(forks, "_generation", 1)
    codec.compress(IMAGES[0])
    codec = ga.load(TINY, runtime="onnx")
    monkeypatch.setattr(codec.runtime, "_provider", "CUDAExecutionProvider")
    gpu = codec.runtime._function(codec.runtime.analysis.__globals__["_identity"]())
    monkeypatch.setattr(forks, "_generation", 2)
    with pytest.raises(CodecError, match="ONNX Runtime .* was started before this process was fo"):
        gpu(np.zeros([1, 1, 1, 1], np.float32))


# The wait of a fork.


def fork_and_return():
    pid = os.fork()
    if not pid:
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)


@needs_fork
def test_a_fork_waits_for_other_threads_only():
    entered, leave, events = threading.Event(), threading.Event(), []

    def hold():
        with forks.delayed():
            entered.set()
            leave.wait()
            events.append("left")

    def fork():
        fork_and_return()
        events.append("forked")

    def enter():
        with forks.delayed():
            events.append("entered")

    threads = [threading.Thread(target=function, daemon=True) for function in (hold, fork, enter)]
    threads[0].start()
    entered.wait()
    threads[1].start()
    wait_until(lambda: forks._num_forking)
    threads[2].start()  # does not go before the fork that waits
    time.sleep(0.1)
    assert events == []
    leave.set()
    for thread in threads:
        thread.join(SECONDS)
    assert events[0] == "left" and sorted(events) == ["entered", "forked", "left"]
    with forks.delayed():
        fork_and_return()  # such as in a signal's handler


@needs_fork
def test_a_block_is_left_by_an_error():
    with pytest.raises(ValueError), forks.delayed():
        raise ValueError
    thread = threading.Thread(target=fork_and_return, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive()


# Threads.


def check_threads(runtime):
    codecs = [ga.load(TINY, runtime=runtime) for _ in range(3)]
    alone = [digest(codecs[0], image) for image in IMAGES]
    inspected = codecs[0].inspect(IMAGES[0])
    codecs = [codecs[1], codecs[1], codecs[1], codecs[2]]
    start = threading.Barrier(4)

    def code(number):
        start.wait()  # the first use is made at once, too
        for i in range(number, number + 6):
            assert digest(codecs[number], IMAGES[i % 3]) == alone[i % 3]
        for name, array in codecs[number].inspect(IMAGES[0]).items():
            np.testing.assert_array_equal(array, inspected[name])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(code, range(4)))


@tensorflow_is_slow
def test_threads_that_share_a_codec_get_what_one_alone_gets(runtime):
    run(check_threads, runtime)
