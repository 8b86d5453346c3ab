"""Measures what each level of `--effort` gains, and how long it takes.

    python benchmarks/effort.py IMAGES [--model MODEL] [--levels 1 2 3] [--factor 0.4]

IMAGES is an image or a folder. Each image is coded to real bytes and decoded, without effort and at
each level, there by the model's own lambda and by `factor` times it. It prints means over the
images: bits per pixel, PSNR, lambda D + R, seconds of encoding and their ratio to those of analysis
and synthesis alone; and, from the two lambdas, the rate that each level needs for the mean PSNR of
effort 0, by interpolation of log rate over PSNR. Only models trained by MSE are measured. All runs
in this process, one image after the other; those of the first image make kernels for its size.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from gmm_attention import cli, metrics
from gmm_attention.codec import image_codec
from gmm_attention.codec.efforts import LEVELS, trained_lambda
from gmm_attention.codec.image_codec import ImageCodec
from gmm_attention.image_folders import find_images
from gmm_attention.images import read_image


def timed(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, float]:
    """Returns a function's result, and the seconds that it took."""
    begin = time.perf_counter()
    result = function(*arguments, **options)
    return result, time.perf_counter() - begin


def measure(codec: ImageCodec, image: np.ndarray, **options: Any) -> list[float]:
    """Returns bits per pixel, PSNR in dB, squared error (0..255) and seconds of encoding."""
    data, seconds = timed(codec.compress, image, **options)
    psnr = metrics.psnr(image, codec.decompress(data))
    bpp = 8 * len(data) / (image.shape[0] * image.shape[1])
    return [bpp, psnr, 255**2 / 10 ** (psnr / 10), seconds]


def transforms(codec: ImageCodec, image: np.ndarray) -> float:
    """Returns the seconds of analysis and synthesis alone."""
    (_, y_hat), first = timed(codec.analyse, image)
    _, second = timed(codec.reconstruct, y_hat, *image.shape[:2])
    return first + second


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images")
    parser.add_argument("--model", default=cli.DEFAULT_MODEL)
    parser.add_argument("--levels", type=int, nargs="+", choices=LEVELS, default=[*LEVELS])
    parser.add_argument("--factor", type=cli.positive, default=0.4)
    args = parser.parse_args()
    if args.factor == 1:
        parser.error("--factor 1 gives one point; give another")
    codec = image_codec.load(args.model)
    lmbda = trained_lambda(codec.settings, codec.name)
    if codec.settings.get("metric") != "mse":
        parser.error(f"--model {args.model}: was not trained by MSE")
    codec.warm_up(effort=1)
    kinds: dict[tuple[int, float], dict[str, Any]] = {(0, 1.0): {}}
    for level in args.levels:
        for factor in (1.0, args.factor):
            kinds[level, factor] = {"effort": level, "lmbda": factor * lmbda}
    images = find_images([args.images]).images
    measured: dict[tuple[int, float], list[list[float]]] = {kind: [] for kind in kinds}
    seconds = []
    for path, name in images:
        image = read_image(path)
        transforms(codec, image)  # makes what depends on the size
        seconds.append(transforms(codec, image))
        for kind, options in kinds.items():
            measured[kind].append(measure(codec, image, **options))
        texts = [
            f"{bpp:.4f} {psnr:.2f}" for bpp, psnr, *_ in (rows[-1] for rows in measured.values())
        ]
        print(f"{name}: {', '.join(texts)}", flush=True)
    report(measured, lmbda, float(np.mean(seconds)))


def report(
    measured: dict[tuple[int, float], list[list[float]]], lmbda: float, seconds: float
) -> None:
    """Prints the means.

    Args:
      measured: results of `measure` by level and factor.
      lmbda: the model's.
      seconds: mean of `transforms`.
    """
    means = {kind: np.mean(rows, axis=0) for kind, rows in measured.items()}
    losses = {kind: lmbda * mean[2] + mean[0] for kind, mean in means.items()}
    first = means[0, 1.0]
    print(f"analysis and synthesis alone: {seconds:.3f} s")
    for (level, factor), (bpp, psnr, _, encoding) in means.items():
        gain = losses[level, factor] / losses[0, 1.0] - 1
        text = f"effort {level}, {factor:g} lambda: {bpp:.4f} bpp ({bpp / first[0] - 1:+.1%}), "
        text += f"{psnr:.2f} dB ({psnr - first[1]:+.2f}), lambda D + R {gain:+.1%}, "
        print(text + f"{encoding:.2f} s, {encoding / seconds:.1f} of the transforms")
    for level in dict.fromkeys(level for level, _ in means if level):
        points = sorted(tuple(means[kind][[1, 0]]) for kind in means if kind[0] == level)
        (low, low_bpp), (high, high_bpp) = points
        share = (first[1] - low) / (high - low)
        bpp = low_bpp * (high_bpp / low_bpp) ** share
        note = "" if 0 <= share <= 1 else ", beyond both points"
        print(f"effort {level}: {bpp / first[0] - 1:+.2%} of the rate at {first[1]:.2f} dB{note}")


if __name__ == "__main__":
    main()
