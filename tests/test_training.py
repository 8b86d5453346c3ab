"""The train step, by which the weights in models/ were made."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from gmm_attention.model import variables
from gmm_attention.errors import ImageError
from gmm_attention.images import write_png
from gmm_attention.training import data
from gmm_attention.training.losses import rate_distortion
from gmm_attention.training.step import TrainStep, uniform_noise


@pytest.fixture(scope="module")
def fresh_step():
    """A function that gives one compiled step, its weights and Adam's state as at the start."""
    tf.keras.utils.set_random_seed(0)
    step = TrainStep(variables.build_model(8, 3, attention=True), "mse")
    for name, variable in step.named.items():
        # At its initial size GDN's inverse blows gradients up so far that the rest vanishes.
        if name.startswith("synthesis/") and "kernel" in name:
            variable.assign(0.5 * variable)
            step.averages[name].assign(variable)
    state = [*step.named.values(), *step.averages.values()]
    state += [*step.optimizer.variables, *step.quantiles_optimizer.variables]
    values = [variable.numpy() for variable in state]

    def restore():
        for variable, value in zip(state, values):
            variable.assign(value)
        return step

    return restore


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, [2, 64, 64, 3], np.uint8)


def test_steps_lower_the_loss_and_the_same_seeds_give_the_same_weights(images, fresh_step):
    weights = []
    for _ in range(2):
        step = fresh_step()
        metrics = [step(images, [0, i], 1e-3, 0.01) for i in range(15)]
        assert float(metrics[-1]["loss"]) < 0.9 * float(metrics[0]["loss"])
        weights.append({n: v.numpy() for n, v in step.named.items()})
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])


def test_every_variable_and_its_average_move(images, fresh_step):
    step = fresh_step()
    before = {name: variable.numpy() for name, variable in step.named.items()}
    for i in range(2):
        step(images, [0, i], 1e-3, 0.01)
    for name, array in before.items():
        assert not np.array_equal(step.named[name], array), name
        assert not np.array_equal(step.averages[name], array), name
        assert not np.array_equal(step.averages[name], step.named[name]), name


def test_gradients_that_are_not_finite_never_reach_the_weights(images, fresh_step):
    step = fresh_step()
    before = {name: variable.numpy() for name, variable in step.named.items()}
    metrics = step(images, [0, 0], 1e-3, float("nan"))
    assert not np.isfinite(metrics["gradient_norm"])
    for name, array in before.items():
        np.testing.assert_array_equal(step.named[name], array)
        np.testing.assert_array_equal(step.averages[name], array)


def test_noise_is_uniform_and_depends_on_the_seed_alone():
    noise_y, noise_z = uniform_noise(4, 128, 128, 64, tf.constant([0, 1]))
    assert noise_y.shape == [4, 8, 8, 64] and noise_z.shape == [4, 2, 2, 64]
    assert -0.5 <= np.min(noise_y) < -0.49 and 0.49 < np.max(noise_y) < 0.5
    assert np.mean(noise_y) == pytest.approx(0, abs=0.01)
    again = uniform_noise(4, 128, 128, 64, tf.constant([0, 1]))
    np.testing.assert_array_equal(noise_y, again[0])
    assert not np.array_equal(noise_y, uniform_noise(4, 128, 128, 64, tf.constant([0, 2]))[0])


def test_an_unknown_metric_is_refused():
    x = tf.zeros([1, 64, 64, 3])
    with pytest.raises(ValueError, match="metric"):
        rate_distortion(x, x, {"y": tf.ones([1]), "z": tf.ones([1])}, 1.0, "psnr")


def test_onednn_does_not_crash_a_train_step():
    """TF 2.14's oneDNN corrupts the heap in a strided 1x1 convolution's gradient."""
    code = (
        "import numpy as np; from gmm_attention.model import variables; "
        "from gmm_attention.training.step import TrainStep; "
        "step = TrainStep(variables.build_model(8, 3, True), 'mse'); "
        "x = np.random.default_rng(0).integers(0, 256, [2, 128, 128, 3], np.uint8); "
        "print([float(step(x, [0, i], 1e-4, .01)['loss']) > 0 for i in range(3)])"
    )
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[True, True, True]"


def test_batches_are_crops_of_the_photographs_and_repeat_with_their_seed(tmp_path):
    photograph = np.tile(np.arange(200, dtype=np.uint8)[:, None, None], [1, 150, 3])
    write_png(tmp_path / "large.png", photograph)
    write_png(tmp_path / "small.png", photograph[:60])
    images = data.read_photographs(tmp_path, crop=64)
    assert len(images) == 1
    batches = [next(data.batches(images, 3, 64, seed=1)) for _ in range(2)]
    assert batches[0].shape == (3, 64, 64, 3)
    np.testing.assert_array_equal(*batches)
    with pytest.raises(ImageError, match="256 pixels"):
        data.read_photographs(tmp_path, crop=256)
