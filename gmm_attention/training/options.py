"""Options that train.py and the runner of an exported step share."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import time
from collections.abc import Callable
from typing import Any

from gmm_attention.cli import number, positive
from gmm_attention.training.loop import Intervals
from gmm_attention.training.recipe import FINAL_PART, SCHEDULES, Recipe


def deadline(text: str) -> float:
    """Argparse type: minutes from now -> a time on the clock of time.monotonic."""
    return time.monotonic() + 60 * positive(text)


def add_schedule_options(parser: argparse._ActionsContainer, defaults: Recipe) -> None:
    """Adds the settings of a recipe that are not fixed in an exported step; see `apply`.

    Args:
      parser: parser or argument group.
      defaults: Recipe with the defaults that the help texts name.
    """
    add = parser.add_argument
    add(
        "--lambda",
        dest="lmbda",
        type=positive,
        metavar="LAMBDA",
        help="weight of the distortion in the loss: more for better and larger pictures",
    )
    add(
        "--steps",
        type=number(int, 1),
        metavar="COUNT",
        help=f"length of the whole training ({defaults.steps})",
    )
    _add_learning_rate_options(add, defaults)
    add(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help=f"mirror half of the crops ({'yes' if defaults.flip else 'no'})",
    )
    add(
        "--min-scale",
        type=number(float, 0.01, 1),
        metavar="FACTOR",
        help="scale each photograph down by a random factor from this to 1 before it is cropped; "
        f"1 for never ({defaults.min_scale:g})",
    )
    add(
        "--seed",
        type=number(int, 0, 2**31 - 1),
        metavar="INTEGER",
        help=f"of the order of photographs, the crops and the noise ({defaults.seed})",
    )


def _add_learning_rate_options(add: Callable[..., Any], defaults: Recipe) -> None:
    add(
        "--schedule",
        choices=SCHEDULES,
        help=f"learning rate over the steps: a tenth for the last {100 * FINAL_PART:g} %% of them, "
        "as in the paper; half a cosine down to 0; or constant up to --cool-down "
        f"({defaults.schedule})",
    )
    add(
        "--learning-rate",
        type=positive,
        metavar="RATE",
        help=f"at its highest ({defaults.learning_rate:g})",
    )
    add(
        "--warm-up",
        type=number(int, 0),
        metavar="STEPS",
        help=f"steps in which the learning rate rises to that ({defaults.warm_up})",
    )
    add(
        "--cool-down",
        type=number(int, 0),
        metavar="STEPS",
        help="last steps, over which --schedule constant brings the learning rate down to 0 "
        f"({defaults.cool_down})",
    )


def add_run_options(parser: argparse._ActionsContainer) -> None:
    """Adds the options for the photographs, for saving and for stopping.

    Args:
      parser: parser or argument group.
    """
    add = parser.add_argument
    defaults = Intervals()
    add(
        "--train",
        nargs="+",
        metavar="PATH",
        help="photographs to learn from: folders (with their sub-folders), tar files, images",
    )
    add(
        "--validate",
        metavar="DIR",
        help="photographs for validation, used as a whole; none of those to learn from",
    )
    add(
        "--validate-every",
        type=number(int, 1),
        default=defaults.validate,
        metavar="STEPS",
        help=f"validate every so many steps, and at the end ({defaults.validate})",
    )
    add(
        "--state",
        metavar="PATH",
        help="state to begin with if --output has none: the folder of another run, its "
        "state.npz, or a folder of pieces",
    )
    add("--overwrite", action="store_true", help="replace files that this program did not write")
    _add_interval_options(add, defaults)
    add(
        "--workers",
        type=number(int, 1),
        default=os.cpu_count(),
        metavar="COUNT",
        help=f"threads that read and crop photographs ({os.cpu_count()})",
    )
    add(
        "--memory",
        type=number(float, 0, 2**20),
        default=1,
        metavar="GIB",
        help="memory for decoded photographs (1)",
    )


def _add_interval_options(add: Callable[..., Any], defaults: Intervals) -> None:
    add(
        "--log-every",
        type=number(int, 1),
        default=defaults.log,
        metavar="STEPS",
        help=f"write a row of log.csv every so many steps, with means over them ({defaults.log})",
    )
    add(
        "--save-every",
        type=number(int, 1),
        metavar="STEPS",
        help="save the state every so many steps, in addition to --save-minutes",
    )
    add(
        "--save-minutes",
        type=positive,
        default=defaults.save_minutes,
        metavar="MINUTES",
        help=f"save the state after so many minutes ({defaults.save_minutes})",
    )
    add(
        "--minutes",
        dest="stop_at",
        type=deadline,
        default=math.inf,
        metavar="MINUTES",
        help="stop so many minutes after the start, and save the state; the same command continues "
        "the run later",
    )


def apply(args: argparse.Namespace, base: Recipe) -> Recipe:
    """Replaces the fields of a Recipe that the command line gives.

    Args:
      args: has the recipe's fields as attributes; None or missing if the option is not given.
      base: Recipe.

    Returns:
      The new Recipe.
    """
    names = [field.name for field in dataclasses.fields(Recipe)]
    given = {n: getattr(args, n) for n in names if getattr(args, n, None) is not None}
    return dataclasses.replace(base, **given)


def intervals(args: argparse.Namespace) -> Intervals:
    """The Intervals of a command line with the options of `add_run_options`."""
    return Intervals(
        log=args.log_every,
        validate=args.validate_every,
        save_steps=args.save_every,
        save_minutes=args.save_minutes,
        stop_at=args.stop_at,
    )
