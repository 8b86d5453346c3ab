"""Photographs to NAME.npz and NAME.bin, or NAME.gmm, with the figures that the original prints."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NamedTuple

from gmm_attention import cli, metrics
from gmm_attention.checkpoints.locate import locate
from gmm_attention.codec.efforts import EFFORTS, Wanted, trained_lambda
from gmm_attention.codec.file_format import join, unpack
from gmm_attention.commands import coding_options, model_choice, searching
from gmm_attention.commands.coding_options import STANDARD
from gmm_attention.errors import CodecError, ImageError, naming, printable
from gmm_attention.files import is_stream, make_folder, read_stream, shown, write_stream
from gmm_attention.image_folders import IMAGE_SUFFIXES, Listing, find_images
from gmm_attention.images import is_gray, read_image, read_size
from gmm_attention.pipeline import coded_files
from gmm_attention.pipeline.folder import run_folder
from gmm_attention.pipeline.summary import Summary
from gmm_attention.start_up import Setup, Started, shown_name

_logger = logging.getLogger(__name__)

COLUMNS = ("name", "width", "height", "bytes", "bpp", "psnr", "ms_ssim", "seconds", "error")


class Photograph(NamedTuple):
    """An image file, and where its coded files go.

    Attributes:
      path: of the image file.
      name: see `find_images`.
      outputs: paths of NAME.npz and NAME.bin, or of the one file or stream that holds both.
      data: bytes of the image, if it came by a stream, which can be read once only.
    """

    path: str
    name: str
    outputs: tuple[str, ...]
    data: bytes | None = None

    def __str__(self) -> str:
        return shown(self.path)

    def file(self) -> BinaryIO | None:
        """The image's bytes as a file, or None if there is a file at its path."""
        return None if self.data is None else io.BytesIO(self.data)


class Encoding:
    """The task of the encoder: read, code, measure, write.

    Its methods are those of `pipeline.folder.ImageTask`.

    Args:
      setup: Setup of the codec.
      started: what is known of it since the start.
      max_pixels: larger images are refused.
      measure: whether to synthesize each image as well, for its PSNR and MS-SSIM.
      overwrite: whether files that are no coded images may be replaced.
      to_stream: whether the output is a stream.
      wanted: Wanted.
    """

    def __init__(
        self,
        setup: Setup,
        started: Started,
        max_pixels: int,
        measure: bool,
        overwrite: bool,
        to_stream: bool,
        wanted: Wanted,
    ):
        self._setup, self._started = setup, started
        self._max_pixels, self._measure, self._overwrite = max_pixels, measure, overwrite
        self._to_stream, self._wanted = to_stream, wanted

    def size(self, photograph: Photograph) -> int:
        try:
            height, width = read_size(photograph.path, file=photograph.file())
        except CodecError:
            return 0  # reported when the image is read
        return height * width

    def process(self, photograph: Photograph) -> dict[str, Any]:
        codec = self._setup.codec(self._started.fingerprint)
        outputs = photograph.outputs
        if not self._to_stream:
            coded_files.refuse_foreign_files(outputs, self._overwrite)
        # Before the image is read, so that one that is changed meanwhile has another date.
        modified = coded_files.modified([photograph.path]) if photograph.data is None else None
        name = photograph.path if photograph.data is None else str(photograph)
        image = read_image(name, self._max_pixels, photograph.file())
        height, width, _ = image.shape
        psnr = ms_ssim = None
        begin = time.monotonic()
        with self._watched() as watch:
            with naming(photograph):
                npz, y_string, y_hat = codec.encode(
                    image, **self._wanted._asdict(), listen=watch.listen
                )
                seconds = time.monotonic() - begin
                if self._measure:
                    picture = codec.reconstruct(y_hat, height, width, is_gray(image))
                    psnr, ms_ssim = metrics.psnr(image, picture), metrics.ms_ssim(image, picture)
            # Last: an image that fails must not be taken for one that is done.
            if self._to_stream:
                write_stream(outputs[0], join(npz, y_string))
            else:
                make_folder(os.path.dirname(outputs[0]))
                coded_files.write(outputs, npz, y_string, modified)
        figures = {
            **coded_files.figures(height, width, len(npz) + len(y_string)),
            "side_bpp": 8 * len(npz) / (height * width),
            "psnr": psnr,
            "ms_ssim": ms_ssim,
            "seconds": seconds,
        }
        self._tell_missed_target(photograph, figures["bpp"], psnr)
        return figures

    def _watched(self) -> contextlib.AbstractContextManager[searching.Watch]:
        if self._wanted.effort:
            return searching.watched()
        return contextlib.nullcontext(searching.Watch())

    def _tell_missed_target(self, photograph: Photograph, bpp: float, psnr: float | None) -> None:
        wanted = self._wanted
        # Where nothing but errors is to be told, nothing is measured.
        if not wanted.has_target or psnr is None or wanted.is_met(bpp, psnr):
            return
        if wanted.target_bpp:
            reached, target = f"{bpp:.4f} bpp", f"{wanted.target_bpp:.4f}"
        else:
            reached, target = f"{psnr:.2f} dB", f"{wanted.target_psnr:.2f}"
        _logger.warning(
            "%s: %s is the nearest to the target of %s that was found; give another --model%s",
            *(photograph, reached, target),
            ", or more --effort" if wanted.effort < max(EFFORTS) else "",
        )

    def existing(self, photograph: Photograph) -> dict[str, Any] | None:
        path, outputs = photograph.path, photograph.outputs
        if photograph.data is not None or not coded_files.have_one_date(outputs, [path]):
            return None
        num_filters, fingerprint = self._started.num_filters, self._started.fingerprint
        try:
            strings = coded_files.read(outputs)
            names = outputs[0], outputs[-1], "the model"
            coded = unpack(*strings, num_filters, fingerprint, names)
            if sorted(read_size(path)) != sorted((coded.height, coded.width)):  # EXIF may swap them
                return None
        except CodecError:
            return None  # coding the image again repairs it or reports the error
        return coded_files.figures(coded.height, coded.width, sum(map(len, strings)))

    def text(self, photograph: Photograph, figures: dict[str, Any]) -> str:
        if figures["psnr"] is None:  # not measured, because of --quiet
            return ""
        return (
            f"{photograph} -> {', '.join(map(printable, photograph.outputs))}\n"
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
        bpp, side_bpp, coding = (
            _mean([figures[key] for figures in results]) for key in ("bpp", "side_bpp", "seconds")
        )
        # An image that comes back without any error has an infinite PSNR.
        psnr, of_psnr = _mean_of_some([figures["psnr"] for figures in results], math.isfinite)
        ms_ssim, of_ms_ssim = _mean_of_some(
            [figures["ms_ssim"] for figures in results], lambda value: value is not None
        )
        text += (
            f": on average {bpp:.4f} bpp (side {side_bpp:.4f}), "
            f"PSNR {'inf' if psnr is None else f'{psnr:.2f}'} dB{of_psnr}, "
            f"MS-SSIM {_ms_ssim_text(ms_ssim)}{of_ms_ssim}, {coding:.2f} s"
        )
    return f"{text}; start-up {start_up:.1f} s, then {seconds:.1f} s"


def _mean_of_some(values: Sequence[Any], counts: Callable[[Any], bool]) -> tuple[float | None, str]:
    """The mean of the values that count, or None, and " (of COUNT)" if some do not."""
    counted = [value for value in values if counts(value)]
    if not counted:
        return None, ""
    return _mean(counted), "" if len(counted) == len(values) else f" (of {len(counted)})"


def _photographs(args: argparse.Namespace) -> tuple[list[Photograph], list[str]]:
    """Finds the images, says what was passed over, and decides where their files go.

    Returns:
      list of Photograph, and list of messages about what cannot be reached.

    Raises:
      ImageError: there is no image, or several are to go into one file.
    """
    paths = [path for path in args.input if path != STANDARD]
    found, notes, failures = find_images(paths, args.exclude) if paths else Listing([], [], [])
    coding_options.tell(notes, failures)
    images = [(str(path), name) for path, name in found]
    if STANDARD in args.input:
        images.append((STANDARD, coding_options.name_of_standard_input(found)))
    if coding_options.takes_one(args):
        if len(images) > 1:
            raise ImageError(
                f"{args.output}: holds one image, and {len(images)} are given; give a folder"
            )
        outputs: list[tuple[str, ...]] = [(args.output,)] * len(images)
    else:
        outputs = [coded_files.names(os.path.join(args.output, name)) for _, name in images]
    return [
        Photograph(path, name, out, read_stream(path) if is_stream(path) else None)
        for (path, name), out in zip(images, outputs)
    ], failures


def _run(args: argparse.Namespace) -> int:
    with coding_options.printing_elsewhere(args.output):
        return _encode(args)


def _encode(args: argparse.Namespace) -> int:
    photographs, unreached = _photographs(args)
    model = model_choice.model(args)
    wanted = Wanted()
    if args.effort:
        wanted = Wanted(args.effort, args.lmbda, args.target_bpp, args.target_psnr)
        if not args.lmbda:  # asked now, so that it is told once and not for each image
            trained_lambda(locate(model).settings, model)
    begin = time.monotonic()
    with coding_options.start(args, [model], len(photographs)) as codecs:
        ready = time.monotonic()
        setup, started = codecs.setups[model], codecs.started
        assert started is not None  # for a model is given
        if not args.quiet:
            print(
                f"{printable(shown_name(setup.model))}: fingerprint {started.fingerprint.hex()}, "
                f"{started.runtime}, start-up {ready - begin:.1f} s",
                flush=True,
            )
        measure = bool(args.summary or not args.quiet)
        to_stream = is_stream(args.output)
        task = Encoding(setup, started, args.max_pixels, measure, args.overwrite, to_stream, wanted)
        with Summary(args.summary, COLUMNS, args.skip_existing, args.overwrite) as summary:
            results, failed = run_folder(
                photographs, task, codecs.processes, summary, args.skip_existing, args.quiet
            )
    if not args.quiet:
        total = len(results) + len(failed)
        print(_last_line(results, total, ready - begin, time.monotonic() - ready))
        if results and (args.target_bpp or args.target_psnr):
            print(_target_line(args, results))
        for failure in [*map(str, failed), *unreached]:
            print(f"failed: {printable(failure)}")
    return 1 if failed or unreached else 0


def _target_line(args: argparse.Namespace, results: Sequence[dict[str, Any]]) -> str:
    """How far the means over the images are from the target."""
    if args.target_bpp:
        target, reached = args.target_bpp, _mean([figures["bpp"] for figures in results])
        return f"target {target:.4f} bpp, reached {reached:.4f} ({reached / target - 1:+.1%})"
    psnr, of_psnr = _mean_of_some([figures["psnr"] for figures in results], math.isfinite)
    if psnr is None:
        return f"target {args.target_psnr:.2f} dB, reached inf"
    off = psnr - args.target_psnr
    return f"target {args.target_psnr:.2f} dB, reached {psnr:.2f}{of_psnr} ({off:+.2f} dB)"


def main(argv: list[str] | None = None) -> int:
    """The command `gmm-encode`. Returns the exit status."""
    parser = coding_options.parser(
        "Compresses photographs: NAME.png to NAME.npz (header and z) and NAME.bin (y), or to one "
        "file NAME.gmm.",
        default_input="valid",
        default_output="images",
        input_help="images (PNG, JPEG, WebP, AVIF, BMP, TIFF), or folders searched recursively",
        one_file=coded_files.SUFFIX_OF_BOTH,
        no_folder=(*IMAGE_SUFFIXES, ".npz", ".bin"),
    )
    parser.add_argument(
        "--model",
        metavar="PATH",
        nargs="+",
        help=f"{cli.MODEL_HELP} ({cli.DEFAULT_MODEL}); several with a target",
    )
    targets = parser.add_mutually_exclusive_group()
    targets.add_argument(
        "--target-bpp",
        metavar="BPP",
        type=cli.positive,
        help="choose, from the models given or else from all in ./models and all installed, the "
        "one whose mean rate on Kodak is nearest to this many bits per pixel; with --effort, also "
        "come within 2 %% of it with each image",
    )
    targets.add_argument(
        "--target-psnr",
        metavar="DB",
        type=cli.positive,
        help="the same for the PSNR in dB; with --effort, within 2 %% of the squared error",
    )
    parser.add_argument(
        "--effort",
        metavar="LEVEL",
        type=int,
        choices=EFFORTS,
        default=0,
        help="search, for each image, the latents of least rate and distortion: smaller files of "
        "a better picture, which any decoder reads as fast; 0 does not, 1 to 3 search longer "
        "and longer, and need TensorFlow; Ctrl-C ends a search with the best that it has found; "
        "--skip-existing does not tell levels apart (0)",
    )
    parser.add_argument(
        "--lambda",
        dest="lmbda",
        metavar="LAMBDA",
        type=cli.positive,
        help="with --effort: weight of the distortion against the bits (that of the model's "
        "training)",
    )
    args = coding_options.parse(parser, argv)
    if args.lmbda and not args.effort:
        parser.error("--lambda needs --effort")
    if args.model and len(args.model) > 1 and not (args.target_bpp or args.target_psnr):
        parser.error(
            "--model takes several only with --target-bpp or --target-psnr; if "
            f"{printable(args.model[-1])!r} is to be an image, there is none"
        )
    return cli.run_main(lambda: _run(args), args.quiet)


if __name__ == "__main__":
    sys.exit(main())
