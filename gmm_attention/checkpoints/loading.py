"""A model on disk, of any kind -> the network and the integer model that code images."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gmm_attention.checkpoints import files, integers, tf1, tf1_names
from gmm_attention.checkpoints.fingerprints import fingerprint
from gmm_attention.checkpoints.locate import Kind, locate
from gmm_attention.entropy_coding.integer_model import IntegerEntropyModel
from gmm_attention.errors import CheckpointError, naming
from gmm_attention.model import Cheng2020, variables


@dataclass
class LoadedModel:
    """A model that is ready to code images.

    Attributes:
      network: a built Cheng2020 without `rdft`, for the float transforms.
      exported: dict of arrays, as `integers.export_arrays` returns.
      settings: dict with `num_filters`, `num_mixtures`, `attention` and whatever else was saved.
      name: path of the model, for messages.
      entropy_model: IntegerEntropyModel of `exported`.
      fingerprint: 4 bytes, see `fingerprints.fingerprint`.

    Raises:
      CheckpointError: the exact arithmetic cannot take the arrays.
    """

    network: Cheng2020
    exported: dict[str, np.ndarray]
    settings: dict[str, Any]
    name: str
    entropy_model: IntegerEntropyModel = field(init=False)
    fingerprint: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.entropy_model = IntegerEntropyModel(self.exported)
        self.fingerprint = fingerprint(self.exported)


def load(path: str | os.PathLike[str], precision: str = "float32") -> LoadedModel:
    """Reads an exported model, a training checkpoint or a TF1 checkpoint.

    Args:
      path: the directory of one of the first two, or the prefix or `.index` file of a TF1
        checkpoint.
      precision: see Cheng2020.

    Returns:
      LoadedModel.

    Raises:
      CheckpointError: there is no model, weights are missing, unknown or misshapen, or the exact
        arithmetic cannot take them.
    """
    found = locate(path)
    name, settings, tables = found.path, found.settings, None
    if found.kind is Kind.TF1:
        arrays, tables, settings = tf1.read(name)
    else:
        arrays = files.load_arrays(*found.weight_files)
    with naming(name):
        network = build_network(settings, found.kind, precision)
    if found.kind is Kind.EXPORTED:
        with naming(name):
            loaded = LoadedModel(network, arrays, settings, name)
            weights = integers.float_arrays(arrays, network.num_filters, network.num_mixtures)
        variables.assign(network, weights, name)
        return loaded
    shown_name = tf1_names.shown_name if found.kind is Kind.TF1 else str
    variables.check(arrays, variables.stored_shapes(network), name, shown_name)
    weights = variables.plain_arrays(arrays, network)
    variables.assign(network, weights, name)
    with naming(name):
        exported = integers.export_arrays(weights, network.entropy_bottleneck, tables)
        return LoadedModel(network, exported, settings, name)


def build_network(settings: dict[str, Any], kind: Kind, precision: str = "float32") -> Cheng2020:
    """Builds a Cheng2020 without `rdft` of a model's settings.

    Raises:
      CheckpointError: there is no such network.
    """
    network = settings["num_filters"], settings["num_mixtures"], settings["attention"]
    try:
        return variables.build_model(*network, rdft=False, precision=precision)
    except ValueError as error:
        # The settings of a TF1 checkpoint come from the shapes of its arrays.
        cause = f"not a checkpoint of this codec: {error}" if kind is Kind.TF1 else str(error)
        raise CheckpointError(cause) from error
