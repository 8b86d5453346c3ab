"""The state of a training run, arrays and settings <-> one file, or several small ones."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from gmm_attention.errors import CheckpointError
from gmm_attention.files import write_atomically

# Prefixes of the arrays that belong to an optimizer. `updates` counts the steps they have seen.
MOMENTS = ("adam_m", "adam_v", "muon_m")

STATE_FILE = "state.npz"

PIECE_BYTES = 15_000_000
_PIECE_NAME = re.compile(r"state-(\d{3})-of-(\d{3})\.npz-part")
_SETTINGS = "settings"


def _pack(arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> bytes:
    """The content of an .npz file, in which the settings are one more array, of JSON."""
    text = np.frombuffer(json.dumps(settings).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **{_SETTINGS: text})
    return buffer.getvalue()


def _unpack(
    file: str | os.PathLike[str] | BinaryIO, path: str | os.PathLike[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and settings of a path or an open file; errors name `path`."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return arrays, json.loads(arrays.pop(_SETTINGS).tobytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    # On a damaged file, numpy, zipfile, zlib and json raise almost any exception.
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{path}: damaged, or no state of train.py: {cause}; copy it again"
        ) from error


def save(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]
) -> None:
    """Writes a state; an older file stays until the new one is complete.

    Args:
      path: of the file.
      arrays: dict of str to numpy array, as `TrainStep.arrays` returns.
      settings: dict that JSON can hold.

    Raises:
      CodecError: the file cannot be written.
    """
    write_atomically({path: _pack(arrays, settings)})


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads what `save` or `save_pieces` wrote.

    Args:
      path: a file of `save`, or a directory with state.npz or with the files of `save_pieces`.

    Returns:
      arrays, settings.

    Raises:
      CheckpointError: the state is missing, incomplete or damaged.
    """
    whole = os.path.join(path, STATE_FILE) if os.path.isdir(path) else path
    if whole == path or os.path.exists(whole):
        return _unpack(whole, whole)
    pieces: dict[int, dict[int, str]] = {}  # number of pieces -> piece -> path
    for name in os.listdir(path):
        match = _PIECE_NAME.fullmatch(name)
        if match:
            index, count = map(int, match.groups())
            pieces.setdefault(count, {})[index] = os.path.join(path, name)
    if not pieces:
        raise CheckpointError(f"{path}: no state in it: neither state.npz nor pieces of one")
    if len(pieces) > 1:
        raise CheckpointError(f"{path}: pieces of several states; keep those of one")
    ((count, found),) = pieces.items()
    data = []
    for index in range(1, count + 1):
        if index not in found:
            raise CheckpointError(f"{path}: piece {index} of {count} is missing; copy it too")
        try:
            with open(found[index], "rb") as file:
                data.append(file.read())
        except OSError as error:
            raise CheckpointError(f"{found[index]}: cannot be read: {error.strerror}") from error
    return _unpack(io.BytesIO(b"".join(data)), path)


def save_pieces(
    directory: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    settings: Mapping[str, Any],
) -> None:
    """Writes a state as files of at most 15 MB, and removes the pieces of an earlier state.

    Args:
      directory: made if need be.
      arrays, settings: as for `save`.

    Raises:
      CodecError: a file cannot be written.
    """
    data = _pack(arrays, settings)
    count = -(-len(data) // PIECE_BYTES)
    paths = [
        os.path.join(directory, f"state-{i + 1:03}-of-{count:03}.npz-part") for i in range(count)
    ]
    try:
        os.makedirs(directory, exist_ok=True)
        write_atomically(
            {p: data[i * PIECE_BYTES : (i + 1) * PIECE_BYTES] for i, p in enumerate(paths)}
        )
        for name in os.listdir(directory):
            if _PIECE_NAME.fullmatch(name) and os.path.join(directory, name) not in paths:
                os.unlink(os.path.join(directory, name))
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be written: {error.strerror}") from error


def half(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A small version of a state, for slow connections: weights and average as 16-bit floats.

    The optimizer's state, up to eight bytes for each weight, is left out. It builds up again
    within some thousand steps.

    Args:
      arrays: dict of str to numpy array, as `TrainStep.arrays` returns.

    Returns:
      dict of str to numpy array, which `complete` takes.
    """
    kept = {n: a for n, a in arrays.items() if n.startswith(("weights/", "average/"))}
    return {**{n: a.astype(np.float16) for n, a in kept.items()}, "averaged": arrays["averaged"]}


def _is_moment(name: str) -> bool:
    return name.partition("/")[0] in MOMENTS


def complete(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    source: str | os.PathLike[str],
) -> dict[str, np.ndarray]:
    """Checks arrays against the shapes of a state, and fills in those that may be missing.

    Args:
      arrays: dict of str to numpy array: the weights, and any other part of a state. If the
        optimizer's state is missing or another optimizer's, it starts from zero; if the average
        is missing, it starts from the weights.
      shapes: dict of str to tuple, of the whole state.
      source: path that the arrays come from, for the message.

    Returns:
      dict of str to float32 array, with the names and shapes of `shapes`.

    Raises:
      CheckpointError: a weight is missing, or an array is foreign, misshapen or not finite.
    """
    moments = set(filter(_is_moment, arrays))
    if moments and moments != set(filter(_is_moment, shapes)):
        arrays = {n: a for n, a in arrays.items() if n not in moments and n != "updates"}
    completed: dict[str, np.ndarray | None] = dict(arrays)
    for name, shape in shapes.items():
        kind, _, variable = name.partition("/")
        if name not in completed and kind == "average":
            completed[name] = completed.get(f"weights/{variable}")
        elif name not in completed and kind != "weights":
            completed[name] = np.zeros(shape, np.float32)
    for name in sorted({*shapes, *completed}):
        array, cause = completed.get(name), None
        if array is None:
            cause = f"misses {name}, as of another network"
        elif name not in shapes:
            cause = f"has a foreign {name}, as of another network"
        elif array.shape != tuple(shapes[name]):
            cause = f"{name} has shape {list(array.shape)}, not {list(shapes[name])}"
        elif not np.isfinite(array).all():
            cause = f"{name} holds values that are not finite numbers"
        if cause:
            raise CheckpointError(f"{source}: {cause}; give another state or folder")
    return {name: np.asarray(array, np.float32) for name, array in completed.items()}
