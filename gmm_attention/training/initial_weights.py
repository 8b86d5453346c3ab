"""Weights of another model to those that training starts from."""

import os

import numpy as np

from gmm_attention import checkpoints, export
from gmm_attention.errors import CheckpointError
from gmm_attention.model import variables
from gmm_attention.model.layers import rdft_matrix
from gmm_attention.tf1_import import reader

# 3 K N outputs, N for each of weight, mean and scale of each Gaussian of the mixture.
_MIXTURE = "entropy_parameter/layer_2/kernel"


def read(path):
    """Reads weights.

    Args:
      path: a training checkpoint, an exported model, or the prefix of a TF1 checkpoint.

    Returns:
      dict of str to array, by the names of `variables.by_name`.

    Raises:
      CheckpointError: nothing of the kind is there, or it is damaged.
    """
    prefix = path[: -len(".index")] if path.endswith(".index") else path
    if reader.is_tf1_checkpoint(prefix):
        named = variables.by_name(reader.read(prefix)[0])
        return {name: variable.numpy() for name, variable in named.items()}
    for name in ("best", "last"):
        if os.path.exists(os.path.join(path, name, checkpoints.SETTINGS_FILE)):
            raise CheckpointError(f"{path}: a run of train.py; give {os.path.join(path, name)}")
    if not os.path.isdir(path):
        raise CheckpointError(
            f"{path}: nothing is there; --init-from takes the folder of a checkpoint or of an "
            "exported model, or the prefix of a TF1 checkpoint"
        )
    arrays, settings = checkpoints.load(path)
    if not settings.get("exported"):
        return arrays
    try:
        return export.float_arrays(arrays, settings["num_filters"], settings["num_mixtures"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def assign(model, arrays, source):
    """Fills a model; of another K, as many Gaussians as both have, and the others stay new.

    Args:
      model: a built Cheng2020.
      arrays: dict of `read`.
      source: path that they come from, for the message.

    Raises:
      CheckpointError: they belong to a model of another N, or with attention to one without.
    """
    named = variables.by_name(model)
    arrays = dict(arrays)
    for name, variable in named.items():
        if name.endswith("/kernel_rdft"):
            plain = arrays.pop(name[: -len("_rdft")], None)
            if plain is not None and plain.ndim == 4:
                matrix = rdft_matrix(plain.shape[0])
                arrays[name] = matrix.T @ plain.reshape(len(matrix), -1)
        elif name == _MIXTURE and name in arrays:
            kernel, ours = arrays[name], variable.numpy()
            if kernel.ndim == 4 and kernel.shape[:3] == ours.shape[:3]:
                outputs = min(kernel.shape[3], ours.shape[3])
                ours[..., :outputs] = kernel[..., :outputs]
                arrays[name] = ours
    variables.assign(model, {n: np.asarray(a, np.float32) for n, a in arrays.items()}, source)
