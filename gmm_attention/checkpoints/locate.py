"""Decides what kind of model a path stands for."""

from __future__ import annotations

import enum
import glob
import os
from dataclasses import dataclass, field
from typing import Any

from gmm_attention.checkpoints import files


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


def locate(path: str | os.PathLike[str]) -> ModelPath:
    """Decides what kind of model a path stands for.

    Args:
      path: a directory, or the prefix or the `.index` file of a TF1 checkpoint.

    Returns:
      ModelPath. No weights are read.

    Raises:
      CheckpointError: nothing is there, or the settings are unreadable or damaged.
    """
    path = os.fspath(path)
    prefix = tf1_prefix(path)
    if prefix is not None:
        return ModelPath(prefix, Kind.TF1)
    settings = files.load_settings(path)
    return ModelPath(path, Kind.EXPORTED if settings.get("exported") else Kind.TRAINED, settings)
