"""What train.py and the runner of an exported step share: photographs, start and end of a run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import numpy as np

from gmm_attention.errors import ImageError, TrainingError, printable
from gmm_attention.image_folders import find_images
from gmm_attention.images import read_image
from gmm_attention.training import state
from gmm_attention.training.data import Photographs
from gmm_attention.training.loop import Loop
from gmm_attention.training.progress import photograph_set, photographs_changed
from gmm_attention.training.state import STATE_FILE


def photographs(args: argparse.Namespace, crop: int) -> Photographs:
    """Finds the photographs of --train, and prints how many there are and what was passed over.

    Args:
      args: of `options.add_run_options`.
      crop: side of the crops, in pixels.

    Raises:
      ImageError: see `data.Photographs`.
    """
    found = Photographs(args.train, crop, int(args.memory * 2**30))
    for note in found.notes:
        print(printable(note))
    print(f"{len(found)} photographs to learn from", flush=True)
    return found


def validation(args: argparse.Namespace) -> list[tuple[str, np.ndarray]]:
    """Reads the photographs of --validate, as (name, uint8 [H, W, 3]); none without the option.

    Raises:
      ImageError: a photograph or a sub-folder cannot be read. Measures of the photographs that are
        left could not be compared with earlier ones.
    """
    if args.validate is None:
        return []
    listing = find_images(args.validate)
    for note in listing.notes:
        print(printable(note))
    if listing.failures:
        count = len(listing.failures)
        others = f"and {count - 1} more; " if count > 1 else ""
        raise ImageError(f"{listing.failures[0]} ({others}--validate is read whole or not at all)")
    return [(name, read_image(path)) for path, name in listing.images]


def begin(loop: Loop, path: str) -> None:
    """Continues from a saved state, and prints its step and the settings that differ.

    Args:
      loop: the Loop that takes over the state.
      path: of state.npz, or of a folder with it or its pieces.

    Raises:
      CheckpointError: the state is damaged or belongs to another network.
    """
    arrays, settings = state.load(path)
    differences = loop.resume(arrays, settings, path)
    if loop.trainer.chief:
        print(f"{'goes on from' if loop.step else 'begins at'} step {loop.step} of {path}")
        for difference in [*differences, *_photographs_changed(loop)]:
            print(f"  {difference}")


def _photographs_changed(loop: Loop) -> list[str]:
    """A line if a Loop's photographs are others than those of the state that it has taken over."""
    before = loop.progress["photographs"]
    if loop.photographs is None or before is None:
        return []
    crop = loop.photographs.crop
    line = photographs_changed(before, loop.photographs.names(before["crop"]), crop)
    return [printable(line)] if line else []


def begin_elsewhere(loop: Loop, path: str) -> None:
    """Continues from the state of another run, without its lowest loss of validation.

    The other run's best weights are not in this run's folder, so that any validation of this run
    counts as its best so far.

    Args:
      loop, path: as for `begin`.

    Raises:
      CheckpointError: see `begin`.
    """
    begin(loop, path)
    loop.progress["best"] = None


def run(loop: Loop, what_next: Callable[[str], str]) -> int:
    """Runs a Loop, from its folder's state if there is one, and prints the result.

    Args:
      loop: the Loop.
      what_next: takes the path of the resulting weights, and returns the text to print at the end.

    Returns:
      The exit status: 0, or 128 plus the number of the signal that stopped the run.

    Raises:
      TrainingError: the state of another run, from which this run is to start, has already taken
        all steps; or see `Loop.run`.
      CodecError: see `begin` and `Loop.run`.
    """
    folder = loop.folder
    if loop.trainer.chief:
        folder.lock()
    begun = folder.has_state()
    if begun:
        begin(loop, folder.join(STATE_FILE))
    elif 0 < loop.recipe.steps <= loop.step:
        raise TrainingError(
            f"{folder.path}: the state to begin with has taken {loop.step} steps already; give "
            "more --steps"
        )
    if loop.trainer.chief:
        folder.cut_logs(loop.step if begun else 0)
    if loop.photographs is not None:
        crop = loop.photographs.crop
        loop.progress["photographs"] = photograph_set(loop.photographs.names(crop), crop)
    reason = loop.run()
    if not loop.trainer.chief:
        return 0
    goes_on = "" if reason == "finished" else "; the same command goes on"
    print(f"{folder.path}: step {loop.step} of {loop.recipe.steps}{goes_on}")
    has_best = loop.progress["best"] is not None and os.path.isdir(folder.join("best"))
    print(what_next(folder.join("best" if has_best else "last")))
    return 0 if isinstance(reason, str) else 128 + reason
