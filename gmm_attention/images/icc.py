"""ICC colour profiles: what one says of itself, and small ones made from a few numbers.

A profile is a header of 128 bytes, a table of its parts ("tags"), and the parts. LittleCMS, the
library that Pillow brings, reads those that describe colours; only what it does not tell is read
here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

import numpy as np

# A curve from samples to linear light, both 0..1: exponent g, then a, b, c, d. It is
# (a x + b) ** g, and below d the line c x.
Curve = tuple[float, float, float, float, float]

# Transfer functions of high dynamic range, by their numbers in ITU-T H.273.
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}

# The device classes that describe an image's colours. The others lead from one device to another,
# change a look, or list inks by name.
_SOURCES = (b"scnr", b"mntr", b"prtr", b"spac")

_SPACES = {b"RGB ": "RGB", b"GRAY": "gray"}

# The white that profiles refer to.
_D50 = np.array([0.9642, 1.0, 0.8249])

# XYZ to the responses of the eye's cones, by which the Bradford method adapts one white to another.
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


class UnusableColours(Exception):
    """What a file says of its colours cannot be followed.

    Attributes:
      what: the part of the file that says it, such as "colour profile".
      cause: what is wrong with it, in few words.
    """

    def __init__(self, cause: str, what: str = "colour profile") -> None:
        super().__init__(cause)
        self.cause, self.what = cause, what


def tags(profile: bytes) -> dict[bytes, bytes]:
    """Finds the parts of a profile.

    Args:
      profile: an ICC profile.

    Returns:
      the parts' data by their names of 4 bytes.

    Raises:
      UnusableColours: the profile is cut off, or no ICC profile.
    """
    if profile[36:40] != b"acsp":
        raise UnusableColours("it is damaged")
    size, count = int.from_bytes(profile[:4], "big"), int.from_bytes(profile[128:132], "big")
    # LittleCMS passes over parts that are missing, and might then take others than were meant.
    if len(profile) < max(size, 132 + 12 * count):
        raise UnusableColours("it is cut off")
    found = {}
    for name, start, length in struct.iter_unpack(">4sII", profile[132 : 132 + 12 * count]):
        if start + length > len(profile):
            raise UnusableColours("it is cut off")
        found[name] = profile[start : start + length]
    return found


def space(profile: bytes) -> str:
    """Tells which samples a profile describes.

    Args:
      profile: an ICC profile of at least 128 bytes.

    Returns:
      "RGB" or "gray".

    Raises:
      UnusableColours: it describes other samples, or none of an image.
    """
    if profile[12:16] not in _SOURCES:
        raise UnusableColours("it does not describe the colours of an image")
    name = profile[16:20]
    if name not in _SPACES:
        shown = name.decode("ascii", "replace").strip()
        raise UnusableColours(f"it is for {shown if shown.isalnum() else 'unknown'} samples")
    return _SPACES[name]


def description(parts: dict[bytes, bytes]) -> str:
    """Returns the name that a profile gives itself, such as "Display P3"; "" if it has none.

    Args:
      parts: the profile's, see `tags`.
    """
    text = parts.get(b"desc", b"")
    if text[:4] == b"desc":
        name = text[12 : 12 + int.from_bytes(text[8:12], "big")].decode("latin-1")
    else:
        # Names in several languages, of which the first is taken.
        length, start = struct.unpack(">II", text[20:28].ljust(8, b"\0"))
        name = text[start : start + length].decode("utf-16-be", "replace")
    return name.strip("\0 ")


def hdr_transfer(profile: bytes) -> str | None:
    """Returns the transfer function of high dynamic range of a profile, "PQ" or "HLG", or None.

    The curves of a profile cannot say that its white is brighter than paper. So it has the number
    of its function beside them, or, if it is older than that part of the standard, only a name
    that says it. PQ and HLG may mean something else in a name: they count only with a colour space
    of such pictures, and not for a printer.

    Args:
      profile: an ICC profile.

    Raises:
      UnusableColours: as for `tags`.
    """
    parts = tags(profile)
    codes = parts.get(b"cicp", b"")[8:12]
    if len(codes) == 4 and codes[1] in HDR_TRANSFERS:
        return HDR_TRANSFERS[codes[1]]
    name = description(parts).lower()
    if re.search(r"st[ _.-]?2084|perceptual quanti[sz]er", name):
        return "PQ"
    if re.search(r"hybrid[ _-]log", name):
        return "HLG"
    # libjxl writes the names RGB_D65_202_Rel_PeQ and RGB_D65_202_Rel_HLG.
    if profile[12:16] == b"prtr" or not re.search(r"2020|2100|_202_|p3|hdr", name):
        return None
    found = re.search(r"(?:2020|2100|p3)(pq|hlg)|(?<![a-z])(pq|peq|hlg)(?![a-z])", name)
    if found is None:
        return None
    return "HLG" if "hlg" in found.groups() else "PQ"


def matrix_profile(chromaticities: Sequence[float], curve: Curve) -> bytes:
    """Makes an RGB profile of three primaries and one curve.

    Args:
      chromaticities: x and y of white, red, green and blue: 8 numbers.
      curve: of each channel, from samples to linear light.

    Returns:
      an ICC profile, version 4.

    Raises:
      ValueError: the primaries make no triangle around a white that eyes can adapt to.
    """
    numbers = np.asarray(chromaticities, np.float64)
    if numbers.shape != (8,) or not np.isfinite(numbers).all():
        raise ValueError("not 8 finite chromaticities")
    x, y = numbers.reshape(4, 2).T
    if x.min() < 0 or y.min() <= 0 or (x + y).max() > 1.001:
        raise ValueError("chromaticities of no light")
    points = np.stack([x, y, 1 - x - y])
    white, primaries = points[:, 0] / y[0], points[:, 1:]
    cones = _BRADFORD @ white
    if abs(np.linalg.det(primaries)) < 1e-4 or cones.min() < 0.1 or cones.max() > 10:
        raise ValueError("no triangle, or no white")
    shares = np.linalg.solve(primaries, white)
    if shares.min() <= 0:
        raise ValueError("white outside of the triangle")
    adaptation = np.linalg.solve(_BRADFORD, np.diag(_BRADFORD @ _D50 / cones) @ _BRADFORD)
    columns = adaptation @ (primaries * shares)
    parts = {b"wtpt": b"XYZ \0\0\0\0" + _fixed(_D50)}
    for letter, column in zip((b"r", b"g", b"b"), columns.T):
        parts[letter + b"XYZ"] = b"XYZ \0\0\0\0" + _fixed(column)
        parts[letter + b"TRC"] = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _fixed(curve)
    return _assemble(parts)


def _fixed(numbers: Sequence[float] | np.ndarray) -> bytes:
    """Numbers as profiles hold them, signed and with 16 bits behind the point."""
    return np.rint(np.asarray(numbers) * 65536).astype(">i4").tobytes()


def _assemble(parts: dict[bytes, bytes]) -> bytes:
    """Joins the parts of an RGB profile, behind the header and the table."""
    start = 132 + 12 * len(parts)
    table, data = struct.pack(">I", len(parts)), b""
    for name, part in parts.items():
        table += struct.pack(">4sII", name, start + len(data), len(part))
        data += part
    header = struct.pack(
        ">I4xI4s4s4s12x4s28x", start + len(data), 4 << 24, b"mntr", b"RGB ", b"XYZ ", b"acsp"
    )
    return (header + _fixed(_D50)).ljust(128, b"\0") + table + data
