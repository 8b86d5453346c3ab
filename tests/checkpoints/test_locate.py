"""What kind of model a path stands for."""

import json

import pytest
from conftest import reference

from gmm_attention.checkpoints import loading
from gmm_attention.checkpoints.locate import Kind, ModelPath, locate
from gmm_attention.errors import CheckpointError


def test_an_exported_model_is_a_folder_that_says_so(tiny_path):
    found = locate(tiny_path)
    assert found == ModelPath(str(tiny_path), Kind.EXPORTED)
    assert found.settings == json.loads((tiny_path / "settings.json").read_text())
    assert found.weight_files == [str(tiny_path / "weights.npz")]


def test_a_training_checkpoint_is_any_other_folder_with_settings(trained_path):
    found = locate(str(trained_path))
    assert found == ModelPath(str(trained_path), Kind.TRAINED)
    assert found.settings["num_filters"] == 8
    assert found.weight_files == [str(trained_path / "weights.npz")]


@pytest.mark.parametrize("suffix", ["", ".index"])
def test_a_tf1_checkpoint_is_a_prefix_or_its_index_file(tmp_path, suffix):
    folder = tmp_path / "of [all] kinds"  # no pattern, whatever it looks like
    folder.mkdir()
    prefix = str(folder / "model-7")
    files = [f"{prefix}.data-00000-of-00002", f"{prefix}.data-00001-of-00002", f"{prefix}.index"]
    for path in [*files, f"{prefix}0.index", f"{prefix}.meta"]:
        open(path, "wb").close()
    found = locate(f"{prefix}{suffix}")
    assert found == ModelPath(prefix, Kind.TF1)
    assert found.settings == {} and found.weight_files == files


def test_a_folder_may_be_named_like_an_index_file(tmp_path, tiny_path):
    (tmp_path / "model.index").symlink_to(tiny_path)
    assert locate(tmp_path / "model.index").kind is Kind.EXPORTED


@pytest.mark.parametrize("name", ["none", "model-7", "notes.txt", "notes.txt/deeper", "empty"])
def test_where_nothing_is_the_message_says_what_a_model_is(tmp_path, name):
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "empty").mkdir()
    (tmp_path / "model-7.data-00000-of-00001").write_bytes(b"an index is missing")
    with pytest.raises(CheckpointError, match=f"{name}/settings.json: cannot be read: .*--model"):
        locate(tmp_path / name)


def test_damaged_settings_are_an_error(tmp_path):
    (tmp_path / "settings.json").write_text('{"num_filters": 8')
    with pytest.raises(CheckpointError, match="settings.json: damaged"):
        locate(tmp_path)


def test_a_loaded_model_bears_the_name_of_its_path(tiny_path):
    prefix = reference("n16/model")
    for path, name in [(tiny_path, tiny_path), (prefix.with_suffix(".index"), prefix)]:
        assert loading.load(path).name == locate(path).path == str(name)
