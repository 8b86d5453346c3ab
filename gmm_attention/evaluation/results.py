"""Measured rows <-> a CSV file, and their means: a run that is stopped goes on from it."""

import hashlib
import math
from typing import NamedTuple

import numpy as np

from gmm_attention.evaluation import metrics
from gmm_attention.evaluation.curves import METRICS, Curve
from gmm_attention.files import append_row, read_rows, write_rows

OWN = "gmm-attention"  # in the column "codec"
FILES, ESTIMATE = "files", "estimate"  # in the column "rate"

NUMBERS = (
    *("height", "width", "bpp", "side_bpp", "psnr", "ms_ssim", "ms_ssim_db"),
    *("encode_seconds", "decode_seconds", "jobs", "quality"),
)
# The last one also tells whether the row is whole.
COLUMNS = ("set", "codec", "model", "rate", "image", *NUMBERS, "inputs")

_IDENTITY = ("codec", "rate", "image", "inputs")


class Means(NamedTuple):
    """Means over images, as the paper takes them: of each image's bpp, PSNR and MS-SSIM.

    Attributes:
      codec: OWN, or another's title.
      model: path of the model, or, for another codec, of the model whose rate it was to reach.
      rate: FILES, or ESTIMATE for the cross-entropy.
      images: their number.
      bpp, side_bpp: of the unpadded images.
      psnr: dB.
      ms_ssim: 0..1.
      ms_ssim_db: dB of the mean, which is what published curves seem to give.
      ms_ssim_mean_db: mean of the images' dB, larger by 0.1 to 0.2.
      encode_seconds, decode_seconds: for an image.

    What no image has is None; MS-SSIM is the mean over the images that are large enough.
    """

    codec: str
    model: str
    rate: str
    images: int
    bpp: float
    side_bpp: float
    psnr: float
    ms_ssim: float
    ms_ssim_db: float
    ms_ssim_mean_db: float
    encode_seconds: float
    decode_seconds: float

    @property
    def title(self):
        """What was measured, for a table."""
        if self.codec != OWN:
            return f"{self.codec} at the rate of {self.model}"
        return f"{self.model} (estimated rate)" if self.rate == ESTIMATE else self.model


def digest(*parts):
    """Tells inputs of a measurement apart: bytes or text -> 16 hexadecimal digits."""
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        sha.update(b"%d:" % len(data) + data)
    return sha.hexdigest()[:16]


class Results:
    """The rows of images.csv.

    Args:
      path: str or Path of the CSV file, which need not be there.

    Raises:
      CodecError: it cannot be read.
    """

    def __init__(self, path):
        self.path = path
        columns, rows = read_rows(path)
        self._rows = {}
        if set(columns) == set(COLUMNS):
            # Rows that a kill cut short, or that are no numbers, are measured anew.
            whole = [row for row in rows if _parse(row)]
            write_rows(path, columns, whole)
            self._rows = {_identity(row): _parse(row) for row in whole}

    def get(self, identity):
        """The row that was measured by the same codec and rate for the same inputs, or None.

        Args:
          identity: dict with codec, rate, image and inputs.
        """
        return self._rows.get(_identity(identity))

    def add(self, **row):
        """Appends a row, which is on the disk when this returns.

        Args:
          row: the columns; those of NUMBERS may be left away or None.

        Returns:
          the row as `get` will give it.

        Raises:
          CodecError: the file cannot be written.
        """
        if row.get("ms_ssim") is not None:
            row["ms_ssim_db"] = metrics.decibels(row["ms_ssim"])
        texts = {name: _text(row.get(name)) for name in COLUMNS}
        append_row(self.path, texts)
        return self._rows.setdefault(_identity(texts), _parse(texts))


def means(rows):
    """Averages rows of one codec, model and rate: a Means."""

    def mean(name):
        values = [row[name] for row in rows if row[name] is not None]
        return float(np.mean(values)) if values else None

    ms_ssim = mean("ms_ssim")
    return Means(
        *(rows[0][name] for name in ("codec", "model", "rate")),
        len(rows),
        *(mean(name) for name in ("bpp", "side_bpp", "psnr")),
        ms_ssim,
        None if ms_ssim is None else metrics.decibels(ms_ssim),
        mean("ms_ssim_db"),
        *(mean(name) for name in ("encode_seconds", "decode_seconds")),
    )


def write_means(path, all_means):
    """Writes a list of Means as a CSV file.

    Raises:
      CodecError: it cannot be written.
    """
    rows = [{name: _text(value) for name, value in m._asdict().items()} for m in all_means]
    write_rows(path, Means._fields, rows)


def curves_of(all_means, image_set, name):
    """Draws curves through the means of one codec's models.

    Args:
      all_means: list of Means, in any order. Of several with the same rate (a format's smallest
        file, for models that ask for less) the curve holds one.
      image_set, name: of the curves.

    Returns:
      list of Curve, for PSNR and MS-SSIM (dB of the mean), where all have a finite value.
    """
    result = []
    for metric, field in zip(METRICS, ("psnr", "ms_ssim_db")):
        points = [(m.bpp, getattr(m, field)) for m in all_means]
        if not points or not all(
            quality is not None and math.isfinite(quality) for _, quality in points
        ):
            continue
        points.sort()
        rising = [points[0]]
        for bpp, quality in points[1:]:
            if bpp > rising[-1][0]:
                rising.append((bpp, quality))
        result.append(Curve(image_set, name, metric, *zip(*rising)))
    return result


def _identity(row):
    return tuple(row[name] for name in _IDENTITY)


def _text(value):
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _parse(row):
    """A row of text with its numbers as floats, or None where they are missing or no numbers."""
    try:
        numbers = {name: float(row[name]) if row[name] else None for name in NUMBERS}
    except ValueError:
        return None
    return {**row, **numbers} if row["bpp"] and row["psnr"] else None
