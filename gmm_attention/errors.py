"""The exceptions of this project: what went wrong, in which file, and what to do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class CodecError(Exception):
    """Any failure that the user can do something about; the message says what."""


class ImageError(CodecError):
    """An image that cannot be read, written or coded."""


class BitstreamError(CodecError):
    """A coded file that is foreign, truncated, damaged, or made by another model."""


class CheckpointError(CodecError):
    """Weights that are missing, unknown, misshapen or outside the exact arithmetic's bounds."""


class TrainingError(CodecError):
    """Training that cannot go on: a loss that is not finite, or options that do not fit."""


class CurveError(CodecError):
    """A curve's file that cannot be read, or curves that cannot be compared."""


@contextlib.contextmanager
def naming(path: object) -> Iterator[None]:
    """Puts the name of a file before the message of a CodecError that does not name one.

    A BitstreamError passes unchanged: it names one of the two coded files already.

    Args:
      path: anything whose str() is the name to show.

    Raises:
      CodecError: of the same class as the one raised in the block.
    """
    try:
        yield
    except BitstreamError:
        raise
    except CodecError as error:
        raise type(error)(f"{path}: {error}") from error


@contextlib.contextmanager
def within_memory(name: object) -> Iterator[None]:
    """Turns a MemoryError into a CodecError that names the image or model.

    Args:
      name: anything whose str() is the name to show.
    """
    try:
        yield
    except MemoryError as error:
        raise CodecError(f"{name}: not enough memory; free some, or give --jobs 1") from error
