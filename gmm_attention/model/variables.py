"""A built network's variables by the names of the original graph: to arrays and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
import tensorflow_compression as tfc

from gmm_attention.arrays import check
from gmm_attention.model.cheng2020 import Cheng2020
from gmm_attention.model.entropy_bottleneck import EntropyBottleneck
from gmm_attention.model.layers import Convolution, MaskedConvolution, rdft_matrix

# Kernel with 3 K N outputs: N each for weight, mean and scale of each Gaussian of the mixture.
MIXTURE = "entropy_parameter/layer_2/kernel"

# Sub-pixel layers with 4 N outputs: N for each of the four pixels that they become.
_SUB_PIXEL = re.compile(r"synthesis/Block_[012]/(layer_2|shortcut)/")


def build_model(
    num_filters: int,
    num_mixtures: int,
    attention: bool,
    rdft: bool = True,
    precision: str = "float32",
) -> Cheng2020:
    """Makes a Cheng2020 and its variables; see there for arguments and errors."""
    model = Cheng2020(num_filters, num_mixtures, attention, rdft, precision)
    # Running the network on a small image is four times faster than tracing a graph of it.
    model(tf.zeros([1, 64, 64, 3]))
    return model


def _named_layers(
    model: tf.keras.Model, prefix: str = ""
) -> Iterator[tuple[str, tf.keras.layers.Layer]]:
    """Yields all layers that are not models themselves, with their names in the original graph."""
    for layer in model.layers:
        name = prefix + layer.name
        if isinstance(layer, tf.keras.Model):
            yield from _named_layers(layer, name + "/")
        else:
            yield name, layer


def by_name(model: Cheng2020) -> dict[str, tf.Variable]:
    """Returns all variables of a built model by name.

    Returns:
      dict of names such as `analysis/Block_0/layer_2/kernel_rdft` to variables. A kernel is
      `kernel_rdft` [kh * kw, in * out] if the model stores its real DFT, otherwise `kernel`
      [kh, kw, in, out]. GDN's are `gdn/reparam_beta` and `gdn/reparam_gamma` (`igdn/...` in the
      synthesis).
    """
    named: dict[str, tf.Variable] = {}
    for name, layer in _named_layers(model):
        if isinstance(layer, Convolution):
            if layer.rdft:
                named[f"{name}/kernel_rdft"] = layer.kernel_parameter.variable
            else:
                named[f"{name}/kernel"] = layer.kernel_parameter
            if layer.use_bias:
                named[f"{name}/bias"] = layer.bias_parameter
            if isinstance(layer.activation, tfc.GDN):
                gdn = layer.activation
                named[f"{name}/{gdn.name}/reparam_beta"] = gdn.beta_parameter.variable
                named[f"{name}/{gdn.name}/reparam_gamma"] = gdn.gamma_parameter.variable
        elif isinstance(layer, MaskedConvolution):
            named[f"{name}/kernel"], named[f"{name}/bias"] = layer.kernel, layer.bias
        elif isinstance(layer, EntropyBottleneck):
            for kind, stored in [
                ("matrix", layer.matrices),
                ("bias", layer.biases),
                ("factor", layer.factors),
            ]:
                named.update({f"{name}/{kind}_{i}": v for i, v in enumerate(stored)})
            named[f"{name}/quantiles"] = layer.quantiles
    return named


def kernel_shapes(model: Cheng2020) -> dict[str, tuple[int, ...]]:
    """Returns the shapes (kh, kw, in, out) of all convolutions' kernels, named as in `by_name`."""
    shapes = {}
    for name, layer in _named_layers(model):
        if isinstance(layer, Convolution):
            stored = "kernel_rdft" if layer.rdft else "kernel"
            shapes[f"{name}/{stored}"] = tuple(layer.kernel_parameter.shape)
        elif isinstance(layer, MaskedConvolution):
            shapes[f"{name}/kernel"] = tuple(layer.kernel.shape)
    return shapes


def num_parts(name: str, model: Cheng2020) -> int:
    """Number of equal parts, each of one tensor, in the outputs of a kernel or bias."""
    if name == MIXTURE:
        return 3 * model.num_mixtures
    return 4 if _SUB_PIXEL.match(name) else 1


def stored_shapes(model: Cheng2020) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all arrays in a training checkpoint of such a network.

    Training stores kernels by their real DFT.

    Args:
      model: a built Cheng2020, with or without `rdft`.

    Returns:
      dict of names to shapes, those of `by_name` for a Cheng2020 with `rdft`.
    """
    shapes = {name: tuple(variable.shape) for name, variable in by_name(model).items()}
    for name, layer in _named_layers(model):
        if isinstance(layer, Convolution) and f"{name}/kernel" in shapes:
            height, width, inputs, outputs = shapes[f"{name}/kernel"]
            if height > 1:
                del shapes[f"{name}/kernel"]
                shapes[f"{name}/kernel_rdft"] = (height * width, inputs * outputs)
    return shapes


def arrays(model: Cheng2020) -> dict[str, np.ndarray]:
    """Returns the values of all variables of a built model, named as in `by_name`."""
    return {name: variable.numpy() for name, variable in by_name(model).items()}


def plain_arrays(arrays: Mapping[str, np.ndarray], model: Cheng2020) -> dict[str, np.ndarray]:
    """Transforms kernels back from their real DFT.

    Args:
      arrays: dict of names to arrays, of the shapes of `stored_shapes`.
      model: a built Cheng2020 of the same N and K.

    Returns:
      dict of names to arrays, with each `kernel_rdft` replaced by its `kernel` [kh, kw, in, out],
      which stays in float64, since rounding it is left to the caller.
    """
    shapes = {name.removesuffix("_rdft"): shape for name, shape in kernel_shapes(model).items()}
    plain = {}
    for name, array in arrays.items():
        if name.endswith("/kernel_rdft"):
            name = name.removesuffix("_rdft")
            rdft = array.astype(np.float64)
            array = np.reshape(rdft_matrix(shapes[name][0]) @ rdft, shapes[name])
        plain[name] = array
    return plain


def assign(model: Cheng2020, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Fills every variable of a built model, each from the array of its name.

    Args:
      model: a built Cheng2020.
      arrays: dict of names to numpy arrays, named as in `by_name`.
      source: path of the file that the arrays come from, for the message.

    Raises:
      CheckpointError: see `arrays.check`.
    """
    named = by_name(model)
    check(arrays, {name: tuple(v.shape) for name, v in named.items()}, source)
    for name, variable in named.items():
        variable.assign(arrays[name])
