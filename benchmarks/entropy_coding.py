"""Times entropy coding, from latents to strings and back: one JSON line for each direction.

    python benchmarks/entropy_coding.py

The latents have the shape of a 768x512 image's at 128 filters; the weights are random, y is
Laplacian of scale 1, all channels are live. Times are medians in milliseconds, except `least`. A
first line gives the strings' lengths in bytes and the machine's load average before the first run:
on a machine that does other work the times say little.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from integer_model import random_arrays  # noqa: E402

from gmm_attention.codec import wavefront  # noqa: E402
from gmm_attention.entropy_coding import cdf, integer_model, range_coder  # noqa: E402
from gmm_attention.entropy_coding.quantization import integer_arrays  # noqa: E402

# The functions whose times make up each stage, as owner and attribute.
STAGES: dict[str, list[tuple[Any, str]]] = {
    "hyper_synthesis": [(integer_model.IntegerEntropyModel, "phi")],
    "layers": [(integer_model.ImageContext, name) for name in ("hyper_part", "mixtures")],
    "counts": [(cdf, "counts")],
    "intervals": [(cdf, name) for name in ("first_intervals", "tail_intervals")],
    "tables": [(cdf, name) for name in ("first_tables", "tail_tables")],
    "z": [(wavefront, "_z_intervals"), (wavefront, "_decode_z")],
    "symbols": [(range_coder.Decoder, name) for name in ("symbols", "escapes", "charge")],
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=15, help="runs of each direction (default 15)")
    parser.add_argument("--num_filters", type=int, default=128, help="N (default 128)")
    runs, num_filters = vars(parser.parse_args(argv)).values()

    model = integer_model.IntegerEntropyModel(integer_arrays(random_arrays(num_filters)))
    rng = np.random.default_rng(0)
    y_hat = np.rint(rng.laplace(0, 1, [32, 48, num_filters])).astype(np.int32)
    z_symbols = rng.integers(-2, 3, [8, 12, num_filters])
    strings = wavefront.encode_latents(model, z_symbols, y_hat)
    print(json.dumps({
        "z_bytes": len(strings[1]),
        "y_bytes": len(strings[2]),
        "load": os.getloadavg()[0],
    }))  # fmt: skip
    report("encode", runs, lambda: wavefront.encode_latents(model, z_symbols, y_hat))
    report("decode", runs, lambda: wavefront.decode_latents(model, 8, 12, *strings))


def report(name: str, runs: int, function: Callable[[], Any]) -> None:
    """Prints the median times of a function and of its stages; 'other' is the rest."""
    whole: list[float] = []
    stages: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        for stage, functions in STAGES.items():
            stages[stage] = []
            for owner, attribute in functions:
                timed = stopwatch(getattr(owner, attribute), stages[stage])
                stack.enter_context(mock.patch.object(owner, attribute, timed))
        for _ in range(runs):
            for times in stages.values():
                times.append(0.0)
            start = time.perf_counter()
            function()
            whole.append(time.perf_counter() - start)
    medians = {stage: statistics.median(times) for stage, times in stages.items()}
    total = statistics.median(whole)
    medians["other"] = total - sum(medians.values())
    figures = {name: total, "least": min(whole), **medians}
    print(
        json.dumps({key: round(1000 * seconds, 1) for key, seconds in figures.items() if seconds})
    )


def stopwatch(function: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
    """Wraps a function so that each call adds its seconds to the last entry of `times`."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            times[-1] += time.perf_counter() - start

    return timed


if __name__ == "__main__":
    main()
