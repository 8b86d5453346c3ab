"""The train step, by which the weights in models/ were made."""

import os
import subprocess
import sys
import tempfile

import imageio.v3 as iio
import numpy as np
import pytest
import tensorflow as tf
from conftest import EARLIER, ROOT, TRAINED

from gmm_attention import padding
from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.checkpoints import initial_weights
from gmm_attention.codec import image_codec
from gmm_attention.model import gaussian_mixture
from gmm_attention.training import optimizers, state
from gmm_attention.training.recipe import OPTIMIZERS
from gmm_attention.training.step import QUANTILES, TrainStep, build_model, uniform_noise


def run_python(code, *args, **environment):
    environment = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code, *args], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def fresh_step():
    """A function that gives one compiled step of an optimizer, its state as at the start."""
    steps, starts = {}, {}

    def restore(optimizer="adam"):
        if optimizer not in steps:
            tf.keras.utils.set_random_seed(0)
            models = [build_model(8, 3, True, optimizer=optimizer) for _ in range(2)]
            steps[optimizer] = TrainStep(*models, "mse", optimizer=optimizer)
            starts[optimizer] = steps[optimizer].arrays()
        steps[optimizer].restore(starts[optimizer], "the start")
        return steps[optimizer]

    return restore


both_optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, [2, 64, 64, 3], np.uint8)


@both_optimizers
def test_steps_lower_the_loss_and_the_same_seeds_give_the_same_state(images, fresh_step, optimizer):
    step, states = fresh_step(optimizer), []
    before = step.arrays()
    for _ in range(2):
        step.restore(before, "the beginning")
        # Muon begins at gray, from where noise has less to gain.
        rate, count = {"adam": (1e-3, 15), "muon": (1e-2, 28)}[optimizer]
        metrics = [step(images, [0, i], rate, 0.01) for i in range(count)]
        assert float(metrics[0]["mse"]) < 10  # the inverse GDN does not blow it up
        assert float(metrics[-1]["loss"]) < 0.9 * float(metrics[0]["loss"])
        states.append(step.arrays())
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name])


@both_optimizers
def test_every_variable_its_average_and_moments_move(images, fresh_step, optimizer):
    step = fresh_step(optimizer)
    before = step.arrays()
    for i in range(2):
        step(images, [0, i], 1e-3, 0.01)
    after = step.arrays()
    for name, array in before.items():
        assert not np.array_equal(after[name], array), name
    for name in step.weights:
        assert not np.array_equal(after[f"average/{name}"], after[f"weights/{name}"]), name
    assert after["updates"] == after["averaged"] == 2


def test_what_is_not_finite_leaves_the_state_as_it_was(images, fresh_step):
    step = fresh_step()
    step(images, [0, 0], 1e-3, 0.01)
    before = step.arrays()
    metrics = step(images, [0, 1], 1e-3, float("nan"))
    assert not np.isfinite(metrics["gradient_norm"]) and metrics["skipped"] == 1
    for name, array in step.arrays().items():
        np.testing.assert_array_equal(array, before[name])
    assert step(images, [0, 1], 1e-3, 0.01)["skipped"] == 0


def test_quantiles_that_are_not_finite_are_kept_out_too(images, fresh_step, monkeypatch):
    step = fresh_step()
    before = step.arrays()
    bottleneck = step.model.entropy_bottleneck
    auxiliary_loss = bottleneck.auxiliary_loss
    monkeypatch.setattr(bottleneck, "auxiliary_loss", lambda: float("nan") * auxiliary_loss())
    broken = TrainStep(step.model, step.average_model, "mse")
    monkeypatch.setattr(broken, "_step", broken.step)
    monkeypatch.setattr(broken, "_gradients", broken.gradients)
    assert broken(images, [0, 0], 1e-3, 0.01)["skipped"] == 1
    np.testing.assert_array_equal(step.weights[QUANTILES], before[f"weights/{QUANTILES}"])


def test_adam_and_the_average_are_kerass(images, fresh_step):
    """Against Keras' Adam, of TensorFlow 1's epsilon, on the same clipped gradients."""
    step = fresh_step()
    name = "synthesis/Block_3/layer_2/bias"
    weight, average = (tf.Variable(step.weights[name]) for _ in range(2))
    adam = tf.keras.optimizers.legacy.Adam(1e-3, epsilon=1e-8)
    index = list(step.weights).index(name)
    for i in range(3):
        seed, lmbda = tf.constant([0, i]), tf.constant(0.01)
        gradients = step.gradients(tf.constant(images), seed, lmbda, 0, 1)[1]
        others = [g for n, g in zip(step.weights, gradients) if n != QUANTILES]
        gradient = gradients[index] * min(1, 1 / tf.linalg.global_norm(others))
        adam.apply_gradients([(gradient, weight)])
        decay = min(0.999, (1 + i) / (10 + i))
        average.assign(decay * average + (1 - decay) * weight)
        step(images, [0, i], 1e-3, 0.01)
    np.testing.assert_allclose(step.weights[name], weight, atol=1e-6)
    np.testing.assert_allclose(step.state[f"average/{name}"], average, atol=1e-6)


def test_muon_moves_kernels_as_its_authors_do(images, fresh_step):
    """Against the published steps in float64, on the same clipped gradients; sizes are ours.

    Adam moves a bias beside it, at a quarter of its rate.
    """
    step = fresh_step("muon")
    names = list(step.weights)
    kernels = {"analysis/Block_1/layer_0/kernel_rdft": (72, 8)}
    kernels["synthesis/Block_0/shortcut/kernel"] = (8, 32)
    kernels["synthesis/Block_1/layer_2/kernel_rdft"] = (72, 32)
    kernels["entropy_parameter/layer_0/kernel"] = (32, 640)
    kernels["entropy_parameter/layer_2/kernel"] = (640, 72)
    # One for each pixel that they make of one, or for each parameter of the mixture.
    parts = {n: 4 for n in kernels if n.startswith("synthesis/")}
    parts["entropy_parameter/layer_2/kernel"] = 9
    kernels["synthesis/Block_3/layer_2/kernel_rdft"] = (72, 12)
    for i in range(2):  # the first of which reaches the last kernel alone
        step(images, [0, i], 1e-3, 0.01)
    before = step.arrays()
    momenta = {n: before[f"muon_m/{n}"].astype(float).reshape(s) for n, s in kernels.items()}
    expected = {n: before[f"weights/{n}"].astype(float).reshape(s) for n, s in kernels.items()}
    bias = "synthesis/Block_3/layer_2/bias"
    m, v, expected[bias] = (before[f"{n}/{bias}"] for n in ("adam_m", "adam_v", "weights"))
    for i in range(2, 4):
        seed, lmbda = tf.constant([0, i]), tf.constant(0.01)
        gradients = step.gradients(tf.constant(images), seed, lmbda, 0, 1)[1]
        others = [g for n, g in zip(names, gradients) if n != QUANTILES]
        scale = min(1, 1 / float(tf.linalg.global_norm(others)))
        for name, (rows, columns) in kernels.items():
            gradient = scale * gradients[names.index(name)].numpy().reshape(rows, columns)
            momenta[name] = 0.95 * momenta[name] + 0.05 * gradient
            rate = 1e-3 * min(1, np.linalg.norm(momenta[name]) / 1e-3)
            ahead = 0.95 * momenta[name] + 0.05 * gradient
            for part in np.split(np.arange(columns), parts.get(name, 1)):
                x = ahead[:, part] / np.linalg.norm(ahead[:, part])
                for _ in range(5):
                    square = x @ x.T
                    x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
                assert 0.6 < np.linalg.svd(x, compute_uv=False)[0] < 1.3
                own = np.linalg.norm(expected[name][:, part]) / min(rows, len(part)) ** 0.5
                expected[name][:, part] -= rate * max(own, 0.3) * x
        gradient = scale * gradients[names.index(bias)].numpy()
        rate = 1e-3 / 4 * optimizers.adam_correction(tf.constant(float(i)))
        m, v, move = optimizers.adam_move(m, v, gradient, rate)
        expected[bias] = expected[bias] - move
        step(images, [0, i], 1e-3, 0.01)
    for name, kernel in expected.items():
        start = before[f"weights/{name}"].reshape(kernel.shape)
        moved = step.weights[name].numpy().reshape(kernel.shape) - start
        error = np.linalg.norm(moved - (kernel - start))
        assert error <= 1e-2 * np.linalg.norm(kernel - start), name


def test_muon_moves_a_matrix_of_little_influence_less():
    """It would follow noise: the direction of a small gradient is as good as any other."""
    generator = np.random.default_rng(0)
    kernel, gradient = generator.normal(size=(2, 6, 4)).astype(np.float32)

    def share(size):
        weights, momenta, gradients = {"k": kernel}, {"k": 0 * kernel}, {"k": size * gradient}
        moves = optimizers.muon_moves({"k": (1, 6, 4)}, weights, momenta, gradients)
        return np.linalg.norm(moves["k"][1]) / np.linalg.norm(kernel)

    assert 0.7 < share(1e-1) < 1.2
    assert share(1e-3) / share(1e-4) == pytest.approx(10, rel=0.01)
    assert share(1e-8) < 1e-4
    assert share(0) == 0


def test_muon_leaves_the_kernels_that_read_pictures_and_all_vectors_to_adam(fresh_step):
    step = fresh_step("muon")
    by_adam = {n[len("adam_m/") :] for n in step.state if n.startswith("adam_m/")}
    assert {n for n in by_adam if n.endswith(("/kernel", "/kernel_rdft"))} == {
        "analysis/Block_0/layer_2/kernel_rdft",
        "analysis/Block_0/shortcut/kernel",
    }
    assert set(step.matrices) == set(step.weights) - by_adam
    assert {n[len("muon_m/") :] for n in step.state if n.startswith("muon_m/")} == {*step.matrices}


def test_a_run_goes_on_with_the_other_optimizer(images, fresh_step):
    arrays = {}
    for optimizer in ("adam", "muon", "adam"):
        step = fresh_step(optimizer)
        step.restore(arrays or step.arrays(), "another run")
        assert step.state["updates"] == 0
        for name, array in arrays.items():
            if name.startswith(("weights/", "average/")):
                np.testing.assert_array_equal(step.state[name], array)
        step(images, [0, 0], 1e-3, 0.01)
        arrays = step.arrays()


def test_an_unknown_optimizer_is_refused(fresh_step):
    step = fresh_step()
    with pytest.raises(ValueError, match="optimizer must be one of"):
        TrainStep(step.model, step.average_model, "mse", optimizer="sgd")


def test_both_syntheses_may_learn_from_rounded_latents(images, fresh_step):
    """What they make of y and z is what they decode; the rate is that of noisy latents."""
    step = fresh_step()
    rounded = TrainStep(step.model, step.average_model, "mse", synthesis_input="rounded")
    x = images / np.float32(255)
    noise = uniform_noise(2, 64, 64, 8, [0, 0])
    x_hat, likelihoods = step.model(x, noise, round_for_synthesis=True)
    np.testing.assert_array_equal(x_hat, step.model(x)[0])
    np.testing.assert_array_equal(likelihoods["z"], step.model(x, noise)[1]["z"])
    z = step.model.hyper_analysis(step.model.analysis(x))
    rounding = step.model.entropy_bottleneck(z)[0] - z
    by_rounded_z = step.model(x, (noise[0], rounding))[1]["y"]
    np.testing.assert_allclose(likelihoods["y"], by_rounded_z, rtol=1e-4)
    metrics, by_rate = rounded.gradients(images, [0, 0], 0.0, 0, 1)
    np.testing.assert_allclose(metrics["mse"], np.mean((x_hat - x) ** 2), rtol=1e-5)
    # The picture's gradient reaches the analysis, as if nothing had been rounded.
    _, by_picture = rounded.gradients(images, [0, 0], 1.0, 0, 1)
    assert next(iter(rounded.weights)).startswith("analysis/")
    assert np.abs(by_picture[0]).max() > 1e3 * np.abs(by_rate[0]).max() > 0


def test_an_unknown_synthesis_input_is_refused(fresh_step):
    step = fresh_step()
    with pytest.raises(ValueError, match="synthesis_input must be one of"):
        TrainStep(step.model, step.average_model, "mse", synthesis_input="raw")


def test_training_by_muon_begins_at_gray(images):
    x_hat, _ = build_model(8, 3, True, optimizer="muon")(images / np.float32(255))
    np.testing.assert_array_equal(x_hat, np.full(images.shape, 0.5))


@pytest.mark.slow
@pytest.mark.usefixtures("needs_bfloat16")
def test_bfloat16_leaves_the_loss_within_a_hundredth(images, fresh_step):
    step = fresh_step()
    for i in range(20):
        step(images, [0, i], 1e-3, 0.01)
    half = TrainStep(build_model(8, 3, True, "bfloat16"), build_model(8, 3, True), "mse")
    half.restore(step.arrays(), "step 20")
    for i in range(20, 25):
        loss, other = (s(images, [0, i], 1e-3, 0.01)["loss"] for s in (step, half))
        assert float(loss) == pytest.approx(float(other), rel=0.01)


@pytest.mark.slow
@both_optimizers
def test_two_replicas_take_the_step_of_one(images, fresh_step, optimizer):
    """MirroredStrategy, on two devices that are this processor's."""
    step = fresh_step(optimizer)
    for i in range(3):
        step(images, [0, i], 1e-3, 0.01)
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "from gmm_attention.training import state\n"
        "from gmm_attention.training.step import TrainStep, build_model\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "two = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, two)\n"
        "with tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1']).scope():\n"
        "    models = [build_model(8, 3, True, optimizer=sys.argv[3]) for _ in range(2)]\n"
        "    step = TrainStep(*models, 'mse', optimizer=sys.argv[3])\n"
        "    arrays, _ = state.load(sys.argv[1])\n"
        "    images = arrays.pop('images')\n"
        "    step.restore(arrays, sys.argv[1])\n"
        "    for i in range(3): step(images, [0, i], 1e-3, .01)\n"
        "    state.save(sys.argv[2], step.arrays(), {})\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("before.npz", "after.npz")]
        state.save(paths[0], {**fresh_step(optimizer).arrays(), "images": images}, {})
        run_python(code, *paths, optimizer)
        arrays = state.load(paths[1])[0]
    fresh_step(optimizer)
    for i in range(3):
        step(images, [0, i], 1e-3, 0.01)
    for name, array in step.arrays().items():
        # Adam makes steps of the learning rate of gradients that are nothing but rounding.
        assert np.abs(arrays[name] - array).max() <= 1e-4 * max(np.abs(array).max(), 1), name


@pytest.mark.slow
def test_a_step_compiled_by_xla_is_the_same_but_for_its_noise(images, fresh_step):
    step = fresh_step()
    compiled = TrainStep(step.model, step.average_model, "mse", xla=True)
    metrics = compiled(images, [0, 0], 1e-3, 0.01)
    step = fresh_step()
    expected = step(images, [0, 0], 1e-3, 0.01)
    assert float(metrics["loss"]) == pytest.approx(float(expected["loss"]), rel=0.02)


# Estimates clip likelihoods at 10^-6, files give each symbol at least 2^-16. That is seen where
# symbols are that unlikely, as some of the default model's are for coffee.png.
@pytest.mark.parametrize("weights, bound", [(EARLIER, 1e-6), (TRAINED, 2**-16)])
@pytest.mark.parametrize("name", ["coffee.png", "astronaut.png"])
def test_estimated_bpp_is_that_of_the_files(name, weights, bound, monkeypatch):
    """Of whole photographs, with trained weights: y within 0.1 %, all within 0.5 %."""
    monkeypatch.setattr(gaussian_mixture, "LIKELIHOOD_BOUND", bound)
    trained = str(ROOT / weights)
    arrays, settings = checkpoints.load(trained)
    codec = image_codec.load(trained)
    network = settings["num_filters"], settings["num_mixtures"], settings["attention"]
    model = build_model(*network)
    initial_weights.assign(model, initial_weights.read(trained), trained)
    step = TrainStep(model, build_model(*network), "mse")
    image = iio.imread(ROOT / "valid" / name)
    estimate, reconstruction = step.validate(image)
    npz, y_string, y_hat = codec.encode(image)
    pixels = image.shape[0] * image.shape[1]
    assert 8 * len(y_string) / pixels == pytest.approx(estimate["bpp_y"], rel=1e-3)
    total = estimate["bpp_y"] + estimate["bpp_z"]
    assert 8 * (len(npz) + len(y_string)) / pixels == pytest.approx(total, rel=5e-3)
    ours = np.rint(model.analysis(padding.pad(image)[None] / np.float32(255))[0]).astype(np.int32)
    picture = codec.reconstruct(ours, *image.shape[:2]).astype(int)
    assert np.abs(picture - reconstruction).max() <= 1
    # Another runtime may round a latent of just a half to its other side; one of coffee.png is 2.5.
    assert np.count_nonzero(y_hat != ours) <= 2 and np.abs(y_hat - ours).max() <= 1
    decoded = codec.decode(npz, y_string)
    np.testing.assert_array_equal(decoded, codec.reconstruct(y_hat, *image.shape[:2]))


def test_noise_is_uniform_and_depends_on_the_seed_alone():
    noise_y, noise_z = uniform_noise(4, 128, 128, 64, tf.constant([0, 1]))
    assert noise_y.shape == [4, 8, 8, 64] and noise_z.shape == [4, 2, 2, 64]
    assert -0.5 <= np.min(noise_y) < -0.49 and 0.49 < np.max(noise_y) < 0.5
    assert np.mean(noise_y) == pytest.approx(0, abs=0.01)
    again = uniform_noise(4, 128, 128, 64, tf.constant([0, 1]))
    np.testing.assert_array_equal(noise_y, again[0])
    assert not np.array_equal(noise_y, uniform_noise(4, 128, 128, 64, tf.constant([0, 2]))[0])


@pytest.mark.slow
def test_onednn_does_not_crash_a_train_step():
    """TF 2.14's oneDNN corrupts the heap in a strided 1x1 convolution's gradient."""
    code = (
        "import numpy as np; from gmm_attention.training.step import TrainStep, build_model; "
        "step = TrainStep(build_model(8, 3, True), build_model(8, 3, True), 'mse'); "
        "x = np.random.default_rng(0).integers(0, 256, [2, 128, 128, 3], np.uint8); "
        "print([float(step(x, [0, i], 1e-4, .01)['loss']) > 0 for i in range(3)])"
    )
    result = run_python(code, TF_ENABLE_ONEDNN_OPTS="1")
    assert result.stdout.strip() == "[True, True, True]"
