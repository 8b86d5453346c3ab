"""Symbols and integer tables to bytes and back: a thin layer on the package range-coder.

That package codes from and to files by name, so each string passes through a temporary file.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
from range_coder import RangeDecoder, RangeEncoder

from gmm_attention.errors import BitstreamError, CodecError

LONGEST_ESCAPE = 18  # bits of the largest number that `escape_bits` codes
_BIT = [0, 1, 2]
_SMALLEST_RANGE = 2**24  # below this range, range-coder shifts a byte out
SLACK = 64  # bits beyond a string's own, for the coder's register of 32 and rounding of sums


def encode(pieces: Iterable[np.ndarray]) -> bytes:
    """Range-codes a sequence of intervals.

    Args:
      pieces: iterable of [M, 4] int arrays. A row 0, low, high, total codes one symbol that holds
        the counts low..high-1 of a table that ends at total <= 2^16.

    Returns:
      The coded string.

    Raises:
      CodecError: the temporary file could not be written.
    """
    symbol = [1]
    with _temporary_file() as path:
        with contextlib.closing(RangeEncoder(path)) as encoder:
            encode_symbols = encoder.encode
            for piece in pieces:
                # The many lists that piece.tolist() makes would keep the garbage collector busy.
                for low, high, total in zip(*piece[:, 1:].T.tolist()):
                    encode_symbols(symbol, [0, low, high, total])
        with open(path, "r+b") as file:
            string = file.read()
            # range-coder reports no write error; where its writes failed, this one fails too.
            file.write(b"\0")
    return string


class Decoder:
    """Decodes a string symbol by symbol; made by `decoder`.

    Past the end of its file range-coder reads 0xff without an error; `charge` is what notices it.
    """

    def __init__(self, range_decoder: RangeDecoder, string_length: int, name: str):
        """Takes a RangeDecoder, the length of its file in bytes, and a name for messages."""
        self._decode = range_decoder.decode
        self._name = name
        self._bits_left: float = 8 * string_length + SLACK

    def symbols(self, tables: list[list[int]]) -> list[int]:
        """Decodes one symbol from each table.

        Args:
          tables: lists of ints that rise from 0 to the table's total, of at most 1025 entries each.

        Returns:
          List of ints: the index of each symbol's interval.
        """
        decode = self._decode
        return [decode(1, table)[0] for table in tables]

    def charge(self, widths: np.ndarray, totals: int | np.ndarray) -> None:
        """Subtracts the least bits of decoded symbols from those of the string.

        Args:
          widths, totals: counts of the symbols and totals of their tables, see `least_bits`.

        Raises:
          BitstreamError: the symbols charged so far need more bits than the string has.
        """
        self._bits_left -= least_bits(widths, totals)
        if self._bits_left < 0:
            raise BitstreamError(f"{self._name} is too short for its symbols")

    def escapes(self, count: int) -> list[int]:
        """Decodes numbers that `escape_bits` coded.

        Raises:
          BitstreamError: a number has more bits than any that is coded.
        """
        numbers = []
        for _ in range(count):
            length = 0
            while not self._decode(1, _BIT)[0]:
                length += 1
                if length == LONGEST_ESCAPE:
                    raise BitstreamError(f"{self._name} holds an impossible escape")
            number = 1
            for bit in self._decode(length, _BIT):
                number = 2 * number + bit
            numbers.append(number)
        return numbers


@contextlib.contextmanager
def decoder(string: bytes, name: str) -> Iterator[Decoder]:
    """Yields a Decoder of a string.

    Args:
      string: the bytes.
      name: the string's name, for messages.

    Raises:
      CodecError: the temporary file could not be written.
    """
    with _temporary_file() as path:
        with open(path, "wb") as file:
            file.write(string)
        with contextlib.closing(RangeDecoder(path)) as range_decoder:
            yield Decoder(range_decoder, len(string), name)


def escape_bits(numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Codes numbers in Elias gamma code, each bit with probability 1/2.

    Args:
      numbers: list of ints in 1..2^18 - 1.

    Returns:
      intervals: [B, 4] int32, one for each bit, as `encode` takes them.
      owners: [B] int, the index of the number that each bit belongs to.
    """
    texts = [f"{number:b}" for number in numbers]
    texts = ["0" * (len(text) - 1) + text for text in texts]
    bits = np.array([int(bit) for text in texts for bit in text], np.int32)
    table = np.stack([np.zeros_like(bits), bits, bits + 1, np.full_like(bits, 2)], axis=1)
    return table, np.repeat(np.arange(len(texts)), [len(text) for text in texts])


def least_bits(widths: np.ndarray, totals: int | np.ndarray) -> float:
    """Bounds from below the bits that symbols take from a string.

    A symbol shrinks the coder's range R, which is at least 2^24, to R // total * width; the last
    symbol of a table keeps the division's remainder too. A string of L bytes holds at most 8 L + 8
    such bits.

    Args:
      widths: [M] int, counts of the symbols coded.
      totals: [M] or scalar int, totals of their tables, at most 2^16.

    Returns:
      bits, the sum over all symbols.
    """
    smallest = _SMALLEST_RANGE // totals
    remainder = totals - 1.0
    shrinking = (smallest * totals + remainder) / (smallest * widths + remainder)
    return float(np.log2(shrinking).sum())


@contextlib.contextmanager
def _temporary_file() -> Iterator[str]:
    try:
        handle, path = tempfile.mkstemp(prefix="gmm_attention_")
    except OSError as error:
        raise CodecError(f"a temporary file cannot be made: {error}; set TMPDIR") from error
    os.close(handle)
    try:
        yield path
    except OSError as error:
        raise CodecError(
            f"{path}: temporary file cannot be written: {error.strerror}; is the disk full?"
        ) from error
    finally:
        os.unlink(path)
