"""Checks of a network's named arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from gmm_attention.errors import CheckpointError


def check(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    source: str,
    shown_name: Callable[[str], str] = str,
) -> None:
    """Checks names, shapes and values of a network's arrays.

    Args:
      arrays: dict of names to numpy arrays.
      shapes: dict of names to shapes, of all arrays that must be there.
      source: path of the file that the arrays come from, for the message.
      shown_name: function from a name to the array's name in that file, for the message.

    Raises:
      CheckpointError: arrays are missing, left over, misshapen or not finite; the message names
        all of them.
    """
    problems = [f"missing {shown_name(name)}" for name in sorted(set(shapes) - set(arrays))]
    problems += [f"left over {shown_name(name)}" for name in sorted(set(arrays) - set(shapes))]
    both = [name for name in sorted(shapes) if name in arrays]
    problems += [
        f"{shown_name(name)} has shape {list(np.shape(arrays[name]))}, not {list(shapes[name])}"
        for name in both
        if np.shape(arrays[name]) != tuple(shapes[name])
    ]
    problems += [
        f"{shown_name(name)} holds values that are not finite numbers"
        for name in both
        if np.asarray(arrays[name]).dtype.kind not in "fiu" or not np.isfinite(arrays[name]).all()
    ]
    if problems:
        raise CheckpointError(f"{source}: does not fit the model: {'; '.join(problems)}")
