"""What a saved run keeps besides arrays and recipe, so that it continues as if never stopped."""

from __future__ import annotations

from typing import Any, TypedDict


class Progress(TypedDict):
    """The progress of a run; it is part of the state's settings, which are JSON."""

    skipped: int  # steps so far that were skipped as not finite
    skipped_in_a_row: int  # those among them that came last, without another step between them
    best: dict[str, Any] | None  # lowest `loss` of validation; `of`: its metric, lambda and images
    window: dict[str, float]  # sums over the steps since the last row of log.csv, and their `count`
    samples: int  # crops so far; steps do not tell, since a run may be continued with another batch
    hours: float  # of training so far, over all parts of the run
    changes: list[dict[str, Any]]  # rows of changes.csv


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
    }
