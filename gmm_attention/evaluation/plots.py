"""Figures for a paper: rate-distortion curves, crops side by side, and maps of bits."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gmm_attention.errors import ImageError, printable
from gmm_attention.evaluation.bits import Bits
from gmm_attention.evaluation.curves import Curve
from gmm_attention.files import write_atomically
from gmm_attention.images import is_ours as is_our_png
from gmm_attention.images.writing import SOFTWARE

# Okabe and Ito's colours, which colour-blind readers can tell apart. Each curve also has its own
# combination of marker and line, for prints without colours.
_BLACK, _ORANGE, _SKY, _GREEN, _BLUE, _VERMILION, _PURPLE, _GREY = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#777777"),
)


class _Style(NamedTuple):
    label: str
    colour: str
    line: str
    marker: str


# Styles of published curves by their names; the best known curves come first.
_STYLES = {
    "Proposed_optimized_by_MSE": _Style("Cheng et al. 2020, MSE", _BLUE, "-", "o"),
    "Proposed_optimized_by_MSSSIM": _Style("Cheng et al. 2020, MS-SSIM", _BLUE, "--", "o"),
    "ELIC2022_optimized_by_MSE": _Style("ELIC 2022, MSE", _GREEN, "-", "^"),
    "ELIC2022": _Style("ELIC 2022", _GREEN, "-", "^"),
    "CompressAI-cheng2020-attn_optimized_by_MSE": _Style(
        "CompressAI cheng2020-attn, MSE", _SKY, "-", "s"
    ),
    "VTM": _Style("VTM (CompressAI)", _BLACK, "-", "v"),
    "BPG444": _Style("BPG 4:4:4", _PURPLE, "--", "D"),
    "AV1": _Style("AV1 (CompressAI)", _GREY, "-.", "P"),
    "WebP": _Style("WebP", _ORANGE, "-.", "<"),
    "JPEG2000": _Style("JPEG 2000", _GREY, ":", ">"),
    "JPEG": _Style("JPEG", _ORANGE, ":", "x"),
}

# RDdata's curves that are drawn by default, by metric.
DRAWN = {
    "PSNR": tuple(name for name in _STYLES if not name.endswith("_MSSSIM")),
    "MSSSIM": tuple(_STYLES),
}

# For curves without a style above.
_OTHERS = [
    _Style("", colour, line, marker)
    for line, marker in ((":", "*"), ("--", "h"), ("-.", "p"), ("-", "d"))
    for colour in (_BLACK, _GREEN, _PURPLE, _SKY, _GREY, _ORANGE, _BLUE)
]
_OWN = _Style("", _VERMILION, "-", "*")

# Codecs that were measured together with the models, in the colours of their published curves.
_BESIDE = {
    "Pillow-JPEG": _Style("JPEG, measured", _ORANGE, ":", "X"),
    "Pillow-WebP": _Style("WebP, measured", _ORANGE, "-.", "<"),
    "Pillow-AVIF": _Style("AVIF, measured", _GREY, "-.", "P"),
    "Pillow-JPEG-XL": _Style("JPEG XL, measured", _PURPLE, ":", "p"),
}

_AXIS = {"PSNR": "PSNR (dB)", "MSSSIM": "MS-SSIM (dB)"}

_SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.linewidth": 0.6,
    "svg.hashsalt": "gmm-attention",  # fixed; otherwise every file would differ
}


SUFFIXES = (".png", ".svg")  # of the plots of curves

# Most pixels along a side that matplotlib draws.
_LONGEST_SIDE = 2**16 - 1

# How the plots of curves began before they were marked: 2220x1260 pixels, RGBA, 300 dpi, and unlike
# what matplotlib writes by itself no text.
_EARLIER_PNG = (
    rb"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x08\xac\x00\x00\x04\xec\x08\x06\x00\x00\x00.{4}"
    rb"\x00\x00\x00\x09pHYs\x00\x00\x2e\x23\x00\x00\x2e\x23\x01.{8}IDAT"
)
_EARLIER_SVG = (
    rb'<\?xml.*?<svg [^>]*width="532\.8pt" height="302\.4pt"[^>]*>\s*<metadata>\s*<rdf:RDF[^>]*>\s*'
    rb"<cc:Work>\s*<dc:type [^>]*/>\s*<dc:format>image/svg\+xml</dc:format>\s*</cc:Work>"
)
_EARLIER = re.compile(_EARLIER_PNG + b"|" + _EARLIER_SVG, re.DOTALL)


def is_ours(head: bytes) -> bool:
    """Whether a file is a plot, a map or crops that a program of this project drew.

    Args:
      head: the first 4096 bytes of the file.
    """
    marked_svg = b"<svg" in head and f"<dc:title>{SOFTWARE}</dc:title>".encode() in head
    return is_our_png(head) or marked_svg or bool(_EARLIER.match(head))


def rate_distortion(
    path: str, published: Sequence[Curve], own: Sequence[Curve], beside: Sequence[Curve]
) -> None:
    """Draws curves of one image set and metric over bpp: PATH.png (300 dpi) and PATH.svg.

    The axes extend to the highest rate of `own` and the paper's curves; points beyond are cut off.

    Args:
      path: str, without a suffix, in a folder that exists.
      published: list of Curve.
      own: list of Curve of this project's models, drawn with large markers and on top.
      beside: list of Curve of other codecs, measured together with `own`.

    Raises:
      CodecError: the files cannot be written.
    """
    others = iter(_OTHERS * len(published))
    styled = [(c, _STYLES.get(c.name) or next(others)._replace(label=_label(c))) for c in published]
    styled += [(curve, _BESIDE[curve.name]) for curve in beside]
    for curve in own:
        line = "--" if curve.name.endswith("_optimized_by_MSSSIM") else "-"
        styled.append((curve, _OWN._replace(label=_label(curve), line=line)))
    framed = [*own, *(curve for curve in published if curve.name.startswith("Proposed"))]
    last = 1.08 * max(curve.bpp[-1] for curve in framed or published)
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        shown: list[float] = []  # qualities that the axes must include
        for curve, style in styled:
            is_own, is_measured = curve in own, curve in own or curve in beside
            axes.plot(
                curve.bpp,
                curve.quality,
                color=style.colour,
                linestyle=style.line if len(curve.bpp) > 1 else "",
                marker=style.marker,
                markersize=11 if is_own else 7 if is_measured else 4.5,
                markeredgecolor="black" if is_measured else style.colour,
                markeredgewidth=0.6 if is_measured else 1.0,
                linewidth=1.8 if is_own else 1.0,
                label=style.label,
                zorder=3 if is_measured else 2,
            )
            shown += [quality for bpp, quality in zip(curve.bpp, curve.quality) if bpp <= last]
            if curve.bpp[0] < last < curve.bpp[-1]:  # where the curve leaves the axes
                shown.append(float(np.interp(last, curve.bpp, curve.quality)))
        margin = 0.03 * (max(shown) - min(shown)) or 1
        axes.set_xlim(0, last)
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
        axes.set_xlabel("bits per pixel")
        axes.set_ylabel(_AXIS[styled[0][0].metric])
        axes.set_title(_plain(styled[0][0].image_set), fontsize=10)
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=7.5, handlelength=3)
        _save(figure, f"{path}.png", dpi=300)
        _save(figure, f"{path}.svg")


def side_by_side(path: str, crops: Sequence[tuple[str, np.ndarray]], columns: int = 3) -> None:
    """Draws crops with captions below as a PNG; pixels are enlarged by a whole number.

    Args:
      path: str, of the PNG, in a folder that exists.
      crops: list of (caption, uint8 [h, w, 3]), all of one size; captions of up to three lines.
      columns: number of crops in a row.

    Raises:
      ImageError: the crops are too large to be drawn.
      CodecError: the file cannot be written.
    """
    height, width = crops[0][1].shape[:2]
    scale = max(1, round(280 / max(height, width)))
    height, width = scale * height, scale * width
    gap, caption_height = 8, 52
    columns = min(columns, len(crops))
    rows = -(-len(crops) // columns)
    total = np.array([columns * (width + gap) + gap, rows * (height + caption_height) + gap])
    if max(total) > _LONGEST_SIDE:
        raise ImageError(
            f"{path}: crops of {width}x{height} pixels side by side are too large to draw; give "
            "smaller ones"
        )
    dpi = 100
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(total[0] / dpi, total[1] / dpi), dpi=dpi)
        for number, (caption, crop) in enumerate(crops):
            row, column = divmod(number, columns)
            left = gap + column * (width + gap)
            top = gap + row * (height + caption_height)
            figure.figimage(
                crop.repeat(scale, 0).repeat(scale, 1),
                left,
                total[1] - top - height,
                origin="upper",
            )
            figure.text(
                (left + width / 2) / total[0],
                1 - (top + height + 4) / total[1],
                _plain(caption),
                ha="center",
                va="top",
                fontsize=8.5,
                linespacing=1.25,
            )
        _save(figure, path, dpi=dpi)


def bits_map(path: str, image: np.ndarray, bits: Bits, title: str) -> None:
    """Draws an image, a map of its bits, and the bits of its channels, as a PNG.

    Args:
      path: str, of the PNG, in a folder that exists.
      image: uint8 [H, W, 3].
      bits: Bits of the image.
      title: heading of the figure.

    Raises:
      CodecError: the file cannot be written.
    """
    num_pixels = bits.height * bits.width
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(9, 5.6), layout="constrained")
        grid = figure.add_gridspec(2, 2, height_ratios=(3, 2))
        if bits.padding > 0.005:
            title += f" ({bits.padding:.0%} of the bits lie in the padding, which is not shown)"
        figure.suptitle(_plain(printable(title)), fontsize=10)
        picture, blocks = (figure.add_subplot(grid[0, i]) for i in range(2))
        picture.imshow(image)
        extent = (0, 16 * bits.block_bpp.shape[1], 16 * bits.block_bpp.shape[0], 0)
        shown = blocks.imshow(bits.block_bpp, extent=extent, cmap="cividis", vmin=0)
        for axes in (picture, blocks):
            axes.set_axis_off()
            axes.set_xlim(0, bits.width)
            axes.set_ylim(bits.height, 0)
        figure.colorbar(shown, ax=blocks, label="bits per pixel")
        for i, (name, channels) in enumerate([("y", bits.y_channels), ("z", bits.z_channels)]):
            axes = figure.add_subplot(grid[1, i])
            rates = np.sort(channels / num_pixels)[::-1]
            axes.bar(np.arange(1, len(rates) + 1), rates, width=1, color=_BLUE)
            axes.set_xlabel(f"channels of {name}, by their share")
            axes.set_ylabel("bits per pixel")
            axes.set_xlim(0.5, len(rates) + 0.5)
        _save(figure, path, dpi=120)


def _label(curve: Curve) -> str:
    """The curve's name in a legend."""
    name, _, loss = curve.name.partition("_optimized_by_")
    return _plain(name + {"": "", "MSE": ", MSE", "MSSSIM": ", MS-SSIM"}.get(loss, f", {loss}"))


def _plain(text: str) -> str:
    """Has matplotlib show a text as it is: a pair of dollars would begin and end mathematics."""
    return text.encode(errors="backslashreplace").decode().replace("$", r"\$")


def _save(figure: Figure, path: str, **options: Any) -> None:
    file = io.BytesIO()
    suffix = path.rpartition(".")[2]
    # Without today's date and matplotlib's version, so that the same data give the same file.
    metadata = {"Date": None, "Creator": SOFTWARE} if suffix == "svg" else {"Software": SOFTWARE}
    FigureCanvasAgg(figure)
    figure.savefig(file, format=suffix, metadata=metadata, **options)
    write_atomically({path: file.getvalue()})
