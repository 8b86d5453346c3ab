"""Times entropy coding, from latents to strings and back: one JSON line for each setting.

    python benchmarks/entropy_coding.py
    python benchmarks/entropy_coding.py --coders python package
    python benchmarks/entropy_coding.py --threads 1 2 --busy 1

A setting is a direction, a coder and a number of BLAS threads; the settings take turns, so that
what else the machine does falls on all of them. The coders are our own in Python and the package
range-coder; as the product decodes with the package where there is one and encodes without it,
these are the default. The product computes on one BLAS thread.

The latents have the shape of a 768x512 image's at 128 filters; the weights are random, y is
Laplacian of scale 1, all channels are live. Times are medians in milliseconds, except `least` and
`most`. A first line gives the strings' lengths in bytes and the machine's load average before the
first run: on a machine that does other work, --busy processes aside, the times say little.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from threadpoolctl import ThreadpoolController

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "entropy_coding")]

from integer_model import random_arrays  # noqa: E402

from gmm_attention.codec import wavefront  # noqa: E402
from gmm_attention.entropy_coding import (  # noqa: E402
    cdf,
    integer_model,
    python_streams,
    range_coder,
)
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


# Ends with its parent, whatever that one dies of.
HOLD_A_CORE = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    option = parser.add_argument
    option("--runs", type=int, default=15, help="runs of each setting (default 15)")
    option("--num_filters", type=int, default=128, help="N (default 128)")
    option(
        "--coders",
        nargs="+",
        choices=["python", "package"],
        default=["product"],
        help="range coders to compare (default: what the product uses)",
    )
    option(
        "--threads",
        type=int,
        nargs="+",
        default=[1],
        help="numbers of BLAS threads to compare (default 1)",
    )
    option(
        "--busy",
        type=int,
        default=0,
        metavar="COUNT",
        help="other processes that each hold a core meanwhile (default 0)",
    )
    args = parser.parse_args(argv)

    model = integer_model.IntegerEntropyModel(integer_arrays(random_arrays(args.num_filters)))
    rng = np.random.default_rng(0)
    y_hat = np.rint(rng.laplace(0, 1, [32, 48, args.num_filters])).astype(np.int32)
    z_symbols = rng.integers(-2, 3, [8, 12, args.num_filters])
    strings = wavefront.encode_latents(model, z_symbols, y_hat)
    print(json.dumps({
        "z_bytes": len(strings[1]),
        "y_bytes": len(strings[2]),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "busy": args.busy,
        "load": os.getloadavg()[0],
    }))  # fmt: skip
    functions: dict[str, Callable[[], Any]] = {
        "encode": lambda: wavefront.encode_latents(model, z_symbols, y_hat),
        "decode": lambda: wavefront.decode_latents(model, 8, 12, *strings),
    }
    settings = [
        (direction, coder, threads)
        for direction in functions
        for coder in args.coders
        for threads in args.threads
    ]
    runs: list[list[dict[str, float]]] = [[] for _ in settings]
    blas = ThreadpoolController()
    with busy(args.busy), stopwatches() as spent:
        for _ in range(args.runs):
            for (direction, coder, threads), times in zip(settings, runs):
                with using(coder), blas.limit(limits=threads, user_api="blas"):
                    spent.update(dict.fromkeys(spent, 0.0))
                    start = time.perf_counter()
                    functions[direction]()
                    times.append({"total": time.perf_counter() - start, **spent})
    for setting, times in zip(settings, runs):
        report(setting, times)


def report(setting: tuple[str, str, int], runs: list[dict[str, float]]) -> None:
    """Prints the median times of a setting and of its stages; 'other' is the rest."""
    medians = {stage: statistics.median(times[stage] for times in runs) for stage in runs[0]}
    totals = [times["total"] for times in runs]
    rest = 2 * medians["total"] - sum(medians.values())
    seconds = {
        "median": medians.pop("total"),
        "least": min(totals),
        "most": max(totals),
        **medians,
        "other": rest,
    }
    figures = {stage: round(1000 * time, 1) for stage, time in seconds.items() if time}
    print(json.dumps({**dict(zip(("direction", "coder", "threads"), setting)), **figures}))


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Has so many other processes hold a core each."""
    processes = [subprocess.Popen([sys.executable, "-c", HOLD_A_CORE]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def using(coder: str) -> Iterator[None]:
    """Puts a range coder in the place of the product's."""
    with contextlib.ExitStack() as stack:
        if coder == "python":
            reader = python_streams.reader
            stack.enter_context(mock.patch.object(range_coder, "reader", reader))
        if coder == "package":
            import package_encoder

            from gmm_attention.entropy_coding import package_streams

            reader = package_streams.reader
            stack.enter_context(mock.patch.object(range_coder, "reader", reader))
            stack.enter_context(mock.patch.object(range_coder, "encode", package_encoder.encode))
        yield


@contextlib.contextmanager
def stopwatches() -> Iterator[dict[str, float]]:
    """Yields a dict to whose entries the functions of each stage add the seconds that they take."""
    spent = dict.fromkeys(STAGES, 0.0)
    with contextlib.ExitStack() as stack:
        for stage, functions in STAGES.items():
            for owner, attribute in functions:
                timed = stopwatch(getattr(owner, attribute), spent, stage)
                stack.enter_context(mock.patch.object(owner, attribute, timed))
        yield spent


def stopwatch(function: Callable[..., Any], spent: dict[str, float], stage: str) -> Callable:
    """Wraps a function so that each call adds its seconds to the stage's."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[stage] += time.perf_counter() - start

    return timed


if __name__ == "__main__":
    main()
