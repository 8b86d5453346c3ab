"""Measured and published curves to printed tables and plots."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gmm_attention.errors import CurveError
from gmm_attention.evaluation import curves, image_sets, plots, report
from gmm_attention.evaluation.curves import Curve
from gmm_attention.evaluation.results import Means

RDDATA = "RDdata"
ANCHOR = "Proposed_optimized_by_MSE"
SECOND_ANCHOR = "VTM"  # for sets on which the paper has no curve


def read_curves(paths: Sequence[str] | None) -> list[Curve]:
    """Reads the published curves to compare with.

    Args:
      paths: files and folders; empty for RDdata, None for RDdata if it exists.

    Returns:
      list of Curve; empty if paths is None and there is no RDdata.

    Raises:
      CurveError: see `curves.read_curves`.
    """
    if paths is None and not os.path.isdir(RDDATA):
        return []
    return curves.read_curves(paths or [RDDATA])


def check_names(
    published: Sequence[Curve],
    wanted_set: str | None,
    measured: Sequence[str],
    anchor: str | None,
    drawn: Sequence[str] | None,
) -> None:
    """Checks that the curves exist that the options name.

    Args:
      published: list of Curve.
      wanted_set: image set of the wanted curves, or None for any.
      measured: names of the curves that are still to be measured.
      anchor: name of the curve to compare with, or None.
      drawn: names of the curves to draw, or None.

    Raises:
      CurveError: a curve is missing.
    """
    of_set = {
        curve.name for curve in published if curve.image_set == (wanted_set or curve.image_set)
    }
    names = sorted(of_set.union(measured))
    for option, name in [("--anchor", anchor), *(("--draw", name) for name in drawn or [])]:
        if name and name not in names:
            raise CurveError(
                f"{option} {name}: no curve has this name; there are {', '.join(names) or 'none'}"
            )


def image_set(images: str, published: Sequence[Curve]) -> str:
    """Names the set of some images: by their folder, in the spelling of a published set.

    Args:
      images: path of a folder, or of a single image, which is a set by its own name.
      published: list of Curve.
    """
    name = os.path.basename(os.path.abspath(images))
    if os.path.isfile(images):
        return os.path.splitext(name)[0].replace("_", "-")
    known = {curve.image_set.casefold(): curve.image_set for curve in published}
    return known.get(name.casefold(), name.replace("_", "-") or "images")


def plot_paths(folder: str, name: str) -> list[str]:
    """The files that hold the plots of an image set."""
    return [
        f"{_plot_stem(folder, name, metric)}{suffix}"
        for metric in curves.METRICS
        for suffix in plots.SUFFIXES
    ]


def shown_sets(published: Sequence[Curve], wanted_set: str | None, anchor: str | None) -> list[str]:
    """The names of the image sets that `show_curves` shows, see there."""
    sets = sorted({curve.image_set for curve in published}, key=str.casefold)
    if wanted_set and wanted_set not in sets:
        raise CurveError(f"--set {wanted_set}: no curve of this set; there are {', '.join(sets)}")
    compared = {curve.image_set for curve in published if not anchor or curve.name == anchor}
    return [name for name in sets if wanted_set in (None, name) and name in compared]


def show_curves(
    published: Sequence[Curve],
    wanted_set: str | None,
    anchor: str | None,
    drawn: Sequence[str] | None,
    folder: str | None,
) -> str:
    """Computes the BD-rates of published curves, set by set, and draws the curves.

    Args:
      published: list of Curve.
      wanted_set: name of an image set, or None for all.
      anchor: name of the curve to compare with, or None for the default ones.
      drawn: names of the curves to draw, or None for the best known.
      folder: where the plots go, or None for no plots.

    Returns:
      text to print.

    Raises:
      CurveError: no such set or curve, or none that can be compared.
    """
    tables, errors = [], []
    for name in shown_sets(published, wanted_set, anchor):
        for metric in curves.METRICS:
            candidates = _of_kind(published, name, metric)
            if not candidates:
                continue
            table, found = _differences(candidates, anchor)
            tables.append(f"{name}, {table}")
            errors.append(found)
            if folder:
                _draw(folder, name, metric, drawn, candidates, [], [])
    if all(errors):
        raise errors[0][0]
    return "\n\n".join(tables)


def compare(
    published: Sequence[Curve],
    own: Sequence[Curve],
    beside: Sequence[Curve],
    all_means: Sequence[Means],
    name: str,
    anchor: str | None,
    drawn: Sequence[str] | None,
    folder: str,
) -> str:
    """Computes how far measured models lie from published curves, and draws all of them.

    Args:
      published: list of Curve.
      own: list of Curve, of the models.
      beside: list of Curve, of other codecs that were measured with them.
      all_means: list of Means, of the models.
      name: of the image set that was measured.
      anchor, drawn: as for `show_curves`.
      folder: where the plots go.

    Returns:
      text to print.

    Raises:
      CodecError: a plot cannot be written.
    """
    measured = {curve[:3] for curve in (*own, *beside)}
    published = [curve for curve in published if curve[:3] not in measured]
    texts = []
    for metric in curves.METRICS:
        others, mine, theirs = (_of_kind(c, name, metric) for c in (published, own, beside))
        if not mine:
            continue
        _draw(folder, name, metric, drawn, others, mine, theirs)
        lines = others + [curve for curve in theirs if len(curve.bpp) > 1]
        if lines:
            texts.append(report.distance_table(all_means, metric, lines))
        lines += [curve for curve in mine if len(curve.bpp) > 1]
        if any(len(curve.bpp) > 1 for curve in mine) and len(lines) > 1:
            texts.append(_differences(lines, anchor)[0])
    sets = sorted({curve.image_set for curve in published}, key=str.casefold)
    if name not in sets:
        texts.append(
            f"There are no published curves of {name!r} (of {', '.join(sets) or 'nothing'}); --set "
            "says which set these images are."
        )
    texts.append(image_sets.note(name, all_means[0].images))
    return "\n\n".join(filter(None, texts))


def _of_kind(all_curves: Sequence[Curve], name: str, metric: str) -> list[Curve]:
    """Returns the curves of an image set and a metric."""
    return [c for c in all_curves if (c.image_set, c.metric) == (name, metric)]


def _differences(candidates: list[Curve], name: str | None) -> tuple[str, list[CurveError]]:
    """The table of BD-rates against the curve with this name, and the errors that it holds.

    Without a name the anchor is a default one, or else the first of the candidates.
    """
    by_name = {curve.name: curve for curve in candidates}
    if name and name not in by_name:
        return f"{candidates[0].metric}: there is no curve {name}", []
    if name:
        anchor = by_name[name]
    else:
        anchor = by_name.get(ANCHOR) or by_name.get(SECOND_ANCHOR) or candidates[0]
    return report.difference_table(candidates, anchor)


def _draw(
    folder: str,
    name: str,
    metric: str,
    drawn: Sequence[str] | None,
    published: list[Curve],
    own: list[Curve],
    beside: list[Curve],
) -> None:
    """Draws SET_METRIC.png and .svg, see `plots.rate_distortion`, if there is anything to show."""
    by_name = {curve.name: curve for curve in published}
    shown = [by_name[n] for n in drawn or plots.DRAWN[metric] if n in by_name]
    if shown or own:
        plots.rate_distortion(_plot_stem(folder, name, metric), shown, own, beside)


def _plot_stem(folder: str, name: str, metric: str) -> str:
    return os.path.join(folder, f"{name}_{metric}")
