"""What a saved run keeps besides arrays and recipe, so that it continues as if never stopped."""

from __future__ import annotations

import base64
import collections
import hashlib
import zlib
from collections.abc import Sequence
from typing import Any, TypedDict

# Longest text that a state spends on the names of photographs. It holds some hundred thousand.
MOST_NAME_CHARACTERS = 2**20


class PhotographSet(TypedDict):
    """Which photographs a run learns from, kept so that a later start can tell others from them."""

    crop: int  # side of the crops, in pixels; smaller photographs are not among them
    count: int
    digest: str  # of the names
    names: str | None  # the names, compressed; None if they take more than MOST_NAME_CHARACTERS


class Progress(TypedDict):
    """The progress of a run; it is part of the state's settings, which are JSON."""

    skipped: int  # steps so far that were skipped as not finite
    skipped_in_a_row: int  # those among them that came last, without another step between them
    best: dict[str, Any] | None  # lowest `loss` of validation; `of`: its metric, lambda and images
    window: dict[str, float]  # sums over the steps since the last row of log.csv, and their `count`
    samples: int  # crops so far; steps do not tell, since a run may be continued with another batch
    hours: float  # of training so far, over all parts of the run
    changes: list[dict[str, Any]]  # rows of changes.csv
    photographs: PhotographSet | None  # of the run's last start; None in states of older versions


def new_progress() -> Progress:
    """The progress of a run that has taken no step."""
    return {
        "skipped": 0,
        "skipped_in_a_row": 0,
        "best": None,
        "window": {},
        "samples": 0,
        "hours": 0.0,
        "changes": [],
        "photographs": None,
    }


def photograph_set(names: Sequence[str], crop: int) -> PhotographSet:
    """What a state keeps of the photographs that a run learns from.

    Args:
      names: of the photographs within their sources, in their order.
      crop: side of the crops, in pixels.
    """
    data = "\0".join(names).encode("utf-8", "surrogateescape")
    packed = base64.b64encode(zlib.compress(data)).decode()
    return {
        "crop": crop,
        "count": len(names),
        "digest": hashlib.sha256(data).hexdigest(),
        "names": packed if len(packed) <= MOST_NAME_CHARACTERS else None,
    }


def photographs_changed(before: PhotographSet, names: Sequence[str], crop: int) -> str | None:
    """Says in one line how the photographs differ from those of a run's earlier start.

    Args:
      before: of the earlier start.
      names: of the photographs now, in their order. They are those that are large enough for the
        crop of the earlier start: one that another crop passes over is not gone.
      crop: side of the crops now, in pixels.

    Returns:
      The line, or None if they are the same.
    """
    now = photograph_set(names, before["crop"])
    if now["digest"] == before["digest"]:
        return None
    differences = "others"
    if before["names"] is not None:
        old = collections.Counter(_unpacked(before["names"]))
        new = collections.Counter(names)
        both = (("added", new - old), ("removed", old - new))
        differences = "; ".join(_listed(word, list(c.elements())) for word, c in both if c)
    elif now["count"] != before["count"]:
        differences = ""
    large = "" if crop == before["crop"] else f" of at least {before['crop']} pixels on a side"
    return (
        f"the photographs have changed since the run was stopped: {before['count']}{large} then, "
        f"{now['count']} now{differences and f' ({differences})'}; the order of the crops changes"
    )


def _unpacked(packed: str) -> list[str]:
    return zlib.decompress(base64.b64decode(packed)).decode("utf-8", "surrogateescape").split("\0")


def _listed(word: str, names: Sequence[str]) -> str:
    """`1 added: new.png`, or of several `3 added, first a.png`."""
    return f"{len(names)} {word}{':' if len(names) == 1 else ', first'} {min(names)}"
