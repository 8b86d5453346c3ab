"""Photographs to NAME.npz and NAME.bin, with the figures that the original prints."""

import os
import sys
import time

from gmm_attention.commands import batch
from gmm_attention.files import write_atomically


def _encode(codec, path, stem, measure):
    """Codes one image into its two files; returns what to print, and the figures."""
    from gmm_attention.evaluation import metrics
    from gmm_attention.images import read_image

    image = read_image(path)
    begin = time.monotonic()
    with batch.about(path):
        npz, y_string, y_hat = codec.encode(image)
    seconds = time.monotonic() - begin
    batch.make_folder_of(stem)
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


def _run(args):
    from gmm_attention.images import find_images

    found = find_images(args.input)
    codec, start_up = batch.start(args.model, args.device)
    if not args.quiet:
        print(f"{args.model}: fingerprint {codec.fingerprint.hex()}, start-up {start_up:.1f} s")
    results = batch.process_all(
        found,
        lambda job: _encode(codec, job[0], os.path.join(args.output, job[1]), not args.quiet),
        args.quiet,
    )
    if not args.quiet:
        print(_summary(results, len(found), start_up))
    return 0 if len(results) == len(found) else 1


def main(argv=None):
    """The command `gmm-encode`. Returns the exit status."""
    parser = batch.parser(
        "Compresses photographs: NAME.png to NAME.npz (header and z) and NAME.bin (y).",
        default_input="valid",
        default_output="images",
        input_help="an image (PNG, JPEG, WebP, BMP, TIFF), or a folder searched recursively",
    )
    args = parser.parse_args(argv)
    return batch.guarded(lambda: _run(args), args.quiet)


if __name__ == "__main__":
    sys.exit(main())
