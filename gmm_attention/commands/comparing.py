"""Measured and published curves to tables that are printed and plots."""

import os

from gmm_attention.errors import CurveError
from gmm_attention.evaluation import curves, plots, report

RDDATA = "RDdata"
ANCHOR = "Proposed_optimized_by_MSE"
SECOND_ANCHOR = "VTM"  # for sets of which the paper has no curve

SIZES = {"Kodak": 24}  # of the sets that published figures are means over


def read_curves(paths):
    """Reads the published curves to compare with.

    Args:
      paths: list of files and folders; empty for RDdata, None for RDdata if it is there.

    Returns:
      list of Curve, empty where there is no RDdata.

    Raises:
      CurveError: see `curves.read_curves`.
    """
    if paths is None and not os.path.isdir(RDDATA):
        return []
    return curves.read_curves(paths or [RDDATA])


def check_names(published, wanted_set, measured, anchor, drawn):
    """Looks for curves that are asked for by name.

    Args:
      published: list of Curve.
      wanted_set: the set that they are wanted for, or None for any.
      measured: list of names of curves that are still to be measured.
      anchor: name or None.
      drawn: list of names, or None.

    Raises:
      CurveError: there is no such curve.
    """
    names = {
        curve.name for curve in published if curve.image_set == (wanted_set or curve.image_set)
    }
    names = sorted(names.union(measured))
    for option, name in [("--anchor", anchor), *(("--draw", name) for name in drawn or [])]:
        if name and name not in names:
            raise CurveError(
                f"{option} {name}: no curve has this name; there are {', '.join(names) or 'none'}"
            )


def image_set(images, published):
    """What curves call images: their folder's name, in the spelling of a set that is known.

    A single image is no set: it has its own name.
    """
    name = os.path.basename(os.path.abspath(images))
    if os.path.isfile(images):
        return os.path.splitext(name)[0].replace("_", "-")
    known = {curve.image_set.casefold(): curve.image_set for curve in published}
    return known.get(name.casefold(), name.replace("_", "-") or "images")


def show_curves(published, wanted_set, anchor, drawn, folder):
    """Tells the BD-rates of published curves, set by set, and draws them into a folder if any.

    Args:
      published: list of Curve.
      wanted_set: name, or None for all.
      anchor: name of the curve to compare with, or None for the default ones.
      drawn: names of the curves to draw, or None for the best known.
      folder: path or None.

    Returns:
      str, to be printed.

    Raises:
      CurveError: no such set or curve, or none that can be compared.
    """
    sets = sorted({curve.image_set for curve in published}, key=str.casefold)
    if wanted_set and wanted_set not in sets:
        raise CurveError(f"--set {wanted_set}: no curve of this set; there are {', '.join(sets)}")
    tables, errors = [], []
    for name in [wanted_set] if wanted_set else sets:
        if anchor and not any(c.name == anchor for c in published if c.image_set == name):
            continue
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


def compare(published, own, beside, all_means, name, anchor, drawn, folder):
    """Tells how far measured models lie from published curves, and draws them.

    Args:
      published: list of Curve.
      own, beside: list of Curve, the models' and those of other codecs.
      all_means: list of Means, the models'.
      name: of the image set of all these.
      anchor, drawn: as for `show_curves`.
      folder: where the plots go.

    Returns:
      str, to be printed.

    Raises:
      CodecError: a plot cannot be written.
    """
    measured = {curve[:3] for curve in own + beside}
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
    elif all_means[0].images != SIZES.get(name, all_means[0].images):
        texts.append(
            f"The published curves of {name} are means over {SIZES[name]} images, these over "
            f"{all_means[0].images}."
        )
    return "\n\n".join(filter(None, texts))


def _of_kind(all_curves, name, metric):
    return [c for c in all_curves if (c.image_set, c.metric) == (name, metric)]


def _differences(candidates, name):
    """The table of BD-rates against the curve of that name, or a default one; and errors.

    Where neither of the default anchors is there, the first of the candidates is one.
    """
    by_name = {curve.name: curve for curve in candidates}
    if name and name not in by_name:
        return f"{candidates[0].metric}: there is no curve {name}", []
    defaults = (by_name.get(ANCHOR), by_name.get(SECOND_ANCHOR), candidates[0])
    return report.difference_table(candidates, by_name.get(name) or next(filter(None, defaults)))


def _draw(folder, name, metric, drawn, published, own, beside):
    """Draws SET_METRIC.png and .svg; see `plots.rate_distortion`."""
    by_name = {curve.name: curve for curve in published}
    shown = [by_name[n] for n in drawn or plots.DRAWN[metric] if n in by_name]
    if shown or own:
        plots.rate_distortion(os.path.join(folder, f"{name}_{metric}"), shown, own, beside)
