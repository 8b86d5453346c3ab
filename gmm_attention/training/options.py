"""The options of a training run, for train.py and for the runner of an exported step."""

import argparse
import dataclasses
import math
import os
import time

from gmm_attention.errors import TrainingError
from gmm_attention.images import find_images, read_image
from gmm_attention.training import state
from gmm_attention.training.data import Photographs
from gmm_attention.training.loop import Intervals
from gmm_attention.training.recipe import FINAL_PART, SCHEDULES, Recipe
from gmm_attention.training.state import STATE_FILE


def number(kind, least, most=math.inf):
    """A type for argparse: an int or float within bounds."""

    def parse(text):
        value = kind(text)
        if not least <= value <= most:
            raise ValueError
        return value

    limits = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
    parse.__name__ = f"number {limits}"
    return parse


def positive(text):
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def deadline(text):
    """Minutes from now, as time.monotonic will tell it."""
    return time.monotonic() + 60 * positive(text)


def add_schedule_options(parser, defaults):
    """Adds what a recipe leaves open until the steps are taken; see `apply`.

    Args:
      defaults: Recipe, named in the help.
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
        help="last of --steps, in which --schedule constant brings the learning rate down to 0 "
        f"({defaults.cool_down})",
    )
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


def add_run_options(parser):
    """Adds where photographs come from, where results go, and how often."""
    intervals = Intervals()
    add = parser.add_argument
    add(
        "--train",
        nargs="+",
        metavar="PATH",
        help="photographs to learn from: folders (with their sub-folders), tar files, images",
    )
    add(
        "--validate",
        metavar="DIR",
        help="photographs that the weights are tried on, whole; none of those to learn from",
    )
    add(
        "--validate-every",
        type=number(int, 1),
        default=intervals.validate,
        metavar="STEPS",
        help=f"try the weights every so many steps, and at the end ({intervals.validate})",
    )
    add(
        "--state",
        metavar="PATH",
        help="state to begin with, where --output has none: the folder of another run, its "
        "state.npz, or a folder of pieces",
    )
    add("--log-every", type=number(int, 1), default=intervals.log, metavar="STEPS",
        help=f"a row of log.csv, of means over so many steps ({intervals.log})")  # fmt: skip
    add(
        "--save-every",
        type=number(int, 1),
        metavar="STEPS",
        help="save the state every so many steps, besides --save-minutes",
    )
    add(
        "--save-minutes",
        type=positive,
        default=intervals.save_minutes,
        metavar="MINUTES",
        help=f"save the state after so long ({intervals.save_minutes})",
    )
    add(
        "--minutes",
        dest="stop_at",
        type=deadline,
        default=math.inf,
        metavar="MINUTES",
        help="stop so long after the start, with the step under way done and the state saved; the "
        "same command goes on later",
    )
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
        help="decoded photographs are kept in memory up to so much (1)",
    )


def apply(args, base):
    """A Recipe with those fields replaced that the command line gives.

    Args:
      args: of argparse; what is not given is None.
      base: Recipe.
    """
    names = [field.name for field in dataclasses.fields(Recipe)]
    given = {n: getattr(args, n) for n in names if getattr(args, n, None) is not None}
    return dataclasses.replace(base, **given)


def intervals(args):
    return Intervals(
        log=args.log_every,
        validate=args.validate_every,
        save_steps=args.save_every,
        save_minutes=args.save_minutes,
        stop_at=args.stop_at,
    )


def photographs(args, crop):
    """data.Photographs of --train; prints what was passed over. Raises ImageError."""
    found = Photographs(args.train, crop, int(args.memory * 2**30))
    for note in found.notes:
        print(note)
    print(f"{len(found)} photographs to learn from", flush=True)
    return found


def validation(args):
    """List of (name, uint8 [H, W, 3]) of --validate; empty without it.

    Raises:
      ImageError: one cannot be read.
    """
    if args.validate is None:
        return []
    return [(name, read_image(path)) for path, name in find_images(args.validate)]


def begin(loop, path):
    """Lets a Loop begin at the state of a file or a folder of pieces, and says so.

    Raises:
      CheckpointError: the state is damaged or another network's.
    """
    arrays, settings = state.load(path)
    differences = loop.resume(arrays, settings, path)
    if loop.trainer.chief:
        print(f"{'goes on from' if loop.step else 'begins at'} step {loop.step} of {path}")
        for difference in differences:
            print(f"  {difference}")


def begin_elsewhere(loop, path):
    """Lets a Loop begin at the state of another run, whose best weights stay where they are.

    Raises:
      CheckpointError: see `begin`.
    """
    begin(loop, path)
    loop.progress["best"] = None


def run(loop, what_next):
    """Runs a Loop, from its folder's state if there is one, and says what came of it.

    Args:
      what_next: function from the path of the weights that are to be used to what is printed.

    Returns:
      the exit status.

    Raises:
      TrainingError: it begins at another run's state that has no step left.
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
    reason = loop.run()
    if not loop.trainer.chief:
        return 0
    goes_on = "" if reason == "finished" else "; the same command goes on"
    print(f"{folder.path}: step {loop.step} of {loop.recipe.steps}{goes_on}")
    has_best = loop.progress["best"] is not None and os.path.isdir(folder.join("best"))
    print(what_next(folder.join("best" if has_best else "last")))
    return 0 if isinstance(reason, str) else 128 + reason
