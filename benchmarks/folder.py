"""Times encoding and decoding of a folder against the transforms of its images alone: N = 128.

    python benchmarks/folder.py FOLDER [--jobs COUNT] [--precision float32 bfloat16]

The weights are random, as in speed.py. Each measurement is a process of its own, which first loads
the model. For each precision it prints:

- the seconds of g_a and of g_s, summed over all images, each transformed whole and by itself, and
  the speed of a matrix product, which bounds what a precision can gain; all of these before and
  after the measurements that follow;
- the seconds of the encoder with --quiet (no figures, hence no g_s) and without it, and those of
  the decoder, each with its ratio to the transforms that are part of it (the mean of before and
  after) and with the ratio of the first precision's seconds to it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gmm_attention.codec.image_codec import ImageCodec

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def transforms(codec: ImageCodec, precision: str, folder: str) -> None:
    """Prints the seconds of g_a and of g_s, and a matrix product's GFLOP/s."""
    import numpy as np
    import tensorflow as tf
    from training import PEAK_SIDE, matrix_product

    from gmm_attention import images, padding
    from gmm_attention.image_folders import find_images

    model = codec.model
    calls = [tf.function(t.call, autograph=False) for t in (model.analysis, model.synthesis)]
    seconds = np.zeros(2)
    for path, _ in find_images(folder):
        tensor = tf.constant(padding.pad(images.read_image(path))[None] / np.float32(255))
        for i, call in enumerate(calls):
            call(tensor[:, :64, :64])
            begin = time.perf_counter()
            result = call(tensor).numpy()
            seconds[i] += time.perf_counter() - begin
            tensor = tf.constant(np.rint(result))
    product = matrix_product(precision)
    runs = []
    for _ in range(9):
        begin = time.perf_counter()
        product()
        runs.append(time.perf_counter() - begin)
    print(*seconds, 2 * PEAK_SIDE**3 / statistics.median(runs) / 1e9)


def measure_here(
    what: str, model: str, precision: str, source: str, target: str, options: list[str]
) -> int:
    """Prints the seconds that "transforms", "encoder" or "decoder" takes in this process."""
    from gmm_attention import runtime
    from gmm_attention.commands import decoder, encoder

    codec = runtime.start(model, "auto", precision)
    if what == "transforms":
        transforms(codec, precision, source)
        return 0
    runtime.start = lambda *_: codec
    arguments = ["--model", model, "--input", source, "--output", target, *options]
    stdout = sys.stdout
    sys.stdout = open(os.devnull, "w")
    begin = time.perf_counter()
    status = {"encoder": encoder, "decoder": decoder}[what].main(arguments)
    stdout.write(f"{time.perf_counter() - begin}\n")
    return status


def main() -> int:
    if sys.argv[1] == "--one":
        what, model, precision, source, target, *options = sys.argv[2:]
        return measure_here(what, model, precision, source, target, options)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--jobs")
    parser.add_argument("--precision", nargs="+", default=["float32"])
    args = parser.parse_args()
    options = ["--jobs", args.jobs] if args.jobs else []
    with tempfile.TemporaryDirectory() as place:
        from large_images import save_model

        from gmm_attention.image_folders import find_images

        model, coded, pictures = (os.path.join(place, name) for name in ("model", "coded", "recon"))
        save_model(model, find_images(args.folder)[0][0])

        def run(what: str, precision: str, source: str, target: str, *more: str) -> list[float]:
            command = [sys.executable, __file__, "--one", what, model, precision]
            command += [source, target, *more]
            return [float(t) for t in subprocess.check_output(command, text=True).split()]

        first = None
        for precision in args.precision:
            before = run("transforms", precision, args.folder, "")
            (encoding,) = run("encoder", precision, args.folder, coded, "--quiet", *options)
            (decoding,) = run("decoder", precision, coded, pictures, "--quiet", *options)
            (measuring,) = run("encoder", precision, args.folder, coded, *options)
            after = run("transforms", precision, args.folder, "")
            analysis, synthesis, _ = ((a + b) / 2 for a, b in zip(before, after))
            print(
                f"{precision}: g_a {before[0]:.2f}, {after[0]:.2f} s; "
                f"g_s {before[1]:.2f}, {after[1]:.2f} s; "
                f"matrix product {before[2]:.0f}, {after[2]:.0f} GFLOP/s"
            )
            rows = [
                ("encoder --quiet", encoding, analysis, "g_a"),
                ("encoder, with its figures", measuring, analysis + synthesis, "g_a and g_s"),
                ("decoder --quiet", decoding, synthesis, "g_s"),
            ]
            first = first or rows
            for (name, seconds, reference, of), (_, reference_seconds, *_) in zip(rows, first):
                print(
                    f"{name}: {seconds:.2f} s, {seconds / reference:.3f} times {of}; "
                    f"{args.precision[0]} takes {reference_seconds / seconds:.2f} times that",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
