"""One crop three times: the photograph, this codec, and JPEG at the nearest rate below or equal.

python benchmarks/picture.py IMAGE OUT.png --crop X Y WIDTH HEIGHT [--model models/NAME]
"""

import argparse
import io
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

import gmm_attention  # noqa: E402
from gmm_attention.commands.batch import DEFAULT_MODEL  # noqa: E402
from gmm_attention.evaluation import metrics  # noqa: E402
from gmm_attention.images import read_image, write_png  # noqa: E402


def jpeg(image, quality):
    """Baseline JPEG, 4:2:0 with optimised Huffman tables: its bytes."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, optimize=True, subsampling="4:2:0")
    return file.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("out")
    parser.add_argument("--crop", type=int, nargs=4, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    args = parser.parse_args()
    image = read_image(args.image)
    codec = gmm_attention.load(args.model)
    data = codec.compress(image)
    candidates = [jpeg(image, quality) for quality in range(1, 96)]
    nearest = max((c for c in candidates if len(c) <= len(data)), key=len, default=candidates[0])
    pictures = {
        "this codec": (data, codec.decompress(data)),
        "JPEG": (nearest, np.asarray(Image.open(io.BytesIO(nearest)))),
    }
    for name, (coded, picture) in pictures.items():
        bpp = 8 * len(coded) / (image.shape[0] * image.shape[1])
        psnr, ms_ssim = metrics.psnr(image, picture), metrics.ms_ssim(image, picture)
        print(f"{name}: {bpp:.3f} bpp, PSNR {psnr:.2f} dB, MS-SSIM {ms_ssim:.4f}")
    x, y, width, height = args.crop
    shown = [image, *(picture for _, picture in pictures.values())]
    write_png(args.out, np.concatenate([t[y : y + height, x : x + width] for t in shown], axis=1))


if __name__ == "__main__":
    main()
