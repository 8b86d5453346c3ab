"""Weights of another model as the start of training."""

import numpy as np
import pytest

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
