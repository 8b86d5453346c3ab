"""The whole network as a Keras model, with random weights."""

import numpy as np
import pytest
import tensorflow as tf

from gmm_attention.model import Cheng2020, variables


@pytest.fixture(scope="module")
def model():
    tf.keras.utils.set_random_seed(0)
    return variables.build_model(8, 3, attention=True)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).random([1, 64, 128, 3], np.float32)


@pytest.mark.parametrize("num_filters", [8, 24])
@pytest.mark.parametrize("num_mixtures", [1, 5])
@pytest.mark.parametrize("attention", [True, False])
def test_shapes_follow_the_arguments(num_filters, num_mixtures, attention):
    model = variables.build_model(num_filters, num_mixtures, attention)
    x_hat, likelihoods = model(tf.zeros([2, 64, 128, 3]))
    assert x_hat.shape == [2, 64, 128, 3]
    assert likelihoods["y"].shape == [2, 4, 8, num_filters]
    assert likelihoods["z"].shape == [2, 1, 2, num_filters]
    mixture = model.entropy_parameters(
        [tf.zeros([2, 4, 8, num_filters]), tf.zeros([2, 4, 8, 2 * num_filters])]
    )
    assert [t.shape for t in mixture] == 3 * [[2, 4, 8, num_filters, num_mixtures]]
    np.testing.assert_allclose(tf.reduce_sum(mixture[0], axis=-1), 1, rtol=1e-5)
    assert any("NLAB" in name for name in variables.by_name(model)) == attention


@pytest.mark.parametrize("arguments", [{"num_filters": 100}, {"num_filters": 0}])
@pytest.mark.parametrize("num_mixtures", [0, 6])
def test_impossible_sizes_are_refused(arguments, num_mixtures):
    with pytest.raises(ValueError, match="num_filters"):
        Cheng2020(**arguments)
    with pytest.raises(ValueError, match="num_mixtures"):
        Cheng2020(num_mixtures=num_mixtures)


def test_the_papers_model_has_its_variables():
    named = variables.by_name(variables.build_model(128, 3, attention=True))
    # 270 of the original's 272; the other two are the range coder's tables.
    assert len(named) == 270
    assert named["analysis/Block_0/layer_2/kernel_rdft"].shape == [9, 3 * 128]
    assert named["synthesis/Block_3/layer_2/kernel_rdft"].shape == [9, 128 * 12]
    assert named["entropy_parameter/layer_2/kernel"].shape == [1, 1, 640, 9 * 128]


def test_summary_and_config_describe_the_model(model):
    lines = []
    model.summary(print_fn=lines.append)
    text = "\n".join(lines)
    for name in ("analysis", "synthesis", "hyper_analysis", "hyper_synthesis", "entropy"):
        assert name in text
    for rdft in (True, False):
        other = Cheng2020.from_config(Cheng2020(24, 5, False, rdft, name="other").get_config())
        assert (other.num_filters, other.num_mixtures, other.has_attention) == (24, 5, False)
        assert (other.rdft, other.name) == (rdft, "other")


@pytest.mark.parametrize("file", ["model.h5", "model.weights.h5", "model"])
def test_save_weights_and_load_weights_restore_every_variable(file, tmp_path):
    model, other = (variables.build_model(8, 3, attention=True) for _ in range(2))
    for i, variable in enumerate(variables.by_name(model).values()):
        variable.assign_add(tf.ones_like(variable) * (i + 1) / 1000)
    model.save_weights(str(tmp_path / file))
    other.load_weights(str(tmp_path / file))
    restored = variables.by_name(other)
    for name, variable in variables.by_name(model).items():
        np.testing.assert_array_equal(restored[name], variable)


def test_sides_that_are_no_multiples_of_64_are_refused(model):
    with pytest.raises(ValueError, match="multiples of 64"):
        model(tf.zeros([1, 64, 100, 3]))


def test_all_variables_are_named_and_trainable(model):
    named = {v.ref() for v in variables.by_name(model).values()}
    assert named == {v.ref() for v in model.trainable_variables}


def test_a_graph_computes_what_eager_mode_does(model, x):
    for autograph in (True, False):
        x_hat, likelihoods = tf.function(model, autograph=autograph)(x)
        np.testing.assert_allclose(x_hat, model(x)[0], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(likelihoods["y"], model(x)[1]["y"], rtol=1e-3)


@pytest.mark.slow
def test_the_model_runs_under_a_distribution_strategy(x):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = variables.build_model(8, 3, attention=True)
        optimizer = tf.keras.optimizers.Adam()

    def step(x):
        noise = tf.zeros([1, 4, 8, 8]), tf.zeros([1, 1, 2, 8])
        with tf.GradientTape() as tape:
            x_hat, likelihoods = model(x, noise=noise)
            loss = tf.reduce_mean(x_hat**2) - tf.reduce_sum(tf.math.log(likelihoods["y"]))
        named = variables.by_name(model).items()
        named = [v for n, v in named if not n.startswith("entropy_bottleneck")]
        optimizer.apply_gradients(zip(tape.gradient(loss, named), named))
        return loss

    loss = strategy.run(tf.function(step), [tf.constant(x)])
    assert np.isfinite(float(strategy.reduce("SUM", loss, axis=None)))


def test_plain_kernels_compute_what_rdft_kernels_do(model, x):
    plain = variables.build_model(8, 3, attention=True, rdft=False)
    variables.assign(plain, variables.plain_arrays(variables.arrays(model), model), "a test")
    np.testing.assert_allclose(plain.analysis(x), model.analysis(x), rtol=1e-3, atol=1e-4)
