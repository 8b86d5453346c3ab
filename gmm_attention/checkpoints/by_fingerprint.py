"""The fingerprints in coded files -> the models that made them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from gmm_attention.checkpoints import loading
from gmm_attention.checkpoints.locate import ModelPath


def find(
    wanted: Collection[bytes], models: Iterable[ModelPath]
) -> tuple[dict[bytes, ModelPath], dict[str, bytes]]:
    """Finds models by their fingerprints. It stops as soon as all are found.

    The fingerprint that an exported model's settings state is believed, since whoever loads the
    model computes it again. Weights are read where there is none.

    Args:
      wanted: fingerprints, 4 bytes each.
      models: of ModelPath, in the order in which they are looked at.

    Returns:
      found: dict of fingerprint to ModelPath, without those of which there is no model.
      seen: dict of path to fingerprint, of all models that were looked at.

    Raises:
      CheckpointError: a model cannot be read.
      CodecError: a model is no exported one, and TensorFlow is not installed.
    """
    found: dict[bytes, ModelPath] = {}
    seen: dict[str, bytes] = {}
    for model in models:
        if all(fingerprint in found for fingerprint in wanted):
            break
        fingerprint = _stated(model) or loading.read(model).fingerprint
        seen[model.path] = fingerprint
        if fingerprint in wanted:
            found.setdefault(fingerprint, model)
    return found, seen


def _stated(model: ModelPath) -> bytes | None:
    try:
        return bytes.fromhex(model.settings["fingerprint"])
    except (KeyError, TypeError, ValueError):
        return None
