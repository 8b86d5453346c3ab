"""The state of a run, to a file or to pieces and back."""

import numpy as np
import pytest

from gmm_attention.errors import CheckpointError
from gmm_attention.training import state

ARRAYS = {"weights/w": np.arange(4, dtype=np.float32), "average/w": np.ones(4, np.float32)}


def test_a_state_comes_back_whole_from_a_file_and_from_pieces(tmp_path, monkeypatch):
    state.save(tmp_path / "state.npz", ARRAYS, {"step": 7})
    monkeypatch.setattr(state, "PIECE_BYTES", 100)
    state.save_pieces(tmp_path / "pieces", {"weights/w": np.zeros(1000)}, {})
    state.save_pieces(tmp_path / "pieces", ARRAYS, {"step": 7})
    pieces = sorted((tmp_path / "pieces").iterdir())
    assert len(pieces) > 3 and max(path.stat().st_size for path in pieces) <= 100
    for path in (tmp_path / "state.npz", tmp_path, tmp_path / "pieces"):
        arrays, settings = state.load(path)
        assert settings == {"step": 7} and list(arrays) == list(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(arrays[name], array)
    pieces[1].unlink()
    with pytest.raises(CheckpointError, match="piece 2 of"):
        state.load(tmp_path / "pieces")


def test_a_damaged_or_missing_state_is_an_error(tmp_path):
    path = tmp_path / "state.npz"
    state.save(path, ARRAYS, {"step": 7})
    data = path.read_bytes()
    for damaged in (b"", data[:100], data[:-30], data[:300] + b"?" + data[301:]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            state.load(path)
    with pytest.raises(CheckpointError, match="No such file"):
        state.load(tmp_path / "other.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no state in it"):
        state.load(tmp_path / "empty")


def test_half_a_state_begins_adam_anew_and_an_average_at_the_weights():
    shapes = {f"{kind}/w": (4,) for kind in ("weights", "average", "adam_m")}
    shapes["updates"] = ()
    arrays = {**ARRAYS, "adam_m/w": np.ones(4), "updates": np.float32(7)}
    arrays["averaged"] = np.float32(70000)
    shapes["averaged"] = ()
    whole = state.complete(state.half(arrays), shapes, "x")
    # Or the average's first steps would be those of a short memory.
    assert whole["averaged"] == 70000
    np.testing.assert_array_equal(whole["average/w"], ARRAYS["average/w"])
    np.testing.assert_array_equal(whole["adam_m/w"], np.zeros(4))
    assert whole["updates"] == 0 and whole["weights/w"].dtype == np.float32
    alone = state.complete({"weights/w": ARRAYS["weights/w"]}, shapes, "x")
    np.testing.assert_array_equal(alone["average/w"], ARRAYS["weights/w"])


@pytest.mark.parametrize(
    "arrays, cause",
    [
        ({"average/w": np.ones(4)}, "misses weights/w"),
        ({"weights/w": np.ones(3)}, r"shape \[3\], not \[4\]"),
        ({"weights/w": np.ones(4), "weights/v": np.ones(4)}, "foreign weights/v"),
        ({"weights/w": np.full(4, np.nan)}, "not finite"),
    ],
)
def test_a_state_of_another_network_is_refused(arrays, cause):
    shapes = {"weights/w": (4,), "average/w": (4,)}
    with pytest.raises(CheckpointError, match=cause):
        state.complete(arrays, shapes, "run/state.npz")
