"""Photographs to NAME.npz and NAME.bin, with the figures that the original prints."""

import glob
import os
import sys
import time

from gmm_attention import checkpoints
from gmm_attention.commands import batch
from gmm_attention.errors import CheckpointError
from gmm_attention.files import make_folder, write_atomically
from gmm_attention.training.options import positive


def _encode(codec, path, stem, max_pixels, measure):
    """Codes one image into its two files; returns what to print, and the figures."""
    from gmm_attention.evaluation import metrics
    from gmm_attention.images import read_image

    image = read_image(path, max_pixels)
    begin = time.monotonic()
    with batch.about(path):
        npz, y_string, y_hat = codec.encode(image)
    seconds = time.monotonic() - begin
    make_folder(os.path.dirname(stem))
    write_atomically({f"{stem}.npz": npz, f"{stem}.bin": y_string})
    if not measure:
        return "", None
    with batch.about(path):
        reconstruction = codec.reconstruct(y_hat, *image.shape[:2])
    num_pixels = image.shape[0] * image.shape[1]
    figures = {
        "bpp": 8 * (len(npz) + len(y_string)) / num_pixels,
        "side_bpp": 8 * len(npz) / num_pixels,
        "psnr": metrics.psnr(image, reconstruction),
        "ms_ssim": metrics.ms_ssim(image, reconstruction),
        "seconds": seconds,
    }
    text = (
        f"{path} -> {stem}.npz, {stem}.bin\n"
        f"Time: {seconds:.2f} s\n"
        f"Actual bits per pixel for this image: {figures['bpp']:.4f}\n"
        f"Side bits per pixel for z: {figures['side_bpp']:.4f}\n"
        f"PSNR (dB): {figures['psnr']:.2f}\n"
        f"MS-SSIM: {_ms_ssim_text(figures['ms_ssim'])}\n"
    )
    return text, figures


def _ms_ssim_text(ms_ssim):
    return "n/a" if ms_ssim is None else f"{ms_ssim:.4f}"


def _mean(values):
    return sum(values) / len(values) if values else None


def _summary(results, total, start_up):
    """The last line: means over the images that were coded."""
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
    return f"{text}; start-up {start_up:.1f} s"


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
    from gmm_attention.images import find_images

    found = find_images(args.input)
    model = args.model[0] if args.model else batch.DEFAULT_MODEL
    if args.target_bpp:
        model, rate = _nearest_model(args.model, args.target_bpp)
        if not args.quiet:
            print(f"target {args.target_bpp:.4f} bpp: {model}, {rate:.4f} bpp on Kodak, is nearest")
    codec, start_up = batch.start(model, args.device)
    if not args.quiet:
        print(f"{model}: fingerprint {codec.fingerprint.hex()}, start-up {start_up:.1f} s")
    results = batch.process_all(
        found,
        lambda job: _encode(
            codec, job[0], os.path.join(args.output, job[1]), args.max_pixels, not args.quiet
        ),
        args.quiet,
    )
    if not args.quiet:
        print(_summary(results, len(found), start_up))
        if args.target_bpp and results:
            reached = _mean([figures["bpp"] for figures in results])
            print(
                f"target {args.target_bpp:.4f} bpp, reached {reached:.4f} "
                f"({reached / args.target_bpp - 1:+.1%})"
            )
    return 0 if len(results) == len(found) else 1


def main(argv=None):
    """The command `gmm-encode`. Returns the exit status."""
    parser = batch.parser(
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
