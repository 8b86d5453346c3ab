"""Times encoding and decoding of a folder against the transforms of its images alone: N = 128.

    python benchmarks/folder.py FOLDER [--jobs COUNT] [--ways onnx tensorflow tensorflow-bfloat16]

The weights are random, as in speed.py. A way is a runtime, and perhaps a precision. Each
measurement is a process of its own. For each way it prints:

- the seconds of g_a and of g_s, summed over all images, each transformed whole and by itself on all
  cores, before and after the measurements that follow;
- the seconds of the encoder with --quiet (no figures, hence no g_s) and without it, and those of
  the decoder, each with its start-up, with its ratio to the transforms that are part of it (the
  mean of before and after), and with the ratio of the first way's seconds to it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gmm_attention.codec.image_codec import ImageCodec

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def transforms(codec: ImageCodec, folder: str) -> None:
    """Prints the seconds of g_a and of g_s."""
    import numpy as np

    from gmm_attention import images, padding, strips
    from gmm_attention.image_folders import find_images

    codec.warm_up()
    seconds = np.zeros(2)
    for path, _ in find_images(folder).images:
        tensor = padding.pad(images.read_image(path))[None] / np.float32(255)
        for i, transform in enumerate((codec._analysis, codec._synthesis)):

            def rows(axis: int, first: int, last: int, tensor: np.ndarray = tensor) -> np.ndarray:
                return tensor[strips.along(axis + 1, first, last)]

            begin = time.perf_counter()
            result = transform.whole(rows, tensor.shape[1:3])
            seconds[i] += time.perf_counter() - begin
            tensor = np.rint(result)[None]
    print(*seconds)


def measure_here(
    what: str, model: str, runtime: str, precision: str, source: str, target: str, *options: str
) -> int:
    """Prints the seconds that "transforms", "encoder" or "decoder" takes in this process."""
    from gmm_attention.codec import image_codec
    from gmm_attention.commands import decoder, encoder

    if what == "transforms":
        transforms(image_codec.load(model, precision, runtime), source)
        return 0
    arguments = ["--model", model, "--input", source, "--output", target, "--runtime", runtime]
    arguments += ["--precision", precision, *options]
    stdout = sys.stdout
    sys.stdout = open(os.devnull, "w")
    begin = time.perf_counter()
    status = {"encoder": encoder, "decoder": decoder}[what].main(arguments)
    stdout.write(f"{time.perf_counter() - begin}\n")
    return status


def main() -> int:
    if sys.argv[1] == "--one":
        return measure_here(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--jobs")
    parser.add_argument("--ways", nargs="+", default=["onnx", "tensorflow"])
    args = parser.parse_args()
    options = ["--jobs", args.jobs] if args.jobs else []
    with tempfile.TemporaryDirectory() as place:
        from large_images import save_model

        from gmm_attention.image_folders import find_images

        model, coded, pictures = (os.path.join(place, name) for name in ("model", "coded", "recon"))
        save_model(model, find_images(args.folder).images[0][0])

        def run(what: str, way: str, source: str, target: str, *more: str) -> list[float]:
            runtime, _, precision = way.partition("-")
            command = [sys.executable, __file__, "--one", what, model, runtime]
            command += [precision or "float32", source, target, *more]
            return [float(t) for t in subprocess.check_output(command, text=True).split()]

        first = None
        for way in args.ways:
            before = run("transforms", way, args.folder, "")
            (encoding,) = run("encoder", way, args.folder, coded, "--quiet", *options)
            (decoding,) = run("decoder", way, coded, pictures, "--quiet", *options)
            (measuring,) = run("encoder", way, args.folder, coded, *options)
            after = run("transforms", way, args.folder, "")
            analysis, synthesis = ((a + b) / 2 for a, b in zip(before, after))
            print(
                f"{way}: g_a {before[0]:.2f}, {after[0]:.2f} s; "
                f"g_s {before[1]:.2f}, {after[1]:.2f} s"
            )
            rows = [
                ("encoder --quiet", encoding, analysis, "g_a"),
                ("encoder, with its figures", measuring, analysis + synthesis, "g_a and g_s"),
                ("decoder --quiet", decoding, synthesis, "g_s"),
            ]
            first = first or rows
            for (name, seconds, reference, of), (_, first_seconds, *_) in zip(rows, first):
                print(
                    f"{name}: {seconds:.2f} s, {seconds / reference:.3f} times {of}; "
                    f"{args.ways[0]} takes {first_seconds / seconds:.2f} times that",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
