"""The exceptions of this project: what went wrong, in which file, and what to do about it."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterator

# Unicode's classes of characters that turn the direction of writing: a name would show as another.
_DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


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


def printable(text: str) -> str:
    """Escapes what would break a message into lines, or command a terminal, such as in file names.

    Args:
      text: any str.

    Returns:
      the text with each control character, and each that turns the direction of writing, as its
      escape in Python: a newline as `\\n`.
    """
    return "".join(repr(c)[1:-1] if _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    return (
        unicodedata.category(character) in ("Cc", "Zl", "Zp")
        or unicodedata.bidirectional(character) in _DIRECTIONS
    )


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
