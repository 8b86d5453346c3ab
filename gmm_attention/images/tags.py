"""Reads the directories of tags that TIFF files and EXIF data consist of.

The reader is tolerant: what is cut off, of a wrong type or points nowhere is as if it was not
there. So it finds an orientation in data that stricter readers, such as Pillow's, give up on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

# Heads by which EXIF data or a TIFF file begins: byte order, and whether it is a BigTIFF. The last
# two of the first four are wrong, but written by some programs, and read by others.
_HEADS = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II\0*": ("<", False),
    b"MM*\0": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
}

# Types of values: size in bytes, and the letter by which struct reads an integer.
_TYPES = {
    1: (1, "B"),
    2: (1, ""),  # text
    3: (2, "H"),
    4: (4, "I"),
    5: (8, ""),  # fraction
    6: (1, "b"),
    7: (1, ""),  # bytes
    8: (2, "h"),
    9: (4, "i"),
    10: (8, ""),  # signed fraction
    11: (4, ""),  # float
    12: (8, ""),  # double
    13: (4, "I"),
    16: (8, "Q"),
    17: (8, "q"),
    18: (8, "Q"),
}
_FRACTIONS = {5: "I", 10: "i"}

# Longest value that is read, far more than any that is asked for.
_MAX_VALUE = 2**24


class Entry(NamedTuple):
    """A tag's place in a file."""

    type: int
    number: int  # of values
    start: int  # of the first value
    record: bytes  # the entry as stored


class Tags:
    """The directories in some data.

    Args:
      read: function of (start, size) that returns bytes of the data, fewer where it ends.

    Raises:
      ValueError: the data begins with no head of TIFF.
    """

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        head = read(0, 16)
        if head[:4] not in _HEADS:
            raise ValueError("no head of TIFF")
        self.read = read
        self.order, self.is_big = _HEADS[head[:4]]
        # Layouts of an offset, a number of entries, and an entry.
        self.offset, self.number, entry = (
            ("Q", "Q", "HHQ8s") if self.is_big else ("I", "H", "HHI4s")
        )
        self._entry = struct.Struct(self.order + entry)
        self.first = self._integer(8 if self.is_big else 4, self.offset)

    def _integer(self, start: int, letter: str) -> int:
        """Reads an integer; 0 where the data ends before."""
        size = struct.calcsize(f"={letter}")
        data = self.read(start, size)
        return struct.unpack(self.order + letter, data)[0] if len(data) == size else 0

    def directory(self, start: int) -> tuple[dict[int, Entry], int]:
        """Reads a directory.

        Args:
          start: its place.

        Returns:
          entries, next: dict of tag to Entry, and the place of the directory behind it, 0 if none.
        """
        size = self._entry.size
        count = self._integer(start, self.number)
        start += struct.calcsize(f"={self.number}")
        # No directory is that long; the number is then a damaged one.
        data = self.read(start, size * min(count, 2**16))
        entries = {}
        for position in range(0, len(data) - size + 1, size):
            tag, kind, number, value = self._entry.unpack_from(data, position)
            if kind in _TYPES:
                place = start + position + size - len(value)
                if number * _TYPES[kind][0] > len(value):
                    place = struct.unpack(self.order + self.offset, value)[0]
                entries[tag] = Entry(kind, number, place, data[position : position + size])
        return entries, self._integer(start + size * count, self.offset)

    def data(self, entry: Entry | None) -> bytes:
        """Returns the bytes of a value, b"" for None."""
        if entry is None:
            return b""
        return self.read(entry.start, min(entry.number * _TYPES[entry.type][0], _MAX_VALUE))

    def integers(self, entry: Entry | None) -> tuple[int, ...]:
        """Returns the numbers of a value; () for None and for a value of another type.

        A fraction that is whole is a number.
        """
        if entry is None:
            return ()
        size, letter = _TYPES[entry.type]
        data = self.data(entry)
        count = len(data) // size
        if entry.type in _FRACTIONS:
            parts = struct.unpack_from(f"{self.order}{2 * count}{_FRACTIONS[entry.type]}", data)
            pairs = list(zip(parts[::2], parts[1::2]))
            whole = all(divisor and dividend % divisor == 0 for dividend, divisor in pairs)
            return tuple(dividend // divisor for dividend, divisor in pairs) if whole else ()
        return struct.unpack_from(f"{self.order}{count}{letter}", data) if letter else ()

    def integer(self, entry: Entry | None, otherwise: int = 0) -> int:
        """Returns the first number of a value, see `integers`."""
        return (*self.integers(entry), otherwise)[0]
