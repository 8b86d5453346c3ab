"""Trains with an exported step under JAX, without TensorFlow: `python DIR/runner.pyz --help`.

It needs Python 3.11 or newer with numpy, Pillow and JAX. This package need not be installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import time
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from gmm_attention.cli import number, positive, run_main
from gmm_attention.errors import ImageError, TrainingError
from gmm_attention.training import options, recipe, running, state
from gmm_attention.training.loop import Loop
from gmm_attention.training.recipe import Recipe
from gmm_attention.training.run_folder import RunFolder
from gmm_attention.training.xla import files

if TYPE_CHECKING:
    from gmm_attention.training.xla.jax_step import Program

DESCRIPTION = """\
Trains a model with the step that train.py --export wrote into this file's folder, or goes on with a
run that was stopped or killed. A new run begins at --state, or else at the state beside this file.
On the machine of the export, train.py --import takes the result."""


def _parser(defaults: Recipe) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    how = parser.add_argument_group("how")
    options.add_schedule_options(how, defaults)
    how.add_argument(
        "--convolutions",
        choices=("float32", "tf32"),
        default="tf32",
        help="number format of those that were not exported in bfloat16 (train.py --export with "
        "--precision bfloat16): float32; or tf32, the device's default (%(default)s)",
    )
    run = parser.add_argument_group("the run")
    add = run.add_argument
    add("--output", metavar="DIR", help="folder of the run (run, beside this file)")
    options.add_run_options(run)
    add("--pieces", metavar="DIR", help="also write the last state here, as files of at most 15 MB")
    add(
        "--half",
        action="store_true",
        help="with --pieces: write only the weights and their average, as 16-bit floats",
    )
    check = parser.add_argument_group("checking a new machine")
    check.add_argument(
        "--check",
        type=number(int, 2),
        metavar="STEPS",
        help="train on noise for so many steps at each precision, and print time, memory and loss",
    )
    check.add_argument(
        "--peak-tflops",
        type=positive,
        metavar="TFLOPS",
        help="peak speed of the device, to compare with",
    )
    return parser


def _jax_step() -> ModuleType:
    """Imports the module that needs JAX. Raises TrainingError."""
    try:
        from gmm_attention.training.xla import jax_step
    except ImportError as error:
        raise TrainingError(
            f"JAX is missing or of a version that does not fit ({error}); for an NVIDIA GPU: "
            "pip install 'jax[cuda13]' pillow, in a Python of 3.11 or newer"
        ) from error
    return jax_step


def _train(args: argparse.Namespace, base: Recipe, directory: str) -> int:
    """Trains; returns the exit status."""
    precision = "bfloat16" if base.precision == "bfloat16" else args.convolutions
    settings = dataclasses.replace(options.apply(args, base), precision=precision)
    photographs = running.photographs(args, settings.crop)
    validation = running.validation(args)
    folder = RunFolder(args.output or os.path.join(directory, "run"))
    folder.refuse_foreign(args.overwrite)
    program: Program = _jax_step().Program(directory, args.convolutions)
    validation = _middles(program, validation)
    loop = Loop(
        program, settings, photographs, folder, options.intervals(args), validation, args.workers
    )
    if not folder.has_state():
        running.begin_elsewhere(loop, args.state or directory)
    print(f"compiles the step for {_name(program.device)} ...", flush=True)
    begin = time.monotonic()
    program.compiled  # noqa: B018
    print(f"compiled in {time.monotonic() - begin:.0f} s", flush=True)
    folder.make()
    status = running.run(
        loop,
        lambda _: f"Back home: python train.py --import {folder.path} --output runs/NAME",
    )
    if args.pieces:
        arrays = program.arrays()
        state.save_pieces(args.pieces, state.half(arrays) if args.half else arrays, loop.settings())
    return status


def _middles(
    program: Program, validation: Sequence[tuple[str, np.ndarray]]
) -> list[tuple[str, np.ndarray]]:
    """Cuts photographs to the part that the program measures, and skips those that are smaller.

    Args:
      program: Program.
      validation: list of (name, uint8 [H, W, 3]).

    Raises:
      ImageError: all photographs are smaller.
    """
    middles, small = [], []
    for name, image in validation:
        try:
            middles.append((name, program.middle(image, name)))
        except ImageError as error:
            small.append(error)
    if validation and not middles:
        raise small[0]
    if small:
        print(f"passed over {len(small)} of {len(validation)} to validate on, first {small[0]}")
    return middles


def _check(args: argparse.Namespace, base: Recipe, directory: str) -> int:
    """Prints speed, memory and losses at each precision, before a long run on a new machine."""
    module = _jax_step()
    import jax

    arrays, _ = state.load(args.state or directory)
    print(f"JAX {jax.__version__}, {_name(jax.devices()[0])}")
    print(f"N {base.num_filters}, batch {base.batch}, crop {base.crop}")
    losses = {}
    for precision in module.PRECISIONS:
        program = module.Program(directory, precision)
        begin = time.monotonic()
        program.lowered  # noqa: B018
        middle = time.monotonic()
        compiled = program.compiled
        end = time.monotonic()
        print(f"\n{precision}: compiled in {end - middle:.1f} s, after {middle - begin:.1f} s")
        _print_program(compiled)
        program.restore(arrays, directory)
        losses[precision], seconds = _timed_steps(program, args.check, base)
        print(f"{1000 * seconds:.1f} ms per step, {base.batch / seconds:.4g} images/s")
        # Counted before compilation, which replaces convolutions by calls of cuDNN that count as 0.
        flops = (program.lowered.cost_analysis() or {}).get("flops")
        if flops:
            rate = flops / seconds / 1e12
            share = f", {rate / args.peak_tflops:.1%} of the peak" if args.peak_tflops else ""
            print(f"{flops / 1e12:.4g} TFLOP per step, {rate:.4g} TFLOP/s{share}")
    print("\nloss at step, " + ", ".join(losses))
    for i, row in enumerate(zip(*losses.values())):
        print(i, *(f"{loss:.7g}" for loss in row))
    return 0


def _name(device: Any) -> str:
    return f"{device.device_kind} ({device.platform})"


def _print_program(compiled: Any) -> None:
    """Prints the memory of a jax.stages.Compiled, and how often it uses certain operations."""
    memory = compiled.memory_analysis()
    if memory is not None:
        sizes = {kind: getattr(memory, f"{kind}_size_in_bytes") for kind in
                 ("argument", "output", "alias", "temp", "generated_code")}  # fmt: skip
        print("MiB:", ", ".join(f"{kind} {size / 2**20:.1f}" for kind, size in sizes.items()))
    text = compiled.as_text()
    calls: dict[str, int] = {}
    for target in re.findall(r'custom_call_target="([^"]*)"', text):
        calls[target] = calls.get(target, 0) + 1
    for operation in ("convolution", "conditional", "fft", "while"):
        calls[operation] = len(re.findall(rf"[\]\}})] {operation}\(", text))
    print("operations:", ", ".join(f"{name} {count}" for name, count in calls.items()))


def _timed_steps(program: Program, steps: int, base: Recipe) -> tuple[list[float], float]:
    """Trains on noise.

    Returns:
      The loss of each step; mean seconds of a step, without the first.
    """
    rng = np.random.default_rng(0)
    shape = (program.batch, program.crop, program.crop, 3)
    batches = [rng.integers(0, 256, shape, np.uint8) for _ in range(2)]
    losses = []
    for i in range(steps):
        metrics = program(batches[i % 2], [0, i], base.learning_rate, base.lmbda)
        losses.append(metrics["loss"])
        if i == 0:
            float(losses[0])
            begin = time.monotonic()
    numbers = [float(loss) for loss in losses]  # waits for all steps
    return numbers, (time.monotonic() - begin) / (steps - 1)


def _run(argv: Sequence[str] | None, directory: str) -> int:
    description, _ = files.load(directory)
    base = dataclasses.replace(
        recipe.from_settings({**description["network"], **description["settings"]}),
        batch=description["batch"],
        crop=description["crop"],
    )
    parser = _parser(base)
    args = parser.parse_args(argv)
    if args.check:
        return _check(args, base, directory)
    if not args.train:
        parser.error("--train or --check is needed")
    return _train(args, base, directory)


def main(directory: str, argv: Sequence[str] | None = None) -> int:
    """The program runner.pyz.

    Args:
      directory: folder of the exported step, in which runner.pyz lies.
      argv: arguments; None for those of the command line.

    Returns:
      The exit status.
    """
    return run_main(lambda: _run(argv, directory), quiet=False)
