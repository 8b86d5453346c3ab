"""Our own streams are the package range-coder's, byte for byte: committed ones, and drawn ones."""

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gmm_attention.entropy_coding import python_streams

STREAMS = ROOT / "tests" / "data" / "streams"
NAMES = sorted(path.stem for path in STREAMS.glob("*.bin"))


def rows(tables, symbols):
    """Intervals in the form that `encode` takes."""
    chosen = [[0, table[i], table[i + 1], table[-1]] for table, i in zip(tables, symbols)]
    return np.array(chosen, np.int32).reshape(-1, 4)


def decode(tables, string, streams=python_streams):
    with streams.reader(string) as read:
        return read(tables)


# Streams that the package made, which need it no more.


@pytest.mark.parametrize("name", NAMES)
def test_the_packages_streams_are_made_and_decoded_without_it(name):
    string = (STREAMS / f"{name}.bin").read_bytes()
    intervals = np.load(STREAMS / f"{name}.npy")
    assert python_streams.encode([np.insert(intervals, 0, 0, axis=1)]) == string
    tables = [sorted({0, *interval}) for interval in intervals.tolist()]
    symbols = [table.index(low) for table, low in zip(tables, intervals[:, 0].tolist())]
    assert decode(tables, string) == symbols


def test_the_committed_streams_have_what_they_are_named_after():
    strings = {name: (STREAMS / f"{name}.bin").read_bytes() for name in NAMES}
    assert len(NAMES) == 12 and strings["empty"] == b"\0"
    assert strings["carry"].startswith(b"\x13" + bytes(12))
    assert strings["no_carry"].startswith(b"\x12" + b"\xff" * 12)
    assert strings["carry_at_the_end"] == b"\x80" + bytes(14)
    assert strings["open_at_the_end"] == b"\x7f" + b"\xff" * 13 + b"\xf0"
    assert strings["two_bytes_at_the_end"][1:] == b"\x7f\xff"
    assert strings["three_bytes_at_the_end"][1:] == b"\xff\xff\xff"


# The package beside ours, where it is installed.


@pytest.fixture(scope="module")
def package_encoder():
    pytest.importorskip("range_coder")
    import package_encoder

    return package_encoder


@pytest.fixture(scope="module")
def package_streams():
    pytest.importorskip("range_coder")
    from gmm_attention.entropy_coding import package_streams

    return package_streams


@st.composite
def tables(draw):
    total = draw(st.one_of(st.sampled_from([2, 3, 2**16 - 1, 2**16]), st.integers(2, 2**16)))
    if draw(st.booleans()):  # all of it but the ends goes to one symbol
        cuts = draw(st.sets(st.sampled_from([1, total - 1]), min_size=1))
    else:
        cuts = draw(st.sets(st.integers(1, total - 1), min_size=1, max_size=12))
    return [0, *sorted(cuts), total]


# Long chains of 0xff and 0x00, on either side of a carry, beside noise.
chains = st.lists(
    st.one_of(
        st.binary(max_size=3),
        st.builds(lambda byte, n: byte * n, st.sampled_from([b"\0", b"\xff"]), st.integers(1, 9)),
    ),
    max_size=6,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(st.lists(tables(), max_size=60), chains)
@example([[0, 1, 2]] * 90, b"\xff" * 4)  # the value passes the range, and 2^32 in the end
@example([[0, 1, 2]] * 90, b"")
@example([[0, 2**16 - 1, 2**16]] * 60, b"\xff" * 30)
def test_any_string_gives_the_symbols_that_the_package_finds(package_streams, tables, string):
    assert decode(tables, string) == decode(tables, string, package_streams)


@settings(max_examples=400, deadline=None)
@given(st.data(), st.lists(tables(), max_size=60), chains)
def test_strings_are_the_packages(package_encoder, data, tables, string):
    # The symbols of a chain keep close to its carry; a few of another's come after them.
    kept = data.draw(st.integers(0, len(tables)))
    symbols = decode(tables[:kept], string)
    symbols += [data.draw(st.integers(0, len(table) - 2)) for table in tables[kept : kept + 4]]
    tables = tables[: len(symbols)]
    coded = python_streams.encode([rows(tables, symbols)])
    assert coded == package_encoder.encode([rows(tables, symbols)])
    assert decode(tables, coded) == symbols


@settings(max_examples=100, deadline=None)
@given(st.lists(tables(), min_size=1, max_size=60), st.data())
def test_truncated_strings_give_the_symbols_that_the_package_finds(package_streams, tables, data):
    symbols = [data.draw(st.integers(0, len(table) - 2)) for table in tables]
    string = python_streams.encode([rows(tables, symbols)])
    string = string[: data.draw(st.integers(0, len(string)))]
    assert decode(tables, string) == decode(tables, string, package_streams)


@pytest.mark.parametrize("place", ["first", "any", "last"])
def test_tables_of_every_total(package_encoder, package_streams, place):
    rng = np.random.default_rng(0)
    totals = np.arange(2, 2**16 + 1)
    cuts = {
        "first": np.ones_like(totals),
        "any": rng.integers(1, totals),
        "last": totals - 1,
    }[place]
    tables = [[0, cut, total] for cut, total in zip(cuts.tolist(), totals.tolist())]
    for symbols in ([0] * len(tables), [1] * len(tables), rng.integers(0, 2, len(tables)).tolist()):
        string = python_streams.encode([rows(tables, symbols)])
        assert string == package_encoder.encode([rows(tables, symbols)])
        assert decode(tables, string) == decode(tables, string, package_streams) == symbols


def test_the_longest_tables(package_streams):
    tables = [list(range(1024)) + [2**16], list(range(0, 2**16 + 1, 64))] * 50
    string = np.random.default_rng(0).bytes(200)
    assert {len(table) for table in tables} == {1025}
    assert decode(tables, string) == decode(tables, string, package_streams)


def test_pieces_may_end_anywhere(package_encoder):
    rng = np.random.default_rng(0)
    piece = rows([[0, 1, 5, 9]] * 300, rng.integers(0, 3, 300).tolist())
    pieces = np.split(piece, [0, 1, 1, 40, 299])
    string = python_streams.encode(iter(pieces))
    assert string == python_streams.encode([piece]) == package_encoder.encode(pieces)
