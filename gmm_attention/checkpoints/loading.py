"""A path to a model's arrays, whatever kind of model it stands for.

An exported model needs numpy alone. Reading any other kind imports TensorFlow.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gmm_attention import requirements
from gmm_attention.arrays import check
from gmm_attention.checkpoints import files, integers
from gmm_attention.checkpoints.fingerprints import fingerprint
from gmm_attention.checkpoints.locate import Kind, ModelPath, locate
from gmm_attention.entropy_coding.integer_model import IntegerEntropyModel
from gmm_attention.errors import CheckpointError, naming
from gmm_attention.onnx_model import network

if TYPE_CHECKING:  # importing it imports TensorFlow
    from gmm_attention.model import Cheng2020


@dataclass
class LoadedModel:
    """A model that is ready to code images.

    Attributes:
      exported: dict of arrays, as `integers.export_arrays` returns.
      settings: dict with `num_filters`, `num_mixtures`, `attention` and whatever else was saved.
      name: path of the model, for messages.
      network: a built Cheng2020 without `rdft`, with the weights as they were before their export;
        None for a model that was exported before, which has its integers only.
      entropy_model: IntegerEntropyModel of `exported`.
      fingerprint: 4 bytes, see `fingerprints.fingerprint`.

    Raises:
      CheckpointError: the exact arithmetic cannot take the arrays.
    """

    exported: dict[str, np.ndarray]
    settings: dict[str, Any]
    name: str
    network: Cheng2020 | None = None
    entropy_model: IntegerEntropyModel = field(init=False)
    fingerprint: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.entropy_model = IntegerEntropyModel(self.exported)
        self.fingerprint = fingerprint(self.exported)


def load(path: str | os.PathLike[str]) -> LoadedModel:
    """Finds and reads a model; see `locate` and `read`."""
    return read(locate(path))


def read(found: ModelPath, precision: str = "float32") -> LoadedModel:
    """Reads an exported model, a training checkpoint or a TF1 checkpoint.

    Args:
      found: ModelPath.
      precision: of the network of a checkpoint, see Cheng2020.

    Returns:
      LoadedModel.

    Raises:
      CheckpointError: there is no model, weights are missing, unknown or misshapen, or the exact
        arithmetic cannot take them.
      CodecError: the model is no exported one, and TensorFlow is not installed.
    """
    if found.kind is Kind.EXPORTED:
        return _read_exported(found)
    return _read_checkpoint(found, precision)


def _read_exported(found: ModelPath) -> LoadedModel:
    arrays = files.load_arrays(*found.weight_files)
    with naming(found.path):
        loaded = LoadedModel(arrays, found.settings, found.path)
        names = "num_filters", "num_mixtures", "attention"
        shapes = network.shapes(*(found.settings[name] for name in names))
    weights = {name: array for name, array in arrays.items() if integers.is_weight(name)}
    check(weights, shapes, found.path)
    with naming(found.path):
        integers.check_exponents(arrays)
    return loaded


def _read_checkpoint(found: ModelPath, precision: str) -> LoadedModel:
    requirements.need_tensorflow(
        f"{found.path}: a {found.kind.value}, unlike an exported model,",
        f"or export it where they are: python -m gmm_attention.export {found.path} models/NAME",
    )
    from gmm_attention.checkpoints import tf1, tf1_names
    from gmm_attention.model import variables

    name, settings, tables = found.path, found.settings, None
    if found.kind is Kind.TF1:
        arrays, tables, settings = tf1.read(name)
    else:
        arrays = files.load_arrays(*found.weight_files)
    with naming(name):
        network = build_network(settings, found.kind, precision)
    shown_name = tf1_names.shown_name if found.kind is Kind.TF1 else str
    check(arrays, variables.stored_shapes(network), name, shown_name)
    weights = variables.plain_arrays(arrays, network)
    variables.assign(network, weights, name)
    with naming(name):
        exported = integers.export_arrays(weights, network.entropy_bottleneck, tables)
        return LoadedModel(exported, settings, name, network)


def build_network(settings: dict[str, Any], kind: Kind, precision: str = "float32") -> Cheng2020:
    """Builds a Cheng2020 without `rdft` of a model's settings; imports TensorFlow.

    Raises:
      CheckpointError: there is no such network.
    """
    from gmm_attention.model import variables

    network = settings["num_filters"], settings["num_mixtures"], settings["attention"]
    try:
        return variables.build_model(*network, rdft=False, precision=precision)
    except ValueError as error:
        # The settings of a TF1 checkpoint come from the shapes of its arrays.
        cause = f"not a checkpoint of this codec: {error}" if kind is Kind.TF1 else str(error)
        raise CheckpointError(cause) from error
