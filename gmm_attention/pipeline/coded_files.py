"""The two coded files of an image, NAME.npz and NAME.bin: names, bytes, figures, age."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from gmm_attention.codec import file_format
from gmm_attention.codec.file_format import Coded
from gmm_attention.errors import BitstreamError, CodecError


def figures(height: int, width: int, num_bytes: int) -> dict[str, Any]:
    """Returns the figures of an image that encoder and decoder both report.

    Args:
      height, width: pixels.
      num_bytes: size of both files together.

    Returns:
      dict with height, width, bytes, and bpp, bits per pixel.
    """
    return {
        "height": height,
        "width": width,
        "bytes": num_bytes,
        "bpp": 8 * num_bytes / (height * width),
    }


def names(stem: str) -> tuple[str, str]:
    """Paths of both files, from the part that they share."""
    return f"{stem}.npz", f"{stem}.bin"


def read(stem: str) -> tuple[bytes, bytes]:
    """Reads both files.

    Raises:
      BitstreamError: one is missing or cannot be read.
    """
    npz_path, bin_path = names(stem)
    return read_one(npz_path), read_one(bin_path)


def read_one(path: str) -> bytes:
    """Reads one of the two files; raises as `read`."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise BitstreamError(
            f"{path}: missing; both files of an image are needed, copy it beside the other"
        ) from error
    except OSError as error:
        raise BitstreamError(
            f"{path}: cannot be read: {error.strerror}; check what it is and its permissions"
        ) from error


def existing_figures(
    num_filters: int,
    fingerprint: bytes,
    stem: str,
    outputs: Sequence[str],
    sources: Sequence[str],
    fits: Callable[[Coded], bool],
) -> dict[str, Any] | None:
    """Finds outputs of an earlier run that need not be made again.

    Args:
      num_filters, fingerprint: N and the fingerprint of the model.
      stem: what the paths of both coded files share.
      outputs: paths of the outputs; they must not be older than their sources.
      sources: paths of the files that the outputs are made from.
      fits: function of the Coded of both files that tells whether the image on disk has the
        size that they state.

    Returns:
      dict as `figures` returns, or None if the outputs are missing, damaged, outdated or from
      another model.
    """
    try:
        if not _are_newer(outputs, sources):
            return None
        pair = read(stem)
        coded = file_format.unpack(*pair, num_filters, fingerprint, (*names(stem), "the model"))
        if not fits(coded):
            return None
    except CodecError:
        return None  # processing the image again repairs it or reports the error
    return figures(coded.height, coded.width, sum(map(len, pair)))


def _are_newer(outputs: Sequence[str], sources: Sequence[str]) -> bool:
    """Whether all outputs exist and none is older than any source."""
    try:
        ages = [[os.stat(path).st_mtime_ns for path in paths] for paths in (outputs, sources)]
    except OSError:
        return False
    return min(ages[0]) >= max(ages[1])
