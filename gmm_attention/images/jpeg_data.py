"""Tells whether the coded data of a JPEG file is whole.

Decoders make a picture of any data; where that is damaged, the picture is gray or smeared. libjpeg
warns of most of it, but Pillow hides the warnings. So a second reader, of simplejpeg, looks for
them. It decodes to an eighth of the size, which takes little time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from gmm_attention.images.source import Damaged

START, END, SCAN = 0xD8, 0xD9, 0xDA
END_MARKER = bytes((0xFF, END))

_TABLES = 0xC4  # for Huffman codes
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA)
_HUFFMAN, _ARITHMETIC = (0xC0, 0xC1, 0xC2), (0xC9, 0xCA)
_FAST = (0xC0, 0xC1)
_RESTARTS = 0xDD
_SEGMENTS = (_TABLES, 0xCC, SCAN, 0xDB, 0xDC, _RESTARTS, *range(0xE0, 0xF0), 0xFE)

# The next marker behind coded data, in which FF is followed by 00, and RST markers may stand.
_next_marker = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]").search

# What libjpeg says of damage, but also of harmless data, such as padding before the end.
_SUSPICIOUS = "extraneous bytes"
# What it says of damage alone, apart from that.
_DAMAGE = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")

# Bytes that are zero one after another where data was lost.
_HOLE = 64


class Segment(NamedTuple):
    """A segment of a JPEG file."""

    marker: int  # its second byte
    content: bytes  # without marker and length

    def stored(self) -> bytes:
        """Returns it as it stands in a file."""
        length = len(self.content) + 2
        return bytes((0xFF, self.marker)) + length.to_bytes(2, "big") + self.content


class _Scan(NamedTuple):
    """A scan, and what codes it."""

    header: bytes
    start: int  # of its data
    end: int
    zeros: dict[int, int]  # number of each code for AC coefficients -> its symbol of zeros alone


class _Layout(NamedTuple):
    """What the header of a scan says."""

    components: dict[int, int]  # component -> number of its code for AC coefficients
    first: int  # of the coefficients, 0..63
    last: int
    before: int  # number of low bits that the scans before have left out, 0 in the first
    left_out: int  # number of low bits that this one leaves out


def coded_data(data: bytes) -> tuple[bytes, bool]:
    """Cuts off what follows the first picture.

    Args:
      data: of a file, behind the header of its first scan.

    Returns:
      data, has_end: up to the end marker, without it; whether there is one.
    """
    end, has_end = len(data), False
    for marker, start, _ in _markers(data):
        if marker in (START, END):
            end, has_end = start, marker == END
            break
    return data[:end] if has_end else data[:end].rstrip(b"\xff"), has_end


def inspect(header: Sequence[Segment], coded: bytes, has_end: bool) -> str:
    """Looks for signs of damage.

    Args:
      header: the segments up to that of the first scan, without those of applications.
      coded, has_end: see `coded_data`.

    Returns:
      a suspicion in words that follow the file's name, "" if there is none.

    Raises:
      Damaged: the data is damaged for certain.
    """
    frame = next(segment for segment in header if segment.marker in _FRAMES)
    if frame.marker not in (*_HUFFMAN, *_ARITHMETIC):
        # libjpeg-turbo dies of those without loss.
        return "could not be checked for damage (a rare kind)"
    scans = _scans(header, coded)
    # Zeros at the end may be data, padding, or what was reserved for a copy that was cut off.
    without_zeros = coded.rstrip(b"\0")
    if frame.marker in _HUFFMAN and any(_has_hole(scan, without_zeros) for scan in scans):
        raise Damaged("zeros in the place of JPEG data")
    is_complete = _is_complete(frame, scans)
    if not has_end and not is_complete:
        raise Damaged("truncated between its scans")
    warning = _warning(header, frame, coded)
    if _SUSPICIOUS in warning and len(coded) - len(without_zeros) >= _HOLE:
        warning = _warning(header, frame, without_zeros + b"\0")
    if _SUSPICIOUS in warning:
        return f"may be damaged ({warning})"
    if any(sign in warning for sign in _DAMAGE):
        raise Damaged(warning)
    if not has_end and frame.marker in _ARITHMETIC:
        return "may be damaged (its end is missing)"  # of which this code gives no sign
    if warning:
        return f"could not be checked for damage ({warning})"
    return "" if is_complete else "may be damaged (a scan is missing)"


def _markers(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields of each marker behind coded data: it, its place, and the place of its content."""
    place = 0
    while True:
        match = _next_marker(data, place)
        if match is None:
            return
        marker, place = data[match.end() - 1], match.end()
        yield marker, match.start(), place + 2
        if marker in _SEGMENTS:
            place += int.from_bytes(data[place : place + 2], "big")


def _scans(header: Sequence[Segment], coded: bytes) -> list[_Scan]:
    zeros: dict[int, int] = {}
    for segment in header:
        if segment.marker == _TABLES:
            zeros.update(_symbols_of_zeros(segment.content))
    scans = [_Scan(header[-1].content, 0, len(coded), zeros)]
    for marker, start, content_start in _markers(coded):
        length = int.from_bytes(coded[content_start - 2 : content_start], "big") - 2
        content = coded[content_start : content_start + length]
        # The data of the scan before ends at the first marker behind it.
        scans[-1] = scans[-1]._replace(end=min(scans[-1].end, start))
        if marker == _TABLES:
            zeros = {**zeros, **_symbols_of_zeros(content)}
        elif marker == SCAN:
            scans.append(_Scan(content, content_start + length, len(coded), zeros))
    return scans


def _symbols_of_zeros(tables: bytes) -> dict[int, int]:
    """Finds for each code of AC coefficients in a segment the symbol whose bits are all 0."""
    symbols = {}
    while len(tables) > 17:
        count = sum(tables[1:17])
        if tables[0] >> 4 == 1:
            # Codes are numbered from 0, beginning with the shortest.
            symbols[tables[0] & 15] = tables[17]
        tables = tables[17 + count :]
    return symbols


def _layout(header: bytes) -> _Layout:
    count = header[0] if header else 0
    if len(header) != 4 + 2 * count:
        raise Damaged("damaged header of a scan")
    pairs = header[1 : 1 + 2 * count]
    first, last, bits = header[-3:]
    codes = {component: code & 15 for component, code in zip(pairs[::2], pairs[1::2])}
    return _Layout(codes, first, last, bits >> 4, bits & 15)


def _has_hole(scan: _Scan, coded: bytes) -> bool:
    """Whether data was overwritten with zeros, such as by a copy that was cut off.

    Where the code that is all zeros means a coefficient, so many of them are in no photograph. Nor
    are so many bits of coefficients, which a later scan brings.
    """
    layout = _layout(scan.header)
    sizes = [scan.zeros.get(code, 0) & 15 for code in layout.components.values()]
    if layout.last == 0 or not (layout.before or any(sizes)):
        return False
    return coded.find(bytes(_HOLE), scan.start, scan.end) >= 0


def _is_complete(frame: Segment, scans: Sequence[_Scan]) -> bool:
    """Whether the scans bring each bit of each coefficient of each component."""
    missing = {(component, k) for component in frame.content[6::3] for k in range(64)}
    for scan in scans:
        layout = _layout(scan.header)
        is_progressive = frame.marker in _PROGRESSIVE
        if is_progressive and layout.left_out:
            continue
        some = range(layout.first, layout.last + 1) if is_progressive else range(64)
        missing -= {(component, k) for component in layout.components for k in some}
    return not missing


def _second_reader() -> Callable[..., Any] | None:
    try:
        # Imported here, because the runner of an exported training step has to do without it.
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    return decode_jpeg


def can_inspect() -> bool:
    """Whether data that was cut off is found by `inspect`."""
    return _second_reader() is not None


def _has_few_units(frame: Segment) -> bool:
    """Whether an image has fewer units of coding (MCUs) than a restart interval can be long."""
    height, width = (int.from_bytes(frame.content[i : i + 2], "big") for i in (1, 3))
    factors = frame.content[7::3]
    if not factors or not height:
        return False
    rows, columns = (8 * max(f & 15 for f in factors), 8 * max(f >> 4 for f in factors))
    return rows * columns > 0 and -(-height // rows) * -(-width // columns) < 2**16 - 1


def _warning(header: Sequence[Segment], frame: Segment, coded: bytes) -> str:
    """Returns the first thing that the second reader says of the data, "" for nothing."""
    decode = _second_reader()
    if decode is None:
        return ""
    *tables, scan = header
    if frame.marker in _FAST and _has_few_units(frame):
        restarts = [segment for segment in header if segment.marker == _RESTARTS]
        if not any(any(segment.content) for segment in restarts):
            # Where restarts are possible, libjpeg-turbo takes its slower way, which finds more
            # damage. None is reached in so long an interval.
            tables.append(Segment(_RESTARTS, b"\xff\xff"))
    if frame.marker in _SEQUENTIAL:
        # Some encoders write other numbers there, which have no effect but hide later warnings.
        scan = scan._replace(content=scan.content[:-3] + bytes((0, 63, 0)))
    segments = b"".join(segment.stored() for segment in (*tables, scan))
    data = b"".join((bytes((0xFF, START)), segments, coded, END_MARKER))
    try:
        decode(data, colorspace="GRAY", min_height=1, min_width=1, strict=True)
    except ValueError as error:
        return " ".join(str(error).split())
    return ""
