"""ONNX graphs of an exported model as a runtime; needs no TensorFlow."""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gmm_attention import forks, requirements, strips
from gmm_attention.checkpoints import integers
from gmm_attention.checkpoints.loading import LoadedModel
from gmm_attention.errors import CodecError
from gmm_attention.onnx_model import network
from gmm_attention.onnx_model.graph import Graph
from gmm_attention.onnx_model.network import GraphStage
from gmm_attention.runtimes.protocol import Transform

# ONNX Runtime's GPUs, in order of preference, with their options. TF32 and half precision would
# give other latents than a CPU.
_GPUS: dict[str, dict[str, str]] = {
    "CUDAExecutionProvider": {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
    "DmlExecutionProvider": {},
    "CoreMLExecutionProvider": {
        "MLComputeUnits": "CPUAndGPU",
        "AllowLowPrecisionAccumulationOnGPU": "0",
    },
}
# CoreML comes with every Mac's onnxruntime, but compiles anew for each size of image, so it is
# used only where it is asked for.
_AUTOMATIC = ("CUDAExecutionProvider", "DmlExecutionProvider")

_CPU = "CPUExecutionProvider"

# Those of this process and, after a fork, of its parents.
_sessions: weakref.WeakSet[Any] = weakref.WeakSet()
_making = threading.Lock()


class OnnxRuntime:
    """A Runtime of ONNX Runtime; one session for each stage, made when it is first needed.

    Its functions may be called by several threads at once. In a process that was forked they make
    their sessions anew, for the threads of the old ones are missing there.

    Args:
      loaded: an exported model.
      device: "auto", "cpu" or "gpu".
      threads: number of threads on a CPU.

    Attributes: title, memory_errors: see Runtime.

    Raises:
      CodecError: ONNX Runtime cannot be loaded, or a GPU is asked for, and it sees none.
    """

    memory_errors = (MemoryError,)

    def __init__(self, loaded: LoadedModel, device: str, threads: int):
        onnxruntime = self._onnxruntime = requirements.import_onnxruntime()
        self._exported, self._threads = loaded.exported, threads
        self._num_filters = loaded.settings["num_filters"]
        self._num_mixtures = loaded.settings["num_mixtures"]
        self._attention = loaded.settings["attention"]
        onnxruntime.set_default_logger_severity(3)  # warnings are for those who make providers
        with forks.delayed():
            _share_arena(onnxruntime)
            self._provider = self._choose_provider(device)
            self._generation = forks.generation()
        self._probe = self._function(_identity(), _CPU)
        self._hyper_synthesis = self._function(network.hyper_synthesis(self._num_filters))
        self._entropy_parameters = self._function(
            network.entropy_parameters(self._num_filters, self._num_mixtures)
        )
        place = self._provider.removesuffix("ExecutionProvider")
        self.title = f"ONNX Runtime {onnxruntime.__version__} on the {place}"

    def _choose_provider(self, device: str) -> str:
        available = self._onnxruntime.get_available_providers()
        for name in _GPUS if device == "gpu" else _AUTOMATIC if device == "auto" else ():
            # Where a provider lacks its driver, its sessions fall back to the CPU.
            if name in available and self._session(_identity(), name).get_providers()[0] == name:
                return name
        if device == "gpu":
            raise CodecError(
                f"--device gpu: ONNX Runtime sees no GPU (it has {', '.join(available)}); install "
                "onnxruntime-gpu (CUDA) or onnxruntime-directml in place of onnxruntime, or leave "
                "--device away"
            )
        return _CPU

    def analysis(self) -> Transform:
        return self._transform(network.analysis(self._num_filters, self._attention))

    def hyper_analysis(self) -> Transform:
        return self._transform(network.hyper_analysis(self._num_filters))

    def synthesis(self) -> Transform:
        return self._transform(network.synthesis(self._num_filters, self._attention))

    def mixtures(
        self, y_hat: np.ndarray, z_hat: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        phi = self._hyper_synthesis(_enter(z_hat))
        t = _leave(self._entropy_parameters(_enter(y_hat), phi))
        # Stored in the order logits, means, scales of each component.
        t = t.reshape(*t.shape[:3], self._num_mixtures, 3, self._num_filters)
        logits, means, scales = np.moveaxis(t.swapaxes(3, 5), 4, 0)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return _leave(phi), weights, np.ascontiguousarray(means), np.abs(scales)

    def _transform(self, stages: Sequence[GraphStage]) -> Transform:
        made = [strips.Stage(self._function(one.graph), *one[1:]) for one in stages]
        channels = stages[-1].graph.output.channels
        shape: tuple[int, ...] = ()

        def enter(t: np.ndarray) -> np.ndarray:
            nonlocal shape
            if t.shape != shape:
                shape = t.shape
                self._shrink_arena()
            return _enter(t)

        return Transform(made, channels, 2, enter, _leave, np.concatenate)

    def _shrink_arena(self) -> None:
        """Frees what the arena holds for arrays of other sizes, which it would keep for ever."""
        options = self._onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._probe(np.zeros([1, 1, 1, 1], np.float32), options=options)

    def _function(self, graph: Graph, provider: str | None = None) -> Callable[..., np.ndarray]:
        """A function of arrays [B, C, H, W], whose session is made at its first call.

        Args:
          graph: of the function.
          provider: which computes it, or None for the one that was chosen.
        """
        provider = provider or self._provider
        made: dict[int, Any] = {}  # the session by the generation of this process

        def session() -> Any:
            generation = forks.generation()
            with _making:
                if generation not in made:
                    if provider != _CPU:
                        forks.refuse(self.title, self._generation)
                    made[generation] = self._session(graph, provider)
                return made[generation]

        def run(*inputs: np.ndarray, options: Any = None) -> np.ndarray:
            feed = {value.name: t for value, t in zip(graph.inputs, inputs)}
            with forks.delayed():
                own = session()
                try:
                    return own.run(["out"], feed, options)[0]
                # Its exceptions have no class of their own for a lack of memory.
                except Exception as error:
                    if "alloc" in str(error).lower():
                        raise MemoryError(str(error)) from error
                    raise

        return run

    def _session(self, graph: Graph, provider: str) -> Any:
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        # Threads that wait in a loop would take the cores from other work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        # It would keep a plan for each size of image, and with it memory.
        options.enable_mem_pattern = False
        data = graph.to_bytes(lambda name: integers.float_array(self._exported, name))
        providers: list[Any] = [_CPU]
        if provider != _CPU:
            providers.insert(0, (provider, _GPUS[provider]))
        session = self._onnxruntime.InferenceSession(data, options, providers=providers)
        _sessions.add(session)
        return session


def _keep_sessions() -> None:
    """Keeps the sessions of the parents for as long as this process lives.

    The end of a session waits for its threads, which were not forked with it: the process would
    hang, or die of it when Python exits.
    """
    for session in list(_sessions):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


forks.in_child(_keep_sessions)


@functools.lru_cache
def _share_arena(onnxruntime: Any) -> None:
    """Lets all sessions of this process take their memory from one arena.

    Without an arena the system clears all memory anew for each operation, which takes as long as a
    third of the transforms. With one for each session, which is the default, every stage would hold
    the memory of its largest strip.
    """
    kinds = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    place = onnxruntime.OrtMemoryInfo("Cpu", kinds[0], 0, kinds[1])
    exactly_what_is_asked_for = {"arena_extend_strategy": 1, "max_mem": 0}
    unset = {"initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    arena = onnxruntime.OrtArenaCfg({**exactly_what_is_asked_for, **unset})
    onnxruntime.create_and_register_allocator(place, arena)


def _identity() -> Graph:
    graph = Graph(1)
    graph.add("Identity", *graph.inputs)
    return graph


def _enter(t: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(t.transpose(0, 3, 1, 2))


def _leave(t: np.ndarray) -> np.ndarray:
    return t.transpose(0, 2, 3, 1)
