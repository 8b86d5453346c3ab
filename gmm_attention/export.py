"""A checkpoint of any kind to an exported model: what coding needs, the same on every machine.

    python -m gmm_attention.export CHECKPOINT models/NAME

An exported model holds each kernel as 16-bit integers with an exponent for each output channel,
and the exact integer tables. Derived from a checkpoint on two machines, an FFT or an exp may
differ in the last bit; exported once and copied, nothing can.
"""

import argparse
import hashlib
import sys

import numpy as np

from gmm_attention import checkpoints
from gmm_attention.entropy_coding import quantization
from gmm_attention.errors import CheckpointError, CodecError
from gmm_attention.model import variables
from gmm_attention.tf1_import import reader

# The rooms of the network that are coded in integers; the others stay floats.
_INTEGER = ("hyper_synthesis/", "entropy_parameter/")

# What a decoder computes with, and so what its fingerprint covers.
_DECODER = ("synthesis/", *_INTEGER, "tables/")
_DECODER_TABLES = tuple(
    f"entropy_bottleneck/{name}"
    for name in ("quantized_cdf", "cdf_length", "offset", "integer_medians")
)


def export_arrays(model, tables):
    """The arrays of an exported model.

    Args:
      model: a built Cheng2020.
      tables: the range coder's tables of z, `quantized_cdf` [N, L] and `cdf_length` [N] (keys
        with `entropy_bottleneck/`).

    Returns:
      dict of str to numpy array.

    Raises:
      CheckpointError: a weight is outside the bounds of the exact arithmetic.
    """
    arrays = variables.plain_arrays(model)
    bottleneck = model.entropy_bottleneck
    exported = quantization.integer_arrays(
        {
            **{name: a for name, a in arrays.items() if name.startswith(_INTEGER)},
            **tables,
            "entropy_bottleneck/offset": bottleneck.table_offsets(),
            "entropy_bottleneck/medians": bottleneck.medians.numpy(),
        }
    )
    for name, array in arrays.items():
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


def _exponents(exported, layer):
    name = f"{layer}/exponent"
    if name not in exported:
        raise CheckpointError(f"missing {name}")
    shapes = [exported[key].shape for key in (name, f"{layer}/kernel")]
    if shapes[0] != shapes[1][-1:]:
        raise CheckpointError(
            f"{name} has shape {list(shapes[0])} beside {layer}/kernel of shape {list(shapes[1])}"
        )
    return exported[name].astype(np.int64)


def float_arrays(exported, num_filters, num_mixtures):
    """The weights of an exported model as floats, for a Cheng2020 without `rdft`.

    Returns:
      dict of str to float array, by the names of `variables.by_name`.
    """
    layers = quantization.layers(num_filters, num_mixtures)
    fraction_bits = {layer.name: layer.input_fraction_bits for layer in layers}
    arrays = {}
    for name, array in exported.items():
        layer, _, variable = name.rpartition("/")
        if layer == "tables" or variable == "exponent" or name in _DECODER_TABLES:
            continue
        if variable == "kernel":
            array = np.ldexp(array.astype(np.float64), -_exponents(exported, layer))
        elif variable == "bias" and layer in fraction_bits:
            exponents = _exponents(exported, layer) + fraction_bits[layer]
            array = np.ldexp(array.astype(np.float64), -exponents)
        arrays[name] = array
    return arrays


def fingerprint(exported):
    """Four bytes that tell models apart which decode a file differently."""
    digest = hashlib.sha256()
    for name in sorted(exported):
        if name.startswith(_DECODER) or name in _DECODER_TABLES:
            array = np.ascontiguousarray(exported[name])
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.tobytes())
    return digest.digest()[:4]


def load(path, precision="float32"):
    """Reads an exported model, a training checkpoint or a TF1 checkpoint.

    Args:
      path: str or Path: directory of the first two, prefix or `.index` file of the third.
      precision: see Cheng2020.

    Returns:
      model: a built Cheng2020 without `rdft`.
      exported: dict of arrays, as `export_arrays` returns.
      settings: dict, with `num_filters`, `num_mixtures`, `attention` and what else is known.

    Raises:
      CheckpointError: nothing there, or missing, unknown or misshapen weights, or weights that
        the exact arithmetic cannot take.
    """
    path = str(path)
    path = path[: -len(".index")] if path.endswith(".index") else path
    if reader.is_tf1_checkpoint(path):
        trained, tables = reader.read(path)
        settings = {
            "num_filters": trained.num_filters,
            "num_mixtures": trained.num_mixtures,
            "attention": trained.has_attention,
        }
        exported = None
    else:
        arrays, settings = checkpoints.load(path)
        exported, tables = arrays if settings.get("exported") else None, None
        if exported is None:
            trained = _built(settings, path, rdft=True)
            variables.assign(trained, arrays, path)
    model = _built(settings, path, rdft=False, precision=precision)
    try:
        if exported is None:
            tables = tables or trained.entropy_bottleneck.range_coder_tables()
            exported = export_arrays(trained, tables)
            weights = variables.plain_arrays(trained)
        else:
            quantization.check_integer_arrays(exported)
            weights = float_arrays(exported, settings["num_filters"], settings["num_mixtures"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    variables.assign(model, weights, path)
    return model, exported, settings


def _built(settings, path, rdft, precision="float32"):
    network = settings["num_filters"], settings["num_mixtures"], settings["attention"]
    try:
        return variables.build_model(*network, rdft, precision)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m gmm_attention.export", description="Exports a checkpoint for coding."
    )
    parser.add_argument("checkpoint", help="training checkpoint, or prefix of a TF1 checkpoint")
    parser.add_argument("directory", help="the exported model, such as models/NAME")
    args = parser.parse_args(argv)
    try:
        _, exported, settings = load(args.checkpoint)
        settings = {**settings, "exported": True, "fingerprint": fingerprint(exported).hex()}
        checkpoints.save(args.directory, exported, settings)
    except CodecError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{args.directory}: fingerprint {settings['fingerprint']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
