"""The encoder of the package range-coder, whose strings ours must equal; needs that package."""

import contextlib
import tempfile
from pathlib import Path

from range_coder import RangeEncoder


def encode(pieces):
    """What `range_coder.encode` does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "string"
        with contextlib.closing(RangeEncoder(str(path))) as encoder:
            for piece in pieces:
                for low, high, total in zip(*piece[:, 1:].T.tolist()):
                    encoder.encode([1], [0, low, high, total])
        return path.read_bytes()
