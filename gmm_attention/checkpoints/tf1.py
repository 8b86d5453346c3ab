"""A TF1 checkpoint of the authors (PREFIX.index, PREFIX.data-*) -> arrays by our names."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from gmm_attention.checkpoints import tf1_names as names
from gmm_attention.errors import CheckpointError


def _read_arrays(prefix: str) -> dict[str, np.ndarray]:
    try:
        reader = tf.train.load_checkpoint(prefix)
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    # On a damaged file, TensorFlow raises OpError, RuntimeError, IndexError and others.
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{prefix}: not a readable TensorFlow checkpoint: {message}; "
            f"it needs {prefix}.index and all of {prefix}.data-*"
        ) from error


def _settings(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Derives N, K and attention from names and shapes.

    Raises:
      CheckpointError: an array that shows N or K is missing or misshapen.
    """
    last, masked = (
        names.original_name(f"entropy_parameter/{name}/kernel") for name in ("layer_2", "masked")
    )
    for name in (last, masked):
        if name not in arrays or arrays[name].ndim != 4:
            raise CheckpointError(
                f"{prefix}: missing or misshapen {name}: not a checkpoint of this codec"
            )
    num_filters = arrays[masked].shape[2]
    return {
        "num_filters": num_filters,
        "num_mixtures": arrays[last].shape[3] // max(3 * num_filters, 1),
        "attention": any("/NLAB_" in name for name in arrays),
    }


def read(prefix: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """Reads a TF1 checkpoint of the original.

    Args:
      prefix: path without `.index`, such as models/model-1399000.

    Returns:
      arrays: dict of str to array, by our names as in `variables.by_name`. A variable that does
        not belong to the original network gets a name that `arrays.check` refuses, see
        `tf1_names.our_name`.
      tables: dict with the range coder's tables of z as the checkpoint stores them:
        `entropy_bottleneck/quantized_cdf` [N, L] and `entropy_bottleneck/cdf_length` [N], int32.
      settings: dict with num_filters, num_mixtures and attention.

    Raises:
      CheckpointError: not a readable checkpoint of this codec.
    """
    stored = _read_arrays(prefix)
    settings = _settings(stored, prefix)
    stored = {n: a for n, a in stored.items() if not names.TRAINING_STATE.search(n)}
    missing = [name for name in names.TABLES if name not in stored]
    if missing:
        raise CheckpointError(f"{prefix}: does not fit the model: missing {', '.join(missing)}")
    tables = {name: stored.pop(name) for name in names.TABLES}
    return {names.our_name(name): array for name, array in stored.items()}, tables, settings
