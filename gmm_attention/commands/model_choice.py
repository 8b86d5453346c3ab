"""Which model the encoder takes: the one that is given, or the nearest to a target."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Sequence

from gmm_attention import cli
from gmm_attention.checkpoints.locate import FOLDER, known_models, locate
from gmm_attention.errors import CheckpointError
from gmm_attention.start_up import shown_name

_FIGURES = {"bpp": "rate", "psnr": "PSNR"}


def model(args: argparse.Namespace) -> str:
    """Returns the path of the model to encode with: the one given, or the nearest to a target.

    Args:
      args: the encoder's.

    Raises:
      CheckpointError: see `_nearest_model`.
    """
    target = args.target_bpp or args.target_psnr
    # One model is enough where the search can come to the target with any.
    if not target or (args.effort and args.model and len(args.model) == 1):
        return args.model[0] if args.model else cli.DEFAULT_MODEL
    figure = "bpp" if args.target_bpp else "psnr"
    path, value = _nearest_model(args.model, figure, target)
    if not args.quiet:
        wanted, measured = (
            f"{number:.4f} bpp" if args.target_bpp else f"{number:.2f} dB"
            for number in (target, value)
        )
        print(f"target {wanted}: {shown_name(path)}, {measured} on Kodak, is nearest")
    return path


def _nearest_model(paths: Sequence[str] | None, figure: str, target: float) -> tuple[str, float]:
    """Chooses a model by the figures that `evaluate.py --record` wrote into the models' settings.

    Args:
      paths: of the models to choose from, or None for all that have a name.
      figure: "bpp" or "psnr".
      target: wanted bpp or dB.

    Returns:
      path, and its mean figure on Kodak.

    Raises:
      CheckpointError: no such model, or none whose figure is known.
    """
    models = known_models() if paths is None else paths
    figures = {}
    for path in models:
        try:
            settings = locate(path).settings  # a TF1 checkpoint has none, and so no rate
        except CheckpointError:
            if paths is not None:  # of models that nobody has named, another may do
                raise
            continue
        with contextlib.suppress(KeyError, TypeError):  # figures of another shape
            value = settings["measured"]["Kodak"][figure]
            if math.isfinite(value):
                figures[path] = value
    if not figures:
        names = ", ".join(map(shown_name, models)) or FOLDER
        raise CheckpointError(
            f"{names}: no model whose {_FIGURES[figure]} on Kodak is known; give one by --model, "
            "or measure it: evaluate.py --images KODAK --models MODEL --record"
        )
    return min(figures.items(), key=lambda item: abs(item[1] - target))
