"""Means and curves to tables of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gmm_attention.errors import CurveError, printable
from gmm_attention.evaluation import curves
from gmm_attention.evaluation.bits import Bits
from gmm_attention.evaluation.curves import Curve
from gmm_attention.evaluation.results import OWN, Means, Row, RowsByModel, model_title
from gmm_attention.metrics import MS_SSIM_SMALLEST_SIDE

_QUALITY = {"PSNR": "PSNR", "MSSSIM": "MS-SSIM in dB"}
_NONE = "-"
# A note names images where a codec is further than this share off the rate that it should have.
MISSED_RATE = 0.05
# A note names no more images than this.
_MOST_NAMES = 5


def means_table(all_means: Sequence[Means]) -> str:
    """Lists Means, one in each line."""
    header = ["", "images", "bpp", "side bpp", "PSNR dB", "MS-SSIM", "in dB", "mean of dB"]
    header += ["encode s", "decode s"]
    rows = [
        [
            printable(m.title),
            str(m.images),
            *(_number(v, 4) for v in (m.bpp, m.side_bpp)),
            _number(m.psnr, 2),
            _number(m.ms_ssim, 4),
            *(_number(v, 2) for v in (m.ms_ssim_db, m.ms_ssim_mean_db)),
            *(_number(v, 3) for v in (m.encode_seconds, m.decode_seconds)),
        ]
        for m in all_means
    ]
    return _table(header, rows)


def means_notes(rows: Mapping[str, RowsByModel], num_images: int, effort: int) -> str:
    """Explains a table of means: how they were taken, and which images are missing or off.

    Args:
      rows: dict of the codec's title to dict of model to list of rows.
      num_images: number of images that should have been measured.
      effort: with which the models coded them.

    Returns:
      one or more lines.
    """
    notes = [
        "Means over the images of each one's bpp, PSNR and MS-SSIM. MS-SSIM in dB is that of the "
        "mean, as published curves seem to have it, and is what is compared."
    ]
    jobs = {row["jobs"] for r in rows.values() for measured in r.values() for row in measured}
    if max(jobs) > 1:
        notes.append(f"Times are of up to {max(jobs):.0f} processes at once.")
    targets: dict[tuple[str, str], float] = {}  # bpp by model and image
    small = 0
    for title, by_model in rows.items():
        for model, measured in by_model.items():
            name = model_title(model, effort)
            if len(measured) < num_images:
                about = name if title == OWN else title
                notes.append(f"{about}: the means are of {len(measured)} of {num_images} images.")
            if title == OWN:
                small = sum(row["ms_ssim"] is None for row in measured)
                targets.update({(model, row["image"]): row["bpp"] for row in measured})
                notes += _infinite_notes(name, measured)
                continue
            about = f"{title} at the rate of {name}"
            notes += _infinite_notes(about, measured)
            # An estimated rate may be zero, of which no share can be taken.
            pairs = [(row["bpp"], targets[model, row["image"]]) for row in measured]
            off = [bpp / target - 1 if target else math.inf for bpp, target in pairs]
            missed = [share for share in off if abs(share) > MISSED_RATE]
            if missed:
                notes.append(
                    f"{title}: {len(missed)} of {len(off)} images are more than {MISSED_RATE:.0%} "
                    f"off the rate of {name}, {max(missed, key=abs):+.1%} at most."
                )
    if small:
        notes.append(
            f"Images with a side under {MS_SSIM_SMALLEST_SIDE} pixels are too small for MS-SSIM's "
            f"five scales ({small} of these); its means are of the others."
        )
    return "\n".join(map(printable, notes))


def _infinite_notes(about: str, measured: Sequence[Row]) -> list[str]:
    """Names the images without distortion, which means in dB leave out.

    Args:
      about: the model or codec.
      measured: its rows.
    """
    notes = []
    exact = [row["image"] for row in measured if row["psnr"] == math.inf]
    if exact:
        one = len(exact) == 1
        notes.append(
            f"{about}: {_listed(exact)} {'is' if one else 'are'} reproduced exactly, "
            f"{'its' if one else 'their'} PSNR is infinite; "
            + _the_others("PSNR", len(measured) - len(exact))
        )
    large = [row for row in measured if row["ms_ssim_db"] is not None]
    similar = [row["image"] for row in large if row["ms_ssim_db"] == math.inf]
    if similar:
        notes.append(
            f"{about}: the MS-SSIM of {_listed(similar)} is 1, which is infinite in dB; "
            + _the_others("of dB", len(large) - len(similar))
        )
    return notes


def _the_others(mean: str, count: int) -> str:
    if not count:
        return f"there is no mean {mean}, and no curve of it."
    return f"the mean {mean} is of the other{f' {count}' if count > 1 else ''}."


def _listed(names: Sequence[str]) -> str:
    """The names of images in words: "a, b and c", or the first ones and the number of the rest."""
    shown = [*names[:_MOST_NAMES]]
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown)} more")
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def distance_table(all_means: Sequence[Means], metric: str, others: Sequence[Curve]) -> str:
    """Lists how far models lie from curves, at each model's own rate and quality.

    Args:
      all_means: list of Means, of models.
      metric: "PSNR" or "MSSSIM".
      others: list of Curve of that metric.
    """
    header = [f"{_QUALITY[metric]} and rate, beside"]
    header += [f"{printable(m.title)}: {m.bpp:.4f} bpp" for m in all_means]
    rows = []
    for curve in others:
        row = [curve.name]
        for m in all_means:
            quality = m.psnr if metric == "PSNR" else m.ms_ssim_db
            if quality is None:
                row.append(_NONE)
                continue
            try:
                decibels, per_cent = curves.distance(m.bpp, quality, curve)
                row.append(f"{_signed(decibels, 2, ' dB')}  {_signed(per_cent, 1, ' %'):>8}")
            except CurveError as error:
                row.append(str(error).partition(": ")[2].partition(";")[0])
        rows.append(row)
    note = f"{_NONE} where the rate or the quality lies outside of the curve"
    return f"{_table(header, rows)}\n{note}"


def difference_table(all_curves: Sequence[Curve], anchor: Curve) -> tuple[str, list[CurveError]]:
    """Lists the BD-rate and BD-PSNR (or the same for MS-SSIM) of curves against an anchor.

    Args:
      all_curves: list of Curve of the anchor's set and metric.
      anchor: Curve.

    Returns:
      text: lines in order of BD-rate; those that cannot be compared come last, with the reason.
      errors: list of CurveError, empty if at least one curve can be compared.
    """
    header = [f"{_QUALITY[anchor.metric]}, against {anchor.name}"]
    header += ["BD-rate", "BD dB", "both reach", "of the span"]
    compared, errors = [], []
    for curve in all_curves:
        if curve.name == anchor.name:
            continue
        try:
            compared.append((curve.name, curves.compare(curve, anchor)))
        except CurveError as error:
            errors.append(error)
    compared.sort(key=lambda pair: (pair[1].rate is None, pair[1].rate or 0))
    rows = [
        [
            name,
            _signed(d.rate, 2, " %"),
            _signed(d.quality, 2, " dB"),
            _NONE if d.overlap is None else "{:.2f} to {:.2f} dB".format(*d.overlap),
            f"{d.share:.0%}",
        ]
        for name, d in compared
    ]
    return "\n".join([_table(header, rows), *map(str, errors)]), [] if compared else errors


def bits_rows(
    by_model: Mapping[str, Sequence[tuple[str, Bits]]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lists where the bits go, as rows of two CSV files.

    Args:
      by_model: dict of model to list of (image's name, Bits).

    Returns:
      images: list of dicts, a row for each model and image, in bits.
      channels: list of dicts, a row for each model and channel, in bits per pixel, means over the
        images.
    """
    images: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []
    for model, results in by_model.items():
        for name, bits in results:
            images.append(
                {
                    "model": model,
                    "image": name,
                    "height": bits.height,
                    "width": bits.width,
                    "y_bits": bits.file_y,
                    "z_bits": bits.file_z,
                    "header_bits": bits.header,
                    "y_cross_entropy": round(float(bits.y_channels.sum()), 1),
                    "z_cross_entropy": round(float(bits.z_channels.sum()), 1),
                    "channels_in_use": int(bits.live.sum()),
                }
            )
        if results:
            of_y, of_z = (
                np.mean([getattr(b, k) / (b.height * b.width) for _, b in results], axis=0)
                for k in ("y_channels", "z_channels")
            )
            used = np.sum([bits.live for _, bits in results], axis=0)
            channels += [
                {
                    "model": model,
                    "channel": channel,
                    "y_bpp": f"{of_y[channel]:.9f}",
                    "z_bpp": f"{of_z[channel]:.9f}",
                    "images_in_use": int(used[channel]),
                }
                for channel in range(len(used))
            ]
    return images, channels


def bits_table(by_model: Mapping[str, Sequence[tuple[str, Bits]]]) -> str:
    """Sums up `bits_rows`, a line for each model: shares of all bits, and the cost of coding."""
    header = ["where the bits go", "images", "y", "z", "header", "channels in use"]
    header += ["y beside its cross-entropy", "z"]
    rows = []
    for model, results in by_model.items():
        if not results:
            continue
        bits = [b for _, b in results]
        y, z, headers = (sum(getattr(b, k) for b in bits) for k in ("file_y", "file_z", "header"))
        live = [int(b.live.sum()) for b in bits]
        of_y, of_z = (sum(getattr(b, k).sum() for b in bits) for k in ("y_channels", "z_channels"))
        rows.append(
            [
                printable(model),
                str(len(bits)),
                *(f"{part / (y + z + headers):.1%}" for part in (y, z, headers)),
                f"{min(live)} to {max(live)} of {len(bits[0].live)}",
                *(
                    f"{f / ideal - 1:+.2%}" if ideal else _NONE
                    for f, ideal in ((y, of_y), (z, of_z))
                ),
            ]
        )
    return _table(header, rows)


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _signed(value: float | None, digits: int, unit: str) -> str:
    return _NONE if value is None else f"{value:+.{digits}f}{unit}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Aligns cells: the first column to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]
        ).rstrip()
        for line in lines
    )
