"""Choice of the device, division of the cores, and start of a codec."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING

from loky import cpu_count

from gmm_attention.errors import CodecError

if TYPE_CHECKING:
    from gmm_attention.codec.image_codec import ImageCodec

# Largest default number of jobs with a GPU: each job costs memory and start-up time.
_MOST_JOBS = 9


@functools.lru_cache
def choose_device(device: str) -> None:
    """Imports TensorFlow and chooses what it computes on, once.

    Args:
      device: "auto", "cpu" or "gpu".

    Raises:
      CodecError: a GPU is asked for, and there is none.
    """
    # Keeps TensorFlow's start-up log off stderr, which is for our error messages.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise CodecError(
            "--device gpu: TensorFlow sees no GPU; install '.[gpu]' and a CUDA 11.8 driver, or "
            "leave --device away"
        )
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")


def divide_cores(jobs: int | None, num_images: int, device: str) -> int:
    """Divides the cores between TensorFlow and the worker processes, before TensorFlow starts.

    Args:
      jobs: number of images in flight, or None to derive it from the number of cores.
      num_images: number of images in the whole run.
      device: see `choose_device`.

    Returns:
      number of worker processes.

    Raises:
      CodecError: see `choose_device`.
    """
    choose_device(device)
    import tensorflow as tf

    cores = cpu_count()
    on_gpu = bool(tf.config.get_visible_devices("GPU"))
    if jobs is None:
        # Reading, coding and writing take one core a sixth of an image's encoding time, and a
        # quarter of its decoding time.
        jobs = min(cores, _MOST_JOBS) if on_gpu else 1 + (cores + 1) // 3
    num_workers = max(min(jobs, num_images) - 1, 0)
    if not on_gpu:
        # One thread more than the workers leave cores, because workers wait at times. By itself
        # TensorFlow ignores a container's CPU quota.
        threads = min(cores, max(cores - num_workers + 1, cores // 2 + 1))
        with contextlib.suppress(RuntimeError):  # TensorFlow has started already
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    return num_workers


def start(model: str | os.PathLike[str], device: str, precision: str = "float32") -> ImageCodec:
    """Imports TensorFlow, chooses the device, and loads and warms up an ImageCodec.

    Args:
      model, precision: as for `image_codec.load`.
      device: as for `choose_device`.

    Raises:
      CodecError: see `choose_device` and `image_codec.load`.
    """
    choose_device(device)
    import numpy as np

    from gmm_attention.codec import image_codec

    codec = image_codec.load(model, precision)
    # TensorFlow optimizes the graph of each transform in its first run, which is slow.
    codec.decompress(codec.compress(np.zeros([64, 64, 3], np.uint8)))
    return codec
