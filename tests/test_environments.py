"""Files decode alike on any machine: golden files, and other settings of this one.

The settings are those that change how floats are rounded: the runtime, threads, oneDNN, the
instructions that oneDNN, numpy and OpenBLAS use, XLA. Another Python or processor shows in the
golden files.
"""

import json
import os
import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest
from coded_pairs import (
    digest,
    digest_of_integer_model,
    pack_latents,
    read_pair,
    string_digests,
    unpack_latents,
)
from conftest import ROOT
from integer_model import random_arrays

from gmm_attention import requirements
from gmm_attention.codec import file_format, wavefront
from gmm_attention.entropy_coding import quantization
from gmm_attention.entropy_coding.integer_model import IntegerEntropyModel
from gmm_attention.images import is_gray

try:
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
except ImportError:  # before numpy 1.26
    from numpy.core._multiarray_umath import __cpu_dispatch__, __cpu_features__

GOLDEN = ROOT / "tests" / "data" / "golden"
NAMES = ["photograph", "flat", "noise", "gray", "extremes"]

# numpy warns of features that the processor lacks.
NUMPY_FEATURES = " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))

ANY_RUNTIME = {
    "one thread": {
        "LOKY_MAX_CPU_COUNT": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    },
    "numpy of an old processor": {
        "NPY_DISABLE_CPU_FEATURES": NUMPY_FEATURES,
        "OPENBLAS_CORETYPE": "Nehalem",
    },
}
TENSORFLOW = {
    "without oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "oneDNN of an old processor": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "XLA": {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"},
}
ENVIRONMENTS = [("onnx", name, value) for name, value in ANY_RUNTIME.items()]
if requirements.has_tensorflow():
    ENVIRONMENTS += [("tensorflow", *pair) for pair in {**ANY_RUNTIME, **TENSORFLOW}.items()]

# What tests/coded_pairs.py does as a program, by the runtime that is its last argument.
PROGRAM = """
import functools, sys
import coded_pairs
import gmm_attention as ga
ga.load = functools.partial(ga.load, runtime=sys.argv.pop())
coded_pairs.main(*sys.argv[1:])
"""


# Golden files.


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "digests.json").read_text())


def test_the_golden_files_model_is_unchanged(golden, tiny_codec):
    assert tiny_codec.fingerprint.hex() == golden["fingerprint"]
    assert set(golden) == {"fingerprint", *NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_decode_to_the_committed_latents(golden, tiny_codec, name):
    npz, y_string = read_pair(GOLDEN / name)
    decoded = {
        "latents": digest(*unpack_latents(tiny_codec, npz, y_string)),
        **string_digests(npz, y_string),
    }
    assert decoded == golden[name]


@pytest.mark.parametrize("name", ["photograph", "flat", "noise", "gray"])
def test_golden_files_decode_to_the_committed_picture(tiny_codec, name):
    decoded = tiny_codec.decode(*read_pair(GOLDEN / name)).astype(int)
    picture = iio.imread(GOLDEN / f"{name}.png")
    assert picture.ndim == (2 if name == "gray" else 3)
    assert np.abs(decoded.T - picture.T).max() <= 1
    assert is_gray(decoded) == (name == "gray")


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_makes_the_golden_files_of_their_latents(tiny_codec, name):
    npz, y_string = read_pair(GOLDEN / name)
    coded = file_format.unpack(npz, y_string, 8, tiny_codec.fingerprint, ("npz", "bin", "model"))
    decoded = unpack_latents(tiny_codec, npz, y_string)
    sides = coded.height, coded.width
    assert pack_latents(tiny_codec, *decoded, *sides, gray=name == "gray") == (npz, y_string)


# Other settings.


@pytest.fixture(scope="module")
def made_here(tmp_path_factory, tiny_codec, photograph):
    """Files made with the default settings, the digests of their latents, and their pictures."""
    folder = tmp_path_factory.mktemp("made here")
    np.save(folder / "photograph.npy", photograph)
    npz, y_string, y_hat = tiny_codec.encode(photograph)
    pairs = {name: read_pair(GOLDEN / name) for name in NAMES}
    pairs["large"] = npz, y_string
    digests, pictures = {}, {}
    for name, pair in pairs.items():
        for suffix, data in zip((".npz", ".bin"), pair):
            (folder / f"{name}{suffix}").write_bytes(data)
        digests[name] = digest(*unpack_latents(tiny_codec, *pair))
        if name != "extremes":
            pictures[name] = tiny_codec.decode(*pair)
    np.testing.assert_array_equal(pictures["large"], tiny_codec.reconstruct(y_hat, 160, 200))

    # Matrices of another size, and all the rounding that weights of any value bring.
    arrays = quantization.integer_arrays(random_arrays(40))
    rng = np.random.default_rng(0)
    y_hat = np.rint(rng.laplace(0, 1, [12, 16, 40])).astype(np.int32)
    z_symbols = rng.integers(-2, 3, [3, 4, 40])
    strings = wavefront.encode_latents(IntegerEntropyModel(arrays), z_symbols, y_hat)
    for name, string in zip(("flags", "z_string", "y_string"), strings):
        arrays[name] = np.frombuffer(string, np.uint8)
    with open(folder / "integer_model", "wb") as file:
        np.savez(file, z_sides=[3, 4], **arrays)
    digests["integer model"] = digest(z_symbols, y_hat)
    assert digest_of_integer_model(folder / "integer_model") == digests["integer model"]
    return folder, digests, pictures


@pytest.mark.parametrize(
    "runtime, environment",
    [pytest.param(*case[::2], id=f"{case[0]}, {case[1]}") for case in ENVIRONMENTS],
)
def test_files_decode_alike_under_other_settings(
    made_here, tiny_codec, tiny_path, runtime, environment
):
    folder, digests, pictures = made_here
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, tiny_path, folder, runtime],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == digests
    for name, picture in pictures.items():
        assert np.abs(np.load(folder / f"{name}.npy").astype(int) - picture).max() <= 1
    # And the other way round: what is coded there is decoded here.
    decoded = tiny_codec.decode(*read_pair(folder / "here")).astype(int)
    assert np.abs(np.load(folder / "here.npy") - decoded).max() <= 1
    for suffix in (".npz", ".bin"):
        (folder / f"here{suffix}").unlink()
