"""The network as a Keras model, without weights of its own."""

import numpy as np
import pytest
import tensorflow as tf

from gmm_attention.model import Cheng2020, gaussian_mixture, variables
from gmm_attention.model.entropy_parameters import EntropyParameters
from gmm_attention.model.layers import rdft_matrix


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
    variables.assign(plain, variables.plain_arrays(model), "a test")
    np.testing.assert_allclose(plain.analysis(x), model.analysis(x), rtol=1e-3, atol=1e-4)


def test_rdft_matrix_is_orthonormal_and_holds_the_kernels_fourier_transform():
    matrix = rdft_matrix(3)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(9), atol=1e-12)
    kernel = np.random.default_rng(0).normal(size=[3, 3])
    coefficients = (matrix.T @ kernel.reshape(9)).reshape(3, 3)
    fourier = np.fft.fft2(kernel) / 3
    assert coefficients[0, 0] == pytest.approx(fourier[0, 0].real)
    assert coefficients[0, 1] == pytest.approx(np.sqrt(2) * fourier[0, 1].real)
    assert coefficients[0, 2] == pytest.approx(np.sqrt(2) * fourier[0, 1].imag)


@pytest.mark.parametrize("position", [(0, 0), (2, 3), (4, 7), (5, 0)])
def test_the_context_model_sees_only_what_is_decoded(position):
    entropy_parameters = EntropyParameters(8, 3)
    rng = np.random.default_rng(0)
    y_hat = rng.normal(size=[1, 6, 8, 8]).astype(np.float32)
    phi = rng.normal(size=[1, 6, 8, 16]).astype(np.float32)
    before = [t.numpy() for t in entropy_parameters([y_hat, phi])]
    y_hat[(0, *position)] += 5
    after = [t.numpy() for t in entropy_parameters([y_hat, phi])]
    raster = position[0] * 8 + position[1] + 1
    for a, b in zip(before, after):
        a, b = a.reshape(48, -1), b.reshape(48, -1)
        np.testing.assert_array_equal(a[:raster], b[:raster])
        if raster < 48:
            assert not np.array_equal(a[raster:], b[raster:])


def test_likelihoods_of_all_integers_sum_to_one():
    y = np.arange(-60, 61, dtype=np.float32)[:, None]
    weights = np.tile(np.float32([0.5, 0.3, 0.2]), [121, 1, 1])
    means = np.tile(np.float32([-3.3, 0.2, 11.0]), [121, 1, 1])
    scales = np.tile(np.float32([0.01, 1.7, 6.0]), [121, 1, 1])
    total = tf.reduce_sum(gaussian_mixture.likelihoods(y, weights, means, scales))
    assert float(total) == pytest.approx(1, abs=2e-4)  # each is at least 1e-6


@pytest.mark.parametrize("y, tail", [(-255.0, "upper"), (256.0, "lower")])
def test_the_ends_of_the_alphabet_take_the_tails(y, tail):
    mixture = np.ones([1, 1], np.float32), np.full([1, 1], y * 2, np.float32), np.ones([1, 1])
    likelihood = gaussian_mixture.likelihoods(tf.constant([y]), *mixture[:2], tf.ones([1, 1]))
    assert float(likelihood[0]) == pytest.approx(1)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e-4])
@pytest.mark.parametrize("distance", [0.0, 0.5, 1e-6, 300.0])
def test_vanishing_scales_leave_gradients_finite(scale, distance):
    mixture = [tf.constant([[w]]) for w in (1.0, distance, scale)]
    y = tf.constant([0.0])
    with tf.GradientTape() as tape:
        tape.watch([y, *mixture])
        likelihood = gaussian_mixture.likelihoods(y, *mixture)
    for gradient in tape.gradient(likelihood, [y, *mixture]):
        assert np.all(np.isfinite(gradient))
    assert np.float32(1e-6) <= likelihood[0] <= 1
