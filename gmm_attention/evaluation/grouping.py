"""Models -> the curves that they belong to, by the distortion that they were trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gmm_attention.errors import CurveError
from gmm_attention.training.recipe import paper_num_filters

_LOSSES = {"mse": "MSE", "ms-ssim": "MSSSIM"}


def _name_ending(settings: Mapping[str, Any]) -> str:
    """The end of a curve's name, as in RDdata: "_optimized_by_MSE"."""
    loss = _LOSSES.get(settings.get("metric", ""))
    return f"_optimized_by_{loss}" if loss else ""


def by_loss(models: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Groups models into curves, by the distortion that they were trained for.

    Args:
      models: dict of path to settings.

    Returns:
      dict of the end of the curve's name, such as "_optimized_by_MSE", to list of paths.

    Raises:
      CurveError: models of one curve differ in N, and not in the way of the paper's models.
    """
    groups: dict[str, list[str]] = {}
    for model, settings in models.items():
        groups.setdefault(_name_ending(settings), []).append(model)
    for group in groups.values():
        sizes = {model: models[model].get("num_filters") for model in group}
        if len(set(sizes.values())) > 1 and not all(_has_papers_size(models[m]) for m in group):
            listed = ", ".join(f"{model} has N = {size}" for model, size in sizes.items())
            raise CurveError(
                f"{listed}: models of one curve share N, or have the paper's (128, and 192 for its "
                "higher rates); evaluate them one after the other, each with its own --name and "
                "--output, which --curves RDdata OUTPUT puts together"
            )
    return groups


def _has_papers_size(settings: Mapping[str, Any]) -> bool:
    if settings.get("metric") not in _LOSSES or "lambda" not in settings:
        return False
    return settings["num_filters"] == paper_num_filters(settings["metric"], settings["lambda"])
