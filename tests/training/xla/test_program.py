"""The exported training step run by JAX, against the same step run by TensorFlow."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from gmm_attention.errors import CodecError, TrainingError
from gmm_attention.training import state
from gmm_attention.training.recipe import Recipe
from gmm_attention.training.step import TrainStep, build_model
from gmm_attention.training.xla import files, program, runner

RECIPE = Recipe(lmbda=0.01, num_filters=8, attention=False, batch=2, crop=64, steps=4)
SIZE = (192, 256)
STEPS = 10
RATE = 1e-3

# Run by the other Python, its modules out of runner.pyz alone.
JAX_STEPS = """
import importlib.util
import os
import sys

import numpy as np

from gmm_attention.training import state
from gmm_attention.training.xla import jax_step

directory, in_bfloat16, inputs, outputs = sys.argv[1:]
given = np.load(inputs)
start, _ = state.load(os.path.join(directory, "state.npz"))
results = {}

def take_steps(program, precision, steps):
    for i in steps:
        metrics = program(given["images"][i], [7, i], given["rate"], given["lmbda"])
        results.update({f"{precision}/{i}/{name}": float(v) for name, v in metrics.items()})

for precision, place in (("tf32", directory), ("bfloat16", in_bfloat16)):
    program = jax_step.Program(place)
    program.restore(start, "start")
    assert "updates" in start and not start["updates"]  # donated, but not our array
    count = len(given["images"])
    take_steps(program, precision, range(count - 1))
    if precision == "tf32":
        kept = program.arrays()
        results.update({f"state/{name}": array for name, array in kept.items()})
        for i in range(2):
            measures, reconstruction = program.validate(given[f"photograph_{i}"])
            results.update({f"photograph_{i}/{name}": v for name, v in measures.items()})
            results[f"photograph_{i}/reconstruction"] = reconstruction
        take_steps(program, precision, [count - 1])
        for name, array in kept.items():
            np.testing.assert_array_equal(array, results[f"state/{name}"])
assert not {"tensorflow", "imageio"} & set(sys.modules)
assert importlib.util.find_spec("tensorflow") is None
np.savez(outputs, **results)
"""


@pytest.fixture(scope="session")
def jax_python(pytestconfig):
    """Path of a Python that has JAX: GMM_JAX_PYTHON, or one made for the tests, which is kept."""
    if "GMM_JAX_PYTHON" in os.environ:
        return os.environ["GMM_JAX_PYTHON"]
    if sys.version_info < (3, 11):
        pytest.skip("needs JAX, and it Python 3.11 or newer; name one by GMM_JAX_PYTHON")
    folder = pytestconfig.cache.mkdir("jax")
    python = folder / "bin" / "python"
    look = [str(python), "-c", "import jax.extend.mlir, jaxlib, PIL"]
    if not python.exists() or subprocess.run(look, capture_output=True).returncode:
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "jax>=0.10.2", "pillow"],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"JAX cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return str(python)


def run_jax(python, arguments, folder, pythonpath=None):
    """Runs a program by JAX's Python in a folder of nothing; returns it done."""
    folder.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["JAX_PLATFORMS"] = "cpu"
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder.parent / "compiled")
    if pythonpath:
        environment["PYTHONPATH"] = str(pythonpath)
    return subprocess.run(
        [python, *map(str, arguments)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trainer():
    tf.keras.utils.set_random_seed(1)
    # Noise is the same only where XLA compiles it.
    models = [build_model(8, 3, False) for _ in range(2)]
    # Adam moves the other half of the weights.
    return TrainStep(*models, "mse", xla=True, optimizer="muon")


@pytest.fixture(scope="module")
def exported(trainer, tmp_path_factory):
    """The folder of the exported step, at its first weights."""
    path = tmp_path_factory.mktemp("program") / "exported"
    settings = {**RECIPE.settings(), "step": 0}
    program.write(trainer, str(path), RECIPE.batch, RECIPE.crop, SIZE, settings)
    return path


@pytest.fixture(scope="module")
def exported_in_bfloat16(tmp_path_factory):
    """The folder of the same step in bfloat16."""
    models = [build_model(8, 3, False, precision) for precision in ("bfloat16", "float32")]
    step = TrainStep(*models, "mse", optimizer="muon")
    path = tmp_path_factory.mktemp("program") / "bfloat16"
    settings = {**RECIPE.settings(), "precision": "bfloat16", "step": 0}
    program.write(step, str(path), RECIPE.batch, RECIPE.crop, SIZE, settings)
    return path


@pytest.fixture(scope="module")
def given(photograph):
    """Crops for the steps, and photographs of the program's size and of a larger, upright one."""
    rng = np.random.default_rng(0)
    tops = rng.integers(0, 90, [STEPS + 1, RECIPE.batch, 2])
    wide = np.tile(photograph, (2, 2, 1))
    return {
        "images": np.array([[wide[y : y + 64, x : x + 64] for y, x in step] for step in tops]),
        "photograph_0": wide[: SIZE[0], : SIZE[1]],
        "photograph_1": wide[:300, :201],
        "rate": RATE,
        "lmbda": RECIPE.lmbda,
    }


@pytest.fixture(scope="module")
def by_jax(exported, exported_in_bfloat16, given, jax_python, tmp_path_factory):
    """What JAX_STEPS computed."""
    folder = tmp_path_factory.mktemp("jax")
    np.savez(folder / "given.npz", **given)
    arguments = ["-c", JAX_STEPS, exported, exported_in_bfloat16]
    arguments += [folder / "given.npz", folder / "results.npz"]
    done = run_jax(jax_python, arguments, folder / "empty", exported / "runner.pyz")
    assert done.returncode == 0, done.stderr
    with np.load(folder / "results.npz") as results:
        return dict(results)


def take_step(trainer, given, i):
    metrics = trainer(given["images"][i], [7, i], RATE, RECIPE.lmbda)
    return {name: float(value) for name, value in metrics.items()}


@pytest.fixture(scope="module")
def by_tensorflow(trainer, exported, given):
    """Metrics of the same steps, and the state after them."""
    trainer.restore(state.load(exported / "state.npz")[0], "start")
    metrics = [take_step(trainer, given, i) for i in range(STEPS)]
    return metrics, trainer.arrays()


def assert_metrics_agree(by_jax, i, metrics):
    for name, value in metrics.items():
        found = by_jax[f"tf32/{i}/{name}"]
        # The absolute one for bits of likelihoods that are nearly 1.
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6, err_msg=f"{i} {name}")


def state_of(by_jax):
    prefix = "state/"
    return {n[len(prefix) :]: array for n, array in by_jax.items() if n.startswith(prefix)}


@pytest.mark.slow
def test_jax_takes_the_same_steps(by_jax, by_tensorflow, exported):
    metrics, arrays = by_tensorflow
    assert metrics[-1]["loss"] < 0.8 * metrics[0]["loss"]
    for i in range(STEPS):
        assert_metrics_agree(by_jax, i, metrics[i])
    found = state_of(by_jax)
    start, _ = state.load(exported / "state.npz")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        # Of all that it has moved. Not of each element: Adam divides by the size of gradients, and
        # so makes much of the rounding of small ones.
        moved = array - start.get(name.replace("average/", "weights/"), 0)
        error = np.linalg.norm(found[name] - array)
        assert error <= 2e-3 * np.linalg.norm(moved), name


@pytest.mark.slow
def test_tensorflow_goes_on_from_jax(by_jax, trainer, given):
    arrays = state_of(by_jax)
    assert arrays["updates"] == STEPS
    trainer.restore(arrays, "JAX")
    assert_metrics_agree(by_jax, STEPS, take_step(trainer, given, STEPS))


@pytest.mark.slow
def test_validation_is_that_of_tensorflow(by_jax, trainer, given):
    trainer.restore(state_of(by_jax), "JAX")
    # Of the second, the middle, and turned: it is upright, and the program's size is not.
    middle = given["photograph_1"][22:278, 4:196]
    for i, (image, turned) in enumerate([(given["photograph_0"], False), (middle, True)]):
        coded = image.swapaxes(0, 1) if turned else image
        measures, reconstruction = trainer.validate(coded)
        found = by_jax[f"photograph_{i}/reconstruction"]
        assert found.dtype == np.uint8 and found.shape == image.shape
        found = found.swapaxes(0, 1) if turned else found
        assert np.abs(found.astype(int) - reconstruction).max() <= 1
        for name, value in measures.items():
            np.testing.assert_allclose(by_jax[f"photograph_{i}/{name}"], value, rtol=1e-5)


@pytest.mark.slow
def test_bfloat16_is_close(by_jax):
    for i in range(STEPS):
        exact, rounded = by_jax[f"tf32/{i}/loss"], by_jax[f"bfloat16/{i}/loss"]
        assert exact != rounded
        np.testing.assert_allclose(rounded, exact, rtol=0.01)


def test_exported_files_name_no_path_of_this_machine(exported):
    description, programs = files.load(exported)
    for data in (*programs.values(), str(description).encode()):
        assert not re.search(rb"site-packages|\.py\b", data)
        assert str(ROOT).encode() not in data


def test_export_is_reproducible_and_leaves_out_zeros(exported, trainer, monkeypatch, tmp_path):
    """The state that follows from the weights is left out, and only that."""
    arrays, settings = state.load(exported / "state.npz")
    assert {n.partition("/")[0] for n in arrays} == {"weights", "updates", "averaged"}
    assert settings == {**RECIPE.settings(), "step": 0}
    description, programs = files.load(exported)
    traced = iter([(programs[n], description["programs"][n]) for n in files.PROGRAMS])
    monkeypatch.setattr(program, "_trace", lambda *_: next(traced))
    trainer.restore({**arrays, "updates": np.float32(3), "averaged": np.float32(3)}, "three")
    program.write(trainer, tmp_path, RECIPE.batch, RECIPE.crop, SIZE, settings)
    assert set(state.load(tmp_path / "state.npz")[0]) == set(trainer.state)
    for name in ("program.json", "train.hlo.gz", "validation.hlo.gz", "runner.pyz"):
        assert (tmp_path / name).read_bytes() == (exported / name).read_bytes()


@pytest.mark.parametrize(
    "function, problem",
    [
        (lambda t, _: t + tf.random.uniform([2]), "rng is not the same on every machine"),
        (lambda t, other: t + other, "captures what is not in the state"),
        (lambda t, _: tf.cast(t, tf.int64), "result is S64"),
    ],
    ids=["random", "variable", "int64"],
)
def test_trace_refuses_what_jax_could_not_repeat(function, problem):
    variable, other = tf.Variable([1.0, 2.0]), tf.Variable([1.0, 2.0])
    spec = [tf.TensorSpec([2], tf.float32, "t")]
    with pytest.raises(ValueError, match=problem):
        program._trace(
            lambda t: {"result": function(t, other), "sum": t + variable}, spec, {"v": variable}
        )


@pytest.mark.slow
def test_muons_own_network_can_be_exported():
    """It sums the gradients of its attention modules by itself, and may round y."""
    models = [build_model(8, 3, True, optimizer="muon") for _ in range(2)]
    step = TrainStep(*models, "mse", optimizer="muon", synthesis_input="rounded")
    arguments = [
        tf.TensorSpec([2, 64, 64, 3], tf.uint8, "images"),
        tf.TensorSpec([2], tf.int32, "seed"),
        tf.TensorSpec([], tf.float32, "learning_rate"),
        tf.TensorSpec([], tf.float32, "lmbda"),
    ]
    _, described = program._trace(step.step, arguments, step.state)
    names = {name for name, *_ in described["outputs"]}
    assert set(step.state) <= names and "loss" in names


@pytest.mark.slow
def test_runner_trains_alone(exported, jax_python, by_jax, trainer, tmp_path, tmp_path_factory):
    photographs = ROOT / "valid"
    (tmp_path / "validation").mkdir()
    os.symlink(photographs / "chelsea.png", tmp_path / "validation" / "cat.png")
    arguments = [
        exported / "runner.pyz", "--train", photographs, "--validate", tmp_path / "validation",
        "--output", tmp_path / "run", "--workers", 1, "--log-every", 2, "--lambda", 0.02,
        "--pieces", tmp_path / "pieces", "--half",
    ]  # fmt: skip
    done = run_jax(jax_python, arguments, tmp_path / "empty")
    assert done.returncode == 0, done.stderr
    assert "begins at step 0" in done.stdout and "lambda was 0.01, now 0.02" in done.stdout
    assert os.listdir(tmp_path / "empty") == []
    arrays, settings = state.load(tmp_path / "run" / "state.npz")
    assert settings["step"] == RECIPE.steps and settings["lambda"] == 0.02
    assert settings["precision"] == "tf32" and settings["num_filters"] == 8
    trainer.restore(arrays, "run")
    assert trainer.state["updates"] == RECIPE.steps
    assert (tmp_path / "run" / "best" / "weights.npz").exists()
    halves, _ = state.load(tmp_path / "pieces")
    name = next(iter(trainer.weights))
    np.testing.assert_allclose(halves[f"average/{name}"], arrays[f"average/{name}"], 1e-3, 1e-6)


# Errors: in this process, for they come before JAX is asked for.


def error_of(directory, capsys, *arguments):
    """The one line of a runner that fails."""
    assert runner.main(str(directory), [*arguments, "--check", "2"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of the exported folder, to be damaged."""
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", ["program.json", "train.hlo.gz", "validation.hlo.gz"])
def test_runner_rejects_missing_and_damaged_files(name, copy, capsys):
    path = copy / name
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    assert "damaged" in error_of(copy, capsys)
    path.write_bytes(b"{}" + data)
    assert "damaged" in error_of(copy, capsys)
    path.unlink()
    assert f"{path}: cannot be read: No such file" in error_of(copy, capsys)
    path.mkdir()
    assert f"{path}: cannot be read: Is a directory" in error_of(copy, capsys)


def test_runner_rejects_files_of_two_exports(copy, capsys):
    (copy / "train.hlo.gz").write_bytes((copy / "validation.hlo.gz").read_bytes())
    assert "not the file that program.json describes" in error_of(copy, capsys)


def test_runner_rejects_other_formats(copy, exported, capsys):
    path = copy / "program.json"
    path.write_text('{"format": 1}')
    assert "damaged" in error_of(copy, capsys)
    path.write_bytes((exported / "program.json").read_bytes())
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    assert "has format 2, not 1; export the step again" in error_of(copy, capsys)


def test_runner_says_that_jax_is_missing(exported, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)  # importing it fails, even where it is installed
    monkeypatch.delitem(sys.modules, "gmm_attention.training.xla.jax_step", raising=False)
    assert "JAX is missing" in error_of(exported, capsys)


@pytest.mark.slow
def test_runner_fails_in_one_line(copy, jax_python, tmp_path):
    (copy / "state.npz").write_bytes(b"")
    done = run_jax(jax_python, [copy / "runner.pyz", "--check", 2], tmp_path / "empty")
    assert done.returncode == 1
    assert re.fullmatch(r".*state\.npz: damaged.*\n", done.stderr)


@pytest.mark.slow
def test_runner_refuses_small_photographs_before_it_compiles(exported, jax_python, tmp_path):
    arguments = ["--train", ROOT / "valid", "--validate", ROOT / "valid" / "chelsea_61x47.png"]
    arguments = [exported / "runner.pyz", *arguments, "--output", tmp_path / "run"]
    done = run_jax(jax_python, arguments, tmp_path / "empty")
    assert done.returncode == 1
    assert "chelsea_61x47: 61x47 pixels, and validation takes 256x192" in done.stderr


def test_write_refuses_several_devices(trainer, tmp_path, monkeypatch):
    class Strategy:
        num_replicas_in_sync = 2

    monkeypatch.setattr(trainer, "strategy", Strategy())
    with pytest.raises(TrainingError, match="several devices"):
        program.write(trainer, tmp_path / "exported", 2, 64, SIZE, {})


def test_write_names_a_folder_that_cannot_be_made(exported, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    description, programs = files.load(exported)
    with pytest.raises(CodecError, match="cannot be made"):
        files.save(tmp_path / "file", description, programs)
