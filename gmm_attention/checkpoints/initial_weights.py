"""Weights of another model -> a model that training starts from, perhaps of another N or K."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import numpy as np

from gmm_attention.arrays import check
from gmm_attention.checkpoints import files, integers, tf1, tf1_names
from gmm_attention.checkpoints.loading import build_network
from gmm_attention.checkpoints.locate import Kind, locate, tf1_prefix
from gmm_attention.errors import CheckpointError, naming
from gmm_attention.model import variables
from gmm_attention.model.cheng2020 import Cheng2020
from gmm_attention.model.layers import rdft_matrix

# Kernel with 4 N inputs: 2 N from the context model and 2 N from phi.
_CONTEXT_AND_PHI = "entropy_parameter/layer_0/kernel"

# Kernels that produce y, z and the mixture of y, with a factor on the initial values of their new
# channels. Latents of the usual size would cost bits before they are of use. The factor of the
# mixture is larger than that of the latents, so that the mixture is wide enough for them.
_NEW_CHANNEL_FACTORS = {
    re.compile("analysis/(Block_3/layer_2|NLAB_1/trunk_RB_./conv2)/|hyper_analysis/layer_4/"): 0.03,
    re.compile(variables.MIXTURE): 0.3,
}


def read(path: str) -> dict[str, np.ndarray]:
    """Reads the weights of a model of any kind.

    Args:
      path: a training checkpoint, an exported model, or the prefix of a TF1 checkpoint.

    Returns:
      dict of str to array, by the names of `variables.by_name`, for `assign`.

    Raises:
      CheckpointError: there is no model, or it is damaged.
    """
    for name in ("best", "last"):
        if os.path.exists(os.path.join(path, name, files.SETTINGS_FILE)):
            raise CheckpointError(f"{path}: a run of train.py; give {os.path.join(path, name)}")
    if not os.path.isdir(path) and tf1_prefix(path) is None:
        raise CheckpointError(
            f"{path}: nothing is there; --init-from takes the folder of a checkpoint or of an "
            "exported model, or the prefix of a TF1 checkpoint"
        )
    found = locate(path)
    if found.kind is Kind.TF1:
        arrays, _, settings = tf1.read(found.path)
        with naming(found.path):
            shapes = variables.stored_shapes(build_network(settings, found.kind))
        check(arrays, shapes, found.path, tf1_names.shown_name)
        return arrays
    arrays = files.load_arrays(*found.weight_files)
    if found.kind is Kind.TRAINED:
        return arrays
    with naming(path):
        return integers.float_arrays(arrays)


def assign(model: Cheng2020, arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Fills a model with weights that may be of another K or of a smaller N.

    With another K, the Gaussians that both have in common are filled, and the others keep their
    initial weights. With a smaller N, the new channels keep theirs. The weights from new channels
    to old ones are zero, so that the old channels still compute the same.

    Args:
      model: a built Cheng2020.
      arrays: dict of str to array, as `read` returns.
      source: path that they come from, for the message.

    Raises:
      CheckpointError: the weights do not fit: they are of a larger N, or one of both models has
        attention modules and the other has none.
    """
    num_filters = len(arrays.get("entropy_bottleneck/quantiles", ()))
    if 0 < num_filters < model.num_filters and num_filters % 8 == 0:
        network = num_filters, model.num_mixtures, model.has_attention
        narrow = variables.build_model(*network)
        assign(narrow, arrays, source)
        _widen(narrow, model)
        return
    named = variables.by_name(model)
    arrays = dict(arrays)
    for name, variable in named.items():
        if name.endswith("/kernel_rdft"):
            plain = arrays.pop(name[: -len("_rdft")], None)
            if plain is not None and plain.ndim == 4:
                matrix = rdft_matrix(plain.shape[0])
                arrays[name] = matrix.T @ plain.reshape(len(matrix), -1)
        elif name == variables.MIXTURE and name in arrays:
            kernel, ours = arrays[name], variable.numpy()
            if kernel.ndim == 4 and kernel.shape[:3] == ours.shape[:3]:
                outputs = min(kernel.shape[3], ours.shape[3])
                ours[..., :outputs] = kernel[..., :outputs]
                arrays[name] = ours
    variables.assign(model, {n: np.asarray(a, np.float32) for n, a in arrays.items()}, source)


def _widen(narrow: Cheng2020, model: Cheng2020) -> None:
    """Fills the channels of a model that a narrower one also has; see `assign`."""
    named = variables.by_name(narrow)
    narrow_shapes, shapes = (variables.kernel_shapes(m) for m in (narrow, model))
    medians = narrow.entropy_bottleneck.medians.numpy()
    for name, variable in variables.by_name(model).items():
        old, new = named[name].numpy(), variable.numpy()
        if name in shapes:
            *_, old_inputs, old_outputs = narrow_shapes[name]
            *_, inputs, outputs = shapes[name]
            rows = _old_channels(old_inputs, inputs, 2 if name == _CONTEXT_AND_PHI else 1)
            columns = _old_channels(old_outputs, outputs, variables.num_parts(name, model))
            taps = new.reshape(-1, inputs, outputs)
            for pattern, factor in _NEW_CHANNEL_FACTORS.items():
                taps *= factor if pattern.match(name) else 1
            taps[:, :, columns] = 0
            taps[:, rows[:, None], columns] = old.reshape(-1, old_inputs, old_outputs)
        elif name.startswith("entropy_bottleneck/"):
            # New channels get the trained densities of old ones, which are narrower than initial
            # ones and so cost fewer bits.
            new = old[np.arange(len(new)) % len(old)]
        elif name.endswith("/reparam_gamma"):
            # In the rest of the initial gamma, each new channel is divided by itself only.
            new[: len(old), : len(old)] = old
        else:
            if name == "hyper_analysis/layer_4/bias":
                new = medians[np.arange(len(new)) % len(old)]
            new[_old_channels(len(old), len(new), variables.num_parts(name, model))] = old
        variable.assign(new)


def _old_channels(old_count: int, count: int, parts: int) -> np.ndarray:
    """Indices of a narrower layer's channels in a wider one; each part keeps its first channels.

    Args:
      old_count, count: channels of the narrower and of the wider layer.
      parts: number of equal parts that the channels consist of.
    """
    first = np.arange(parts)[:, None] * (count // parts)
    return (first + np.arange(old_count // parts)).ravel()
