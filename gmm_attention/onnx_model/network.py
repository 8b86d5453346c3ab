"""The four transforms and the entropy parameters as graphs: block by block those of `model`.

A change of `model/transforms.py` needs the same change here; `tests/runtimes/test_agreement.py`
fails without it.
"""

from __future__ import annotations

from typing import NamedTuple

from gmm_attention.onnx_model.graph import Graph, Value

HIDDEN = 640  # channels between the 1x1 layers of the entropy parameters


class GraphStage(NamedTuple):
    """A step of a transform as a graph; the other attributes are those of `strips.Stage`."""

    graph: Graph
    halo: int
    down: int = 1
    up: int = 1


def analysis(num_filters: int, attention: bool) -> list[GraphStage]:
    """g_a, see `model.transforms.Analysis`: x [B, 3, H, W] to y [B, N, H/16, W/16]."""
    n, stages = num_filters, []
    for index in range(4):
        block = f"analysis/Block_{index}"
        if index > 0:
            stages.append(_residual(block, n, corr=True))
        stages.append(_halve(block, 3 if index == 0 else n, n, last=index == 3))
        if attention and index in (1, 3):
            stages.append(_attention(f"analysis/NLAB_{index // 2}", n))
    return stages


def synthesis(num_filters: int, attention: bool) -> list[GraphStage]:
    """g_s, see `model.transforms.Synthesis`: y_hat [B, N, H/16, W/16] to x_hat [B, 3, H, W]."""
    n, stages = num_filters, []
    for index in range(4):
        block = f"synthesis/Block_{index}"
        if attention and index in (0, 2):
            stages.append(_attention(f"synthesis/NLAB_{index // 2}", n))
        stages.append(_residual(block, n, corr=False))
        stages.append(_double(block, n, last=index == 3))
    return stages


def hyper_analysis(num_filters: int) -> list[GraphStage]:
    """h_a, see `model.transforms.hyper_analysis`: y to z [B, N, H/64, W/64]."""
    stages = []
    for index in range(5):
        graph = Graph(num_filters)
        (t,) = graph.inputs
        stride = 2 if index in (2, 4) else 1
        t = graph.conv(t, f"hyper_analysis/layer_{index}", num_filters, 3, stride=stride)
        if index < 4:
            graph.leaky(t)
        stages.append(GraphStage(graph, halo=1, down=stride))
    return stages


def hyper_synthesis(num_filters: int) -> Graph:
    """h_s, see `model.transforms.hyper_synthesis`: z_hat to phi [B, 2N, H/16, W/16]."""
    graph = Graph(num_filters)
    (t,) = graph.inputs
    widths = [num_filters, num_filters, num_filters * 3 // 2, num_filters * 3 // 2, 2 * num_filters]
    for index, width in enumerate(widths):
        name = f"hyper_synthesis/layer_{index}"
        if index in (1, 3):
            t = graph.double(t, name, width)
        else:
            t = graph.conv(t, name, width, 3, corr=False)
        if index < 4:
            t = graph.leaky(t)
    return graph


def entropy_parameters(num_filters: int, num_mixtures: int) -> Graph:
    """See `model.entropy_parameters`: y_hat and phi to what the mixture's softmax and abs take.

    The output [B, 3KN, H/16, W/16] holds for each of K components N logits, N means and N scales.
    """
    graph = Graph(num_filters, 2 * num_filters)
    y_hat, phi = graph.inputs
    name = "entropy_parameter"
    context = graph.masked(y_hat, f"{name}/masked", 2 * num_filters)
    t = graph.add("Concat", context, phi, channels=4 * num_filters, axis=1)
    t = graph.leaky(graph.conv(t, f"{name}/layer_0", HIDDEN, 1))
    t = graph.leaky(graph.conv(t, f"{name}/layer_1", HIDDEN, 1))
    graph.conv(t, f"{name}/layer_2", 3 * num_mixtures * num_filters, 1, bias=False)
    return graph


def shapes(num_filters: int, num_mixtures: int, attention: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all float arrays of a model without `rdft`, as `variables.by_name`.

    Args:
      num_filters, num_mixtures, attention: see `model.Cheng2020`.
    """
    n = num_filters
    stages = analysis(n, attention) + synthesis(n, attention) + hyper_analysis(n)
    graphs = [stage.graph for stage in stages]
    graphs += [hyper_synthesis(n), entropy_parameters(n, num_mixtures)]
    result: dict[str, tuple[int, ...]] = {"entropy_bottleneck/quantiles": (n, 1, 3)}
    widths = (1, 3, 3, 3, 1)  # of the small network whose logistic function is z's cumulative
    for index, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
        result[f"entropy_bottleneck/matrix_{index}"] = n, outputs, inputs
        result[f"entropy_bottleneck/bias_{index}"] = n, outputs, 1
        if index < 3:
            result[f"entropy_bottleneck/factor_{index}"] = n, outputs, 1
    for graph in graphs:
        result.update(graph.shapes)
    return result


def _residual(block: str, num_filters: int, corr: bool) -> GraphStage:
    graph = Graph(num_filters)
    (t,) = graph.inputs
    residual = graph.leaky(graph.conv(t, f"{block}/layer_0", num_filters, 3, corr))
    residual = graph.leaky(graph.conv(residual, f"{block}/layer_1", num_filters, 3, corr))
    graph.add("Add", t, residual)
    return GraphStage(graph, halo=2)


def _halve(block: str, channels: int, num_filters: int, last: bool) -> GraphStage:
    graph = Graph(channels)
    (t,) = graph.inputs
    if last:
        graph.conv(t, f"{block}/layer_2", num_filters, 3, stride=2, bias=False)
        return GraphStage(graph, halo=1, down=2)
    u = graph.leaky(graph.conv(t, f"{block}/layer_2", num_filters, 3, stride=2))
    u = graph.conv(u, f"{block}/layer_3", num_filters, 3)
    u = graph.gdn(u, f"{block}/layer_3/gdn", inverse=False)
    graph.add("Add", u, graph.conv(t, f"{block}/shortcut", num_filters, 1, stride=2))
    return GraphStage(graph, halo=3, down=2)


def _double(block: str, num_filters: int, last: bool) -> GraphStage:
    graph = Graph(num_filters)
    (t,) = graph.inputs
    if last:
        graph.depth_to_space(graph.conv(t, f"{block}/layer_2", 12, 3, corr=False))
        return GraphStage(graph, halo=1, up=2)
    wide = 4 * num_filters
    u = graph.leaky(graph.conv(t, f"{block}/layer_2", wide, 3, corr=False))
    u = graph.conv(graph.depth_to_space(u), f"{block}/layer_3", num_filters, 3, corr=False)
    u = graph.gdn(u, f"{block}/layer_3/igdn", inverse=True)
    shortcut = graph.conv(t, f"{block}/shortcut", wide, 1, corr=False)
    graph.add("Add", u, graph.depth_to_space(shortcut))
    return GraphStage(graph, halo=2, up=2)


def _attention(name: str, num_filters: int) -> GraphStage:
    """t + mask * trunk, see `model.layers.Attention`."""
    graph = Graph(num_filters)
    (t,) = graph.inputs
    trunk = mask = t
    for index in range(3):
        trunk = _residual_block(graph, trunk, f"{name}/trunk_RB_{index}")
        mask = _residual_block(graph, mask, f"{name}/attention_RB_{index}")
    mask = graph.add("Sigmoid", graph.conv(mask, f"{name}/conv_1x1", num_filters, 1))
    graph.add("Add", t, graph.add("Mul", mask, trunk))
    return GraphStage(graph, halo=3)


def _residual_block(graph: Graph, t: Value, name: str) -> Value:
    """See `model.layers.ResidualBlock`."""
    u = graph.add("Relu", graph.conv(t, f"{name}/conv0", t.channels // 2, 1))
    u = graph.add("Relu", graph.conv(u, f"{name}/conv1", t.channels // 2, 3))
    return graph.add("Add", t, graph.conv(u, f"{name}/conv2", t.channels, 1))
