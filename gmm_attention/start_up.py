"""Options of the command line to a codec, in this process and in others."""

from __future__ import annotations

import atexit
import functools
import os
from typing import TYPE_CHECKING, NamedTuple

from gmm_attention import requirements
from gmm_attention.checkpoints.locate import PACKAGE, Kind, locate
from gmm_attention.errors import CheckpointError, within_memory
from gmm_attention.pipeline.run import Processes
from gmm_attention.pipeline.workers import report_lost_processes
from gmm_attention.runtimes import choosing

if TYPE_CHECKING:  # it takes a while to import, which --help must not wait for
    from gmm_attention.codec.image_codec import ImageCodec

# Largest default number of jobs: each needs memory of its own.
_MOST_JOBS = 16

# Images for which the start of one more process with TensorFlow, some seconds, is worth while.
_IMAGES_FOR_TENSORFLOW = 8


def shown_name(path: str) -> str:
    """What to call a model in rows and messages: its path, but of an installed one the name alone.

    Args:
      path: of the model, as `locate` gives it.
    """
    folder, name = os.path.split(path)
    return name if os.path.basename(folder) == PACKAGE else path


class Setup(NamedTuple):
    """How to load the codec of a run, in any process.

    Attributes:
      model: path.
      precision, device: as for `image_codec.load`.
      runtime: "onnx" or "tensorflow".
      threads: number of threads of the transforms in each process.
      warm: whether to code a small image first, so that no measured time holds preparations.
      effort: with which images will be coded, see `ImageCodec.encode`.
    """

    model: str
    precision: str
    runtime: str
    device: str
    threads: int
    warm: bool = False
    effort: int = 0

    def __str__(self) -> str:
        return self.model

    def codec(self, fingerprint: bytes | None = None) -> ImageCodec:
        """Returns the codec, which each process loads once for all calls.

        Args:
          fingerprint: 4 bytes that the codec must have, or None.

        Raises:
          CodecError: see `image_codec.load`; or the codec has another fingerprint.
        """
        codec = _load(self)
        if fingerprint not in (None, codec.fingerprint):
            raise CheckpointError(
                f"{codec.name}: has changed since this run began, or is a checkpoint whose export "
                "gives other integers on another machine; export it, and start the run again"
            )
        return codec


@functools.lru_cache(maxsize=1)
def _load(setup: Setup) -> ImageCodec:
    from gmm_attention.codec import image_codec

    with_tensorflow = setup.effort or setup.runtime == "tensorflow"
    if with_tensorflow:
        # By itself it takes all memory of a GPU, which processes are to share.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        # It complains of its functions if they outlive its modules.
        atexit.register(_load.cache_clear)
    codec = image_codec.load(*setup[:5])
    # TensorFlow optimizes the graph of each transform in its first run, for up to a second.
    if setup.warm or with_tensorflow:
        codec.warm_up(setup.effort)
    return codec


class Started(NamedTuple):
    """A codec that the processes of a run have loaded.

    Attributes:
      fingerprint: the model's, 4 bytes.
      num_filters: N.
      runtime: its name, version and device.
    """

    fingerprint: bytes
    num_filters: int
    runtime: str


def start(setup: Setup, processes: Processes) -> Started:
    """Loads the codec in the processes, and returns when the first of them has done so.

    Raises:
      CodecError: see `image_codec.load`, so that it is told once and not for each image; or a
        process was lost.
    """
    with report_lost_processes("give the same command again"), within_memory(setup):
        # One call for each process lets all of them begin to start at once.
        begun = [processes.submit(_start, setup) for _ in range(max(processes.count, 1))]
        return begun[0].result()


def _start(setup: Setup) -> Started:
    codec = setup.codec()
    return Started(codec.fingerprint, codec.num_filters, codec.runtime.title)


def set_up(
    model: str,
    precision: str,
    runtime: str,
    device: str,
    jobs: int | None = 1,
    num_images: int = 1,
    effort: int = 0,
) -> tuple[Setup, int]:
    """Chooses the runtime and divides the cores.

    Args:
      model: path or name, see `locate`.
      precision, runtime, device: as for `image_codec.load`.
      jobs: number of images at a time, each in a process of its own, or None to derive it from the
        number of cores.
      num_images: number of images in the whole run.
      effort: with which they will be coded, see `ImageCodec.encode`.

    Returns:
      Setup, and the number of jobs.

    Raises:
      CheckpointError: there is no model.
      CodecError: the runtime is not installed, or cannot take the model or the precision; or there
        is an effort, and TensorFlow is not installed.
    """
    from loky import cpu_count  # which knows a container's quota

    found = locate(model)
    chosen = choosing.choose(found.path, found.kind is Kind.EXPORTED, runtime, precision, device)
    if effort:
        requirements.need_tensorflow("--effort", "or leave --effort away")
    cores = cpu_count()
    if jobs is None:
        jobs = min(cores, _MOST_JOBS)
        if effort or chosen == "tensorflow":
            jobs = min(jobs, num_images // _IMAGES_FOR_TENSORFLOW)
    jobs = max(min(jobs, num_images), 1)
    threads = max(cores // jobs, 1)
    return Setup(found.path, precision, chosen, device, threads, effort=effort), jobs
