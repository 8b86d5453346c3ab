"""Decoding by the package range-coder 1.1, which has wheels for some Pythons on Linux x86-64 alone.

It decodes from files by name, so each string passes through a temporary file.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator

from range_coder import RangeDecoder

from gmm_attention.errors import CodecError


@contextlib.contextmanager
def reader(string: bytes) -> Iterator[Callable[[list[list[int]]], list[int]]]:
    """Yields a function that decodes the next symbols of a string; see `Decoder.symbols`.

    Raises:
      CodecError: the temporary file could not be written.
    """
    with _temporary_file(string) as path, contextlib.closing(RangeDecoder(path)) as decoder:
        decode = decoder.decode
        yield lambda tables: [decode(1, table)[0] for table in tables]


@contextlib.contextmanager
def _temporary_file(content: bytes) -> Iterator[str]:
    try:
        handle, path = tempfile.mkstemp(prefix="gmm_attention_")
    except OSError as error:
        raise CodecError(f"a temporary file cannot be made: {error}; set TMPDIR") from error
    try:
        try:
            with open(handle, "wb") as file:
                file.write(content)
        except OSError as error:
            raise CodecError(
                f"{path}: temporary file cannot be written: {error.strerror}; is the disk full?"
            ) from error
        yield path
    finally:
        os.unlink(path)
