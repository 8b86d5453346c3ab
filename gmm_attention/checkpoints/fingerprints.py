"""Four bytes by which the decoder recognises the model that coded a file."""

from __future__ import annotations

import hashlib

import numpy as np

# Layers whose arrays the decoder computes with.
_DECODER = ("synthesis/", "hyper_synthesis/", "entropy_parameter/", "tables/")

# Arrays of the entropy bottleneck that the decoder computes with.
DECODER_TABLES = tuple(
    f"entropy_bottleneck/{name}"
    for name in ("quantized_cdf", "cdf_length", "offset", "integer_medians")
)


def fingerprint(exported: dict[str, np.ndarray]) -> bytes:
    """The fingerprint of a model, which stands in the header of every file that it codes.

    Models that decode a file differently have different fingerprints, but for a chance of 2^-32.

    Args:
      exported: dict of arrays, as `integers.export_arrays` returns.

    Returns:
      4 bytes, a digest of every array that the decoder computes with.
    """
    digest = hashlib.sha256()
    for name in sorted(exported):
        if name.startswith(_DECODER) or name in DECODER_TABLES:
            array = np.ascontiguousarray(exported[name])
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.tobytes())
    return digest.digest()[:4]
