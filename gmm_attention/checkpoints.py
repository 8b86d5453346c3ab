"""Weights and settings to a directory and back; needs no TensorFlow."""

import io
import json
import os

import numpy as np

from gmm_attention.errors import CheckpointError
from gmm_attention.files import make_folder, write_atomically

SETTINGS_FILE = "settings.json"
WEIGHTS_FILE = "weights.npz"


def save(directory, arrays, settings):
    """Writes arrays and settings into a directory, made if need be.

    Args:
      arrays: dict of str to numpy array.
      settings: what JSON can hold; `num_filters`, `num_mixtures` and `attention` among it.

    Raises:
      CodecError: the directory or a file in it cannot be written.
    """
    make_folder(directory)
    weights = io.BytesIO()
    np.savez_compressed(weights, **arrays)
    # The settings come last: a directory that has them is whole.
    write_atomically(
        {
            os.path.join(directory, WEIGHTS_FILE): weights.getvalue(),
            os.path.join(directory, SETTINGS_FILE): _settings_text(settings),
        }
    )


def load_settings(directory):
    """Reads the settings of what `save` wrote.

    Returns:
      dict, with num_filters (int), num_mixtures (int), attention (bool) and what else was saved.

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


def save_settings(directory, settings):
    """Writes new settings beside weights that stay; see `load_settings`.

    Raises:
      CodecError: the file cannot be written.
    """
    write_atomically({os.path.join(directory, SETTINGS_FILE): _settings_text(settings)})


def load(directory):
    """Reads what `save` wrote.

    Returns:
      arrays, settings.

    Raises:
      CheckpointError: a file is missing, unreadable or damaged.
    """
    settings = load_settings(directory)
    weights_path = os.path.join(directory, WEIGHTS_FILE)
    try:
        with np.load(weights_path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}, settings
    except OSError as error:
        raise CheckpointError(
            f"{weights_path}: cannot be read: {error.strerror or error}"
        ) from error
    # numpy, zipfile and zlib meet damage with nearly any exception.
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{weights_path}: damaged: {cause}; copy or export the model again"
        ) from error


def _settings_text(settings):
    return (json.dumps(settings, indent=2) + "\n").encode()
