"""Checkpoints of the original graph: every variable is used once, and what is wrong is named."""

import re

import numpy as np
import pytest
import tensorflow as tf
from conftest import reference

import gmm_attention as ga
from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.checkpoints import tf1
from gmm_attention.checkpoints import tf1_names as names
from gmm_attention.model import variables

KERNEL = "entropy_parameter/layer_2/signal_conv2d_2/kernel"
MASKED = "entropy_parameter/masked/weights"
QUANTILES = "entropy_bottleneck/quantiles"


def write(prefix, arrays):
    """Writes PREFIX.index and PREFIX.data-00000-of-00001, as TF1's Saver does."""
    stored = sorted(arrays)
    tensors = [tf.constant(arrays[name]) for name in stored]
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=stored, shape_and_slices=[""] * len(stored),
        tensors=tensors,
    )  # fmt: skip
    return prefix


@pytest.fixture(scope="module")
def trained(trained_path):
    """The tiny model as a Cheng2020 with the original's real DFTs, and z's tables."""
    arrays, _ = checkpoints.load(trained_path)
    model = variables.build_model(8, 3, True)
    variables.assign(model, arrays, trained_path)
    return model, model.entropy_bottleneck.range_coder_tables()


@pytest.fixture
def arrays(trained):
    """What a checkpoint of the original holds, by its names."""
    model, tables = trained
    named = {names.original_name(n): v.numpy() for n, v in variables.by_name(model).items()}
    return {**named, **tables}


def assert_refused(prefix, *reasons):
    with pytest.raises(ga.CheckpointError) as caught:
        ga.load(prefix)
    message = str(caught.value)
    assert message.startswith(f"{prefix}: ") and "\n" not in message
    for reason in reasons:
        assert re.search(reason, message), message


def test_every_variable_is_read_back(tmp_path, trained, arrays):
    model, tables = trained
    read, read_tables, settings = tf1.read(str(write(tmp_path / "model-7", arrays)))
    assert settings == {"num_filters": 8, "num_mixtures": 3, "attention": True}
    expected = variables.arrays(model)
    assert set(expected) == set(read)
    for name in expected:
        np.testing.assert_array_equal(read[name], expected[name], name)
    assert set(read_tables) == set(tables)
    for name in tables:
        np.testing.assert_array_equal(read_tables[name], tables[name])


def test_it_codes_as_the_training_checkpoint_of_the_same_weights(
    tmp_path, arrays, trained_path, photograph
):
    codec, other = ga.load(write(tmp_path / "model-7", arrays)), ga.load(trained_path)
    assert codec.fingerprint == other.fingerprint
    assert codec.compress(photograph) == other.compress(photograph)


def test_names_are_those_of_the_original(arrays):
    """Some that the original's documentation spells out, traps among them."""
    for name in (
        "analysis/Block_0_layer_2/signal_conv2d/kernel_rdft",
        "analysis/Block_0_shortcut/signal_conv2d/kernel",
        "analysis/Block_2_layer_3/signal_conv2d/gdn/reparam_gamma",
        "analysis/NLAB_1/attention_RB_2/conv1/signal_conv2d/kernel_rdft",
        "analysis/NLAB_0/conv_1x1/signal_conv2d/bias",
        "synthesis/Block_0_layer_3/signal_conv2d/igdn/reparam_beta",
        "synthesis/Block_3_layer_2/signal_conv2d/kernel_rdft",
        "hyper_synthesis/layer_4/signal_conv2d/bias",
        "entropy_parameter/masked/weights",
        "entropy_parameter/masked/biases",
        "entropy_parameter/layer_0/signal_conv2d/kernel",
        "entropy_parameter/layer_1/signal_conv2d_1/bias",
        "entropy_parameter/layer_2/signal_conv2d_2/kernel",
        "entropy_bottleneck/factor_2",
        "entropy_bottleneck/quantiles",
        "entropy_bottleneck/quantized_cdf",
    ):
        assert name in arrays
    for name in (
        "analysis/Block_0_layer_0/signal_conv2d/kernel_rdft",
        "analysis/Block_3_layer_2/signal_conv2d/bias",
        "entropy_parameter/layer_2/signal_conv2d_2/bias",
        "entropy_bottleneck/factor_3",
    ):
        assert name not in arrays


def test_what_training_leaves_in_a_checkpoint_is_no_error(tmp_path, arrays, trained):
    kernel = arrays["analysis/Block_0_layer_2/signal_conv2d/kernel_rdft"]
    extras = {
        "global_step": np.int64(1399000),
        "beta1_power": np.float32(0.9),
        "beta2_power_1": np.float32(0.9),
        "learning_rate": np.float32(1e-4),
        "analysis/Block_0_layer_2/signal_conv2d/kernel_rdft/Adam": kernel,
        "analysis/Block_0_layer_2/signal_conv2d/kernel_rdft/Adam_1": kernel,
        "analysis/Block_0_layer_2/signal_conv2d/kernel_rdft/ExponentialMovingAverage": kernel,
        "entropy_bottleneck/quantiles/Adam": arrays["entropy_bottleneck/quantiles"],
    }
    prefix = write(tmp_path / "model-7", {**arrays, **extras})
    read = tf1.read(str(prefix))[0]
    np.testing.assert_array_equal(read["analysis/Block_0/layer_2/kernel_rdft"], kernel)
    assert ga.load(prefix).settings["num_filters"] == 8


@pytest.mark.parametrize(
    "name",
    [
        "analysis/Block_0_layer_2/signal_conv2d/kernel_rdft",
        "synthesis/NLAB_1/trunk_RB_0/conv2/signal_conv2d/bias",
        "hyper_analysis/layer_4/signal_conv2d/bias",
        "entropy_parameter/layer_1/signal_conv2d_1/kernel",
        "entropy_bottleneck/matrix_3",
        "entropy_bottleneck/cdf_length",
        "entropy_bottleneck/quantized_cdf",
        KERNEL,
        MASKED,
    ],
)
def test_a_missing_variable_is_named(tmp_path, arrays, name):
    del arrays[name]
    assert_refused(write(tmp_path / "model", arrays), f"missing .*{re.escape(name)}")


def test_left_over_and_several_problems_are_named(tmp_path, arrays):
    del arrays["hyper_analysis/layer_0/signal_conv2d/bias"]
    arrays["hyper_analysis/layer_5/signal_conv2d/bias"] = np.zeros(8, np.float32)
    arrays["synthesis/Block_0_layer_0/signal_conv2d/bias"] = np.zeros(9, np.float32)
    assert_refused(
        write(tmp_path / "model", arrays),
        "missing hyper_analysis/layer_0/signal_conv2d/bias",
        "left over hyper_analysis/layer_5/signal_conv2d/bias",
        r"synthesis/Block_0_layer_0/signal_conv2d/bias has shape \[9\], not \[8\]",
    )


@pytest.mark.parametrize(
    "name, change",
    [
        ("analysis/Block_0_layer_2/signal_conv2d/kernel_rdft", lambda a: a.T),
        ("entropy_bottleneck/quantiles", lambda a: a[:, 0]),
        ("entropy_bottleneck/quantized_cdf", lambda a: a[:-1]),
        ("entropy_bottleneck/quantized_cdf", lambda a: a[:, 0]),
        ("entropy_bottleneck/quantized_cdf", lambda a: a.astype(np.float32)),
        ("entropy_bottleneck/cdf_length", lambda a: a[:-1]),
        (MASKED, lambda a: a[0]),
        (MASKED, lambda a: a[:, :, :0]),
        (MASKED, lambda a: a[:, :, :7]),
        (KERNEL, lambda a: a[..., :8]),
        (KERNEL, lambda a: a[..., :-1]),
        (KERNEL, lambda a: a[0, 0]),
        (KERNEL, lambda a: np.tile(a, [1, 1, 1, 2])),
    ],
)
def test_a_misshapen_variable_is_named(tmp_path, arrays, name, change):
    arrays[name] = change(arrays[name])
    assert_refused(write(tmp_path / "model", arrays), f"{re.escape(name)}|codec: num_")


@pytest.mark.parametrize("name", ["synthesis/Block_3_layer_2/signal_conv2d/bias", QUANTILES])
def test_weights_that_are_not_finite_are_refused(tmp_path, arrays, name):
    arrays[name] = np.full_like(arrays[name], np.nan)
    assert_refused(write(tmp_path / "model", arrays), f"{name} holds values that are not finite")


def test_tables_that_are_none_are_refused(tmp_path, arrays):
    tables = arrays["entropy_bottleneck/quantized_cdf"].copy()
    for change in (lambda: tables.__setitem__((0, 1), 0), lambda: tables.fill(7)):
        change()
        write(tmp_path / "model", {**arrays, "entropy_bottleneck/quantized_cdf": tables})
        assert_refused(tmp_path / "model", "entropy_bottleneck/quantized_cdf: channel 0")


def test_another_networks_checkpoint_is_recognised(tmp_path):
    write(tmp_path / "model", {"conv2d/kernel": np.zeros([3, 3, 3, 8], np.float32)})
    assert_refused(tmp_path / "model", "not a checkpoint of this codec")


def test_damaged_files_are_no_checkpoint(tmp_path, arrays):
    prefix = write(tmp_path / "model", arrays)
    index, data = tmp_path / "model.index", tmp_path / "model.data-00000-of-00001"
    whole = index.read_bytes(), data.read_bytes()
    reason = "not a readable TensorFlow checkpoint: .*; it needs .*model.index and all of"
    for length in (0, 1, 40, len(whole[0]) // 2, len(whole[0]) - 1):
        index.write_bytes(whole[0][:length])
        assert_refused(prefix, reason)
    for i in range(0, len(whole[0]), 1009):
        index.write_bytes(whole[0][:i] + bytes([whole[0][i] ^ 0x10]) + whole[0][i + 1 :])
        assert_refused(prefix, "")
    index.write_bytes(whole[0])
    for length in (0, 1, len(whole[1]) // 2, len(whole[1]) - 1):
        data.write_bytes(whole[1][:length])
        assert_refused(prefix, reason)
    middle = len(whole[1]) // 2
    data.write_bytes(whole[1][:middle] + b"\x12\x34\x56\x78" + whole[1][middle + 4 :])
    assert_refused(prefix, reason)
    data.unlink()
    assert_refused(prefix, reason)
    index.unlink()
    with pytest.raises(ga.CheckpointError, match="No such file .*--model takes"):
        ga.load(prefix)


def test_the_index_files_name_serves_as_well(tmp_path, arrays):
    prefix = write(tmp_path / "model", arrays)
    assert ga.load(f"{prefix}.index").fingerprint == ga.load(prefix).fingerprint


@pytest.mark.parametrize("name", ["n16/model", "n16dead/model", "n32/model"])
def test_the_originals_checkpoints_hold_what_is_expected(name):
    """Each stored variable fills one of ours: nothing is missing, nothing left over."""
    prefix = str(reference(name))
    arrays, tables, settings = tf1.read(prefix)
    stored = tf.train.load_checkpoint(prefix)
    model = variables.build_model(**settings)
    assert set(arrays) == set(variables.by_name(model))
    assert set(stored.get_variable_to_shape_map()) == {*map(names.original_name, arrays), *tables}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, stored.get_tensor(names.original_name(name)))


def test_problems_of_the_originals_checkpoints_are_named(tmp_path):
    stored = tf.train.load_checkpoint(str(reference("n16/model")))
    arrays = {name: stored.get_tensor(name) for name in stored.get_variable_to_shape_map()}
    bias = "hyper_synthesis/layer_2/signal_conv2d/bias"
    missing = {name: array for name, array in arrays.items() if name != bias}
    assert_refused(write(tmp_path / "missing", missing), f"missing {bias}$")
    misshapen = {**arrays, bias: arrays[bias][:-1]}
    assert_refused(write(tmp_path / "misshapen", misshapen), rf"{bias} has shape \[\d+\], not")
    left_over = {**arrays, "extra/bias": arrays[bias]}
    assert_refused(write(tmp_path / "left", left_over), "left over extra/bias$")
