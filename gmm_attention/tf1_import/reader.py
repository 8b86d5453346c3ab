"""A TF1 checkpoint (PREFIX.index, PREFIX.data-*) to arrays by our names, and z's tables."""

import os

import tensorflow as tf

from gmm_attention.errors import CheckpointError
from gmm_attention.model import variables
from gmm_attention.tf1_import import names


def is_tf1_checkpoint(path):
    """Whether path is the prefix of a TensorFlow checkpoint."""
    return os.path.isfile(f"{path}.index")


def _read_arrays(prefix):
    try:
        reader = tf.train.load_checkpoint(prefix)
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    # TensorFlow meets files that are cut or changed with OpError, RuntimeError, IndexError, ...
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{prefix}: not a readable TensorFlow checkpoint: {message}; "
            f"it needs {prefix}.index and all of {prefix}.data-*"
        ) from error


def _settings(arrays, prefix):
    """Reads N, K and attention off the shapes."""
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


def read(prefix):
    """Reads a TF1 checkpoint of the original.

    Args:
      prefix: path without `.index`, such as models/model-1399000.

    Returns:
      model: a built Cheng2020 with the checkpoint's weights; N, K and attention as its shapes say.
      tables: dict with the range coder's tables of z as the checkpoint stores them:
        `entropy_bottleneck/quantized_cdf` [N, L] and `entropy_bottleneck/cdf_length` [N], int32.

    Raises:
      CheckpointError: not a checkpoint of this codec; each variable that is missing, left over or
        misshapen is named.
    """
    arrays = _read_arrays(prefix)
    settings = _settings(arrays, prefix)
    try:
        model = variables.build_model(**settings)
    except ValueError as error:
        raise CheckpointError(f"{prefix}: not a checkpoint of this codec: {error}") from error
    arrays = {n: a for n, a in arrays.items() if not names.TRAINING_STATE.search(n)}
    missing = [name for name in names.TABLES if name not in arrays]
    if missing:
        raise CheckpointError(f"{prefix}: does not fit the model: missing {', '.join(missing)}")
    tables = {name: arrays.pop(name) for name in names.TABLES}
    variables.assign(model, arrays, prefix, names.original_name)
    return model, tables
