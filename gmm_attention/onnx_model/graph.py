"""A part of the network as a list of ONNX operations, with the arrays that they take.

Tensors are [B, C, H, W] here, as ONNX convolves them. The package onnx is imported only when a
graph is turned into bytes; names and shapes of its arrays are known without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Versions of ONNX that ONNX Runtime has read since release 1.10.
_OPSET, _IR_VERSION = 13, 8

LEAKY_SLOPE = 0.2  # tf.nn.leaky_relu's

# GDN stores square roots, with this number added first: tensorflow-compression's GDNParameter.
_PEDESTAL = np.float32(2.0**-36)
_LEAST_BETA = np.float32(1e-6)


class Value(NamedTuple):
    """A tensor of a graph: its name and its number of channels."""

    name: str
    channels: int


class _Node(NamedTuple):
    """An operation; its output is named after its place in the graph."""

    operation: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]


class _Array(NamedTuple):
    """An array that a graph takes: its stored shape, and what turns it into ONNX's layout."""

    shape: tuple[int, ...]
    convert: Callable[[np.ndarray], np.ndarray]


class Graph:
    """A function of tensors, built by calling its methods; its output is what was added last.

    Args:
      channels: number of channels of each input.

    Attributes:
      inputs: list of Value.
      output: Value; that of the last operation.
    """

    def __init__(self, *channels: int):
        self.inputs = [Value(f"x{i}", count) for i, count in enumerate(channels)]
        self.output = self.inputs[0]
        self._nodes: list[_Node] = []
        self._arrays: dict[str, _Array] = {}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the arrays that the graph takes, by their names in an exported model."""
        return {name: array.shape for name, array in self._arrays.items()}

    def add(self, operation: str, *inputs: Value, channels: int = 0, **attributes: Any) -> Value:
        """Adds an operation of ONNX, whose output has as many channels as its input unless told."""
        names = [value.name for value in inputs]
        return self._add(operation, names, channels or inputs[0].channels, attributes)

    def leaky(self, t: Value) -> Value:
        return self.add("LeakyRelu", t, alpha=LEAKY_SLOPE)

    def depth_to_space(self, t: Value) -> Value:
        """Doubles the sides, as tf.nn.depth_to_space does."""
        return self.add("DepthToSpace", t, channels=t.channels // 4, blocksize=2, mode="DCR")

    def conv(
        self,
        t: Value,
        layer: str,
        filters: int,
        size: int,
        corr: bool = True,
        stride: int = 1,
        bias: bool = True,
    ) -> Value:
        """Adds what `model.layers.Convolution` of the same arguments does, without up-sampling.

        Args:
          t: the input.
          layer: the layer's name, such as `analysis/Block_0/layer_2`.
          filters: number of output channels.
          size: side of the kernel.
          corr: whether to correlate with the kernel or to convolve.
          stride: by which the sides shrink.
          bias: whether to add a bias.
        """

        def convert(kernel: np.ndarray) -> np.ndarray:
            return (kernel if corr else kernel[::-1, ::-1]).transpose(3, 2, 0, 1)

        inputs = [t.name, self._take(f"{layer}/kernel", (size, size, t.channels, filters), convert)]
        inputs += [self._take(f"{layer}/bias", (filters,))] if bias else []
        around = [size // 2] * 4
        attributes = {"kernel_shape": [size, size], "strides": [stride, stride], "pads": around}
        return self._add("Conv", inputs, filters, attributes)

    def double(self, t: Value, layer: str, filters: int) -> Value:
        """Adds what a 3x3 `Convolution` with corr=False and strides_up=2 does."""
        shape = (3, 3, t.channels, filters)
        kernel = self._take(f"{layer}/kernel", shape, lambda k: k.transpose(2, 3, 0, 1))
        attributes = {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]}
        inputs = [t.name, kernel, self._take(f"{layer}/bias", (filters,))]
        return self._add("ConvTranspose", inputs, filters, attributes)

    def masked(self, t: Value, layer: str, filters: int) -> Value:
        """Adds the context model, `model.layers.MaskedConvolution`."""

        def convert(kernel: np.ndarray) -> np.ndarray:
            mask = np.zeros([5, 5, 1, 1], np.float32)
            mask[:2] = mask[2, :2] = 1
            return (kernel * mask).transpose(3, 2, 0, 1)

        kernel = self._take(f"{layer}/kernel", (5, 5, t.channels, filters), convert)
        inputs = [t.name, kernel, self._take(f"{layer}/bias", (filters,))]
        return self._add("Conv", inputs, filters, {"pads": [2] * 4})

    def gdn(self, t: Value, name: str, inverse: bool) -> Value:
        """Adds `model.layers.GDN`: t over, or times, the root of a sum of squares."""
        count = t.channels
        gamma = self._take(f"{name}/reparam_gamma", (count, count), _gamma)
        beta = self._take(f"{name}/reparam_beta", (count,), _beta)
        squares = self.add("Mul", t, t)
        sums = self._add("Conv", [squares.name, gamma, beta], count, {})
        return self.add("Mul" if inverse else "Div", t, self.add("Sqrt", sums))

    def to_bytes(self, array: Callable[[str], np.ndarray]) -> bytes:
        """Returns the graph as an ONNX model, whose output is called `out`.

        Args:
          array: function of the name of one of `shapes` that returns its float values.
        """
        from onnx import TensorProto, helper, numpy_helper

        def value(name: str, channels: int) -> Any:
            return helper.make_tensor_value_info(
                name, TensorProto.FLOAT, ["B", channels, f"{name}_H", f"{name}_W"]
            )

        nodes = [
            helper.make_node(node.operation, node.inputs, [node.output], **node.attributes)
            for node in self._nodes
        ]
        nodes[-1].output[0] = "out"
        with np.errstate(over="ignore"):  # absurd weights give latents that are refused
            arrays = [
                numpy_helper.from_array(
                    np.ascontiguousarray(stored.convert(array(name)), np.float32), name
                )
                for name, stored in self._arrays.items()
            ]
        inputs = [value(*one) for one in self.inputs]
        outputs = [value("out", self.output.channels)]
        graph = helper.make_graph(nodes, "gmm_attention", inputs, outputs, arrays)
        versions = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=versions)
        return model.SerializeToString()

    def _take(
        self,
        name: str,
        shape: tuple[int, ...],
        convert: Callable[[np.ndarray], np.ndarray] = np.asarray,
    ) -> str:
        self._arrays[name] = _Array(shape, convert)
        return name

    def _add(
        self, operation: str, inputs: list[str], channels: int, attributes: dict[str, Any]
    ) -> Value:
        output = Value(f"t{len(self._nodes)}", channels)
        self._nodes.append(_Node(operation, inputs, output.name, attributes))
        self.output = output
        return output


def _beta(stored: np.ndarray) -> np.ndarray:
    return np.maximum(stored, (_LEAST_BETA + _PEDESTAL) ** np.float32(0.5)) ** 2 - _PEDESTAL


def _gamma(stored: np.ndarray) -> np.ndarray:
    gamma = np.maximum(stored, _PEDESTAL ** np.float32(0.5)) ** 2 - _PEDESTAL
    return gamma.T[..., None, None]  # stored [in, out]
