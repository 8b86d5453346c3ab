"""Measured rows <-> a CSV file, from which a stopped run goes on, and their means."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gmm_attention import metrics
from gmm_attention.evaluation import curves
from gmm_attention.evaluation.curves import METRICS, Curve
from gmm_attention.files import append_row, read_rows, write_rows

_logger = logging.getLogger(__name__)

OWN = "gmm-attention"  # in the column "codec"
FILES, ESTIMATE = "files", "estimate"  # in the column "rate"

# Version of the way of measuring. A new one makes all rows of earlier versions be measured again.
METHOD = "0.1.0"

NUMBERS = (
    *("height", "width", "bpp", "side_bpp", "psnr", "ms_ssim", "ms_ssim_db"),
    *("encode_seconds", "decode_seconds", "jobs", "quality"),
)
# "inputs" comes last, so a row that has it is whole.
COLUMNS = ("set", "codec", "model", "rate", "effort", "image", *NUMBERS, "runtime", "inputs")

# Those of earlier versions, which coded all images without an effort.
_COLUMNS_WITHOUT_EFFORT = set(COLUMNS) - {"effort"}

# Columns that tell rows apart. The path of the model is not among them, but "inputs" covers its
# weights.
_IDENTITY = ("codec", "rate", "effort", "image", "inputs")

# The columns of one image: strings, but those of NUMBERS are float or None.
Row = dict[str, Any]

# Rows of one codec by model.
RowsByModel = dict[str, list[Row]]


class Means(NamedTuple):
    """Means over images, as the paper takes them: of each image's bpp, PSNR and MS-SSIM.

    An image that is reproduced exactly has a PSNR, and an MS-SSIM in dB, that is infinite. It is
    left out of the means of these.

    Attributes:
      codec: OWN, or the title of another codec.
      model: path of the model or, for another codec, of the model whose rate it was to reach.
      rate: FILES, or ESTIMATE for the cross-entropy.
      effort: with which the model coded the images, see `ImageCodec.encode`.
      images: number of images.
      bpp, side_bpp: in bits per pixel of the unpadded images.
      psnr: dB, of `psnr_images` images.
      ms_ssim: 0..1, of `ms_ssim_images` images, those that are large enough.
      ms_ssim_db: mean MS-SSIM in dB, which is what published curves seem to give.
      ms_ssim_mean_db: mean of each image's MS-SSIM in dB, larger by 0.1 to 0.2.
      encode_seconds, decode_seconds: for one image.

    A value that no image has, or none that is finite, is None.
    """

    codec: str
    model: str
    rate: str
    effort: int
    images: int
    bpp: float
    side_bpp: float | None
    psnr: float | None
    ms_ssim: float | None
    ms_ssim_db: float | None
    ms_ssim_mean_db: float | None
    encode_seconds: float | None
    decode_seconds: float | None
    psnr_images: int
    ms_ssim_images: int

    @property
    def title(self) -> str:
        """Name of the codec or model in a table."""
        model = model_title(self.model, self.effort)
        if self.codec != OWN:
            return f"{self.codec} at the rate of {model}"
        return f"{model} (estimated rate)" if self.rate == ESTIMATE else model


def model_title(model: str, effort: int) -> str:
    """Names a model, and the effort with which it codes unless that is 0."""
    return f"{model} at effort {effort}" if effort else model


def digest(*parts: object) -> str:
    """Hashes the inputs of a measurement, bytes or text, to 16 hexadecimal digits."""
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        sha.update(b"%d:" % len(data) + data)
    return sha.hexdigest()[:16]


class Results:
    """The rows of images.csv.

    Args:
      path: str or Path of the CSV file, which need not exist.

    Attributes: path, as given.

    Raises:
      CodecError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = path
        columns, rows = read_rows(path)
        if set(columns) == _COLUMNS_WITHOUT_EFFORT:
            columns, rows = list(COLUMNS), [{**row, "effort": "0"} for row in rows]
        self._rows: dict[tuple[str, ...], Row] = {}
        if columns and set(columns) != set(COLUMNS):
            _logger.warning(
                "%s: has other columns than this version's; it is moved aside, and its images are "
                "measured again",
                path,
            )
        elif columns:
            # Rows that are incomplete or damaged are dropped and measured again.
            whole = []
            for row in rows:
                parsed = _parse(row)
                if parsed:
                    whole.append(row)
                    self._rows[_identity(row)] = parsed
            write_rows(path, columns, whole)

    def get(self, identity: Mapping[str, str]) -> Row | None:
        """Returns the row that was measured with the same codec, rate, effort and inputs, or None.

        Args:
          identity: dict with codec, rate, effort, image and inputs, and perhaps more.
        """
        return self._rows.get(_identity(identity))

    def add(self, **row: Any) -> Row:
        """Appends a row to the file, and writes it at once.

        Args:
          row: the columns; those of NUMBERS may be missing or None, except bpp and psnr.

        Returns:
          the row as `get` returns it.

        Raises:
          CodecError: the file cannot be written.
        """
        if row.get("ms_ssim") is not None:
            row["ms_ssim_db"] = metrics.decibels(row["ms_ssim"])
        texts = {name: _text(row.get(name)) for name in COLUMNS}
        append_row(self.path, texts)
        parsed = _parse(texts)
        assert parsed is not None  # every measurement has bpp and psnr
        return self._rows.setdefault(_identity(texts), parsed)


def means(rows: Sequence[Row]) -> Means:
    """Averages rows, at least one, of one codec, model, rate and effort."""

    def finite(name: str) -> list[float]:
        return [row[name] for row in rows if row[name] is not None and math.isfinite(row[name])]

    def mean(name: str) -> float | None:
        values = finite(name)
        return float(np.mean(values)) if values else None

    bpp, ms_ssim = mean("bpp"), mean("ms_ssim")
    assert bpp is not None  # every row has one that is finite
    ms_ssim_db = math.inf if ms_ssim is None else metrics.decibels(ms_ssim)
    return Means(
        codec=rows[0]["codec"],
        model=rows[0]["model"],
        rate=rows[0]["rate"],
        effort=int(rows[0]["effort"]),
        images=len(rows),
        bpp=bpp,
        side_bpp=mean("side_bpp"),
        psnr=mean("psnr"),
        ms_ssim=ms_ssim,
        ms_ssim_db=ms_ssim_db if math.isfinite(ms_ssim_db) else None,
        ms_ssim_mean_db=mean("ms_ssim_db"),
        encode_seconds=mean("encode_seconds"),
        decode_seconds=mean("decode_seconds"),
        psnr_images=len(finite("psnr")),
        ms_ssim_images=len(finite("ms_ssim")),
    )


def write_means(path: str | os.PathLike[str], all_means: Sequence[Means]) -> None:
    """Writes a list of Means as a CSV file.

    Raises:
      CodecError: the file cannot be written.
    """
    rows = [{name: _text(value) for name, value in m._asdict().items()} for m in all_means]
    write_rows(path, Means._fields, rows)


def curves_of(all_means: Sequence[Means], image_set: str, name: str) -> list[Curve]:
    """Makes curves of the means of one codec, for several models.

    Args:
      all_means: list of Means, in any order. The curve holds one of those with the same rate: a
        format has the same smallest file for all models with a lower rate. It holds none without a
        rate, such as the estimate of black images.
      image_set, name: of the curves.

    Returns:
      list of Curve, for PSNR and MS-SSIM (dB of the mean), each only if all its values are finite.
    """
    result = []
    for metric, field in zip(METRICS, ("psnr", "ms_ssim_db")):
        points: list[tuple[float, float]] = [(m.bpp, getattr(m, field)) for m in all_means]
        if not points or not all(
            quality is not None and math.isfinite(quality) for _, quality in points
        ):
            continue
        rising: list[tuple[float, float]] = []
        for bpp, quality in sorted(points):
            if curves.written_rate(bpp) > (curves.written_rate(rising[-1][0]) if rising else 0):
                rising.append((bpp, quality))
        if rising:
            rates, qualities = zip(*rising)
            result.append(Curve(image_set, name, metric, rates, qualities))
    return result


def _identity(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in _IDENTITY)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _parse(row: Mapping[str, str]) -> Row | None:
    """Returns a row of text with its numbers as floats, or None if it is incomplete or damaged."""
    if not (row["bpp"] and row["psnr"]):
        return None
    try:
        numbers = {name: float(row[name]) if row[name] else None for name in NUMBERS}
    except ValueError:
        return None
    for name, value in numbers.items():
        # Only qualities may be infinite, those of an image that is reproduced exactly.
        if value is not None and not (
            math.isfinite(value) or (value == math.inf and name in ("psnr", "ms_ssim_db"))
        ):
            return None
    return {**row, **numbers}
