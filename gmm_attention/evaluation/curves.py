"""Rate-distortion curves: RDdata's files, and how far one curve lies from another."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import bjontegaard
import numpy as np
from bjontegaard.interpolation import interpolate

from gmm_attention.errors import CurveError
from gmm_attention.files import write_atomically

METRICS = ("PSNR", "MSSSIM")

_FILE_NAME = re.compile(r"data_([^_]+)_(.+)_(PSNR|MSSSIM)\.dat")
# What `write_curve` writes.
_RATE_DIGITS = 9
_WRITTEN = re.compile(rb"(\d+\.\d{9}\t-?\d+\.\d{6}\r?\n)+")

_FORM = "data_SET_NAME_PSNR.dat or data_SET_NAME_MSSSIM.dat"

# The method that the package recommends; https://arxiv.org/abs/2401.04039 compares several.
_INTERPOLATION = "akima"


class Curve(NamedTuple):
    """What one codec reaches on one set of images.

    Attributes:
      image_set: name of the set, without an underscore, such as "Kodak".
      name: of the codec, such as "VTM" or "Proposed_optimized_by_MSE".
      metric: "PSNR" or "MSSSIM", both in dB.
      bpp: the rates of the points, ascending.
      quality: their qualities, dB.
    """

    image_set: str
    name: str
    metric: str
    bpp: tuple[float, ...]
    quality: tuple[float, ...]


class Difference(NamedTuple):
    """A curve against an anchor, averaged over the part where both have values.

    Attributes:
      rate: BD-rate in per cent; negative where the curve needs fewer bits. None where the two
        have no quality in common.
      quality: BD-PSNR, or the same for MS-SSIM, in dB; positive where the curve is better. None
        where the two have no rate in common.
      overlap: lowest and highest quality that both reach, dB; None where the rate is None.
      share: span of the qualities that both reach, over the span from the lowest to the highest
        quality of either, 0..1.
    """

    rate: float | None
    quality: float | None
    overlap: tuple[float, float] | None
    share: float


def file_name(curve: Curve) -> str:
    """The name of a curve's file, as in RDdata."""
    return f"data_{curve.image_set}_{curve.name}_{curve.metric}.dat"


def read_curve(path: str | os.PathLike[str]) -> Curve:
    """Reads a file in the form of RDdata's: one point in each line, bpp and dB.

    Args:
      path: str or Path of a file named data_SET_NAME_PSNR.dat or data_SET_NAME_MSSSIM.dat.

    Raises:
      CurveError: the file is missing or unreadable, has another name, or is not such a list.
    """
    try:
        with open(path, encoding="ascii") as file:
            lines = file.read().splitlines()
    except UnicodeDecodeError as error:
        raise CurveError(f"{path}: damaged: it is no text; copy it again") from error
    except OSError as error:
        raise CurveError(
            f"{path}: cannot be read: {error.strerror}; check the name and its permissions"
        ) from error
    match = _FILE_NAME.fullmatch(os.path.basename(path))
    if not match:
        raise CurveError(f"{path}: not a curve's name; rename it to {_FORM}")
    points: list[tuple[float, float]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            bpp, quality = (float(word) for word in line.split())
        except ValueError as error:
            raise CurveError(
                f"{path}: line {number}: not two numbers, bpp and dB: {line[:40]!r}; correct it"
            ) from error
        if not (0 < bpp < math.inf and math.isfinite(quality)):
            raise CurveError(f"{path}: line {number}: no bpp and dB: {line[:40]!r}; correct it")
        if points and bpp <= points[-1][0]:
            raise CurveError(f"{path}: line {number}: the rate does not rise; sort the lines")
        points.append((bpp, quality))
    if not points:
        raise CurveError(f"{path}: holds no points; give one a line, bpp and dB")
    image_set, name, metric = match.groups()
    rates, qualities = zip(*points)
    return Curve(image_set, name, metric, rates, qualities)


def read_curves(paths: Iterable[str | os.PathLike[str]]) -> list[Curve]:
    """Reads curves from files, and from all data_*.dat in folders.

    Args:
      paths: of files and folders.

    Returns:
      list of Curve, sorted by image set and name.

    Raises:
      CurveError: see `read_curve`; or a folder has no curves, or two curves have one name.
    """
    files: list[str | os.PathLike[str]] = []
    for path in paths:
        if not os.path.isdir(path):
            files.append(path)
            continue
        found = sorted(glob.glob(os.path.join(glob.escape(str(path)), "data_*.dat")))
        if not found:
            raise CurveError(f"{path}: no curve in this folder; its files should be named {_FORM}")
        files += found
    curves: dict[tuple[str, str, str], Curve] = {}
    for path in files:
        curve = read_curve(path)
        if curve[:3] in curves:
            raise CurveError(f"{path}: a curve of this name is given twice; leave one away")
        curves[curve[:3]] = curve
    return sorted(curves.values(), key=lambda curve: (curve.image_set, curve.name.casefold()))


def write_curve(folder: str | os.PathLike[str], curve: Curve) -> str:
    """Writes a curve into a folder, in the form that `read_curve` reads.

    Returns:
      the file's path.

    Raises:
      CodecError: the file cannot be written.
    """
    path = os.path.join(folder, file_name(curve))
    lines = (
        f"{bpp:.{_RATE_DIGITS}f}\t{quality:.6f}\n" for bpp, quality in zip(curve.bpp, curve.quality)
    )
    write_atomically({path: "".join(lines).encode()})
    return path


def written_rate(bpp: float) -> float:
    """The rate that `write_curve` writes."""
    return round(bpp, _RATE_DIGITS)


def is_ours(head: bytes) -> bool:
    """Whether a file is a curve that `write_curve` wrote; published ones have other digits.

    Args:
      head: the first 4096 bytes of the file, which are more than such a curve has.
    """
    return bool(_WRITTEN.fullmatch(head))


def compare(curve: Curve, anchor: Curve) -> Difference:
    """Computes Bjontegaard's differences of a curve from an anchor (Akima interpolation).

    Args:
      curve, anchor: two curves of one image set and metric, with two points or more.

    Raises:
      CurveError: the curves overlap neither in rate nor in quality; a curve has a single point, or
        its quality falls where its rate rises; or their sets or metrics differ.
    """
    if (curve.image_set, curve.metric) != (anchor.image_set, anchor.metric):
        raise CurveError(
            f"{file_name(curve)} and {file_name(anchor)} are of other images or another metric; "
            "compare curves of one set and metric"
        )
    _check_rising(anchor)
    _check_rising(curve)
    rate: float | None = None
    quality: float | None = None
    overlap: tuple[float, float] | None = None
    values = anchor.bpp, anchor.quality, curve.bpp, curve.quality
    options: dict[str, Any]
    options = {"method": _INTERPOLATION, "require_matching_points": False, "min_overlap": 0}
    low, high = _common(curve.quality, anchor.quality)
    if low < high:
        overlap = low, high
        rate = float(bjontegaard.bd_rate(*values, **options))
    lowest_rate, highest_rate = _common(curve.bpp, anchor.bpp)
    if lowest_rate < highest_rate:
        quality = float(bjontegaard.bd_psnr(*values, **options))
    if rate is None and quality is None:
        raise CurveError(
            f"{curve.name} ({_span(curve)}) and {anchor.name} ({_span(anchor)}) do not overlap; "
            "compare curves that share rates or qualities"
        )
    ends = curve.quality + anchor.quality
    return Difference(rate, quality, overlap, max(high - low, 0) / (max(ends) - min(ends)))


def distance(bpp: float, quality: float, curve: Curve) -> tuple[float | None, float | None]:
    """Computes how far a point lies from a curve, at the point's rate and at its quality.

    The curve is interpolated over the logarithm of the rate, as for Bjontegaard's differences.

    Args:
      bpp, quality: the point's rate and its quality in dB.
      curve: Curve.

    Returns:
      decibels: the point's quality minus the curve's at the same rate; None if the curve does not
        reach this rate.
      per_cent: by how much the point's rate exceeds the curve's at the same quality, in per cent of
        the latter; None if the curve does not reach this quality.

    Raises:
      CurveError: the curve has a single point, or its quality falls where its rate rises.
    """
    _check_rising(curve)
    log_rates, qualities = np.log(curve.bpp), np.array(curve.quality)
    decibels: float | None = None
    per_cent: float | None = None
    if curve.bpp[0] <= bpp <= curve.bpp[-1]:
        decibels = quality - float(interpolate(log_rates, qualities, _INTERPOLATION)(np.log(bpp)))
    if qualities[0] <= quality <= qualities[-1]:
        log_rate = float(interpolate(qualities, log_rates, _INTERPOLATION)(quality))
        per_cent = 100 * (bpp / math.exp(log_rate) - 1)
    return decibels, per_cent


def _check_rising(curve: Curve) -> None:
    if len(curve.bpp) < 2:
        raise CurveError(f"{file_name(curve)}: a single point is no curve; give two or more")
    if any(low >= high for low, high in zip(curve.quality, curve.quality[1:])):
        raise CurveError(
            f"{file_name(curve)}: its quality falls where its rate rises; leave the worse points "
            "away"
        )


def _common(values: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Ends of the common part of two ascending lists; there is none if the first is not less."""
    return max(values[0], others[0]), min(values[-1], others[-1])


def _span(curve: Curve) -> str:
    return (
        f"{curve.bpp[0]:.3f} to {curve.bpp[-1]:.3f} bpp, "
        f"{curve.quality[0]:.2f} to {curve.quality[-1]:.2f} dB"
    )
