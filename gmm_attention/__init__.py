"""Learned image compression with discretized Gaussian mixture likelihoods and attention modules.

import gmm_attention as ga

codec = ga.load("models/NAME")
data = codec.compress(image)       # uint8 [H, W, 3] -> bytes
image = codec.decompress(data)     # bytes -> uint8 [H, W, 3]
arrays = codec.inspect(image)      # y, z, phi, the mixture, x_hat, bits
ga.info(data)                      # size, model, bytes of header, z and y
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gmm_attention.errors import BitstreamError, CheckpointError, CodecError, ImageError

if TYPE_CHECKING:
    from gmm_attention.codec.image_codec import load
    from gmm_attention.codec.info import info

__version__ = "0.1.0"

# By itself TensorFlow leaves oneDNN's convolutions off where a processor has AVX2 alone. The others
# take twice as long there with --effort, and their last bits depend on an image's size, so that an
# image in strips might give another file. TensorFlow reads this when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__all__ = ["BitstreamError", "CheckpointError", "CodecError", "ImageError", "info", "load"]


def __getattr__(name: str) -> Any:
    # Modules that need no codec must not wait for it and for numpy.
    if name == "load":
        from gmm_attention.codec.image_codec import load

        return load
    if name == "info":
        from gmm_attention.codec.info import info

        return info
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
