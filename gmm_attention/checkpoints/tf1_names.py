"""Our names of variables <-> the names in the original's TF1 checkpoints."""

from __future__ import annotations

import re

# The original does not name these layers, so that TensorFlow numbers them.
_ENTROPY_PARAMETER_SCOPES = {
    "entropy_parameter/layer_0": "entropy_parameter/layer_0/signal_conv2d",
    "entropy_parameter/layer_1": "entropy_parameter/layer_1/signal_conv2d_1",
    "entropy_parameter/layer_2": "entropy_parameter/layer_2/signal_conv2d_2",
}
_RENAMED = {
    "entropy_parameter/masked/kernel": "entropy_parameter/masked/weights",
    "entropy_parameter/masked/bias": "entropy_parameter/masked/biases",
}

# The range coder's tables of z, which the original stores as variables and our model does not.
TABLES = ("entropy_bottleneck/quantized_cdf", "entropy_bottleneck/cdf_length")

# Variables that a checkpoint written in training may hold besides the model.
TRAINING_STATE = re.compile(
    r"(^|/)(global_step|beta\d_power(_\d+)?|Adam(_\d+)?|Momentum|RMSProp(_\d+)?"
    r"|ExponentialMovingAverage|learning_rate)$|^(Adam|save)/"
)

_LAYER = re.compile(r"(.*?)/((?:i?gdn/)?\w+)")
_SCOPE = re.compile(r"/signal_conv2d(_\d+)?/")


def original_name(name: str) -> str:
    """The original's name of one of our variables.

    Args:
      name: such as `analysis/Block_0/layer_2/bias`.

    Raises:
      ValueError: the name is not that of a layer's variable.
    """
    if name in _RENAMED:
        return _RENAMED[name]
    if name.startswith("entropy_bottleneck/"):
        return name
    match = _LAYER.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not the name of a layer's variable")
    layer, variable = match.groups()
    if layer in _ENTROPY_PARAMETER_SCOPES:
        return f"{_ENTROPY_PARAMETER_SCOPES[layer]}/{variable}"
    layer = re.sub(r"(Block_\d)/", r"\1_", layer)
    return f"{layer}/signal_conv2d/{variable}"


def our_name(original: str) -> str:
    """Our name of one of the original's variables.

    Any other name comes back with a slash before it, so that it is not taken for one of ours.
    """
    name = {theirs: ours for ours, theirs in _RENAMED.items()}.get(original, original)
    name = re.sub(r"(Block_\d)_", r"\1/", _SCOPE.sub("/", name))
    return name if _LAYER.fullmatch(name) and original_name(name) == original else f"/{original}"


def shown_name(name: str) -> str:
    """Undoes `our_name`, for messages about a checkpoint."""
    return name[1:] if name.startswith("/") else original_name(name)
