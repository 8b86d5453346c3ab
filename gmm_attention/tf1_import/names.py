"""The names of the original's variables; the one place that knows them."""

import re

# Layers that have no name of their own in the original are numbered there.
_ENTROPY_PARAMETER_SCOPES = {
    "entropy_parameter/layer_0": "entropy_parameter/layer_0/signal_conv2d",
    "entropy_parameter/layer_1": "entropy_parameter/layer_1/signal_conv2d_1",
    "entropy_parameter/layer_2": "entropy_parameter/layer_2/signal_conv2d_2",
}
_RENAMED = {
    "entropy_parameter/masked/kernel": "entropy_parameter/masked/weights",
    "entropy_parameter/masked/bias": "entropy_parameter/masked/biases",
}

# The range coder's tables of z, which are no variables of the model here.
TABLES = ("entropy_bottleneck/quantized_cdf", "entropy_bottleneck/cdf_length")

# What a training checkpoint may hold besides the model.
TRAINING_STATE = re.compile(
    r"(^|/)(global_step|beta\d_power(_\d+)?|Adam(_\d+)?|Momentum|RMSProp(_\d+)?"
    r"|ExponentialMovingAverage|learning_rate)$|^(Adam|save)/"
)


def original_name(name):
    """The original's name of one of our variables."""
    if name in _RENAMED:
        return _RENAMED[name]
    if name.startswith("entropy_bottleneck/"):
        return name
    match = re.fullmatch(r"(.*?)/((?:i?gdn/)?\w+)", name)
    layer, variable = match.groups()
    if layer in _ENTROPY_PARAMETER_SCOPES:
        return f"{_ENTROPY_PARAMETER_SCOPES[layer]}/{variable}"
    layer = re.sub(r"(Block_\d)/", r"\1_", layer)
    return f"{layer}/signal_conv2d/{variable}"
