"""Which runtime is taken, and what is said where it is missing or cannot take a model."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, files, load_once, needs_tensorflow

import gmm_attention as ga
from gmm_attention import requirements
from gmm_attention.checkpoints import loading
from gmm_attention.runtimes import choosing


@pytest.fixture
def installed(monkeypatch):
    """Pretends that these libraries are installed, and no others."""

    def pretend(*names):
        monkeypatch.setattr(requirements, "has_onnx", lambda: "onnx" in names)
        monkeypatch.setattr(requirements, "has_tensorflow", lambda: "tensorflow" in names)

    return pretend


def choose(exported=True, runtime="auto", precision="float32", device="cpu"):
    return choosing.choose("models/a", exported, runtime, precision, device)


def test_auto_takes_onnx_runtime_where_it_can(installed):
    installed("onnx", "tensorflow")
    assert choose() == "onnx"
    assert choose(exported=False) == "tensorflow"
    assert choose(precision="bfloat16") == "tensorflow"
    assert choose(runtime="tensorflow") == "tensorflow"
    installed("tensorflow")
    assert choose() == "tensorflow"
    installed("onnx")
    assert choose() == "onnx"


@pytest.mark.parametrize(
    "libraries, options, message",
    [
        ("", {}, "models/a: coding needs ONNX Runtime, which is not installed; pip install"),
        ("tensorflow", {"runtime": "onnx"}, "needs ONNX Runtime, which is not installed; pip"),
        ("onnx", {"runtime": "tensorflow"}, "a: --runtime tensorflow needs .*, or leave --runtime"),
        ("onnx", {"exported": False}, "a: a model that is not exported needs .*, or export it"),
        (
            "onnx",
            {"precision": "bfloat16"},
            "a: --precision bfloat16 needs .*, or give --",
        ),
        (
            "onnx tensorflow",
            {"exported": False, "runtime": "onnx"},
            "a: a model that is not exported needs --runtime tensorflow, or export it",
        ),
        (
            "onnx tensorflow",
            {"precision": "bfloat16", "runtime": "onnx"},
            "a: --precision bfloat16 needs --runtime tensorflow, or give --precision float32",
        ),
    ],
)
def test_what_is_missing_is_told_with_a_remedy(installed, libraries, options, message):
    installed(*libraries.split())
    with pytest.raises(ga.CodecError, match=message) as caught:
        choose(**options)
    assert "\n" not in str(caught.value)


def test_a_processor_that_tensorflow_would_abort_on_is_told(installed, monkeypatch):
    installed("tensorflow")
    monkeypatch.setattr(requirements, "processor_flags", lambda: frozenset(["fpu", "sse4_2"]))
    with pytest.raises(ga.CodecError, match="does not run on this processor without AVX; "):
        choose(runtime="tensorflow")


def test_a_checkpoint_without_tensorflow_is_told(trained_path, installed):
    installed("onnx")
    with pytest.raises(ga.CodecError, match=f"{trained_path}: a model that is not exported needs"):
        ga.load(trained_path)
    with pytest.raises(ga.CodecError, match=f"{trained_path}: a training checkpoint, .* needs"):
        loading.load(trained_path)


def test_a_wrong_choice_is_the_callers_mistake(tiny_path):
    with pytest.raises(ValueError, match="'torch' is none of auto, onnx, tensorflow"):
        ga.load(tiny_path, runtime="torch")
    with pytest.raises(ValueError, match="'float16' is none of float32, bfloat16"):
        ga.load(tiny_path, precision="float16")
    with pytest.raises(ValueError, match="'GPU' is none of auto, cpu, gpu"):
        ga.load(tiny_path, device="GPU")
    for threads in (0, -1, 100000):
        with pytest.raises(ValueError, match="threads must be from 1 to "):
            ga.load(tiny_path, threads=threads)


def test_a_gpu_that_is_not_there_is_told(tiny_path):
    with pytest.raises(ga.CodecError, match="--device gpu: ONNX Runtime sees no GPU.*; install"):
        ga.load(tiny_path, runtime="onnx", device="gpu")


@needs_tensorflow
def test_a_gpu_that_tensorflow_does_not_see_is_told(tiny_path):
    with pytest.raises(ga.CodecError, match="--device gpu: TensorFlow sees no GPU; install"):
        ga.load(tiny_path, runtime="tensorflow", device="gpu")


def test_a_provider_without_its_driver_is_passed_over(tiny_path, monkeypatch):
    import onnxruntime

    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    # Asked for CUDA without a driver, ONNX Runtime goes on with the CPU.
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda data, options, providers: session(data, options, providers=providers[-1:]),
    )
    codec = ga.load(tiny_path, runtime="onnx", device="auto")
    assert codec.runtime.title.endswith("on the CPU")
    with pytest.raises(ga.CodecError, match="--device gpu: ONNX Runtime sees no GPU"):
        ga.load(tiny_path, runtime="onnx", device="gpu")


def test_onnx_runtime_that_cannot_be_loaded_is_told(tiny_path, monkeypatch):
    monkeypatch.setattr(requirements, "has_onnx", lambda: True)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ga.CodecError, match="ONNX Runtime cannot be loaded: .*; install it anew"):
        ga.load(tiny_path, runtime="onnx")


CODE = """
import sys, numpy as np, gmm_attention as ga
codec = ga.load(sys.argv[1])
image = np.zeros([70, 80, 3], np.uint8)
assert codec.decompress(codec.compress(image)).shape == image.shape
codec.inspect(image)
print(codec.runtime.title.split()[0], [m for m in sys.modules if "tensorflow" in m or "keras" in m])
"""


def test_coding_by_onnx_runtime_imports_no_tensorflow(tiny_path):
    command = [sys.executable, "-c", CODE, tiny_path]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (finished.stdout, finished.stderr) == ("ONNX []\n", "")


def test_nothing_is_reported_to_anybody(tiny_path, tmp_path):
    """ONNX Runtime's telemetry would keep an identity of this machine in the home folder."""
    hidden = {"ORT_DISABLE_TELEMETRY", "CI"}  # either of them would hide that we forget it
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment.update(HOME=str(tmp_path), USERPROFILE=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    command = [sys.executable, "-c", CODE, tiny_path]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert files(tmp_path) == []


LOAD = """
import sys, gmm_attention as ga
ga.load(sys.argv[1], runtime="tensorflow", threads=1, device="cpu")
import tensorflow as tf
print(tf.config.threading.get_intra_op_parallelism_threads())
"""


@pytest.mark.parametrize("model", ["tiny_path", "trained_path"])
def test_tensorflow_is_set_up_before_it_starts(model, request):
    """Also where reading a checkpoint starts it: with the threads asked for, and silently."""
    path = request.getfixturevalue(model)
    pytest.importorskip("tensorflow")
    environment = {name: v for name, v in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", LOAD, path]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (finished.stdout, finished.stderr) == ("1\n", "")


def test_both_runtimes_say_what_they_are(tiny_path):
    assert load_once(str(tiny_path), runtime="onnx").runtime.title.startswith("ONNX Runtime 1.")
    pytest.importorskip("tensorflow")
    title = load_once(str(tiny_path), runtime="tensorflow").runtime.title
    assert title == "TensorFlow 2.14.1 on the CPU"
