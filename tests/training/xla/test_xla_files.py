"""The folder of an exported step: whose files it replaces; test_program.py fills such a folder."""

import pytest

from gmm_attention.errors import CodecError
from gmm_attention.training import state
from gmm_attention.training.run_folder import RunFolder
from gmm_attention.training.xla import files

SETTINGS = {"num_filters": 8, "num_mixtures": 3, "attention": True, "step": 0}


def export(folder):
    """What an export writes, but for the programs and the arrays."""
    description = {
        "batch": 2,
        "crop": 64,
        "validation_size": [64, 64],
        "network": {},
        # As long as a description with the inputs of a whole network.
        "settings": {"names": "x" * 10000},
        "programs": {name: {"inputs": [], "outputs": []} for name in files.PROGRAMS},
    }
    files.save(folder, description, {name: b"program" for name in files.PROGRAMS})
    state.save(folder / "state.npz", {}, SETTINGS)


def test_an_export_may_be_made_again(tmp_path):
    files.refuse_foreign_files(tmp_path / "step", overwrite=False)
    export(tmp_path / "step")
    files.refuse_foreign_files(tmp_path / "step", overwrite=False)
    assert files.load(tmp_path / "step")[1]["train"] == b"program"


@pytest.mark.parametrize(
    "name", ["program.json", "train.hlo.gz", "validation.hlo.gz", "runner.pyz", "state.npz"]
)
def test_an_export_replaces_no_file_of_others(name, tmp_path):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(CodecError, match=f"{name}: is there already.*--overwrite"):
        files.refuse_foreign_files(tmp_path, overwrite=False)
    files.refuse_foreign_files(tmp_path, overwrite=True)


@pytest.mark.parametrize("exported", [False, True])
def test_an_export_does_not_replace_the_state_from_which_a_run_goes_on(exported, tmp_path):
    if exported:  # and the runner trained in the folder itself
        export(tmp_path)
    RunFolder(tmp_path).save_state({}, SETTINGS)
    with pytest.raises(CodecError, match="state.npz: is there already, and is no state that"):
        files.refuse_foreign_files(tmp_path, overwrite=False)
