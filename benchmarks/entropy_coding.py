"""Times the entropy path, from latents to strings and back: one JSON line for each direction.

    python benchmarks/entropy_coding.py

The latents are a 768x512 image's at 128 filters: random weights, y Laplacian of scale 1, all
channels live. Milliseconds are medians. `load` is the machine's before the first run: on a machine
that does other work the times say little.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from integer_model import random_arrays  # noqa: E402

from gmm_attention.codec import latents  # noqa: E402
from gmm_attention.entropy_coding import cdf, prediction, range_coder  # noqa: E402
from gmm_attention.entropy_coding.quantization import integer_arrays  # noqa: E402

STAGES = {
    "hyper_synthesis": [(prediction.Prediction, "phi")],
    "layers": [(prediction.ImagePrediction, name) for name in ("hyper_part", "mixtures")],
    "counts": [(cdf, "counts")],
    "intervals": [(cdf, name) for name in ("first_intervals", "tail_intervals")],
    "tables": [(cdf, name) for name in ("first_tables", "tail_tables")],
    "z": [(latents, "_z_intervals"), (latents, "_decode_z")],
    "symbols": [(range_coder.Decoder, name) for name in ("symbols", "escapes", "charge")],
}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=15, help="of each direction (default 15)")
    parser.add_argument("--num_filters", type=int, default=128, help="default 128")
    runs, num_filters = vars(parser.parse_args(argv)).values()

    model = prediction.Prediction(integer_arrays(random_arrays(num_filters)))
    rng = np.random.default_rng(0)
    y_hat = np.rint(rng.laplace(0, 1, [32, 48, num_filters])).astype(np.int32)
    z_symbols = rng.integers(-2, 3, [8, 12, num_filters])
    strings = latents.encode_latents(model, z_symbols, y_hat)
    print(json.dumps({
        "z_bytes": len(strings[1]),
        "y_bytes": len(strings[2]),
        "load": os.getloadavg()[0],
    }))  # fmt: skip
    report("encode", runs, lambda: latents.encode_latents(model, z_symbols, y_hat))
    report("decode", runs, lambda: latents.decode_latents(model, 8, 12, *strings))


def report(name, runs, function):
    """Prints the medians of the whole and of its stages; what no stage takes is 'other'."""
    whole, stages = [], {}
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


def stopwatch(function, times):
    """Wraps a function so that what it takes adds to the last of some times."""

    def timed(*args, **kwargs):
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            times[-1] += time.perf_counter() - start

    return timed


if __name__ == "__main__":
    main()
