"""A built network's variables by the names of the original graph: to arrays and back."""

import numpy as np
import tensorflow as tf
import tensorflow_compression as tfc

from gmm_attention.errors import CheckpointError
from gmm_attention.model.cheng2020 import Cheng2020
from gmm_attention.model.entropy_bottleneck import EntropyBottleneck
from gmm_attention.model.layers import Convolution, MaskedConvolution, rdft_matrix


def build_model(num_filters, num_mixtures, attention, rdft=True, precision="float32"):
    """A Cheng2020 whose variables exist."""
    model = Cheng2020(num_filters, num_mixtures, attention, rdft, precision)
    # Run once rather than traced, which takes four times as long.
    model(tf.zeros([1, 64, 64, 3]))
    return model


def _named_layers(model, prefix=""):
    for layer in model.layers:
        name = prefix + layer.name
        if isinstance(layer, tf.keras.Model):
            yield from _named_layers(layer, name + "/")
        else:
            yield name, layer


def by_name(model):
    """All variables of a built model by name, such as `analysis/Block_0/layer_2/kernel_rdft`.

    Returns:
      dict of str to tf.Variable. Kernels are `kernel_rdft` [kh * kw, in * out] where the model
      stores them so, otherwise `kernel` [kh, kw, in, out]; GDN's are `gdn/reparam_beta`,
      `gdn/reparam_gamma` (`igdn/...` in the synthesis).
    """
    named = {}
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


def kernel_shapes(model):
    """The shapes [kh, kw, in, out] of all convolutions' kernels, by the names of `by_name`."""
    shapes = {}
    for name, layer in _named_layers(model):
        if isinstance(layer, Convolution):
            stored = "kernel_rdft" if layer.rdft else "kernel"
            shapes[f"{name}/{stored}"] = tuple(layer.kernel_parameter.shape)
        elif isinstance(layer, MaskedConvolution):
            shapes[f"{name}/kernel"] = tuple(layer.kernel.shape)
    return shapes


def plain_arrays(model):
    """A built model's variables as arrays, kernels out of their real DFT.

    Returns:
      dict of str to numpy array: `by_name` with each `kernel_rdft` replaced by its `kernel`
      [kh, kw, in, out], float64, since its rounding is still to come.
    """
    arrays = {name: variable.numpy() for name, variable in by_name(model).items()}
    for name, layer in _named_layers(model):
        if isinstance(layer, Convolution) and layer.rdft:
            rdft = arrays.pop(f"{name}/kernel_rdft").astype(np.float64)
            shape = layer.kernel_parameter.shape
            arrays[f"{name}/kernel"] = np.reshape(rdft_matrix(shape[0]) @ rdft, shape)
    return arrays


def assign(model, arrays, source, stored_name=str):
    """Fills every variable of a built model, each from the array of its name.

    Args:
      arrays: dict of stored name to numpy array.
      source: path of the file that the arrays come from, for the messages.
      stored_name: function from the name in `by_name` to the stored one.

    Raises:
      CheckpointError: an array is missing, left over, misshapen or not finite; all are named.
    """
    stored = {stored_name(name): variable for name, variable in by_name(model).items()}
    problems = [f"missing {name}" for name in sorted(set(stored) - set(arrays))]
    problems += [f"left over {name}" for name in sorted(set(arrays) - set(stored))]
    problems += [
        f"{name} has shape {list(np.shape(arrays[name]))}, not {list(variable.shape)}"
        for name, variable in sorted(stored.items())
        if name in arrays and np.shape(arrays[name]) != tuple(variable.shape)
    ]
    problems += [
        f"{name} holds values that are not finite numbers"
        for name in sorted(stored)
        if name in arrays
        and not (np.asarray(arrays[name]).dtype.kind in "fiu" and np.isfinite(arrays[name]).all())
    ]
    if problems:
        raise CheckpointError(f"{source}: does not fit the model: {'; '.join(problems)}")
    for name, variable in stored.items():
        variable.assign(arrays[name])
