"""Which runtime runs a model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gmm_attention import requirements
from gmm_attention.errors import CodecError
from gmm_attention.runtimes.names import DEVICES, PRECISIONS, RUNTIMES

MOST_THREADS = 1024

if TYPE_CHECKING:  # these import numpy and more, which --help must not wait for
    from gmm_attention.checkpoints.loading import LoadedModel
    from gmm_attention.runtimes.protocol import LatentSearch, Runtime


def check(runtime: str, precision: str, device: str, threads: int | None) -> None:
    """Raises ValueError for an argument of `image_codec.load` that is none of its choices."""
    choices = (runtime, RUNTIMES), (precision, PRECISIONS), (device, DEVICES)
    for value, allowed in choices:
        if value not in allowed:
            raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads must be from 1 to {MOST_THREADS}, not {threads}")


def choose(model: str, exported: bool, runtime: str, precision: str, device: str) -> str:
    """Chooses the runtime of a model.

    Args:
      model: its path, for messages.
      exported: whether it is an exported model.
      runtime: "onnx", "tensorflow", or "auto": ONNX Runtime where it is installed and can take the
        model, otherwise TensorFlow.
      precision: "float32" or "bfloat16", of analysis and synthesis.
      device: "auto", "cpu" or "gpu".

    Returns:
      "onnx" or "tensorflow".

    Raises:
      CodecError: the runtime is not installed, or cannot take the model or the precision.
    """
    obstacle, remedy = None, "or leave --runtime away"
    if not exported:
        obstacle = "a model that is not exported"
        remedy = f"or export it there: python -m gmm_attention.export {model} models/NAME"
    elif precision != "float32":
        obstacle, remedy = f"--precision {precision}", "or give --precision float32"
    if runtime == "onnx" and obstacle:
        raise CodecError(f"{model}: {obstacle} needs --runtime tensorflow, {remedy}")
    if runtime == "auto":
        onnx = requirements.has_onnx() and not _tensorflow_has_gpu(device)
        # If neither is installed, ONNX Runtime is the one to install.
        onnx = onnx or not requirements.has_tensorflow()
        runtime = "onnx" if onnx and not obstacle else "tensorflow"
    if runtime == "onnx":
        requirements.need_onnx(f"{model}: coding")
    else:
        requirements.need_tensorflow(f"{model}: {obstacle or '--runtime tensorflow'}", remedy)
    return runtime


def prepare(runtime: str, precision: str, device: str, threads: int | None) -> None:
    """Sets up what must be set up before a model is loaded, since loading may start TensorFlow.

    Args:
      runtime: "onnx" or "tensorflow".
      precision, device: see `choose`.
      threads: number of threads on a CPU, or None for one a core.

    Raises:
      CodecError: the device is not there, or does not compute in this precision.
    """
    if runtime == "tensorflow":
        from gmm_attention.runtimes import tensorflow_runtime

        tensorflow_runtime.prepare(precision, device, threads or _num_cores())


def make(
    loaded: LoadedModel, runtime: str, precision: str, device: str, threads: int | None
) -> Runtime:
    """Makes the runtime of a model.

    Args:
      loaded: the model.
      runtime: "onnx" or "tensorflow", which has been prepared.
      precision, device: see `choose`.
      threads: see `prepare`.

    Raises:
      CodecError: the device is not there.
    """
    if runtime == "onnx":
        from gmm_attention.runtimes.onnx_runtime import OnnxRuntime

        return OnnxRuntime(loaded, device, threads or _num_cores())
    from gmm_attention.runtimes.tensorflow_runtime import TensorFlowRuntime

    return TensorFlowRuntime(loaded, precision)


def make_search(loaded: LoadedModel, device: str, threads: int | None) -> LatentSearch:
    """Makes what searches better latents with a model, by TensorFlow's gradients.

    Args:
      loaded: the model.
      device: see `choose`.
      threads: see `prepare`.

    Raises:
      CodecError: TensorFlow is not installed, or the device is not there.
    """
    requirements.need_tensorflow(f"{loaded.name}: an effort above 0", "or leave --effort away")
    from gmm_attention.runtimes import tensorflow_runtime
    from gmm_attention.runtimes.tensorflow_search import TensorFlowSearch

    tensorflow_runtime.prepare("float32", device, threads or _num_cores())
    return TensorFlowSearch(loaded)


def _num_cores() -> int:
    from loky import cpu_count  # which knows a container's quota

    return cpu_count()


def _tensorflow_has_gpu(device: str) -> bool:
    """Whether a GPU is wanted that TensorFlow may see and ONNX Runtime does not."""
    if device == "cpu" or not os.path.exists("/dev/nvidiactl"):
        return False
    if not requirements.has_tensorflow():
        return False
    providers = requirements.import_onnxruntime().get_available_providers()
    return "CUDAExecutionProvider" not in providers
