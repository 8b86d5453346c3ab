"""Symbols and tables to bytes and back, at their price, with whichever coder is chosen."""

import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_attention.entropy_coding import range_coder
from gmm_attention.errors import BitstreamError


@st.composite
def interval_lists(draw):
    """Tables and the symbol to code with each."""
    tables, symbols = [], []
    for _ in range(draw(st.integers(0, 30))):
        total = draw(st.sampled_from([2, 3, 100, 2**16 - 1, 2**16]))
        cuts = draw(st.sets(st.integers(1, total - 1), min_size=1, max_size=10))
        table = [0, *sorted(cuts), total]
        tables.append(table)
        symbols.append(draw(st.integers(0, len(table) - 2)))
    return tables, symbols


def rows(tables, symbols):
    """Intervals in the form that range_coder.encode takes."""
    chosen = [[0, table[i], table[i + 1], table[-1]] for table, i in zip(tables, symbols)]
    return np.array(chosen, np.int32).reshape(-1, 4)


def coded_bits(intervals):
    """By how many bits symbols narrow the coder's range.

    A table's last symbol also gets what the division of the range leaves over, which may be far
    more than its width says.
    """
    bits, size = 0, 2**32 - 1
    for _, low, high, total in intervals.tolist():
        share = size // total
        left = size - share * low if high == total else share * (high - low)
        bits += np.log2(size / left)
        size = left
        while size < 2**24:
            size <<= 8
    return bits


@settings(max_examples=100, deadline=None)
@given(interval_lists(), st.lists(st.integers(1, 2**18 - 1), max_size=5))
def test_symbols_and_escapes_round_trip_at_their_price(tables_and_symbols, numbers):
    tables, symbols = tables_and_symbols
    bits, owners = range_coder.escape_bits(numbers)
    assert len(bits) == len(owners) == sum(2 * number.bit_length() - 1 for number in numbers)
    string = range_coder.encode([rows(tables, symbols), bits])
    widths = np.array([table[i + 1] - table[i] for table, i in zip(tables, symbols)], int)
    totals = np.array([table[-1] for table in tables], int)
    with range_coder.decoder(string, "string") as decoder:
        assert decoder.symbols(tables) == symbols
        decoder.charge(widths, totals)
        assert decoder.escapes(len(numbers)) == numbers
    price = np.sum(np.log2(totals / widths)) + len(bits)
    least = range_coder.least_bits(widths, totals) + len(bits) * 0.999
    assert least <= price and 8 * len(string) <= price + 24
    coded = coded_bits(np.concatenate([rows(tables, symbols), bits]))
    assert least - 1e-6 <= coded <= 8 * len(string) + 1e-6


@pytest.mark.parametrize("total", [2, 2**16])
@pytest.mark.parametrize("width", [1, 2**16 - 1])
def test_no_symbols_cost_less_than_the_bound(total, width):
    width = min(width, total - 1)
    for low in (0, total - width):  # in the middle of a table, and at its end
        row = np.array([[0, low, low + width, total]], np.int32)
        if low + width == total:
            row[:, 1] = total - width
        piece = np.repeat(row, 20000, axis=0)
        string = range_coder.encode([piece])
        least = range_coder.least_bits(piece[:, 2] - piece[:, 1], piece[:, 3])
        assert least <= 8 * len(string) + 8


def test_decoding_past_the_end_is_noticed():
    tables = [[0, 1, 2]] * 80
    with range_coder.decoder(b"\x55", "string") as decoder:
        decoder.symbols(tables)
        with pytest.raises(BitstreamError, match="string is too short"):
            decoder.charge(np.ones(80, int), 2)


def test_endless_escapes_are_refused():
    with range_coder.decoder(bytes(100), "string") as decoder:
        with pytest.raises(BitstreamError, match="escape"):
            decoder.escapes(1)


def test_encoding_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert range_coder.encode([np.array([[0, 1, 2, 3]], np.int32)]) == b"\x55"


def test_without_the_package_our_own_code_decodes():
    check = (
        "import sys; sys.modules['range_coder'] = None\n"
        "from gmm_attention.entropy_coding import range_coder\n"
        "with range_coder.decoder(b'\\x55', 'string') as decoder:\n"
        "    print(range_coder.reader.__module__, decoder.symbols([[0, 1, 2, 3]]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", check],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["gmm_attention.entropy_coding.python_streams", "[1]"]
