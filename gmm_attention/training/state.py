"""The state of a training run, arrays and settings, to one file or several small ones and back."""

import io
import json
import os
import re

import numpy as np

from gmm_attention.errors import CheckpointError
from gmm_attention.files import write_atomically

# Kinds of arrays in a state that are an optimizer's, which counts their steps as `updates`.
MOMENTS = ("adam_m", "adam_v", "muon_m")

STATE_FILE = "state.npz"

PIECE_BYTES = 15_000_000
_PIECE_NAME = re.compile(r"state-(\d{3})-of-(\d{3})\.npz-part")
_SETTINGS = "settings"


def _pack(arrays, settings):
    """An .npz file's bytes, the settings as JSON among the arrays."""
    text = np.frombuffer(json.dumps(settings).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **{_SETTINGS: text})
    return buffer.getvalue()


def _unpack(file, path):
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return arrays, json.loads(arrays.pop(_SETTINGS).tobytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    # numpy, zipfile, zlib and json meet damage with nearly any exception.
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{path}: damaged, or no state of train.py: {cause}; copy it again"
        ) from error


def save(path, arrays, settings):
    """Writes a state; the older file stays until the new one is complete.

    Args:
      arrays: dict of str to numpy array, as `TrainStep.arrays` returns.
      settings: what JSON can hold.

    Raises:
      CodecError: the file cannot be written.
    """
    write_atomically({path: _pack(arrays, settings)})


def load(path):
    """Reads what `save` or `save_pieces` wrote.

    Args:
      path: a file of `save`, or a directory with one (state.npz) or with those of `save_pieces`.

    Returns:
      arrays, settings.

    Raises:
      CheckpointError: missing, incomplete or damaged.
    """
    whole = os.path.join(path, STATE_FILE) if os.path.isdir(path) else path
    if whole == path or os.path.exists(whole):
        return _unpack(whole, whole)
    pieces = {}
    for name in os.listdir(path):
        match = _PIECE_NAME.fullmatch(name)
        if match:
            index, count = map(int, match.groups())
            pieces.setdefault(count, {})[index] = os.path.join(path, name)
    if not pieces:
        raise CheckpointError(f"{path}: no state in it: neither state.npz nor pieces of one")
    if len(pieces) > 1:
        raise CheckpointError(f"{path}: pieces of several states; keep those of one")
    (count, found), data = *pieces.items(), []
    for index in range(1, count + 1):
        if index not in found:
            raise CheckpointError(f"{path}: piece {index} of {count} is missing; copy it too")
        try:
            with open(found[index], "rb") as file:
                data.append(file.read())
        except OSError as error:
            raise CheckpointError(f"{found[index]}: cannot be read: {error.strerror}") from error
    return _unpack(io.BytesIO(b"".join(data)), path)


def save_pieces(directory, arrays, settings):
    """Writes a state as files of at most 15 MB; pieces of an earlier one are removed.

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


def half(arrays):
    """What is worth carrying over a narrow line: weights and their average, as 16-bit floats.

    The optimizer's state, up to eight bytes a weight, builds itself up again within some thousand
    steps.
    """
    kept = {n: a for n, a in arrays.items() if n.startswith(("weights/", "average/"))}
    return {**{n: a.astype(np.float16) for n, a in kept.items()}, "averaged": arrays["averaged"]}


def _is_moment(name):
    return name.partition("/")[0] in MOMENTS


def complete(arrays, shapes, source):
    """Checks arrays against a network's, and fills in what may be missing.

    Args:
      arrays: dict of str to numpy array: all of a state, or only the weights, or the weights and
        their average; without the optimizer's state, or with another's, it begins anew, without
        an average it begins at the weights.
      shapes: dict of str to tuple, of the whole state.
      source: file that the arrays come from, for the message.

    Returns:
      dict of str to float32 array, with the names and shapes of `shapes`.

    Raises:
      CheckpointError: a weight is missing, or an array is foreign, misshapen or not finite.
    """
    moments = set(filter(_is_moment, arrays))
    if moments and moments != set(filter(_is_moment, shapes)):
        arrays = {n: a for n, a in arrays.items() if n not in moments and n != "updates"}
    arrays = dict(arrays)
    for name, shape in shapes.items():
        kind, _, variable = name.partition("/")
        if name not in arrays and kind == "average":
            arrays[name] = arrays.get(f"weights/{variable}")
        elif name not in arrays and kind != "weights":
            arrays[name] = np.zeros(shape, np.float32)
    for name in sorted({*shapes, *arrays}):
        array, cause = arrays.get(name), None
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
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}
