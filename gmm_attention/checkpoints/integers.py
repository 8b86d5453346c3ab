"""Weights <-> the arrays of an exported model, which are the same on every machine.

An exported model holds each kernel as 16-bit integers with an exponent for each output channel,
and the exact integer tables. Two machines that derive these arrays from the same checkpoint may get
different ones, since an FFT or an exp may differ in its last bit. So they are exported once and
then copied.
"""

from __future__ import annotations

import numpy as np

from gmm_attention.checkpoints.fingerprints import DECODER_TABLES
from gmm_attention.entropy_coding import quantization
from gmm_attention.errors import CheckpointError
from gmm_attention.model.entropy_bottleneck import EntropyBottleneck

# Parts of the network that the codec computes in integers; it computes the others in floats.
_INTEGER = ("hyper_synthesis/", "entropy_parameter/")


def export_arrays(
    weights: dict[str, np.ndarray],
    bottleneck: EntropyBottleneck,
    tables: dict[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Converts weights to the arrays of an exported model.

    Args:
      weights: dict of str to array, as `variables.plain_arrays` returns.
      bottleneck: EntropyBottleneck with these weights.
      tables: dict with the range coder's tables of z, `entropy_bottleneck/quantized_cdf` [N, L]
        and `entropy_bottleneck/cdf_length` [N]; None to compute them.

    Returns:
      dict of str to numpy array.

    Raises:
      CheckpointError: a weight exceeds the bounds of the exact arithmetic.
    """
    exported = quantization.integer_arrays(
        {
            **{name: a for name, a in weights.items() if name.startswith(_INTEGER)},
            **(tables or bottleneck.range_coder_tables()),
            "entropy_bottleneck/offset": bottleneck.table_offsets(),
            "entropy_bottleneck/medians": bottleneck.medians.numpy(),
        }
    )
    for name, array in weights.items():
        if name.startswith(_INTEGER):
            continue
        if name.endswith("/kernel"):
            layer = name.rpartition("/")[0]
            exported[name], exported[f"{layer}/exponent"] = quantization.quantize_kernel(
                array, layer
            )
        else:
            exported[name] = array
    return exported


def _exponents(exported: dict[str, np.ndarray], layer: str) -> np.ndarray:
    """The exponents of a layer's kernel, int64 [outputs].

    Raises:
      CheckpointError: the exponents are missing or misshapen.
    """
    name = f"{layer}/exponent"
    if name not in exported:
        raise CheckpointError(f"missing {name}")
    shapes = [exported[key].shape for key in (name, f"{layer}/kernel")]
    if shapes[0] != shapes[1][-1:]:
        raise CheckpointError(
            f"{name} has shape {list(shapes[0])} beside {layer}/kernel of shape {list(shapes[1])}"
        )
    return exported[name].astype(np.int64)


def float_arrays(
    exported: dict[str, np.ndarray], num_filters: int, num_mixtures: int
) -> dict[str, np.ndarray]:
    """Converts an exported model back to float weights, for a Cheng2020 without `rdft`.

    Args:
      exported: dict of str to array, as `export_arrays` returns.
      num_filters, num_mixtures: N and K of the model.

    Returns:
      dict of str to float array, by the names of `variables.by_name`.

    Raises:
      CheckpointError: exponents of a kernel are missing or misshapen.
    """
    layers = quantization.layers(num_filters, num_mixtures)
    fraction_bits = {layer.name: layer.input_fraction_bits for layer in layers}
    arrays = {}
    for name, array in exported.items():
        layer, _, variable = name.rpartition("/")
        if layer == "tables" or variable == "exponent" or name in DECODER_TABLES:
            continue
        if variable == "kernel":
            array = np.ldexp(array.astype(np.float64), -_exponents(exported, layer))
        elif variable == "bias" and layer in fraction_bits:
            exponents = _exponents(exported, layer) + fraction_bits[layer]
            array = np.ldexp(array.astype(np.float64), -exponents)
        arrays[name] = array
    return arrays
