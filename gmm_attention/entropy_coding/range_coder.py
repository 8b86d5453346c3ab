"""Symbols and integer tables <-> bytes: a thin layer on the package range-coder.

That package codes from and to files by name, so each string passes through a temporary file.
"""

import contextlib
import os
import tempfile

import numpy as np
from range_coder import RangeDecoder, RangeEncoder

from gmm_attention.errors import BitstreamError, CodecError

LONGEST_ESCAPE = 18  # bits of the largest number that `escape_bits` codes
_BIT = [0, 1, 2]
_SMALLEST_RANGE = 2**24  # range-coder's; it then shifts a byte out
SLACK = 64  # bits: the coder's register of 32, and floating-point sums


def encode(pieces):
    """Range-codes a sequence of intervals.

    Args:
      pieces: iterable of [M, 4] int arrays. A row 0, low, high, total codes one symbol that holds
        the counts low..high-1 of a table that ends at total <= 2^16.

    Returns:
      bytes.

    Raises:
      CodecError: the temporary file could not be written.
    """
    symbol = [1]
    with _temporary_file() as path:
        with contextlib.closing(RangeEncoder(path)) as encoder:
            encode_symbols = encoder.encode
            for piece in pieces:
                # Not piece.tolist(): so many lists at once keep the garbage collector busy.
                for low, high, total in zip(*piece[:, 1:].T.tolist()):
                    encode_symbols(symbol, [0, low, high, total])
        with open(path, "r+b") as file:
            string = file.read()
            # range-coder does not tell when it cannot write. Where it could not, this cannot.
            file.write(b"\0")
    return string


class Decoder:
    """Decodes a string symbol by symbol.

    range-coder reads 0xff past the end of its file, without an error; `charge` notices in the end.
    """

    def __init__(self, range_decoder, string_length, name):
        """Takes a RangeDecoder and the length of its file in bytes; `decoder` makes both."""
        self._decode = range_decoder.decode
        self._name = name
        self._bits_left = 8 * string_length + SLACK

    def symbols(self, tables):
        """Decodes one symbol from each table.

        Args:
          tables: list of lists of ints from 0 to the total, at most 1025 each.

        Returns:
          List of ints: the index of each symbol's interval.
        """
        decode = self._decode
        return [decode(1, table)[0] for table in tables]

    def charge(self, widths, totals):
        """Accounts for symbols decoded; takes counts and totals as `least_bits`.

        Raises:
          BitstreamError: the symbols up to here need more bits than the string has.
        """
        self._bits_left -= least_bits(widths, totals)
        if self._bits_left < 0:
            raise BitstreamError(f"{self._name} is too short for its symbols")

    def escapes(self, count):
        """Decodes numbers that `escape_bits` coded.

        Raises:
          BitstreamError: a number is longer than any that is coded.
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
def decoder(string, name):
    """Yields a Decoder of a string; the name is for messages."""
    with _temporary_file() as path:
        with open(path, "wb") as file:
            file.write(string)
        with contextlib.closing(RangeDecoder(path)) as range_decoder:
            yield Decoder(range_decoder, len(string), name)


def escape_bits(numbers):
    """Codes numbers in Elias gamma code, each bit with probability 1/2.

    Args:
      numbers: list of ints in 1..2^18 - 1.

    Returns:
      [B, 4] int32, intervals as `encode` takes them.
      [B] int, the index of the number that each bit belongs to.
    """
    texts = [f"{number:b}" for number in numbers]
    texts = ["0" * (len(text) - 1) + text for text in texts]
    bits = np.array([int(bit) for text in texts for bit in text], np.int32)
    table = np.stack([np.zeros_like(bits), bits, bits + 1, np.full_like(bits, 2)], axis=1)
    return table, np.repeat(np.arange(len(texts)), [len(text) for text in texts])


def least_bits(widths, totals):
    """Bounds from below how far symbols advance the coder.

    The coder's range R shrinks to R // total * width, or, for a table's last symbol, keeps the
    remainder too; R is at least 2^24. A string of L bytes holds at most 8 L + 8 such bits.

    Args:
      widths: [M] int, counts of the symbols coded.
      totals: [M] or scalar int, totals of their tables, at most 2^16.

    Returns:
      float.
    """
    smallest = _SMALLEST_RANGE // totals
    remainder = totals - 1.0
    shrinking = (smallest * totals + remainder) / (smallest * widths + remainder)
    return float(np.log2(shrinking).sum())


@contextlib.contextmanager
def _temporary_file():
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
