"""Times the encoder from its start to the first coded byte of one small image, step by step.

    python benchmarks/start_up.py IMAGE [--model models/NAME] [--runs 5]

It prints the median of the seconds from the start of encoder.py to the appearance of NAME.bin. Then
it takes the same steps one by one in as many other processes, and prints the median of each step.
"""

from __future__ import annotations

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


def time_encoder(image: str, model: str, output: str) -> float:
    """Returns the seconds from the start of encoder.py to the appearance of the coded file."""
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


def time_steps(begin: float, image: str, model: str) -> None:
    """Prints the seconds of each step in this process, which was started at the time `begin`."""

    def step(name: str) -> None:
        nonlocal begin
        now = time.monotonic()
        print(f"{name}\t{now - begin}")
        begin = now

    step("Python itself")
    import tensorflow  # noqa: F401

    step("import tensorflow")
    import tensorflow_compression  # noqa: F401

    step("import tensorflow_compression")
    from gmm_attention.checkpoints import loading
    from gmm_attention.codec.image_codec import ImageCodec
    from gmm_attention.images import read_image

    step("import gmm_attention")
    loaded = loading.load(model)
    step("read weights, build the network, prepare the integers")
    codec = ImageCodec(loaded)
    step("trace graphs")
    pixels = read_image(image)
    codec.encode(pixels)
    step("encode for the first time")
    codec.encode(pixels)
    step("encode once more, for comparison")


def main() -> None:
    if sys.argv[1] == "--steps":
        return time_steps(float(sys.argv[2]), *sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--model", default="models/mse-0.0032-n48")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as output:
        seconds = [time_encoder(args.image, args.model, output) for _ in range(args.runs)]
    print(f"first coded byte after {statistics.median(seconds):.2f} s; of which, step by step:")
    rows: dict[str, list[float]] = {}
    for _ in range(args.runs):
        command = [
            sys.executable,
            __file__,
            "--steps",
            str(time.monotonic()),
            args.image,
            args.model,
        ]
        for line in subprocess.check_output(command, text=True).splitlines():
            name, duration = line.split("\t")
            rows.setdefault(name, []).append(float(duration))
    for name, durations in rows.items():
        print(f"{statistics.median(durations):6.2f} s  {name}")


if __name__ == "__main__":
    main()
