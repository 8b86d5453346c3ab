"""Libraries that not every installation has: whether one is there, and what to do if not."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from gmm_attention.errors import CodecError

_TENSORFLOW = ("tensorflow", "tensorflow_compression")
_ONNX = ("onnxruntime", "onnx")


def has_tensorflow() -> bool:
    """Whether TensorFlow and tensorflow-compression are installed; imports neither."""
    return _are_installed(_TENSORFLOW)


def has_onnx() -> bool:
    """Whether ONNX Runtime and onnx are installed; imports neither."""
    return _are_installed(_ONNX)


def processor_flags() -> frozenset[str]:
    """What /proc/cpuinfo says that the processor can do; empty where it is silent."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def need_tensorflow(purpose: object, remedy: str = "") -> None:
    """Checks that TensorFlow and tensorflow-compression are installed, and that they would run.

    It also keeps TensorFlow's start-up log off stderr, which is for our error messages.

    Args:
      purpose: what needs them; its str() begins the message.
      remedy: what else the user can do, such as "or give --precision float32".

    Raises:
      CodecError: they are not, or would not.
    """
    if not has_tensorflow():
        raise CodecError(
            f"{purpose} needs tensorflow 2.14.1 and tensorflow-compression 2.14.1, which are not "
            "installed; pip install gmm-attention with Python 3.9 to 3.11 on Linux x86-64 brings "
            "them" + (f", {remedy}" if remedy else "")
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported
    flags = processor_flags()
    if flags and "avx" not in flags:  # TensorFlow would abort the process
        raise CodecError(
            f"{purpose} needs TensorFlow, which does not run on this processor without AVX; "
            "use another machine, or an exported model with ONNX Runtime"
        )


def need_onnx(purpose: object) -> None:
    """Does the same for ONNX Runtime."""
    if not has_onnx():
        raise CodecError(
            f"{purpose} needs ONNX Runtime, which is not installed; pip install onnxruntime onnx"
        )


def import_onnxruntime() -> Any:
    """Imports ONNX Runtime, with its telemetry off, and returns the module.

    From release 1.29 on, it reports each session to Microsoft unless it is told not to.

    Raises:
      CodecError: it cannot be loaded.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported
    try:
        import onnxruntime
    except ImportError as error:  # such as a missing C++ library, or an old one
        raise CodecError(
            f"ONNX Runtime cannot be loaded: {error}; install it anew (pip install "
            "--force-reinstall onnxruntime), or give --runtime tensorflow"
        ) from error
    onnxruntime.disable_telemetry_events()  # on Windows
    return onnxruntime


def _are_installed(modules: tuple[str, ...]) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)
