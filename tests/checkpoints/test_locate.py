"""Where a model is found, and what kind of model a path stands for."""

import json
import shutil

import pytest
from conftest import reference

from gmm_attention.checkpoints import loading
from gmm_attention.checkpoints.locate import Kind, ModelPath, find_model, known_models, locate
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
    assert loading.load(tiny_path).name == locate(tiny_path).path == str(tiny_path)


def test_a_loaded_tf1_checkpoint_bears_the_name_of_its_prefix():
    pytest.importorskip("tensorflow")
    prefix = reference("n16/model")
    path = prefix.with_suffix(".index")
    assert loading.load(path).name == locate(path).path == str(prefix)


# Models by name.


@pytest.fixture
def clone_and_package(tmp_path, monkeypatch, tiny_path):
    """A folder with ./models, an installed package, and what both are to hold copied into them."""
    clone, site = tmp_path / "clone", tmp_path / "site-packages"
    package = site / "gmm_attention_models"
    for folder, names in ((clone / "models", ["b", "c"]), (package, ["a", "b"])):
        for name in names:
            shutil.copytree(tiny_path, folder / name)
    (package / "__init__.py").touch()
    (package / "__pycache__").mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(clone)
    return clone, package


def test_a_name_is_looked_for_in_the_clone_and_then_in_the_installed_package(clone_and_package):
    clone, package = clone_and_package
    assert locate("b") == ModelPath("models/b", Kind.EXPORTED)
    assert locate("a") == ModelPath(str(package / "a"), Kind.EXPORTED)
    assert known_models() == ["models/b", "models/c", str(package / "a")]


def test_an_installed_model_is_found_from_any_folder(clone_and_package, tmp_path, monkeypatch):
    _, package = clone_and_package
    monkeypatch.chdir(tmp_path)
    assert known_models() == [str(package / "a"), str(package / "b")]
    assert loading.load("b").name == str(package / "b")


def test_a_model_at_a_path_is_taken_before_any_model_of_that_name(clone_and_package):
    clone, package = clone_and_package
    (clone / "a").mkdir()  # some folder, such as the results of an encoder
    assert find_model("a") == find_model("a/") == str(package / "a")
    (clone / "a" / "settings.json").touch()
    assert find_model("a") == "a" and find_model(clone / "a") == str(clone / "a")
    (clone / "d").mkdir()
    with pytest.raises(CheckpointError, match="d/settings.json: cannot be read"):
        locate("d")
    (clone / "b.index").touch()  # a TF1 checkpoint
    assert locate("b") == ModelPath("b", Kind.TF1)


def test_a_tf1_checkpoint_has_a_name_too(clone_and_package):
    clone, _ = clone_and_package
    (clone / "models" / "model-7.index").touch()
    for name in ("model-7", "model-7.index"):
        assert locate(name) == ModelPath("models/model-7", Kind.TF1)


def test_a_path_is_never_looked_for_elsewhere(clone_and_package):
    for path in ("models/a", "./a", ""):
        assert find_model(path) == path
        with pytest.raises(CheckpointError, match="settings.json: cannot be read"):
            locate(path)


def test_an_unknown_name_is_told_where_models_are_looked_for(clone_and_package, tmp_path):
    with pytest.raises(CheckpointError) as raised:
        locate("mse-0.0032")
    message = str(raised.value)
    assert message.startswith("mse-0.0032: no such path") and "\n" not in message
    for part in ("./models", "pip install ./models", "--model takes", "(here are: b, c, a)"):
        assert part in message
