"""Times the encoder from its start to the first coded byte of one small image, step by step.

    python benchmarks/start_up.py IMAGE [--model models/NAME] [--runtime auto] [--runs 5]

It prints the median of the seconds from the start of encoder.py to the appearance of NAME.bin, and
that of `encoder.py --help`. Then it takes the same steps one by one in as many other processes, and
prints the median of each step.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENCODER = Path(__file__).resolve().parents[1] / "encoder.py"


def time_encoder(image: str, model: str, runtime: str, output: str) -> float:
    """Returns the seconds from the start of encoder.py to the appearance of the coded file."""
    begin = time.monotonic()
    arguments = ["--input", image, "--output", output, "--model", model, "--quiet"]
    process = subprocess.Popen([sys.executable, ENCODER, *arguments, "--runtime", runtime])
    coded = Path(output, Path(image).stem + ".bin")
    while not coded.exists() and process.poll() is None:
        time.sleep(0.005)
    seconds = time.monotonic() - begin
    if process.wait():
        sys.exit("the encoder failed")
    coded.unlink()
    return seconds


def time_help() -> float:
    """Returns the seconds of encoder.py --help."""
    begin = time.monotonic()
    subprocess.run([sys.executable, ENCODER, "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - begin


def time_steps(begin: float, image: str, model: str, runtime: str) -> None:
    """Prints the seconds of each step in this process, which was started at the time `begin`."""

    def step(name: str) -> None:
        nonlocal begin
        now = time.monotonic()
        print(f"{name}\t{now - begin}")
        begin = now

    step("Python itself")
    from gmm_attention.checkpoints import loading
    from gmm_attention.codec import image_codec
    from gmm_attention.images import read_image

    if runtime == "auto":
        runtime = "onnx"
    step("import gmm_attention")
    loaded = loading.load(model)
    step("read weights, prepare the integers")
    codec = image_codec.assemble(loaded, runtime, "float32", "auto", None)
    step("import the runtime")
    pixels = read_image(image)
    codec.encode(pixels)
    step("encode for the first time, which makes the graphs")
    codec.encode(pixels)
    step("encode once more, for comparison")


def main() -> None:
    if sys.argv[1] == "--steps":
        return time_steps(float(sys.argv[2]), *sys.argv[3:])
    from gmm_attention import cli  # not above, where it would hide what the steps' imports take

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--model", default=cli.DEFAULT_MODEL)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as output:
        seconds = [
            time_encoder(args.image, args.model, args.runtime, output) for _ in range(args.runs)
        ]
    print(f"--help takes {statistics.median(time_help() for _ in range(args.runs)):.2f} s")
    print(f"first coded byte after {statistics.median(seconds):.2f} s; of which, step by step:")
    rows: dict[str, list[float]] = {}
    for _ in range(args.runs):
        command = [sys.executable, __file__, "--steps", str(time.monotonic()), args.image]
        command += [args.model, args.runtime]
        for line in subprocess.check_output(command, text=True).splitlines():
            name, duration = line.split("\t")
            rows.setdefault(name, []).append(float(duration))
    for name, durations in rows.items():
        print(f"{statistics.median(durations):6.2f} s  {name}")


if __name__ == "__main__":
    main()
