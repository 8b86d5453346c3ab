"""The Keras model as a runtime; importing this imports TensorFlow."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gmm_attention import forks, requirements
from gmm_attention.checkpoints import integers
from gmm_attention.checkpoints.loading import LoadedModel, build_network
from gmm_attention.checkpoints.locate import Kind
from gmm_attention.errors import CodecError, naming
from gmm_attention.model import variables
from gmm_attention.runtimes.protocol import Transform
from gmm_attention.strips import Stage

# Two threads in the same graphs of oneDNN may end the process. TensorFlow divides each operation
# among the cores by itself, so threads that take turns lose little.
one_at_a_time = threading.RLock()

# What a lack of memory raises.
MEMORY_ERRORS = MemoryError, tf.errors.ResourceExhaustedError

# That of the process that imported this module, to start TensorFlow.
_GENERATION = forks.generation()


def prepare(precision: str, device: str, threads: int) -> None:
    """Chooses what TensorFlow computes on, before it starts.

    Args:
      precision: "float32" or "bfloat16", of analysis and synthesis.
      device: "auto", "cpu" or "gpu".
      threads: number of threads on a CPU; the first call in a process decides.

    Raises:
      CodecError: a GPU is asked for, and there is none; or TensorFlow runs on another device
        already; or the device does not compute in bfloat16; or this process was forked from one
        that had started TensorFlow.
    """
    check_process()
    with contextlib.suppress(RuntimeError):  # it has started
        # By itself TensorFlow ignores a container's quota of processors.
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise CodecError(
            "--device gpu: TensorFlow sees no GPU; install '.[gpu]' and a CUDA 11.8 driver, or "
            "leave --device away"
        )
    try:
        tf.config.set_visible_devices([] if device == "cpu" else gpus, "GPU")
    except RuntimeError as error:
        raise CodecError(
            f"--device {device}: this process runs TensorFlow on another device already; start a "
            "new one"
        ) from error
    if precision == "bfloat16":
        need_bfloat16()
    if gpus and device != "cpu":
        # With these settings, which hold for the whole process, repeated runs give the same bytes,
        # and pixels that differ from a CPU's by rounding only.
        tf.config.experimental.enable_op_determinism()
        tf.config.experimental.enable_tensor_float_32_execution(False)


class TensorFlowRuntime:
    """A Runtime of TensorFlow, on the device that `prepare` chose.

    Its functions may be called by several threads at once; they take turns. In a process that was
    forked they raise a CodecError, where TensorFlow itself would hang.

    Args:
      loaded: the model.
      precision: "float32" or "bfloat16", of analysis and synthesis; that of the model's network, if
        it has one.

    Attributes:
      title, memory_errors: see Runtime.
      network: a built Cheng2020.

    Raises:
      CheckpointError: there is no network of the model's settings.
    """

    memory_errors = MEMORY_ERRORS

    def __init__(self, loaded: LoadedModel, precision: str):
        place = "GPU" if tf.config.get_visible_devices("GPU") else "CPU"
        self.title = f"TensorFlow {tf.__version__} on the {place}"
        if loaded.network is not None:
            self.network = loaded.network
            return
        with naming(loaded.name):
            self.network = build_network(loaded.settings, Kind.EXPORTED, precision)
        variables.assign(self.network, integers.float_arrays(loaded.exported), loaded.name)

    def analysis(self) -> Transform:
        return _transform(self.network.analysis, self.network.num_filters)

    def hyper_analysis(self) -> Transform:
        return _transform(self.network.hyper_analysis, self.network.num_filters)

    def synthesis(self) -> Transform:
        return _transform(self.network.synthesis, 3)

    def mixtures(
        self, y_hat: np.ndarray, z_hat: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        check_process()
        with one_at_a_time:
            phi = self.network.hyper_synthesis(z_hat)
            weights, means, scales = self.network.entropy_parameters([y_hat, phi])
        return phi.numpy(), weights.numpy(), means.numpy(), scales.numpy()


def check_process() -> None:
    """Raises CodecError in a process that was forked from one that had started TensorFlow."""
    forks.refuse("TensorFlow", _GENERATION)


def _transform(part: Any, channels: int) -> Transform:
    """Makes a Transform of a built part of the network whose output has so many channels."""
    stages = [stage._replace(function=_graph(stage)) for stage in part.stages()]

    def enter(t: np.ndarray) -> Any:
        check_process()
        return tf.constant(t)

    def leave(t: Any) -> np.ndarray:
        return tf.cast(t, tf.float32).numpy()

    def concatenate(tensors: Sequence[Any], axis: int) -> Any:
        return tf.concat(tensors, axis)

    return Transform(stages, channels, 1, enter, leave, concatenate)


def _graph(stage: Stage) -> Callable[[Any], Any]:
    """A stage's function as a graph for inputs of any sides, made at the first call."""
    graph: Any = None

    def run(t: Any) -> Any:
        nonlocal graph
        with one_at_a_time:
            if graph is None:
                spec = tf.TensorSpec([None, None, None, t.shape[-1]], t.dtype)
                graph = tf.function(stage.function, [spec], autograph=False)
            return graph(t)

    return run


def need_bfloat16() -> None:
    """Raises CodecError if the device that TensorFlow runs on does not compute in bfloat16."""
    if not has_bfloat16():
        raise CodecError(
            "bfloat16: neither AVX512-BF16 nor AMX in this processor, or a GPU older than Ampere, "
            "where TensorFlow is slow in it or fails; use --precision float32"
        )


def has_bfloat16() -> bool:
    """Whether the device that TensorFlow runs on computes in bfloat16."""
    gpus = tf.config.get_visible_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return details.get("compute_capability", (0, 0)) >= (8, 0)
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(requirements.processor_flags())
