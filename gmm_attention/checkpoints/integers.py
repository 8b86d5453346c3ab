"""Weights <-> the arrays of an exported model, which are the same on every machine.

An exported model holds each kernel as 16-bit integers with an exponent for each output channel,
and the exact integer tables. Two machines that derive these arrays from the same checkpoint may get
different ones, since an FFT or an exp may differ in its last bit. So they are exported once and
then copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gmm_attention.checkpoints.fingerprints import DECODER_TABLES
from gmm_attention.entropy_coding import quantization
from gmm_attention.errors import CheckpointError

if TYPE_CHECKING:  # importing it imports TensorFlow, which exported models do without
    from gmm_attention.model.entropy_bottleneck import EntropyBottleneck

# Parts of the network that the codec computes in integers; it computes the others in floats.
_INTEGER = ("hyper_synthesis/", "entropy_parameter/")

_TABLES = ("tables/exp", "tables/phi")  # of the coder's arithmetic, not of the network


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
    """The exponents of a layer's kernel, int32 [outputs].

    Raises:
      CheckpointError: the exponents are missing, misshapen or no signed integers.
    """
    name = f"{layer}/exponent"
    if name not in exported:
        raise CheckpointError(f"missing {name}")
    shapes = [exported[key].shape for key in (name, f"{layer}/kernel")]
    if shapes[0] != shapes[1][-1:]:
        raise CheckpointError(
            f"{name} has shape {list(shapes[0])} beside {layer}/kernel of shape {list(shapes[1])}"
        )
    if exported[name].dtype.kind != "i":
        raise CheckpointError(f"{name} holds no signed integers")
    return exported[name].astype(np.int32)


def check_exponents(exported: dict[str, np.ndarray]) -> None:
    """Checks that each kernel of an exported model has its exponents, and that none is left over.

    Raises:
      CheckpointError: exponents are missing, misshapen or left over.
    """
    for name in exported:
        layer, _, variable = name.rpartition("/")
        if variable == "kernel":
            _exponents(exported, layer)
        elif variable == "exponent" and f"{layer}/kernel" not in exported:
            raise CheckpointError(f"left over {name}")


def float_array(exported: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Converts an array of an exported model back to the floats that it stands for.

    Args:
      exported: dict of str to array, as `export_arrays` returns.
      name: of a weight, by the names of `variables.by_name`.

    Returns:
      float32 or float64 array; a kernel's floats fit float32 exactly.

    Raises:
      CheckpointError: exponents of a kernel are missing or misshapen.
    """
    layer, _, variable = name.rpartition("/")
    array = exported[name]
    if variable == "kernel":
        with np.errstate(over="ignore"):  # absurd weights give latents that are refused
            return np.ldexp(array.astype(np.float64), -_exponents(exported, layer))
    if variable == "bias" and layer.startswith(_INTEGER):
        # The masked convolution takes y_hat itself, all other layers take units of 2^-10.
        fraction_bits = 0 if layer.endswith("/masked") else quantization.FRACTION_BITS
        return np.ldexp(array.astype(np.float64), -_exponents(exported, layer) - fraction_bits)
    return array


def float_arrays(exported: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts an exported model back to float weights, for a Cheng2020 without `rdft`.

    Args:
      exported: dict of str to array, as `export_arrays` returns.

    Returns:
      dict of str to float array, by the names of `variables.by_name`.

    Raises:
      CheckpointError: see `float_array`.
    """
    return {name: float_array(exported, name) for name in exported if is_weight(name)}


def is_weight(name: str) -> bool:
    """Whether an array of an exported model is a weight, not a table or an exponent."""
    return not name.endswith("/exponent") and name not in (*_TABLES, *DECODER_TABLES)
