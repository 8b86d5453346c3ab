"""The fingerprints in coded files -> the models that made them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from gmm_attention.checkpoints import loading
from gmm_attention.checkpoints.locate import ModelPath
from gmm_attention.errors import CodecError


def find(
    wanted: Collection[bytes], models: Iterable[ModelPath], named: bool
) -> tuple[dict[bytes, ModelPath], dict[str, str]]:
    """Finds models by their fingerprints. It stops as soon as all are found.

    The fingerprint that an exported model's settings state is believed, since whoever loads the
    model computes it again. Weights are read where there is none.

    Args:
      wanted: fingerprints, 4 bytes each.
      models: of ModelPath, in the order in which they are looked at.
      named: whether the user has named them. Of others, those that cannot be read are passed over.

    Returns:
      found: dict of fingerprint to ModelPath, without those of which there is no model.
      seen: dict of path to fingerprint, in hexadecimal digits, of all models that were looked at;
        or to a word on why it is not known.

    Raises:
      CheckpointError: a model that the user has named cannot be read.
      CodecError: it is no exported one, and TensorFlow is not installed.
    """
    found: dict[bytes, ModelPath] = {}
    seen: dict[str, str] = {}
    for model in models:
        if all(fingerprint in found for fingerprint in wanted):
            break
        try:
            fingerprint = _stated(model) or loading.read(model).fingerprint
        except CodecError:
            if named:
                raise
            seen[model.path] = "which cannot be read"
            continue
        seen[model.path] = fingerprint.hex()
        if fingerprint in wanted:
            found.setdefault(fingerprint, model)
    return found, seen


def _stated(model: ModelPath) -> bytes | None:
    try:
        return bytes.fromhex(model.settings["fingerprint"])
    except (KeyError, TypeError, ValueError):
        return None
