"""Photographs to NAME.npz and NAME.bin, with the figures that the original prints."""

import functools
import glob
import os
import sys
import time
from typing import NamedTuple

import numpy as np

from gmm_attention import checkpoints
from gmm_attention.codec.latent_codec import z_sides
from gmm_attention.commands import batch, coding
from gmm_attention.commands.summary import Summary
from gmm_attention.errors import CheckpointError, CodecError
from gmm_attention.files import make_folder, write_atomically
from gmm_attention.images import find_images, read_image, read_size
from gmm_attention.training.options import positive

COLUMNS = ("name", "width", "height", "bytes", "bpp", "psnr", "ms_ssim", "seconds", "error")


class _Photograph(NamedTuple):
    path: str
    name: str  # relative to the folder that was given
    stem: str  # of the two files

    def __str__(self):
        return self.path


class _Analysed(NamedTuple):
    height: int
    width: int
    z_symbols: np.ndarray
    y_hat: np.ndarray
    seconds: float
    psnr: float = None
    ms_ssim: float = None


# The steps of `pipeline.in_steps`.


def _pixels(photograph):
    try:
        height, width = read_size(photograph.path)
    except CodecError:
        return 0  # to be told when it is read
    return height * width


def _read(photograph, max_pixels):
    return read_image(photograph.path, max_pixels)


def _analyse(photographs, several, codec, measure):
    begin = time.monotonic()
    with batch.about(photographs[0]):
        latents = codec.analyse(several)
        seconds = (time.monotonic() - begin) / len(several)
        analysed = [
            _Analysed(*image.shape[:2], *pair, seconds) for image, pair in zip(several, latents)
        ]
        if not measure:
            return analysed
        pictures = codec.synthesize(
            [one.y_hat for one in analysed], [(one.height, one.width) for one in analysed]
        )
    from gmm_attention.evaluation import metrics

    return [
        one._replace(psnr=metrics.psnr(*pair), ms_ssim=metrics.ms_ssim(*pair))
        for one, pair in zip(analysed, zip(several, pictures))
    ]


def _code(photograph, analysed):
    begin = time.monotonic()
    latents = analysed.z_symbols, analysed.y_hat
    with batch.about(photograph):
        npz, y_string = coding.latent_codec().encode(analysed.height, analysed.width, *latents)
    seconds = analysed.seconds + time.monotonic() - begin
    make_folder(os.path.dirname(photograph.stem))
    write_atomically(dict(zip(coding.coded_names(photograph.stem), (npz, y_string))))
    height, width = analysed.height, analysed.width
    return {
        **coding.figures_of(height, width, len(npz) + len(y_string)),
        "side_bpp": 8 * len(npz) / (height * width),
        "psnr": analysed.psnr,
        "ms_ssim": analysed.ms_ssim,
        "seconds": seconds,
    }


def _together(image, codec):
    height, width = image.shape[:2]
    return codec.most_together(height, width), z_sides(height, width)


def _figures_text(photograph, figures):
    if figures["psnr"] is None:  # with --quiet
        return ""
    return (
        f"{photograph} -> {photograph.stem}.npz, {photograph.stem}.bin\n"
        f"Time: {figures['seconds']:.2f} s\n"
        f"Actual bits per pixel for this image: {figures['bpp']:.4f}\n"
        f"Side bits per pixel for z: {figures['side_bpp']:.4f}\n"
        f"PSNR (dB): {figures['psnr']:.2f}\n"
        f"MS-SSIM: {_ms_ssim_text(figures['ms_ssim'])}\n"
    )


def _ms_ssim_text(ms_ssim):
    return "n/a" if ms_ssim is None else f"{ms_ssim:.4f}"


def _mean(values):
    return sum(values) / len(values) if values else None


def _last_line(results, total, start_up, seconds):
    """Means over the images that were coded."""
    text = batch.count_text(len(results), total)
    if results:
        means = {
            key: _mean([figures[key] for figures in results])
            for key in ("bpp", "side_bpp", "psnr", "seconds")
        }
        scored = [figures["ms_ssim"] for figures in results if figures["ms_ssim"] is not None]
        of = "" if len(scored) == len(results) else f" (of {len(scored)})"
        text += (
            f": on average {means['bpp']:.4f} bpp (side {means['side_bpp']:.4f}), "
            f"PSNR {means['psnr']:.2f} dB, MS-SSIM {_ms_ssim_text(_mean(scored))}{of}, "
            f"{means['seconds']:.2f} s"
        )
    return f"{text}; start-up {start_up:.1f} s, then {seconds:.1f} s"


def _existing(photograph, codec):
    """What there is of a photograph's files: figures, or None where they are to be made."""

    def fits(coded):  # EXIF may turn it
        return sorted(read_size(photograph.path)) == sorted((coded.height, coded.width))

    names = coding.coded_names(photograph.stem)
    return coding.existing(codec, photograph.stem, names, [photograph.path], fits)


def _nearest_model(paths, target):
    """Chooses by the rates that `evaluate.py --record` wrote into the models' settings.

    Args:
      paths: of the models to choose from, or None for all in models/.
      target: bpp.

    Returns:
      path, and its mean bpp on Kodak.

    Raises:
      CheckpointError: no such model, or none whose rate is known.
    """
    if paths is None:
        found = glob.glob(os.path.join(batch.MODELS, "*", checkpoints.SETTINGS_FILE))
        paths = sorted(os.path.dirname(path) for path in found)
    rates = {}
    for path in paths:
        if os.path.isfile(f"{path}.index"):
            continue  # a TF1 checkpoint, which has no settings
        bpp = checkpoints.load_settings(path).get("measured", {}).get("Kodak", {}).get("bpp")
        if isinstance(bpp, (int, float)):
            rates[path] = bpp
    if not rates:
        raise CheckpointError(
            f"{', '.join(paths) or batch.MODELS}: no model whose rate on Kodak is known; give one "
            "by --model, or measure it: evaluate.py --images KODAK --models MODEL --record"
        )
    return min(rates.items(), key=lambda item: abs(item[1] - target))


def _run(args):
    photographs = [
        _Photograph(str(path), name, os.path.join(args.output, name))
        for path, name in find_images(args.input)
    ]
    model = args.model[0] if args.model else batch.DEFAULT_MODEL
    if args.target_bpp:
        model, rate = _nearest_model(args.model, args.target_bpp)
        if not args.quiet:
            print(f"target {args.target_bpp:.4f} bpp: {model}, {rate:.4f} bpp on Kodak, is nearest")
    begin = time.monotonic()
    others = coding.divide_cores(args.jobs, len(photographs), args.device)
    codec = batch.start(model, args.device, args.precision)
    ready = time.monotonic()
    if not args.quiet:
        print(f"{model}: fingerprint {codec.fingerprint.hex()}, start-up {ready - begin:.1f} s")
    measure = bool(args.summary or not args.quiet)
    direction = coding.Direction(
        pixels=_pixels,
        before=functools.partial(_read, max_pixels=args.max_pixels),
        transform=functools.partial(_analyse, codec=codec, measure=measure),
        after=_code,
        together=functools.partial(_together, codec=codec),
        existing=functools.partial(_existing, codec=codec),
        text=_figures_text,
    )
    with Summary(args.summary, COLUMNS, args.skip_existing) as summary:
        results, failed = coding.run_all(
            codec, photographs, direction, others, summary, args.skip_existing, args.quiet
        )
    if not args.quiet:
        total = len(results) + len(failed)
        print(_last_line(results, total, ready - begin, time.monotonic() - ready))
        if args.target_bpp and results:
            reached = _mean([figures["bpp"] for figures in results])
            print(
                f"target {args.target_bpp:.4f} bpp, reached {reached:.4f} "
                f"({reached / args.target_bpp - 1:+.1%})"
            )
        for photograph in failed:
            print(f"failed: {photograph}")
    return 1 if failed else 0


def main(argv=None):
    """The command `gmm-encode`. Returns the exit status."""
    parser = coding.parser(
        "Compresses photographs: NAME.png to NAME.npz (header and z) and NAME.bin (y).",
        default_input="valid",
        default_output="images",
        input_help="an image (PNG, JPEG, WebP, BMP, TIFF), or a folder searched recursively",
    )
    parser.add_argument(
        "--model",
        metavar="PATH",
        nargs="+",
        help=f"{batch.MODEL_HELP} ({batch.DEFAULT_MODEL}); several with --target-bpp",
    )
    parser.add_argument(
        "--target-bpp",
        metavar="BPP",
        type=positive,
        help="take, of the models given or else of all in models/, the one whose mean rate on "
        "Kodak is nearest to this many bits per pixel",
    )
    args = parser.parse_args(argv)
    if args.model and len(args.model) > 1 and not args.target_bpp:
        parser.error("--model takes several only with --target-bpp")
    return batch.guarded(lambda: _run(args), args.quiet)


if __name__ == "__main__":
    sys.exit(main())
