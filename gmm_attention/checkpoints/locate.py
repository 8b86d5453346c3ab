"""Finds models, and decides what kind of model a path stands for."""

from __future__ import annotations

import contextlib
import enum
import glob
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gmm_attention.checkpoints import files
from gmm_attention.errors import CheckpointError

# The two places where a model is looked for by its name: a folder, which a clone of the repository
# has, and the package that `pip install ./models` makes of it.
FOLDER = "models"
PACKAGE = "gmm_attention_models"


class Kind(enum.Enum):
    """The kinds of models on disk."""

    EXPORTED = "exported model"
    TRAINED = "training checkpoint"
    TF1 = "TF1 checkpoint"


@dataclass(frozen=True)
class ModelPath:
    """A model on disk.

    Attributes:
      path: str, the directory of an exported model or a training checkpoint, or the prefix of a
        TF1 checkpoint.
      kind: Kind.
      settings: dict as `files.load_settings` returns; empty for a TF1 checkpoint, which has none.
    """

    path: str
    kind: Kind
    settings: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def weight_files(self) -> list[str]:
        """Paths of the files that hold the weights, sorted."""
        if self.kind is not Kind.TF1:
            return [os.path.join(self.path, files.WEIGHTS_FILE)]
        prefix = glob.escape(self.path)
        return sorted(glob.glob(f"{prefix}.index") + glob.glob(f"{prefix}.data-*"))


def tf1_prefix(path: str) -> str | None:
    """The prefix of the TF1 checkpoint that a path stands for, or None if it stands for none.

    Args:
      path: the prefix itself, or the `.index` file.
    """
    prefix = path.removesuffix(".index")
    return prefix if os.path.isfile(f"{prefix}.index") else None


def find_model(model: str | os.PathLike[str]) -> str:
    """The path of a model that is given by its path or its name.

    Args:
      model: a path where a model is is taken as it is; otherwise a name is looked for in ./models,
        then in the installed package gmm-attention-models.

    Returns:
      the path. If what was given has a folder in it, it may be one where nothing is.

    Raises:
      CheckpointError: a name that is in neither place.
    """
    path = os.fspath(model)
    name = path.rstrip("/" + os.sep)
    if is_model(path) or name != os.path.basename(name) or not name:
        return path
    for folder in _folders():
        found = os.path.join(folder, name)
        if is_model(found):
            return found
    if os.path.exists(path):  # which is no model, as whoever reads it will say
        return path
    known = ", ".join(map(os.path.basename, known_models()))
    raise CheckpointError(
        f"{path}: no such path, and no model of this name in ./{FOLDER} or in the installed "
        f"package gmm-attention-models, which pip install ./{FOLDER} in a clone of the repository "
        "brings; --model takes an exported model, a training checkpoint or the prefix of a TF1 "
        f"checkpoint, by its path or its name (here are: {known or 'none'})"
    )


def known_models() -> list[str]:
    """The paths of all models that have a name: those in ./models, then those installed.

    Returns:
      sorted within each place, TF1 checkpoints last. Of two with one name, the first alone, which
      `find_model` finds.
    """
    by_name: dict[str, str] = {}
    for folder in _folders():
        inside = glob.escape(folder)
        settings = glob.glob(os.path.join(inside, "*", files.SETTINGS_FILE))
        indices = glob.glob(os.path.join(inside, "*.index"))
        paths = sorted(map(os.path.dirname, settings))
        paths += sorted(path.removesuffix(".index") for path in indices)
        for path in paths:
            by_name.setdefault(os.path.basename(path), path)
    return list(by_name.values())


def named_models(first: str = "") -> Iterator[ModelPath]:
    """Locates the models of `known_models`, but those whose settings cannot be read.

    Args:
      first: name of the model that comes before all others.
    """
    for path in sorted(known_models(), key=lambda path: os.path.basename(path) != first):
        with contextlib.suppress(CheckpointError):
            yield locate(path)


def is_model(path: str) -> bool:
    """Whether there is a model at this path; whether it can be read is not looked at."""
    settings = os.path.join(path, files.SETTINGS_FILE)
    return os.path.exists(settings) or tf1_prefix(path) is not None


def _folders() -> list[str]:
    """The folders in which models have names."""
    spec = importlib.util.find_spec(PACKAGE)
    installed = spec.submodule_search_locations if spec else None
    return [FOLDER, *(installed or [])]


def locate(path: str | os.PathLike[str]) -> ModelPath:
    """Finds a model, and decides which kind it is.

    Args:
      path: a directory, or the prefix or the `.index` file of a TF1 checkpoint, or the name of one
        of these, see `find_model`.

    Returns:
      ModelPath. No weights are read.

    Raises:
      CheckpointError: nothing is there, or the settings are unreadable or damaged.
    """
    path = find_model(path)
    prefix = tf1_prefix(path)
    if prefix is not None:
        return ModelPath(prefix, Kind.TF1)
    settings = files.load_settings(path)
    return ModelPath(path, Kind.EXPORTED if settings.get("exported") else Kind.TRAINED, settings)
