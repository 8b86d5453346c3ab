"""Symbols and integer tables to bytes and back.

The streams are those of the package range-coder 1.1, which `python_streams.py` reads and writes
too. It decodes them up to Python 3.11, where it is installed. Elsewhere, and for encoding, our own
code is as fast or faster, needs no temporary files, and is used.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import numpy as np

from gmm_attention.entropy_coding.python_streams import SMALLEST_RANGE, encode, reader
from gmm_attention.errors import BitstreamError

if sys.version_info < (3, 12):
    with contextlib.suppress(ImportError):  # of range-coder
        from gmm_attention.entropy_coding.package_streams import reader

__all__ = ["SLACK", "Decoder", "decoder", "encode", "escape_bits", "least_bits"]

LONGEST_ESCAPE = 18  # bits of the largest number that `escape_bits` codes
SLACK = 64  # bits beyond a string's own, for the coder's register of 32 and rounding of sums
_BIT = [0, 1, 2]


class Decoder:
    """Decodes a string symbol by symbol; made by `decoder`.

    Bytes past the string's end are taken for 0xff, without an error; `charge` is what notices it.
    """

    def __init__(self, read: Callable[[list[list[int]]], list[int]], length: int, name: str):
        """Takes what `reader` yields, the string's length in bytes, and its name for messages."""
        self._read = read
        self._name = name
        self._bits_left: float = 8 * length + SLACK

    def symbols(self, tables: list[list[int]]) -> list[int]:
        """Decodes one symbol from each table.

        Args:
          tables: lists of ints that rise from 0 to the table's total, of at most 1025 entries each.

        Returns:
          List of ints: the index of each symbol's interval.
        """
        return self._read(tables)

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
            while not self._read([_BIT])[0]:
                length += 1
                if length == LONGEST_ESCAPE:
                    raise BitstreamError(f"{self._name} holds an impossible escape")
            number = 1
            for bit in self._read([_BIT] * length):
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
      CodecError: the temporary file that range-coder decodes from could not be written.
    """
    with reader(string) as read:
        yield Decoder(read, len(string), name)


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
    smallest = SMALLEST_RANGE // totals
    remainder = totals - 1.0
    shrinking = (smallest * totals + remainder) / (smallest * widths + remainder)
    return float(np.log2(shrinking).sum())
