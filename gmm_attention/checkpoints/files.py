"""Weights and settings <-> a directory; needs no TensorFlow."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gmm_attention.errors import CheckpointError
from gmm_attention.files import make_folder, refuse_foreign, write_atomically

SETTINGS_FILE = "settings.json"
WEIGHTS_FILE = "weights.npz"

_ZIP = b"PK\3\4"  # first bytes of every .npz file


def refuse_foreign_model(directory: str | os.PathLike[str], overwrite: bool) -> None:
    """Refuses to replace files in a directory that are not those of a model, see `save`.

    Args:
      directory: need not exist.
      overwrite: whether the user allows to replace any file.

    Raises:
      CodecError: one of the two files is there, and is not of a model or cannot be read.
    """

    def is_model(_: bytes) -> bool:
        try:
            load_settings(directory)
        except CheckpointError:
            return False
        return True

    def is_weights(head: bytes) -> bool:
        return head.startswith(_ZIP) and is_model(head)

    refuse_foreign(os.path.join(directory, SETTINGS_FILE), is_model, overwrite)
    refuse_foreign(os.path.join(directory, WEIGHTS_FILE), is_weights, overwrite)


def save(
    directory: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    settings: Mapping[str, Any],
) -> None:
    """Writes arrays and settings into a directory.

    Args:
      directory: made if need be.
      arrays: dict of str to numpy array.
      settings: dict that JSON can hold, with `num_filters`, `num_mixtures` and `attention`.

    Raises:
      CodecError: the directory or a file in it cannot be written.
    """
    make_folder(directory)
    weights = io.BytesIO()
    np.savez_compressed(weights, **arrays)
    # The settings come last, so that a directory with settings is complete.
    write_atomically(
        {
            os.path.join(directory, WEIGHTS_FILE): weights.getvalue(),
            os.path.join(directory, SETTINGS_FILE): _settings_text(settings),
        }
    )


def load_settings(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the settings that `save` wrote.

    Returns:
      dict with num_filters (int), num_mixtures (int), attention (bool) and whatever else was saved.

    Raises:
      CheckpointError: the file is missing, unreadable or damaged.
    """
    path = os.path.join(directory, SETTINGS_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            settings = json.load(file)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read: {error.strerror}; --model takes an exported model, "
            "a training checkpoint or the prefix of a TF1 checkpoint"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged: {error}; export the model again") from error
    for key, kind in [("num_filters", int), ("num_mixtures", int), ("attention", bool)]:
        if not isinstance(settings, dict) or type(settings.get(key)) is not kind:
            raise CheckpointError(f"{path}: damaged: it does not give {key}")
    return settings


def save_settings(directory: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
    """Replaces the settings in a directory, and leaves the weights as they are.

    Raises:
      CodecError: the file cannot be written.
    """
    write_atomically({os.path.join(directory, SETTINGS_FILE): _settings_text(settings)})


def load(directory: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads what `save` wrote.

    Returns:
      arrays: dict of str to numpy array.
      settings: see `load_settings`.

    Raises:
      CheckpointError: a file is missing, unreadable or damaged.
    """
    settings = load_settings(directory)
    return load_arrays(os.path.join(directory, WEIGHTS_FILE)), settings


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a file of weights.

    Args:
      path: of WEIGHTS_FILE in the directory of a model.

    Returns:
      dict of str to numpy array.

    Raises:
      CheckpointError: the file is missing, unreadable or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    # On a damaged file, numpy, zipfile and zlib raise almost any exception.
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{path}: damaged: {cause}; copy or export the model again"
        ) from error


def _settings_text(settings: Mapping[str, Any]) -> bytes:
    return (json.dumps(settings, indent=2) + "\n").encode()
