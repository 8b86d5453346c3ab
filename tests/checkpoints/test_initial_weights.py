"""Weights of another model as the start of training."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, TRAINED, reference

from gmm_attention.checkpoints import initial_weights
from gmm_attention.errors import CheckpointError
from gmm_attention.model import variables
from gmm_attention.training.step import build_model


def test_weights_of_another_k_fill_what_both_have(trained_path):
    arrays = initial_weights.read(str(trained_path))
    name = "entropy_parameter/layer_2/kernel"
    for num_mixtures, shared in ((2, 48), (5, 72)):
        model = build_model(8, num_mixtures, True)
        initial_weights.assign(model, arrays, trained_path)
        kernel = variables.by_name(model)[name].numpy()
        np.testing.assert_array_equal(kernel[..., :shared], arrays[name][..., :shared])
    with pytest.raises(CheckpointError, match="does not fit"):
        initial_weights.assign(build_model(8, 3, False), arrays, trained_path)


@pytest.mark.parametrize("num_filters, num_mixtures", [(16, 3), (24, 5)])
def test_widened_weights_compute_what_the_narrow_ones_did(
    trained_path, photograph, num_filters, num_mixtures
):
    arrays = initial_weights.read(str(trained_path))
    x = photograph[None, :64, :128] / np.float32(255)
    narrow, wide = (build_model(n, num_mixtures, True) for n in (8, num_filters))
    for model in (narrow, wide):
        initial_weights.assign(model, arrays, trained_path)
    y, z = narrow.analysis(x), narrow.hyper_analysis(narrow.analysis(x))
    np.testing.assert_allclose(wide.analysis(x)[..., :8], y, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(wide.hyper_analysis(wide.analysis(x))[..., :8], z, atol=1e-4)
    (x_hat, likelihoods), (same, more) = (m(x) for m in (narrow, wide))
    np.testing.assert_allclose(same, x_hat, atol=1e-4)
    if num_mixtures == 3:  # or the Gaussians that are new are different ones
        for name in ("y", "z"):
            old = more[name][..., :8]
            np.testing.assert_allclose(old, likelihoods[name], rtol=1e-2, atol=1e-4)
    with pytest.raises(CheckpointError, match="does not fit"):
        arrays = {name: v.numpy() for name, v in variables.by_name(wide).items()}
        initial_weights.assign(narrow, arrays, "wide")


def test_an_exported_models_weights_can_be_trained_on(tiny_path, trained_path):
    models = [build_model(8, 3, True) for _ in range(2)]
    for model, path in zip(models, (tiny_path, trained_path)):
        initial_weights.assign(model, initial_weights.read(str(path)), path)
    first, second = (variables.by_name(model) for model in models)
    for name, variable in first.items():
        error = np.abs(variable - second[name]).max()
        assert error <= 0.02 * np.abs(variable).max(), name


@pytest.mark.parametrize("name", ["models/mse", f"{TRAINED}/weights.npz", "encoder.py", ""])
def test_what_is_no_model_is_told_with_the_option_that_named_it(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(CheckpointError, match=f"^{name}: nothing is there; --init-from takes"):
        initial_weights.read(name)


def test_a_tf1_checkpoint_of_something_else_is_refused_by_its_own_names(tmp_path):
    stored = tf.train.load_checkpoint(str(reference("n16/model")))
    arrays = {name: stored.get_tensor(name) for name in stored.get_variable_to_shape_map()}
    names = sorted({*arrays, "extra/text"})
    tensors = [tf.constant(arrays.get(name, "text")) for name in names]
    prefix = str(tmp_path / "model")
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors
    )
    with pytest.raises(CheckpointError, match="does not fit the model: left over extra/text$"):
        initial_weights.read(prefix)
