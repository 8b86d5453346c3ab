"""Whether the files that an evaluation is about to write may be replaced."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable

from gmm_attention.evaluation import curves, plots
from gmm_attention.files import has_columns, refuse_foreign

# Columns by which a table of ours is known, of this version and of earlier ones.
_COLUMNS = {
    "images.csv": {"codec", "model", "rate", "image", "bpp", "psnr"},
    "means.csv": {"codec", "model", "rate", "images", "bpp", "psnr"},
    "bits.csv": {"model", "image", "y_bits", "z_bits"},
    "channels.csv": {"model", "channel", "y_bpp", "z_bpp"},
}


def refuse_foreign_files(paths: Iterable[str], overwrite: bool) -> None:
    """Refuses to replace files that no evaluation has written.

    Args:
      paths: of tables, curves (.dat) and pictures, as an evaluation names them.
      overwrite: whether the user allows to replace any file.

    Raises:
      CodecError: see `files.refuse_foreign`.
    """
    for path in paths:
        refuse_foreign(path, _recognition(path), overwrite)


def _recognition(path: str) -> Callable[[bytes], bool]:
    """The function that tells by a file's first bytes whether it is ours."""
    columns = _COLUMNS.get(os.path.basename(path))
    if columns:
        return functools.partial(has_columns, columns)
    return curves.is_ours if path.endswith(".dat") else plots.is_ours
