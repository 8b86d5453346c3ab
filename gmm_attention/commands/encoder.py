"""Photographs to NAME.npz and NAME.bin, with the figures that the original prints."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from gmm_attention import cli, metrics
from gmm_attention.checkpoints.locate import FOLDER, known_models, locate
from gmm_attention.codec.file_format import Coded
from gmm_attention.commands import coding_options
from gmm_attention.errors import CheckpointError, CodecError, naming
from gmm_attention.files import make_folder, write_atomically
from gmm_attention.image_folders import find_images
from gmm_attention.images import read_image, read_size
from gmm_attention.pipeline import coded_files
from gmm_attention.pipeline.folder import run_folder
from gmm_attention.pipeline.summary import Summary
from gmm_attention.start_up import Setup, Started, shown_name

COLUMNS = ("name", "width", "height", "bytes", "bpp", "psnr", "ms_ssim", "seconds", "error")


class Photograph(NamedTuple):
    """An image file, and where its coded files go.

    Attributes:
      path: of the image file.
      name: see `find_images`.
      stem: the part that the paths of the two coded files share.
    """

    path: str
    name: str
    stem: str

    def __str__(self) -> str:
        return self.path


class Encoding:
    """The task of the encoder: read, code, measure, write.

    Its methods are those of `pipeline.folder.ImageTask`.

    Args:
      setup: Setup of the codec.
      started: what is known of it since the start.
      max_pixels: larger images are refused.
      measure: whether to synthesize each image as well, for its PSNR and MS-SSIM.
    """

    def __init__(self, setup: Setup, started: Started, max_pixels: int, measure: bool):
        self._setup, self._started = setup, started
        self._max_pixels, self._measure = max_pixels, measure

    def size(self, photograph: Photograph) -> int:
        try:
            height, width = read_size(photograph.path)
        except CodecError:
            return 0  # reported when the image is read
        return height * width

    def process(self, photograph: Photograph) -> dict[str, Any]:
        codec = self._setup.codec(self._started.fingerprint)
        image = read_image(photograph.path, self._max_pixels)
        height, width, _ = image.shape
        psnr = ms_ssim = None
        begin = time.monotonic()
        with naming(photograph):
            npz, y_string, y_hat = codec.encode(image)
            seconds = time.monotonic() - begin
            if self._measure:
                picture = codec.reconstruct(y_hat, height, width)
                psnr, ms_ssim = metrics.psnr(image, picture), metrics.ms_ssim(image, picture)
        # Last: an image that fails must not be taken for one that is done.
        make_folder(os.path.dirname(photograph.stem))
        write_atomically(dict(zip(coded_files.names(photograph.stem), (npz, y_string))))
        return {
            **coded_files.figures(height, width, len(npz) + len(y_string)),
            "side_bpp": 8 * len(npz) / (height * width),
            "psnr": psnr,
            "ms_ssim": ms_ssim,
            "seconds": seconds,
        }

    def existing(self, photograph: Photograph) -> dict[str, Any] | None:
        def fits(coded: Coded) -> bool:  # EXIF may swap the sides
            return sorted(read_size(photograph.path)) == sorted((coded.height, coded.width))

        return coded_files.existing_figures(
            self._started.num_filters,
            self._started.fingerprint,
            photograph.stem,
            coded_files.names(photograph.stem),
            [photograph.path],
            fits,
        )

    def text(self, photograph: Photograph, figures: dict[str, Any]) -> str:
        if figures["psnr"] is None:  # not measured, because of --quiet
            return ""
        return (
            f"{photograph} -> {photograph.stem}.npz, {photograph.stem}.bin\n"
            f"Time: {figures['seconds']:.2f} s\n"
            f"Actual bits per pixel for this image: {figures['bpp']:.4f}\n"
            f"Side bits per pixel for z: {figures['side_bpp']:.4f}\n"
            f"PSNR (dB): {figures['psnr']:.2f}\n"
            f"MS-SSIM: {_ms_ssim_text(figures['ms_ssim'])}\n"
        )


def _ms_ssim_text(ms_ssim: float | None) -> str:
    return "n/a" if ms_ssim is None else f"{ms_ssim:.4f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _last_line(
    results: Sequence[dict[str, Any]], total: int, start_up: float, seconds: float
) -> str:
    """Means over the images that were coded, and times."""
    text = cli.count_text(len(results), total)
    if results:
        means = {
            key: _mean([figures[key] for figures in results])
            for key in ("bpp", "side_bpp", "psnr", "seconds")
        }
        scored = [figures["ms_ssim"] for figures in results if figures["ms_ssim"] is not None]
        ms_ssim = _mean(scored) if scored else None
        of = "" if len(scored) == len(results) else f" (of {len(scored)})"
        text += (
            f": on average {means['bpp']:.4f} bpp (side {means['side_bpp']:.4f}), "
            f"PSNR {means['psnr']:.2f} dB, MS-SSIM {_ms_ssim_text(ms_ssim)}{of}, "
            f"{means['seconds']:.2f} s"
        )
    return f"{text}; start-up {start_up:.1f} s, then {seconds:.1f} s"


def _nearest_model(paths: Sequence[str] | None, target: float) -> tuple[str, float]:
    """Chooses a model by the rates that `evaluate.py --record` wrote into the models' settings.

    Args:
      paths: of the models to choose from, or None for all that have a name.
      target: wanted bpp.

    Returns:
      path, and its mean bpp on Kodak.

    Raises:
      CheckpointError: no such model, or none whose rate is known.
    """
    models = known_models() if paths is None else paths
    rates = {}
    for path in models:
        try:
            settings = locate(path).settings  # a TF1 checkpoint has none, and so no rate
        except CheckpointError:
            if paths is not None:  # of models that nobody has named, another may do
                raise
            continue
        with contextlib.suppress(KeyError, TypeError):  # figures of another shape
            bpp = settings["measured"]["Kodak"]["bpp"]
            if math.isfinite(bpp):
                rates[path] = bpp
    if not rates:
        names = ", ".join(map(shown_name, models)) or FOLDER
        raise CheckpointError(
            f"{names}: no model whose rate on Kodak is known; give one by --model, or measure it: "
            "evaluate.py --images KODAK --models MODEL --record"
        )
    return min(rates.items(), key=lambda item: abs(item[1] - target))


def _run(args: argparse.Namespace) -> int:
    photographs = [
        Photograph(str(path), name, os.path.join(args.output, name))
        for path, name in find_images(args.input).images
    ]
    model = args.model[0] if args.model else cli.DEFAULT_MODEL
    if args.target_bpp:
        model, rate = _nearest_model(args.model, args.target_bpp)
        if not args.quiet:
            print(
                f"target {args.target_bpp:.4f} bpp: {shown_name(model)}, {rate:.4f} bpp on Kodak, "
                "is nearest"
            )
    begin = time.monotonic()
    with coding_options.start(args, model, len(photographs)) as (setup, started, processes):
        ready = time.monotonic()
        if not args.quiet:
            print(
                f"{shown_name(setup.model)}: fingerprint {started.fingerprint.hex()}, "
                f"{started.runtime}, start-up {ready - begin:.1f} s",
                flush=True,
            )
        measure = bool(args.summary or not args.quiet)
        task = Encoding(setup, started, args.max_pixels, measure)
        with Summary(args.summary, COLUMNS, args.skip_existing) as summary:
            results, failed = run_folder(
                photographs, task, processes, summary, args.skip_existing, args.quiet
            )
    if not args.quiet:
        total = len(results) + len(failed)
        print(_last_line(results, total, ready - begin, time.monotonic() - ready))
        if args.target_bpp and results:
            print(_target_line(args.target_bpp, results))
        for photograph in failed:
            print(f"failed: {photograph}")
    return 1 if failed else 0


def _target_line(target: float, results: Sequence[dict[str, Any]]) -> str:
    reached = _mean([figures["bpp"] for figures in results])
    return f"target {target:.4f} bpp, reached {reached:.4f} ({reached / target - 1:+.1%})"


def main(argv: list[str] | None = None) -> int:
    """The command `gmm-encode`. Returns the exit status."""
    parser = coding_options.parser(
        "Compresses photographs: NAME.png to NAME.npz (header and z) and NAME.bin (y).",
        default_input="valid",
        default_output="images",
        input_help="an image (PNG, JPEG, WebP, BMP, TIFF), or a folder searched recursively",
    )
    parser.add_argument(
        "--model",
        metavar="PATH",
        nargs="+",
        help=f"{cli.MODEL_HELP} ({cli.DEFAULT_MODEL}); several with --target-bpp",
    )
    parser.add_argument(
        "--target-bpp",
        metavar="BPP",
        type=cli.positive,
        help="choose, from the models given or else from all in ./models and all installed, the "
        "one whose mean rate on Kodak is nearest to this many bits per pixel",
    )
    args = coding_options.parse(parser, argv)
    if args.model and len(args.model) > 1 and not args.target_bpp:
        parser.error("--model takes several only with --target-bpp")
    return cli.run_main(lambda: _run(args), args.quiet)


if __name__ == "__main__":
    sys.exit(main())
