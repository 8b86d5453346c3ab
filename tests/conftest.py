"""What several test files need: the tiny model, a model of another N, the reference's folder."""

import functools
import gc
import os
from pathlib import Path
from typing import NamedTuple

# TensorFlow would report its start among the results.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT.parent / "shared" / "reference"

# A busy machine is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def tiny_path():
    """The small exported model (N = 8) that is committed with the tests."""
    return ROOT / "tests" / "data" / "tiny"


def load_once(path, precision="float32"):
    """What image_codec.load does; tests that put this in its place load each model once."""
    return _load_once(path, precision)


@functools.cache
def _load_once(path, precision):
    from gmm_attention import export
    from gmm_attention.codec.image_codec import ImageCodec

    return ImageCodec(*export.load(path, precision), name=path)


@pytest.fixture(scope="session")
def tiny_codec(tiny_path):
    return load_once(str(tiny_path))


@pytest.fixture(scope="session")
def trained_path(tmp_path_factory, tiny_path):
    """The tiny model as a training checkpoint, with weights that no export has rounded."""
    from gmm_attention import checkpoints, export
    from gmm_attention.model import variables
    from gmm_attention.model.layers import rdft_matrix

    model, _, settings = export.load(str(tiny_path))
    rng = np.random.default_rng(0)
    arrays = {}
    for name, array in variables.plain_arrays(model).items():
        array = array * rng.normal(1, 1e-3, array.shape)
        if array.shape[:2] == (3, 3):
            name, array = f"{name}_rdft", rdft_matrix(3).T @ array.reshape(9, -1)
        arrays[name] = array.astype(np.float32)
    path = tmp_path_factory.mktemp("models") / "trained"
    del settings["exported"], settings["fingerprint"]
    checkpoints.save(str(path), arrays, settings)
    return path


@pytest.fixture(scope="session")
def other_path(tmp_path_factory):
    """A training checkpoint of random weights, N = 16."""
    from gmm_attention import checkpoints
    from gmm_attention.model import variables

    model = variables.build_model(16, 3, True)
    path = tmp_path_factory.mktemp("models") / "n16"
    arrays = {name: variable.numpy() for name, variable in variables.by_name(model).items()}
    checkpoints.save(str(path), arrays, model.get_config())
    return path


@pytest.fixture(scope="session")
def photograph():
    """uint8 [160, 200, 3]."""
    return iio.imread(ROOT / "valid" / "chelsea.png")[80:240, 100:300]


@pytest.fixture(scope="session")
def reference():
    """The folder of what the original code computed."""
    if not REFERENCE.is_dir():
        pytest.skip("needs ../shared/reference, outside this repository")
    return REFERENCE


def files(folder):
    """All files and folders below, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))


class Finished(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, tiny_path):
    """Runs a command in an empty folder; with one process and the tiny model unless told."""
    from gmm_attention.codec import image_codec

    monkeypatch.setattr(image_codec, "load", load_once)
    monkeypatch.chdir(tmp_path)

    def run(command, *arguments, model=tiny_path):
        status = command.main(["--jobs", "1", *map(str, arguments), "--model", str(model)])
        return Finished(status, *capsys.readouterr())

    return run


def pytest_unconfigure():
    # TensorFlow complains of its functions that outlive its modules.
    _load_once.cache_clear()
    gc.collect()
