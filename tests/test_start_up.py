"""From the options of the command line to codecs in processes."""

import os
from unittest import mock

import calls
import loky
import pytest

import gmm_attention as ga
from gmm_attention import requirements, start_up
from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.codec import image_codec
from gmm_attention.errors import CheckpointError, CodecError
from gmm_attention.pipeline.workers import Workers
from gmm_attention.runtimes import onnx_runtime
from gmm_attention.start_up import Setup, set_up, shown_name, start

OPTIONS = ("float32", "onnx", "cpu")


@pytest.fixture
def setup(tiny_path, tmp_path):
    """Of a copy of the tiny model; what this process has loaded is forgotten."""
    arrays, settings = checkpoints.load(tiny_path)
    checkpoints.save(tmp_path / "model", arrays, settings)
    start_up._load.cache_clear()
    yield set_up(tmp_path / "model", *OPTIONS)[0]
    start_up._load.cache_clear()


# The division of the cores.


@pytest.mark.parametrize(
    "cores, jobs, num_images, expected",
    [
        (8, None, 20, (8, 1)),
        (8, None, 3, (3, 2)),
        (8, None, 1, (1, 8)),  # a single image has all threads, in this process
        (8, None, 0, (1, 8)),
        (64, None, 1000, (16, 4)),
        (8, 1, 20, (1, 8)),
        (8, 3, 20, (3, 2)),
        (2, 9, 20, (9, 1)),
        (8, 9, 2, (2, 4)),
    ],
)
def test_each_job_has_its_share_of_the_cores(
    tiny_path, monkeypatch, cores, jobs, num_images, expected
):
    monkeypatch.setattr(loky, "cpu_count", lambda: cores)
    setup, jobs = set_up(tiny_path, *OPTIONS, jobs, num_images)
    assert (jobs, setup.threads) == expected


@pytest.mark.parametrize("runtime, effort", [("tensorflow", 0), ("onnx", 1), ("onnx", 3)])
@pytest.mark.parametrize("num_images, expected", [(1, 1), (7, 1), (20, 2), (1000, 8)])
def test_processes_with_tensorflow_are_started_for_many_images_only(
    tiny_path, monkeypatch, num_images, expected, runtime, effort
):
    monkeypatch.setattr(requirements, "has_tensorflow", lambda: True)
    monkeypatch.setattr(loky, "cpu_count", lambda: 8)
    options = "float32", runtime, "cpu"
    setup, jobs = set_up(tiny_path, *options, None, num_images, effort)
    assert jobs == expected and (setup.runtime, setup.effort) == (runtime, effort)
    assert set_up(tiny_path, *options, 3, 20, effort)[1] == 3  # where a number is given


def test_what_an_effort_lacks_is_told_at_the_start(tiny_path, monkeypatch):
    monkeypatch.setattr(requirements, "has_tensorflow", lambda: False)
    assert set_up(tiny_path, *OPTIONS, effort=0)[0].effort == 0
    with pytest.raises(CodecError, match="^--effort needs tensorflow .*, or leave --effort away$"):
        set_up(tiny_path, *OPTIONS, effort=1)


@pytest.mark.parametrize("effort", [0, 2])
def test_an_effort_makes_tensorflow_ready(setup, monkeypatch, effort):
    codec = mock.MagicMock()
    monkeypatch.setattr(image_codec, "load", lambda *_: codec)
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "")  # so that it is restored
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH")
    setup._replace(effort=effort).codec()
    # By itself TensorFlow would take all memory of a GPU, which workers share.
    assert ("TF_FORCE_GPU_ALLOW_GROWTH" in os.environ) == bool(effort)
    assert codec.warm_up.call_args_list == ([mock.call(effort)] if effort else [])


def test_a_codec_takes_all_cores_unless_told(tiny_path, monkeypatch):
    def runtime(loaded, device, threads):
        return mock.MagicMock(threads=threads)

    monkeypatch.setattr(onnx_runtime, "OnnxRuntime", runtime)
    assert ga.load(tiny_path, runtime="onnx").runtime.threads == loky.cpu_count()
    assert ga.load(tiny_path, runtime="onnx", threads=3).runtime.threads == 3


# Codecs in processes.


@pytest.mark.parametrize("count", [0, 1])
def test_a_process_loads_the_codec_once(setup, tiny_codec, count):
    with Workers(count) as workers:
        started = start(setup, workers)
        assert started[:2] == (tiny_codec.fingerprint, 8)
        assert started.runtime.startswith("ONNX Runtime ")
        for _ in range(2):
            loads = workers.submit(calls.loads_of_the_codec, setup, started.fingerprint).result()
            assert loads == 1


def test_a_model_that_changed_meanwhile_is_refused(setup):
    fingerprint = setup.codec().fingerprint
    arrays, settings = checkpoints.load(setup.model)
    name = "entropy_parameter/layer_1/bias"
    checkpoints.save(setup.model, {**arrays, name: arrays[name] + 1}, settings)
    assert setup.codec(fingerprint).fingerprint == fingerprint  # has been loaded
    start_up._load.cache_clear()  # as in another process
    with pytest.raises(CheckpointError, match="model: has changed since this run began, or "):
        setup.codec(fingerprint)


@pytest.mark.parametrize("count", [0, 2])
def test_what_is_wrong_with_the_model_is_told_at_the_start(setup, tmp_path, count):
    (tmp_path / "model" / "weights.npz").unlink()
    with pytest.raises(CheckpointError, match="weights.npz: cannot be read: No such file"):
        with Workers(count) as workers:
            start(setup, workers)


def test_want_of_memory_at_the_start_is_told(setup, monkeypatch):
    def hungry(*_):
        raise MemoryError

    monkeypatch.setattr(start_up, "_load", hungry)
    with pytest.raises(CodecError, match="model: not enough memory; "), Workers(0) as workers:
        start(setup, workers)


def test_a_worker_that_dies_at_the_start_is_told(setup):
    class Dying(Workers):
        def submit(self, function, *arguments):
            return super().submit(calls.die, *arguments)

    with pytest.raises(CodecError, match="a worker died, .*; give fewer --jobs"):
        with Dying(1) as workers:
            start(setup, workers)


# Names.


def test_only_installed_models_go_by_their_name_alone():
    for path in ("models/a", "a", "/home/me/models/a", "models/model-7"):
        assert shown_name(path) == path
    assert shown_name("/usr/lib/python3/site-packages/gmm_attention_models/a") == "a"
    assert isinstance(Setup("a", *OPTIONS, 1), tuple) and str(Setup("a", *OPTIONS, 1)) == "a"
