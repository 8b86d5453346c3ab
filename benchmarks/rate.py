"""Real bytes against the float model's own cross-entropy, and PSNR against JPEG at equal bpp.

    python benchmarks/rate.py DIR [--model models/NAME]

DIR holds photographs, such as Kodak's 24. Prints a line for each, and the mean of all.
"""

import argparse
import io
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
from picture import jpeg  # noqa: E402
from PIL import Image  # noqa: E402

import gmm_attention  # noqa: E402
from gmm_attention.commands.batch import DEFAULT_MODEL  # noqa: E402
from gmm_attention.evaluation import metrics  # noqa: E402
from gmm_attention.images import find_images, read_image  # noqa: E402


def jpeg_psnr(image, bpp):
    """PSNR of baseline JPEG (4:2:0, optimised Huffman tables) at a rate, between qualities."""
    rates, qualities = [], []
    for quality in range(1, 96):
        data = jpeg(image, quality)
        rates.append(8 * len(data) / (image.shape[0] * image.shape[1]))
        qualities.append(metrics.psnr(image, np.asarray(Image.open(io.BytesIO(data)))))
        if rates[-1] > bpp and quality > 1:
            break
    return float(np.interp(bpp, rates, qualities))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", metavar="DIR")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    args = parser.parse_args()
    codec = gmm_attention.load(args.model)
    rows, bits = [], []
    for path, name in find_images(args.images):
        image = read_image(path)
        npz, y_string, y_hat = codec.encode(image)
        float_model = codec.inspect(image)
        reconstruction = codec.reconstruct(y_hat, *image.shape[:2])
        psnr = metrics.psnr(image, reconstruction)
        bpp = 8 * (len(npz) + len(y_string)) / (image.shape[0] * image.shape[1])
        bits.append([8 * len(y_string), float_model["bits_y"]])
        excess = bits[-1][0] / bits[-1][1] - 1
        ms_ssim = metrics.ms_ssim(image, reconstruction)
        rows.append([bpp, psnr, ms_ssim or np.nan, jpeg_psnr(image, bpp)])
        print(
            f"{name}: {bpp:.4f} bpp, PSNR {psnr:.2f} dB, JPEG {rows[-1][3]:.2f} dB, "
            f"MS-SSIM {rows[-1][2]:.4f}, y {excess:+.3%} over its cross-entropy",
            flush=True,
        )
    bpp, psnr, ms_ssim, jpeg = np.mean(rows, axis=0)
    real, ideal = np.sum(bits, axis=0)
    print(
        f"mean of {len(rows)}: {bpp:.4f} bpp, PSNR {psnr:.2f} dB, JPEG {jpeg:.2f} dB "
        f"({psnr - jpeg:+.2f} dB), MS-SSIM {ms_ssim:.4f}; "
        f"y {real / ideal - 1:+.4%} over its cross-entropy"
    )


if __name__ == "__main__":
    main()
