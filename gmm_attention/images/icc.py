"""ICC colour profiles: what one says of itself, small ones made from a few numbers, and transforms.

A profile is a header of 128 bytes, a table of its parts ("tags"), and the parts. LittleCMS, the
library that Pillow brings, follows those that describe colours; only what it does not tell, or
would not do for 16 bits, is read here.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

# A curve from samples to linear light, both 0..1: exponent g, then a, b, c, d. It is
# (a x + b) ** g, and below d the line c x.
Curve = tuple[float, float, float, float, float]

# The part of a profile that describes the curve of samples that are linear light.
_LINEAR = b"curv" + bytes(8)

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


def primaries(parts: dict[bytes, bytes]) -> np.ndarray | None:
    """Reads the matrix of a profile of primaries and curves.

    Args:
      parts: the profile's, see `tags`.

    Returns:
      float64 [3, 3] from linear RGB to XYZ, relative to D50; None if the profile has none.
    """
    columns = [parts.get(name, b"")[8:20] for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    if any(len(column) < 12 for column in columns):
        return None
    return np.stack([np.frombuffer(column, ">i4") for column in columns], axis=-1) / 65536


def matrix(chromaticities: Sequence[float]) -> np.ndarray:
    """Computes the matrix from the linear light of three primaries to XYZ.

    Args:
      chromaticities: x and y of white, red, green and blue: 8 numbers.

    Returns:
      float64 [3, 3], to XYZ relative to D50.

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
    white, directions = points[:, 0] / y[0], points[:, 1:]
    cones = _BRADFORD @ white
    if abs(np.linalg.det(directions)) < 1e-4 or cones.min() < 0.1 or cones.max() > 10:
        raise ValueError("no triangle, or no white")
    shares = np.linalg.solve(directions, white)
    if shares.min() <= 0:
        raise ValueError("white outside of the triangle")
    adaptation = np.linalg.solve(_BRADFORD, np.diag(_BRADFORD @ _D50 / cones) @ _BRADFORD)
    return adaptation @ (directions * shares)


def matrix_profile(chromaticities: Sequence[float], curve: Curve) -> bytes:
    """Makes an RGB profile of three primaries and one curve.

    Args:
      chromaticities: x and y of white, red, green and blue: 8 numbers.
      curve: of each channel, from samples to linear light.

    Returns:
      an ICC profile, version 4.

    Raises:
      ValueError: as for `matrix`.
    """
    parts = {b"wtpt": b"XYZ \0\0\0\0" + _fixed(_D50)}
    for letter, column in zip((b"r", b"g", b"b"), matrix(chromaticities).T):
        parts[letter + b"XYZ"] = b"XYZ \0\0\0\0" + _fixed(column)
        parts[letter + b"TRC"] = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _fixed(curve)
    return _assemble(parts, b"RGB ")


def transform(profile: bytes, target: bytes | None, mode: str, target_mode: str) -> Any:
    """Builds LittleCMS's transform from the colours of a profile to sRGB, or to those of another.

    That to sRGB keeps white and black where they are: white paper stays white under any light, and
    a black that is not quite zero in the profile becomes zero. Other intents would change nothing
    for most profiles, which consist of primaries and curves.

    Args:
      profile: an ICC profile.
      target: another, or None for sRGB.
      mode: Pillow's mode of the samples: "RGB", or "I;16" for 16-bit gray.
      target_mode: likewise of the results.

    Returns:
      the transform, for `apply`.

    Raises:
      ImportError: Pillow was built without LittleCMS.
      UnusableColours: the profile is damaged.
    """
    # Imported here, because few files need it, and some builds of Pillow lack it.
    from PIL import ImageCms

    flags = ImageCms.Flags.NOCACHE
    if target is None:
        flags |= ImageCms.Flags.BLACKPOINTCOMPENSATION
    if mode == "I;16":
        # Else it replaces a gray's curve by 33 points, which is 10 levels off for linear light.
        flags |= ImageCms.Flags.NOOPTIMIZE
    try:
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(
                ImageCms.createProfile("sRGB") if target is None else io.BytesIO(target)
            ),
            mode,
            target_mode,
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=flags,
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        raise UnusableColours("it is damaged or of an unknown kind") from error


def apply(transform: Any, samples: np.ndarray) -> np.ndarray:
    """Converts samples by a transform.

    Args:
      transform: of `transform`.
      samples: uint8 [1, N, 3] for mode "RGB", uint16 [1, N] for "I;16".

    Returns:
      an array of the kind of its other mode.
    """
    return np.asarray(transform.apply(Image.fromarray(samples)))


def light(curve: bytes, samples: np.ndarray) -> np.ndarray:
    """Applies a curve of a profile, by LittleCMS: as if it were that of a gray.

    Args:
      curve: the part of a profile that describes it, such as its rTRC.
      samples: uint16 [N].

    Returns:
      float32 [N], linear light 0..1, in steps of 1 / 65535.

    Raises:
      UnusableColours: the curve is damaged.
    """
    found = transform(_gray_profile(curve), _gray_profile(_LINEAR), "I;16", "I;16")
    return apply(found, samples[None])[0].astype(np.float32) / 65535


def _gray_profile(curve: bytes) -> bytes:
    """Makes a profile of gray samples that have a curve, a part of a profile."""
    return _assemble({b"wtpt": b"XYZ \0\0\0\0" + _fixed(_D50), b"kTRC": curve}, b"GRAY")


def _fixed(numbers: Sequence[float] | np.ndarray) -> bytes:
    """Numbers as profiles hold them, signed and with 16 bits behind the point."""
    return np.rint(np.asarray(numbers) * 65536).astype(">i4").tobytes()


def _assemble(parts: dict[bytes, bytes], samples: bytes) -> bytes:
    """Joins the parts of a profile of some samples, behind the header and the table."""
    start = 132 + 12 * len(parts)
    table, data = struct.pack(">I", len(parts)), b""
    for name, part in parts.items():
        table += struct.pack(">4sII", name, start + len(data), len(part))
        data += part
    header = struct.pack(
        ">I4xI4s4s4s12x4s28x", start + len(data), 4 << 24, b"mntr", samples, b"XYZ ", b"acsp"
    )
    return (header + _fixed(_D50)).ljust(128, b"\0") + table + data
