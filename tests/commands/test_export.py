"""python -m gmm_attention.export: a checkpoint to an exported model."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import load_once, reference

import gmm_attention as ga
from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.commands import export


def test_the_module_exports_a_training_checkpoint(trained_path, tmp_path):
    """As the README gives the command, in a folder that is no clone."""
    codec = load_once(str(trained_path))
    finished = subprocess.run(
        [sys.executable, "-m", "gmm_attention.export", trained_path, "models/exported"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == f"models/exported: fingerprint {codec.fingerprint.hex()}\n"
    arrays, settings = checkpoints.load(tmp_path / "models" / "exported")
    assert settings["exported"] and settings["fingerprint"] == codec.fingerprint.hex()
    assert set(arrays) == set(codec.exported)
    for name, array in codec.exported.items():
        np.testing.assert_array_equal(arrays[name], array, name)


def test_a_tf1_checkpoint_is_exported_to_the_model_that_it_is(tmp_path, photograph):
    pytest.importorskip("tensorflow")
    prefix = reference("n16/model")
    assert export.main([str(prefix), str(tmp_path)]) == 0
    original, exported = ga.load(prefix), ga.load(tmp_path)
    data = original.compress(photograph)
    decoded = exported.decompress(data).astype(int)
    assert np.abs(decoded - original.decompress(data)).max() <= 1


@pytest.mark.parametrize("arguments", [[], ["checkpoint"], ["a", "b", "c"]])
def test_bad_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        export.main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m gmm_attention.export" in capsys.readouterr().err


def test_an_exported_model_can_be_exported_again(tiny_path, tiny_codec, tmp_path):
    assert export.main([str(tiny_path), str(tmp_path)]) == 0
    assert ga.load(tmp_path).fingerprint == tiny_codec.fingerprint


def test_export_reports_a_failure_in_one_line(tmp_path, capsys):
    assert export.main([str(tmp_path / "none"), str(tmp_path / "exported")]) == 1
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and "none" in output.err
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize("name", ["weights.npz", "settings.json"])
def test_export_replaces_no_file_of_others_unless_told(name, tiny_path, tmp_path, capsys):
    np.savez(tmp_path / "weights.npz", mine=np.zeros(3))
    path = (tmp_path / "weights.npz").rename(tmp_path / name)
    mine = path.read_bytes()
    assert export.main([str(tiny_path), str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert f"{path}: is there already, and was not written" in err and err.count("\n") == 1
    assert path.read_bytes() == mine and list(tmp_path.iterdir()) == [path]
    assert export.main([str(tiny_path), str(tmp_path), "--overwrite"]) == 0
    # What it wrote itself, it may write again.
    assert export.main([str(tiny_path), str(tmp_path)]) == 0


def test_export_replaces_no_settings_of_an_editor(tiny_path, tmp_path, capsys):
    (tmp_path / "settings.json").write_text('{"editor.fontSize": 12}')
    assert export.main([str(tiny_path), str(tmp_path)]) == 1
    assert "settings.json: is there already" in capsys.readouterr().err
    assert (tmp_path / "settings.json").read_text() == '{"editor.fontSize": 12}'


def test_export_does_not_overwrite_a_file(tiny_path, tmp_path, capsys):
    (tmp_path / "exported").write_text("mine")
    assert export.main([str(tiny_path), str(tmp_path / "exported")]) == 1
    assert "exported: cannot be made" in capsys.readouterr().err
    assert (tmp_path / "exported").read_text() == "mine"
