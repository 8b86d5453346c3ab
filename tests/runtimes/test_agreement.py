"""ONNX Runtime computes what TensorFlow computes: stage by stage, and file by file."""

import numpy as np
import pytest
from conftest import ROOT, TRAINED, load_once, needs_tensorflow

from gmm_attention.checkpoints import integers, loading
from gmm_attention.images import read_image
from gmm_attention.onnx_model import network
from gmm_attention.onnx_model.graph import Graph
from gmm_attention.onnx_model.network import GraphStage
from gmm_attention.runtimes import choosing
from gmm_attention.strips import Stage

TRANSFORMS = ("analysis", "hyper_analysis", "synthesis")
SAMPLES = sorted(ROOT.glob("valid/*.*g"))


@pytest.fixture(scope="module", params=[(8, True), (8, False), (128, True), (128, False)], ids=str)
def both(request):
    """The runtimes of an exported model of random weights, and N; its biases are not zero."""
    pytest.importorskip("tensorflow")
    from gmm_attention.model import variables

    num_filters, attention = request.param
    model = variables.build_model(num_filters, 3, attention, rdft=False)
    rng = np.random.default_rng(0)
    weights = variables.arrays(model)
    for name, array in weights.items():
        if name.endswith("/bias"):
            weights[name] = rng.normal(0, 0.1, array.shape).astype(np.float32)
        elif "/reparam_" in name:  # some of them below GDN's bounds
            weights[name] = array * rng.uniform(0.5, 2, array.shape) - np.float32(1e-2)
    variables.assign(model, weights, "")
    exported = integers.export_arrays(variables.arrays(model), model.entropy_bottleneck)
    settings = {**model.get_config(), "exported": True}
    loaded = loading.LoadedModel(exported, settings, "random weights")
    made = []
    for name in ("tensorflow", "onnx"):
        choosing.prepare(name, "float32", "cpu", threads=2)
        made.append(choosing.make(loaded, name, "float32", "cpu", threads=2))
    return *made, num_filters


def assert_the_same_stages(keras, onnx):
    """Fails where a stage was added to one and not to the other."""
    assert [stage[1:] for stage in keras.stages] == [stage[1:] for stage in onnx.stages]
    assert keras.channels == onnx.channels


def assert_near(actual, expected):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_stage_agrees(both, name):
    tensorflow, onnx, num_filters = both
    keras, graphs = getattr(tensorflow, name)(), getattr(onnx, name)()
    assert_the_same_stages(keras, graphs)
    channels = 3 if name == "analysis" else num_filters
    shape = [1, 4, 5, channels] if name == "synthesis" else [1, 64, 80, channels]
    t = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    if name == "hyper_analysis":
        t = t[:, :16, :20]
    for one, other in zip(keras.stages, graphs.stages):
        expected = keras.leave(one.function(keras.enter(t)))
        assert_near(graphs.leave(other.function(graphs.enter(t))), expected)
        # The next stage takes TensorFlow's output, of the size that an image of photographs gives.
        t = expected / np.abs(expected).max()


def test_the_mixtures_agree(both):
    tensorflow, onnx, num_filters = both
    rng = np.random.default_rng(2)
    y_hat = np.rint(rng.laplace(0, 2, [1, 8, 12, num_filters])).astype(np.float32)
    z_hat = rng.normal(0, 2, [1, 2, 3, num_filters]).astype(np.float32)
    pairs = zip(onnx.mixtures(y_hat, z_hat), tensorflow.mixtures(y_hat, z_hat))
    for actual, expected in pairs:
        assert_near(actual, expected)


def added(stages):
    """The stages and one more that changes nothing."""
    graph = Graph(stages[-1].graph.output.channels)
    graph.add("Identity", *graph.inputs)
    return [*stages, GraphStage(graph, halo=0)]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_stage_added_to_one_of_them_is_noticed(both, name, monkeypatch):
    tensorflow, onnx, _ = both
    function = getattr(network, name)
    monkeypatch.setattr(network, name, lambda *arguments: added(function(*arguments)))
    with pytest.raises(AssertionError):
        assert_the_same_stages(getattr(tensorflow, name)(), getattr(onnx, name)())
    monkeypatch.undo()
    part = getattr(tensorflow.network, name)
    stages = [*part.stages(), Stage(lambda t: t, halo=0)]
    monkeypatch.setattr(part, "stages", lambda: stages)
    with pytest.raises(AssertionError):
        assert_the_same_stages(getattr(tensorflow, name)(), getattr(onnx, name)())


def test_the_graphs_take_the_arrays_of_the_keras_model(both):
    tensorflow, _, num_filters = both
    from gmm_attention.model import variables

    named = variables.by_name(tensorflow.network)
    shapes = network.shapes(num_filters, 3, tensorflow.network.has_attention)
    assert shapes == {name: tuple(variable.shape) for name, variable in named.items()}


@needs_tensorflow
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize("model", ["tests/data/tiny", TRAINED])
def test_files_cross_over(model, path):
    """Either decodes what the other encoded, to the same latents; pixels differ by one at most."""
    codecs = [load_once(str(ROOT / model), runtime=name) for name in ("tensorflow", "onnx")]
    image = read_image(path)[:256, :300]
    for one, other in (codecs, codecs[::-1]):
        npz, y_string, y_hat = one.encode(image)
        height, width, decoded, _ = other.latent_codec.decode(npz, y_string)
        assert (height, width) == image.shape[:2]
        np.testing.assert_array_equal(decoded, y_hat)
        pictures = [codec.decode(npz, y_string).astype(int) for codec in (one, other)]
        difference = np.abs(pictures[0] - pictures[1])
        assert difference.max() <= 1 and np.mean(difference) < 1e-3


@needs_tensorflow
def test_inspected_arrays_agree(tiny_path, photograph):
    keras, onnx = (
        load_once(str(tiny_path), runtime=name).inspect(photograph)
        for name in ("tensorflow", "onnx")
    )
    np.testing.assert_array_equal(onnx["y_hat"], keras["y_hat"])
    for name in ("y", "z", "z_hat", "phi", "weights", "means", "scales", "x_hat"):
        assert_near(onnx[name], keras[name])
    assert onnx["bits_y"] == pytest.approx(keras["bits_y"], rel=1e-5)
    assert onnx["bits_z"] == pytest.approx(keras["bits_z"], rel=1e-6)
