"""What several test files need: small models, photographs, tensors of the original code."""

import functools
import gc
import importlib.util
import os
import time
from pathlib import Path
from typing import NamedTuple

# TensorFlow would report its start among the results.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import settings

from gmm_attention import cli
from gmm_attention.codec import image_codec

ROOT = Path(__file__).resolve().parents[1]
TRAINED = f"models/{cli.DEFAULT_MODEL}"  # whose pictures look like photographs; from ROOT
# An earlier one, for expectations of rate and gain, which hold for given weights alone.
EARLIER = "tests/data/mse-0.0032-n48"
# What the original code computed: committed, and larger cases outside this repository.
REFERENCES = ROOT / "tests" / "data" / "reference", ROOT.parent / "shared" / "reference"

unless_root = pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")

HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
needs_tensorflow = pytest.mark.skipif(not HAS_TENSORFLOW, reason="TensorFlow is not installed")
# Without TensorFlow, the tests of what cannot do without it are not even collected.
collect_ignore_glob = (
    []
    if HAS_TENSORFLOW
    else [
        "model/*",
        "training/*",
        "checkpoints/test_tf1.py",
        "checkpoints/test_tf1_names.py",
        "checkpoints/test_initial_weights.py",
        "codec/test_precision.py",
        "commands/test_train.py",
        "test_reference.py",
    ]
)

# A busy machine is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def tiny_path():
    """The small exported model (N = 8) that is committed with the tests."""
    return ROOT / "tests" / "data" / "tiny"


_load = image_codec.load


@functools.cache
def load_once(path, precision="float32", runtime="auto", device="auto", threads=None):
    """What image_codec.load does; tests that put this in its place load each model once."""
    return _load(path, precision, runtime, device, threads)


@pytest.fixture(scope="session")
def tiny_codec(tiny_path):
    return load_once(str(tiny_path))


@pytest.fixture(scope="session")
def needs_bfloat16():
    """Skips a test where TensorFlow does not compute in bfloat16."""
    from gmm_attention.runtimes import tensorflow_runtime

    if not tensorflow_runtime.has_bfloat16():
        pytest.skip("TensorFlow does not compute in bfloat16 here")


@pytest.fixture(scope="session")
def trained_path(tmp_path_factory, tiny_path):
    """The tiny model as a training checkpoint, with weights that no export has rounded."""
    pytest.importorskip("tensorflow")
    from gmm_attention.checkpoints import files, integers, loading
    from gmm_attention.model.layers import rdft_matrix

    loaded = loading.load(tiny_path)
    rng = np.random.default_rng(0)
    arrays = {}
    for name, array in integers.float_arrays(loaded.exported).items():
        array = array * rng.normal(1, 1e-3, array.shape)
        if array.shape[:2] == (3, 3):
            name, array = f"{name}_rdft", rdft_matrix(3).T @ array.reshape(9, -1)
        arrays[name] = array.astype(np.float32)
    path = tmp_path_factory.mktemp("models") / "trained"
    settings = dict(loaded.settings)
    del settings["exported"], settings["fingerprint"]
    files.save(str(path), arrays, settings)
    return path


@pytest.fixture(scope="session")
def other_path(tmp_path_factory):
    """A training checkpoint of random weights, N = 16."""
    pytest.importorskip("tensorflow")
    from gmm_attention.checkpoints import files
    from gmm_attention.model import variables

    model = variables.build_model(16, 3, True)
    path = tmp_path_factory.mktemp("models") / "n16"
    files.save(str(path), variables.arrays(model), model.get_config())
    return path


@pytest.fixture(scope="session")
def photograph():
    """uint8 [160, 200, 3]."""
    return iio.imread(ROOT / "valid" / "chelsea.png")[80:240, 100:300]


@pytest.fixture(scope="session")
def large():
    """uint8 [176, 200, 3], large enough for MS-SSIM."""
    return iio.imread(ROOT / "valid" / "chelsea.png")[80:256, 100:300]


def reference(name):
    """Path of what the original code computed, such as "n16/flat_90x50", still without a suffix.

    A test is skipped where the case is not committed and the folder of the others is missing.
    """
    for folder in REFERENCES:
        if any(folder.glob(f"{name}.*")):
            return folder / name
    pytest.skip(f"needs ../shared/reference/{name}, outside this repository")


@pytest.fixture
def closed(monkeypatch):
    """Folders called "closed" cannot be listed, not even by root."""
    scandir = os.scandir

    def refusing(path):
        if os.path.basename(os.path.normpath(path)) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


def files(folder):
    """All files and folders below, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))


def wait_until(condition, seconds=20):
    """Waits until condition() is true, and returns what it returned."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"waited for {seconds} seconds")


class Finished(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, tiny_path):
    """Runs a command in an empty folder; with one process and the tiny model unless told."""
    monkeypatch.setattr(image_codec, "load", load_once)
    monkeypatch.chdir(tmp_path)

    def run(command, *arguments, model=tiny_path):
        status = command.main(["--jobs", "1", *map(str, arguments), "--model", str(model)])
        return Finished(status, *capsys.readouterr())

    return run


def pytest_unconfigure():
    # TensorFlow complains of its functions that outlive its modules.
    load_once.cache_clear()
    gc.collect()
