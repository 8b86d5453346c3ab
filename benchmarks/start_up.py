"""From the command to the first coded byte of one small image, and where that time goes.

    python benchmarks/start_up.py IMAGE [--model models/NAME] [--runs 5]

Prints the median of the seconds from the start of encoder.py to the appearance of NAME.bin, and, of
as many processes that take the same steps one by one, the median of each.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ENCODER = Path(__file__).resolve().parents[1] / "encoder.py"


def command(image, model, output):
    """Seconds until the coded file is there."""
    begin = time.monotonic()
    arguments = ["--input", image, "--output", output, "--model", model, "--quiet"]
    process = subprocess.Popen([sys.executable, ENCODER, *arguments])
    coded = Path(output, Path(image).stem + ".bin")
    while not coded.exists() and process.poll() is None:
        time.sleep(0.005)
    seconds = time.monotonic() - begin
    if process.wait():
        sys.exit("the encoder failed")
    coded.unlink()
    return seconds


def steps(begin, image, model):
    """In this process: prints the seconds of each step."""

    def step(name):
        nonlocal begin
        now = time.monotonic()
        print(f"{name}\t{now - begin}")
        begin = now

    step("Python itself")
    import tensorflow  # noqa: F401

    step("import tensorflow")
    import tensorflow_compression  # noqa: F401

    step("import tensorflow_compression")
    from gmm_attention import export
    from gmm_attention.codec.image_codec import ImageCodec
    from gmm_attention.images import read_image

    step("import gmm_attention")
    loaded = export.load(model)
    step("read weights, build the network")
    codec = ImageCodec(*loaded, name=model)
    step("trace graphs, prepare the integers")
    pixels = read_image(image)
    codec.encode(pixels)
    step("encode for the first time")
    codec.encode(pixels)
    step("encode once more, for comparison")


def main():
    if sys.argv[1] == "--steps":
        return steps(float(sys.argv[2]), *sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--model", default="models/mse-0.0032-n48")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as output:
        seconds = [command(args.image, args.model, output) for _ in range(args.runs)]
    print(f"first coded byte after {statistics.median(seconds):.2f} s; of which, step by step:")
    rows = {}
    for _ in range(args.runs):
        this = [sys.executable, __file__, "--steps", str(time.monotonic()), args.image, args.model]
        for line in subprocess.check_output(this, text=True).splitlines():
            name, seconds = line.split("\t")
            rows.setdefault(name, []).append(float(seconds))
    for name, seconds in rows.items():
        print(f"{statistics.median(seconds):6.2f} s  {name}")


if __name__ == "__main__":
    main()
