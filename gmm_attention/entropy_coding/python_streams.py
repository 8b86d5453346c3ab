"""The streams of the package range-coder 1.1 in Python alone, byte for byte.

docs/FORMAT.md has the rules. With L and R the lower end and the size of the coder's range, this
encoder adds a carry to the bytes that it has put out, where that package holds bytes back until no
carry can reach them; the streams are the same.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator

import numpy as np

SMALLEST_RANGE = 2**24  # below this range a byte is shifted out
_MASK = 2**32 - 1


def encode(pieces: Iterable[np.ndarray]) -> bytes:
    """Range-codes a sequence of intervals.

    Args:
      pieces: iterable of [M, 4] int arrays. A row 0, low, high, total codes one symbol that holds
        the counts low..high-1 of a table that ends at total <= 2^16.

    Returns:
      The coded string.
    """
    lower, size, out = 0, _MASK, bytearray()
    append, mask, smallest = out.append, _MASK, SMALLEST_RANGE  # local names are faster
    for piece in pieces:
        _, lows, highs, totals = piece.T
        # A table's last symbol, for which 0 stands here, has the division's remainder too.
        widths = np.where(highs < totals, highs - lows, 0)
        # The many lists that piece.tolist() makes would keep the garbage collector busy.
        for low, width, total in zip(lows.tolist(), widths.tolist(), totals.tolist()):
            step = size // total
            offset = step * low
            lower += offset
            size = step * width if width else size - offset
            while size < smallest:
                if lower > mask:
                    _carry(out)
                    lower &= mask
                append(lower >> 24)
                lower = lower << 8 & mask
                size <<= 8
    if lower > mask:
        _carry(out)
        lower &= mask
    upper = lower + size & mask
    for shift in (24, 16, 8):  # no string needs the fourth
        append(lower >> shift & 255)
        if lower >> shift != upper >> shift:
            break
    return bytes(out)


def _carry(out: bytearray) -> None:
    """Adds 1 to the number that the bytes are, which has room: the first range ends below 2^32."""
    place = len(out) - 1
    while out[place] == 255:
        out[place] = 0
        place -= 1
    out[place] += 1


@contextlib.contextmanager
def reader(string: bytes) -> Iterator[Callable[[list[list[int]]], list[int]]]:
    """Yields a function that decodes the next symbols of a string; see `Decoder.symbols`."""
    yield _Reader(string).symbols


class _Reader:
    def __init__(self, string: bytes):
        self._bytes = iter(string)
        self._size, self._value = _MASK, 0
        for _ in range(4):
            self._value = self._value << 8 | next(self._bytes, 255)

    def symbols(self, tables: list[list[int]]) -> list[int]:
        size, value, following = self._size, self._value, self._bytes
        symbols = []
        for table in tables:
            total = table[-1]
            step = size // total
            count = value // step
            if count >= total:  # the remainder of the division, which the last symbol has
                count = total - 1
            end = bisect_right(table, count)
            symbols.append(end - 1)
            offset = step * table[end - 1]
            value -= offset
            high = table[end]
            size = step * high - offset if high < total else size - offset
            while size < SMALLEST_RANGE:
                size <<= 8
                # Only in a string that no encoder made does the value exceed the range.
                value = (value << 8 | next(following, 255)) & _MASK
        self._size, self._value = size, value
        return symbols
