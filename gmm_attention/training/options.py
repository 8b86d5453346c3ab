"""The options of a training run, for train.py and for the runner of an exported step."""

import argparse
import dataclasses
import math
import os

from gmm_attention.images import find_images, read_image
from gmm_attention.training.data import Photographs
from gmm_attention.training.loop import Intervals
from gmm_attention.training.recipe import FINAL_PART, Recipe
from gmm_attention.training.run_folder import STATE_FILE


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
        choices=("step", "cosine"),
        help=f"learning rate over the steps: a tenth for the last {100 * FINAL_PART:g} %% of them, "
        f"as in the paper, or half a cosine down to 0 ({defaults.schedule})",
    )
    add(
        "--learning-rate",
        type=positive,
        metavar="RATE",
        help=f"Adam's, at its highest ({defaults.learning_rate:g})",
    )
    add(
        "--warm-up",
        type=number(int, 0),
        metavar="STEPS",
        help=f"steps in which the learning rate rises to that ({defaults.warm_up})",
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
        help=f"({intervals.validate})",
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
        type=positive,
        metavar="MINUTES",
        help="stop after so long; the same command goes on later",
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
        type=number(float, 0),
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
        stop_minutes=args.minutes,
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


def resume(loop, folder):
    """Lets a Loop go on from its folder's state, if there is one, and says so.

    Raises:
      CheckpointError: the state is damaged or another network's.
    """
    if not folder.has_state():
        return
    arrays, settings = folder.load_state()
    differences = loop.resume(arrays, settings, folder.join(STATE_FILE))
    if loop.trainer.chief:
        folder.cut_logs(loop.step)
        print(f"goes on from step {loop.step} of {folder.path}")
        for difference in differences:
            print(f"  {difference}")


def run(loop):
    """Runs a Loop and says what came of it. Returns the exit status. Raises CodecError."""
    reason = loop.run()
    if not loop.trainer.chief:
        return 0
    path = loop.folder.path
    goes_on = "" if reason == "finished" else "; the same command goes on"
    print(f"{path}: step {loop.step} of {loop.recipe.steps}{goes_on}")
    best = "best" if loop.progress["best"] is not None else "last"
    print(
        "Export a model for the encoder:\n"
        f"  python -m gmm_attention.export {os.path.join(path, best)} "
        f"models/{os.path.basename(os.path.normpath(path))}"
    )
    return 0 if isinstance(reason, str) else 128 + reason
