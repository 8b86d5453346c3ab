"""Weights of another model to those that training starts from."""

import os
import re

import numpy as np

from gmm_attention import checkpoints, export
from gmm_attention.errors import CheckpointError
from gmm_attention.model import variables
from gmm_attention.model.layers import rdft_matrix
from gmm_attention.tf1_import import reader

# 3 K N outputs, N for each of weight, mean and scale of each Gaussian of the mixture.
_MIXTURE = "entropy_parameter/layer_2/kernel"

# 4 N outputs, N for each pixel that they become.
_SUB_PIXEL = re.compile(r"synthesis/Block_[012]/(layer_2|shortcut)/")

# 4 N inputs, 2 N of the context model and 2 N of phi.
_CONTEXT_AND_PHI = "entropy_parameter/layer_0/kernel"

# Where y, z and the mixture of y come from: new channels of these begin small, or they would cost
# bits before they are of use. The mixture stays wider than the latents that it is of.
_FAINT = {
    re.compile("analysis/(Block_3/layer_2|NLAB_1/trunk_RB_./conv2)/|hyper_analysis/layer_4/"): 0.03,
    re.compile(_MIXTURE): 0.3,
}


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

    Weights of a smaller N are widened: the new channels stay new, and what the old ones compute
    stays as it was, since the new ones reach them by zeros.

    Args:
      model: a built Cheng2020.
      arrays: dict of `read`.
      source: path that they come from, for the message.

    Raises:
      CheckpointError: they belong to a model of a larger N, or with attention to one without.
    """
    num_filters = len(arrays.get("entropy_bottleneck/quantiles", ()))
    if 0 < num_filters < model.num_filters and num_filters % 8 == 0:
        network = num_filters, model.num_mixtures, model.has_attention
        narrow = variables.build_model(*network)
        assign(narrow, arrays, source)
        return _widen(narrow, model)
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


def _widen(narrow, model):
    """Fills a model's first channels from those of a narrower one."""
    named = variables.by_name(narrow)
    narrow_shapes, shapes = (variables.kernel_shapes(m) for m in (narrow, model))
    medians = narrow.entropy_bottleneck.medians.numpy()
    for name, variable in variables.by_name(model).items():
        old, new = named[name].numpy(), variable.numpy()
        if name in shapes:
            *_, old_inputs, old_outputs = narrow_shapes[name]
            *_, inputs, outputs = shapes[name]
            rows = _places(old_inputs, inputs, 2 if name == _CONTEXT_AND_PHI else 1)
            columns = _places(old_outputs, outputs, _parts(name, model))
            taps = new.reshape(-1, inputs, outputs)
            for pattern, factor in _FAINT.items():
                taps *= factor if pattern.match(name) else 1
            taps[:, :, columns] = 0
            taps[:, rows[:, None], columns] = old.reshape(-1, old_inputs, old_outputs)
        elif name.startswith("entropy_bottleneck/"):
            # A density that is narrow already costs less than a new one.
            new = old[np.arange(len(new)) % len(old)]
        elif name.endswith("/reparam_gamma"):
            # Elsewhere new channels divide nothing but themselves.
            new[: len(old), : len(old)] = old
        else:
            if name == "hyper_analysis/layer_4/bias":
                new = medians[np.arange(len(new)) % len(old)]
            new[_places(len(old), len(new), _parts(name, model))] = old
        variable.assign(new)


def _parts(name, model):
    """Of how many times N a layer's outputs are made up, where they are more than one tensor."""
    if name == _MIXTURE:
        return 3 * model.num_mixtures
    return 4 if _SUB_PIXEL.match(name) else 1


def _places(old_count, count, parts):
    """Where the channels of a narrower layer stand in a wider one."""
    first = np.arange(parts)[:, None] * (count // parts)
    return (first + np.arange(old_count // parts)).ravel()
