"""Exported models and training checkpoints that cannot be loaded: the message names the cause."""

import json
import re

import numpy as np
import pytest

import gmm_attention as ga
from gmm_attention.checkpoints import files as checkpoints


def assert_not_loaded(path, reason):
    with pytest.raises(ga.CheckpointError, match=reason) as caught:
        ga.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_missing_models_are_named(tmp_path):
    assert_not_loaded(tmp_path / "none", "No such file or directory; --model takes")
    assert_not_loaded(tmp_path, "No such file or directory; --model takes")
    (tmp_path / "notes.txt").write_text("no model")
    assert_not_loaded(tmp_path, "No such file or directory; --model takes")
    assert_not_loaded(tmp_path / "notes.txt", "Not a directory; --model takes")


def copied(tiny_path, folder, settings=None, weights=None):
    """The tiny model's folder with other bytes in its files, or without them."""
    for name, data in [("settings.json", settings), ("weights.npz", weights)]:
        data = (tiny_path / name).read_bytes() if data is None else data
        (folder / name).unlink(missing_ok=True)
        if data is not False:
            (folder / name).write_bytes(data)
    return folder


def test_half_a_model_is_named(tiny_path, tmp_path):
    assert_not_loaded(copied(tiny_path, tmp_path, weights=False), "weights.npz: cannot be read: No")
    assert_not_loaded(copied(tiny_path, tmp_path, settings=False), "settings.json: cannot be read")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", "{}", '{"num_filters": 8}', "\xff\xfe", '{"num_filters": "8"'],
)
def test_damaged_settings_are_named(tiny_path, tmp_path, text):
    path = copied(tiny_path, tmp_path, settings=text.encode("latin-1"))
    assert_not_loaded(path, "settings.json: damaged: ")


@pytest.mark.parametrize(
    "setting",
    [
        {"num_filters": 12},
        {"num_filters": 0},
        {"num_filters": -8},
        {"num_filters": 8.0},
        {"num_filters": True},
        {"num_filters": 16},
        {"num_mixtures": 0},
        {"num_mixtures": 6},
        {"num_mixtures": 2},
        {"attention": 1},
        {"attention": False},
    ],
)
def test_wrong_settings_are_refused(tiny_path, tmp_path, setting):
    right = json.loads((tiny_path / "settings.json").read_text())
    wrong = json.dumps({**right, **setting})
    assert_not_loaded(copied(tiny_path, tmp_path, settings=wrong.encode()), ": .*")


def test_damaged_weights_are_named(tiny_path, tmp_path):
    arrays, settings = checkpoints.load(tiny_path)
    # Some of them, for speed: what is in the archive is looked at later.
    written = {name: arrays[name] for name in sorted(arrays)[:4]}
    checkpoints.save(tmp_path, written, settings)
    data = (tmp_path / "weights.npz").read_bytes()
    damaged = [b"", b"PK", b"no archive", bytes(100), data[:100], data[:-1], data[: len(data) // 2]]
    damaged += [data[:i] + bytes([data[i] ^ 0x41]) + data[i + 1 :] for i in range(0, len(data), 5)]
    np.save(tmp_path / "array.npy", arrays["tables/exp"])
    damaged.append((tmp_path / "array.npy").read_bytes())
    refused = 0
    for data in damaged:
        (tmp_path / "weights.npz").write_bytes(data)
        try:
            read, _ = checkpoints.load(tmp_path)
        except ga.CheckpointError as error:
            refused += 1
            assert re.fullmatch(f"{tmp_path}/weights.npz: .+", str(error))
        else:  # a date or a hint of the archive was changed, which is no damage
            assert set(read) == set(written)
            for name, array in written.items():
                assert read[name].dtype == array.dtype
                np.testing.assert_array_equal(read[name], array)
    assert refused > len(damaged) / 2


def altered(folder, path, change):
    """A copy of a model's folder, after change(arrays)."""
    arrays, settings = checkpoints.load(path)
    change(arrays)
    with open(folder / "weights.npz", "wb") as file:
        np.savez(file, **arrays)
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


# One of each kind of array, and where it is looked at.
EXPORTED_NAMES = [
    "analysis/Block_0/layer_2/kernel",
    "analysis/Block_0/layer_2/exponent",
    "synthesis/Block_0/layer_0/bias",
    "synthesis/Block_0/layer_3/igdn/reparam_gamma",
    "hyper_synthesis/layer_0/kernel",
    "hyper_synthesis/layer_0/exponent",
    "entropy_parameter/layer_1/bias",
    "entropy_parameter/layer_2/kernel",
    "entropy_bottleneck/quantized_cdf",
    "entropy_bottleneck/integer_medians",
    "entropy_bottleneck/matrix_0",
    "tables/exp",
]
TRAINED_NAMES = [
    "analysis/Block_0/layer_2/kernel_rdft",
    "analysis/NLAB_0/conv_1x1/kernel",
    "entropy_parameter/masked/bias",
    "entropy_bottleneck/quantiles",
]


@pytest.mark.parametrize("name", EXPORTED_NAMES)
def test_missing_and_misshapen_arrays_of_an_exported_model_are_named(tiny_path, tmp_path, name):
    altered(tmp_path, tiny_path, lambda arrays: arrays.pop(name))
    assert_not_loaded(tmp_path, f"(missing {name}|{name}: missing)($|;)")
    altered(tmp_path, tiny_path, lambda arrays: arrays.update({name: arrays[name][..., None]}))
    assert_not_loaded(tmp_path, f"{name}.* shape ")


@pytest.mark.parametrize("name", TRAINED_NAMES)
def test_missing_and_misshapen_variables_of_a_checkpoint_are_named(trained_path, tmp_path, name):
    altered(tmp_path, trained_path, lambda arrays: arrays.pop(name))
    assert_not_loaded(tmp_path, f"missing {name}$")
    altered(tmp_path, trained_path, lambda arrays: arrays.update({name: arrays[name][..., None]}))
    assert_not_loaded(tmp_path, f"{name} has shape ")


def test_left_over_arrays_are_named(tiny_path, trained_path, tmp_path):
    for path in (tiny_path, trained_path):
        altered(tmp_path, path, lambda arrays: arrays.update({"some/variable": np.zeros(3)}))
        assert_not_loaded(tmp_path, "left over some/variable$")


def test_all_problems_are_named_at_once(trained_path, tmp_path):
    def change(arrays):
        del arrays["synthesis/Block_0/layer_0/bias"], arrays["analysis/Block_0/layer_2/bias"]
        arrays["analysis/Block_1/layer_2/bias"] = np.zeros(9)

    assert_not_loaded(
        altered(tmp_path, trained_path, change),
        "missing analysis/Block_0/layer_2/bias; missing synthesis/Block_0/layer_0/bias; "
        r"analysis/Block_1/layer_2/bias has shape \[9\], not \[8\]",
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name",
    [
        "analysis/Block_0/layer_3/gdn/reparam_gamma",
        "synthesis/Block_0/layer_3/kernel_rdft",
        "hyper_synthesis/layer_0/kernel_rdft",
        "entropy_parameter/layer_1/bias",
        "entropy_bottleneck/matrix_0",
        "entropy_bottleneck/quantiles",
    ],
)
def test_weights_that_are_not_finite_are_refused(trained_path, tmp_path, name, value):
    altered(tmp_path, trained_path, lambda arrays: arrays[name].flat.__setitem__(1, value))
    assert_not_loaded(tmp_path, "not finite")


@pytest.mark.parametrize(
    "name",
    [
        "analysis/Block_0/layer_2/bias",
        "synthesis/Block_0/layer_3/igdn/reparam_gamma",
        "entropy_bottleneck/matrix_0",
    ],
)
def test_exported_weights_that_are_not_finite_are_refused(tiny_path, tmp_path, name):
    altered(tmp_path, tiny_path, lambda arrays: arrays[name].flat.__setitem__(1, np.nan))
    assert_not_loaded(tmp_path, "not finite")


def test_weights_beyond_exact_arithmetic_are_refused_with_the_reason(trained_path, tmp_path):
    name = "hyper_synthesis/layer_1/kernel_rdft"
    altered(tmp_path, trained_path, lambda arrays: arrays.update({name: 1e7 * arrays[name]}))
    assert_not_loaded(tmp_path, "hyper_synthesis/layer_1: channel 0: ")


def test_a_prior_of_endless_tables_is_refused(trained_path, tmp_path):
    name = "entropy_bottleneck/quantiles"
    altered(tmp_path, trained_path, lambda arrays: arrays.update({name: 1e8 * arrays[name]}))
    assert_not_loaded(tmp_path, name)
