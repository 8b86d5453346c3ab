"""Makes tests/data/streams/ with the package range-coder, which must be installed.

    python tests/entropy_coding/make_streams.py

NAME.bin is the string that the package makes of the intervals in NAME.npy, int32 [M, 3]: low, high,
total. The package's strings are what the format is defined by, so a test that finds other ones has
found an error in our own coder. The files need to be made anew only to add one.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from package_encoder import encode  # noqa: E402
from second_decoder import RangeEncoder  # noqa: E402

STREAMS = ROOT / "tests" / "data" / "streams"
TOTAL = 2**16


def main():
    STREAMS.mkdir(exist_ok=True)
    streams = {
        "empty": [],
        "one_symbol": [(1, 2, 3)],
        "random": random_intervals(0, 300),
        "last_symbols": [(total - 1, total, total) for total in (2, 3, 1000, TOTAL - 1, TOTAL)] * 8,
        # A carry runs through a chain of 0xff; the chain stays; it is still open at the end.
        "carry": near_a_carry(b"\x13", 8, "carry") + random_intervals(1, 5),
        "no_carry": near_a_carry(b"\x13", 8, "stay") + random_intervals(2, 5),
        "carry_at_the_end": near_a_carry(b"\x80", 8, "carry"),
        "no_carry_at_the_end": near_a_carry(b"\x80", 8, "stay"),
        "open_at_the_end": near_a_carry(b"\x80", 8, None),
        "carry_below_0xff": near_a_carry(b"\xff\x80", 4, "carry"),
        # Most strings end with one byte of the coder's register.
        "two_bytes_at_the_end": with_ending(2),
        "three_bytes_at_the_end": with_ending(3),
    }
    for name, intervals in streams.items():
        intervals = np.array(intervals, np.int32).reshape(-1, 3)
        np.save(STREAMS / f"{name}.npy", intervals)
        (STREAMS / f"{name}.bin").write_bytes(encode([np.insert(intervals, 0, 0, axis=1)]))


def random_intervals(seed, count):
    """Intervals of all sizes in tables of all totals."""
    rng = np.random.default_rng(seed)
    totals = np.where(rng.random(count) < 0.5, TOTAL, rng.integers(2, TOTAL, count))
    widths = np.maximum(1, ((totals - 1) * rng.random(count) ** 4).astype(int))
    lows = rng.integers(0, totals - widths + 1)
    return np.stack([lows, lows + widths, totals], axis=1).tolist()


def near_a_carry(string, count, then):
    """Intervals around a number that a carry leads to, from 0xff bytes below it.

    Args:
      string: up to four bytes; the number is these and then zeros for ever.
      count: how many intervals have the number inside them, so that no carry is decided.
      then: "carry" or "stay", for one interval more that is above the number or below it, or None.
    """
    # The range, and how far above its lower end the number lies.
    size, distance = 2**32 - 1, int.from_bytes(string.ljust(4, b"\0"), "big")
    intervals = []
    for _ in range(count):
        step = size // TOTAL
        place = min(distance // step, TOTAL - 1)
        low, high = max(place - 1, 0), min(place + 2, TOTAL)
        intervals.append((low, high, TOTAL))
        distance -= step * low
        size = step * (high - low) if high < TOTAL else size - step * low
        while size < 2**24:
            size, distance = size << 8, distance << 8
    place = distance // (size // TOTAL)
    last = {"carry": [(place + 1, TOTAL, TOTAL)], "stay": [(0, place, TOTAL)], None: []}
    return intervals + last[then]


def with_ending(length):
    """One interval whose string ends with so many bytes of the register; by search."""
    for total in range(2, TOTAL):
        step = (2**32 - 1) // total
        width = (2**24 - 1) // step
        # Where L + R passes 2^32, L's first bytes are those of L + R only if R is almost 2^32.
        if width < total and step * width >= 2**24 - 2 ** (32 - 8 * length):
            for low in range(total - width):
                encoder = RangeEncoder()
                encoder.symbol(sorted({0, low, low + width, total}), int(low > 0))
                if len(encoder.string()) - encoder.put_out == length:
                    return [(low, low + width, total)]
    raise AssertionError


if __name__ == "__main__":
    main()
