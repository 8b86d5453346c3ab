"""Compares memory and time per pixel of large images with 768x512: N = 128, all channels live.

    python benchmarks/large_images.py IMAGE [--sizes 4000x3000 8200x6100 12000x8400] [--programs]
        [--runtime auto] [--effort 1]

The large images are IMAGE, mirrored side by side as often as needed. The weights are random, as in
speed.py. For encoding and for decoding, each in a process of its own, it prints the seconds per
megapixel of padded image, their ratio to those of 768x512 pixels (the mean of one measurement
before and one after), and the process's largest resident memory in GiB. With --programs it prints
instead the largest resident memory of encoder.py, which also computes PSNR and MS-SSIM, and of
decoder.py, for a PNG file of each size; there the encoder may be given an effort.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parents[1]
SMALL = (768, 512)


def size(text: str) -> tuple[int, int]:
    """Reads a size such as "768x512" as width, height in pixels."""
    width, height = map(int, text.split("x"))
    return width, height


def enlarged(path: str, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first 768x512 pixels of an image, and the same mirrored to a larger size."""
    import numpy as np

    from gmm_attention.images import read_image

    image = read_image(path)[:512, :768]
    rows, columns = height - image.shape[0], width - image.shape[1]
    return image, np.pad(image, [(0, rows), (0, columns), (0, 0)], "symmetric")


def measure_here(
    direction: str, path: str, width: int, height: int, model: str, coded: str, runtime: str
) -> None:
    """Prints this process's seconds per megapixel and GiB; `coded` is the coded files' prefix."""
    from gmm_attention.codec import image_codec

    codec = image_codec.load(model, runtime=runtime)
    image, large = enlarged(path, width, height)
    warm = codec.encode(image)
    codec.decode(*warm[:2])
    begin, runs = time.perf_counter(), 0
    while time.perf_counter() - begin < 5:
        if direction == "encode":
            npz, y_string, _ = codec.encode(large)
        else:
            npz, y_string = (open(f"{coded}.{name}", "rb").read() for name in ("npz", "bin"))
            codec.decode(npz, y_string)
        runs += 1
    seconds = (time.perf_counter() - begin) / runs
    if direction == "encode":
        for name, data in (("npz", npz), ("bin", y_string)):
            with open(f"{coded}.{name}", "wb") as file:
                file.write(data)
    megapixels = (width + -width % 64) * (height + -height % 64) / 1e6
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(seconds / megapixels, memory)


def save_model(path: str, image: str) -> None:
    """Saves the random model of speed.py, with y scaled for the image at a path."""
    from speed import random_model

    from gmm_attention.checkpoints import files
    from gmm_attention.images import read_image

    model = random_model(read_image(image))
    files.save(path, model.exported, model.settings)


def measure_programs(
    path: str, width: int, height: int, model: str, folder: str, runtime: str, effort: int
) -> None:
    """Prints the largest resident memory of encoder.py and of decoder.py for one size, in GiB."""
    from gmm_attention.images import write_png

    png, coded, decoded = (os.path.join(folder, name) for name in ("a.png", "coded", "decoded"))
    write_png(png, enlarged(path, width, height)[1])
    for program, source, target in (("encoder", png, coded), ("decoder", coded, decoded)):
        options = ["--model", model, "--input", source, "--output", target, "--runtime", runtime]
        if effort and program == "encoder":
            options += ["--effort", str(effort), "--lambda", "0.0075"]
        process = subprocess.Popen([sys.executable, ROOT / f"{program}.py", *options])
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{program}.py failed")
        print(f"{width}x{height}, {program}.py: {usage.ru_maxrss / 2**20:.2f} GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    sizes = [(4000, 3000), (8200, 6100), (12000, 8400)]
    parser.add_argument("--sizes", type=size, nargs="+", default=sizes)
    parser.add_argument("--programs", action="store_true")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--effort", type=int, default=0)
    parser.add_argument("--one", nargs=7, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        direction, path, width, height, model, coded, runtime = args.one
        return measure_here(direction, path, int(width), int(height), model, coded, runtime)
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model")
        save_model(model, args.image)
        if args.programs:
            for width, height in args.sizes:
                measure_programs(
                    args.image, width, height, model, folder, args.runtime, args.effort
                )
            return

        def run(direction: str, width: int, height: int) -> tuple[float, float]:
            coded = os.path.join(folder, f"{width}x{height}")
            one = [direction, args.image, width, height, model, coded, args.runtime]
            command = [sys.executable, __file__, args.image, "--one", *map(str, one)]
            seconds, memory = subprocess.check_output(command, text=True).split()
            return float(seconds), float(memory)

        for sides in args.sizes:
            for direction in ("encode", "decode"):
                before, _ = run(direction, *SMALL)
                seconds, memory = run(direction, *sides)
                after, _ = run(direction, *SMALL)
                ratio = seconds / ((before + after) / 2)
                print(
                    f"{sides[0]}x{sides[1]}, {direction}: {seconds:.2f} s per megapixel, "
                    f"{ratio:.3f} times that of 768x512 ({before:.2f}, {after:.2f}), "
                    f"{memory:.2f} GiB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
