"""The latent codec that worker processes share by the name of a file."""

import errno
import pickle
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from conftest import ROOT, load_once

import gmm_attention as ga
from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.pipeline import tasks
from gmm_attention.pipeline.tasks import SharedLatentCodec


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder in which temporary files are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def copy_of(shared):
    """What a worker process receives that has loaded no codec yet."""
    tasks._load.cache_clear()
    return pickle.loads(pickle.dumps(shared))


@pytest.mark.parametrize("model", ["tiny_path", "trained_path"])
def test_a_pickled_copy_codes_the_same_bytes(model, request, photograph):
    codec = load_once(str(request.getfixturevalue(model)))
    ((z_symbols, y_hat),) = codec.analyse([photograph])
    with SharedLatentCodec(codec, num_workers=1) as shared:
        assert shared.get() is codec.latent_codec
        copy = copy_of(shared).get()
        assert copy is not codec.latent_codec
        assert (copy.fingerprint, copy.name) == (codec.fingerprint, codec.name)
        npz, y_string = copy.encode(160, 200, z_symbols, y_hat)
    assert (npz, y_string) == codec.encode(photograph)[:2]
    np.testing.assert_array_equal(copy.decode(npz, y_string)[2], y_hat)


def test_a_process_without_tensorflow_can_use_it(trained_path, tmp_path):
    codec = load_once(str(trained_path))
    code = (
        "import pickle, sys\n"
        "shared = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(shared.get().fingerprint.hex(), 'tensorflow' in sys.modules)\n"
    )
    with SharedLatentCodec(codec, num_workers=1) as shared:
        (tmp_path / "pickled").write_bytes(pickle.dumps(shared))
        finished = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "pickled"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert finished.stdout == f"{codec.fingerprint.hex()} False\n"


def test_a_process_loads_it_once_for_all_tasks(tiny_codec):
    with SharedLatentCodec(tiny_codec, num_workers=1) as shared:
        first = copy_of(shared).get()
        assert pickle.loads(pickle.dumps(shared)).get() is first


def test_an_exported_model_is_read_from_its_own_file(tiny_codec, temporary):
    with SharedLatentCodec(tiny_codec, num_workers=2) as shared:
        assert list(temporary.iterdir()) == []
        assert copy_of(shared).get().fingerprint == tiny_codec.fingerprint


def test_without_workers_no_file_is_made(trained_path, temporary):
    with SharedLatentCodec(load_once(str(trained_path)), num_workers=0):
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("failure", [None, KeyboardInterrupt])
def test_the_temporary_file_of_a_checkpoint_is_removed(trained_path, temporary, failure):
    def use():
        with SharedLatentCodec(load_once(str(trained_path)), num_workers=1) as shared:
            assert [path.name for path in temporary.rglob("*.npz")] == ["weights.npz"]
            copy_of(shared)  # whose end removes nothing
            assert len(list(temporary.rglob("*.npz"))) == 1
            if failure:
                raise failure

    if failure:
        with pytest.raises(failure):
            use()
    else:
        use()
    assert list(temporary.iterdir()) == []


def test_a_model_that_changed_meanwhile_is_refused(tiny_path, tmp_path):
    arrays, settings = checkpoints.load(tiny_path)
    checkpoints.save(tmp_path, arrays, settings)
    with SharedLatentCodec(ga.load(tmp_path), num_workers=1) as shared:
        assert copy_of(shared).get()
        name = "entropy_parameter/layer_1/bias"
        checkpoints.save(tmp_path, {**arrays, name: arrays[name] + 1}, settings)
        with pytest.raises(ga.CheckpointError, match="weights.npz: changed since this run began; "):
            copy_of(shared).get()
        (tmp_path / "weights.npz").unlink()
        with pytest.raises(ga.CheckpointError, match="weights.npz: cannot be read: No such file"):
            copy_of(shared).get()


def test_a_full_disk_is_told_in_a_line_and_leaves_no_folder(trained_path, temporary, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tasks.np, "savez", full)
    with pytest.raises(ga.CodecError, match="No space left on device; free some space, set TMPDIR"):
        SharedLatentCodec(load_once(str(trained_path)), num_workers=1)
    assert list(temporary.iterdir()) == []
