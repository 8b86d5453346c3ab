"""The options of evaluate.py."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from gmm_attention import cli
from gmm_attention.cli import number
from gmm_attention.codec.efforts import EFFORTS
from gmm_attention.commands.coding_options import add_runtime

DESCRIPTION = """\
Measures models on photographs, by real files, and compares them with published curves.

    evaluate.py --images kodak --models models/A models/B

writes to evaluation/ a row for each image (images.csv), the means (means.csv), the models' curve
(data_*.dat) and plots (PNG, SVG), and prints the means and their distance from the curves in
RDdata/. The same command goes on with a run that was stopped.

    evaluate.py --curves --anchor VTM

prints BD-rate and BD-PSNR of RDdata's curves against one of them, and needs no images."""

OUTPUT = "evaluation"
FORMATS = ("jpeg", "webp", "avif", "jxl")

_Add = Callable[..., argparse.Action]  # the add_argument method of a group


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line, and exits with status 2 if its options do not go together."""
    parser = _parser()
    args = parser.parse_args(argv)
    args.models = list(dict.fromkeys(map(os.path.normpath, args.models)))
    if args.images is None and args.curves is None:
        parser.error("--images is needed, or --curves to compare curves alone")
    for option in ("codecs", "effort", "bits", "crop", "record"):
        if args.images is None and getattr(args, option):
            parser.error(f"--{option} needs --images")
    if args.images is None and args.draw and not args.output:
        parser.error("--draw with --curves alone needs an --output")
    if args.crop and (os.path.isdir(args.images) or len(args.models) > 1):
        parser.error("--crop is for one image and one model")
    if args.record and args.estimate:
        parser.error("--record takes means of real files, not of an --estimate")
    for option in ("estimate", "bits", "record"):
        if args.effort and getattr(args, option):
            parser.error(f"--{option} takes latents as the network gives them, and no --effort")
    for option, name in (("--set", args.set), ("--name", args.name)):
        if name is not None and (not name or "/" in name or (option == "--set" and "_" in name)):
            parser.error(f"{option} {name!r} cannot be a part of a curve's file name")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_measurements(parser.add_argument_group("what to measure").add_argument)
    _add_comparison(parser.add_argument_group("what to compare with").add_argument)
    _add_run(parser.add_argument_group("how").add_argument)
    return parser


def _add_measurements(add: _Add) -> None:
    add("--images", metavar="PATH", help="an image, or a folder searched recursively")
    add(
        "--models",
        metavar="PATH",
        nargs="+",
        default=[cli.DEFAULT_MODEL],
        help=f"each an {cli.MODEL_HELP} ({cli.DEFAULT_MODEL})",
    )
    add(
        "--codecs",
        nargs="+",
        choices=FORMATS,
        default=[],
        metavar="NAME",
        help="also measure these codecs of Pillow, each at the rate nearest to each model's: "
        + ", ".join(FORMATS),
    )
    add(
        "--effort",
        metavar="LEVEL",
        type=int,
        choices=EFFORTS,
        default=0,
        help="search better latents for each image before it is coded, as encoder.py --effort "
        "does, 1 to 3; the results are named by their effort (0)",
    )
    add(
        "--estimate",
        action="store_true",
        help="take the models' cross-entropy as the rate, instead of writing real files; the "
        "results are named estimates",
    )
    add(
        "--bits",
        action="store_true",
        help="also show where the bits go: by channel (bits.csv, channels.csv), and as a map of "
        "each image (bits/MODEL/NAME.png)",
    )
    add(
        "--crop",
        metavar=("X", "Y", "WIDTH", "HEIGHT"),
        type=number(int, 0),
        nargs=4,
        help="with one image and one model: draw this part, in pixels, of the original and of "
        "each codec's reconstruction, side by side (crops.png)",
    )


def _add_comparison(add: _Add) -> None:
    add(
        "--curves",
        metavar="PATH",
        nargs="*",
        help="published curves, data_SET_NAME_PSNR.dat and ..._MSSSIM.dat, or folders of them "
        "(RDdata)",
    )
    add(
        "--set",
        metavar="NAME",
        help="name of the image set in the curves' files (the name of the images' folder)",
    )
    add("--name", default="gmm-attention", help="name of the models' own curve (gmm-attention)")
    add(
        "--anchor",
        metavar="NAME",
        help="curve against which BD-rate and BD-PSNR are computed "
        "(Proposed_optimized_by_MSE, or VTM for sets without it)",
    )
    add("--draw", metavar="NAME", nargs="+", help="published curves to draw (the best known)")


def _add_run(add: _Add) -> None:
    add(
        "--output",
        metavar="DIR",
        help=f"folder for the results, made if need be ({OUTPUT}; with --curves alone, nothing is "
        "written unless this is given)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="replace files in --output that no evaluation has written",
    )
    add(
        "--jobs",
        type=number(int, 1),
        default=1,
        metavar="COUNT",
        help="processes that measure at the same time; each needs its own memory, and each makes "
        "the times of the others longer (1)",
    )
    add(
        "--record",
        action="store_true",
        help="write the means into each model's settings.json, where encoder.py --target-bpp "
        "finds them",
    )
    add_runtime(add)
    cli.add_device_and_quiet(add)
