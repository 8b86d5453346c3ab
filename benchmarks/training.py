"""Speed of training on the CPU: this project and CompressAI take turns, in images per second.

    python benchmarks/training.py [--compressai-python ENVIRONMENT/bin/python] [--rounds 3]

A step includes everything that training does with a batch: the forward pass with noise, the loss
lambda * 255^2 * MSE + bpp, the backward pass, gradient clipping, Adam, and Adam for the quantiles.
Our step also updates the moving average of the weights, and with --optimizer muon it moves the
kernels by Muon. CompressAI's step is that of its examples/train.py, for its cheng2020-attn. Images
are random and smooth, weights are random: the speed depends on neither.

Each contestant is a process of its own. It is asked for one step at a time while the others wait,
so that all of them run under the same load. Prints for each the median seconds of a step, the
shortest and longest, images per second, and the speed of its convolutions (two operations for a
multiply-add, three times those of the forward pass) as a share of the speed of a float32 matrix
product that is measured between the steps.

CompressAI needs an environment of its own, with PyTorch:

    python3.11 -m venv ENVIRONMENT
    ENVIRONMENT/bin/pip install torch==2.13.0 compressai==1.2.8

With a CPU build of torch, importing compressai fails: torchvision from the registry is built for
CUDA, and its operator `torchvision::nms` is missing. An older torchvision is enough, since
compressai only needs its names. It gives a warning about `image.so` that does not matter:

    ENVIRONMENT/bin/pip install --no-deps torchvision==0.15.2
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gmm_attention.model import Cheng2020
    from gmm_attention.training.step import TrainStep

LMBDA = 0.013
LEARNING_RATE = 1e-4
PEAK_SIDE = 4096
PRECISIONS = ("float32", "bfloat16")

# Thread pools keep their defaults. A process that waits for its turn uses hardly any processor time
# (at most 10 ms, directly after its step), and OMP_WAIT_POLICY=PASSIVE would slow down PyTorch.
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

# By patterns of our layers' names: the side, in image pixels, of the square for which a layer
# applies its kernel once. The first pattern that matches counts; the number in the name is the
# index of the side.
PIXELS_A_SIDE = {
    r"analysis/Block_(.)/layer_[01]/": (1, 2, 4, 8),
    r"analysis/Block_(.)/": (2, 4, 8, 16),
    r"analysis/NLAB_(.)/": (4, 16),
    r"synthesis/NLAB_(.)/": (16, 4),
    r"synthesis/Block_(.)/layer_3/": (8, 4, 2),
    r"synthesis/Block_(.)/": (16, 8, 4, 2),
    r"hyper_analysis/layer_(.)/": (16, 16, 32, 32, 64),
    r"hyper_synthesis/layer_(.)/": (64, 64, 32, 32, 16),
    r"entropy_parameter/()": (16,),
}


def smooth_images(batch: int, crop: int) -> np.ndarray:
    """uint8 [batch, crop, crop, 3]: random colours every 16 pixels, interpolated in between."""
    colours = np.random.default_rng(0).uniform(0, 255, [batch, crop // 16 + 1, crop // 16 + 1, 3])
    knots = np.eye(colours.shape[1])
    linear = np.stack([np.interp(np.arange(crop) / 16, range(len(knots)), k) for k in knots])
    return np.einsum("nabc,ai,bj->nijc", colours, linear, linear).astype(np.uint8)


def build_step(num_filters: int, precision: str, optimizer: str) -> tuple[Cheng2020, TrainStep]:
    """Builds a model of this project and its training step."""
    from gmm_attention.training import step

    model = step.build_model(num_filters, 3, True, precision, optimizer)
    average_model = step.build_model(num_filters, 3, True, optimizer=optimizer)
    return model, step.TrainStep(model, average_model, "mse", optimizer=optimizer)


def multiply_adds(model: Cheng2020) -> float:
    """Multiply-adds per image pixel in a forward pass: all convolutions, those of GDN included."""
    from gmm_attention.model import variables

    total = 0.0
    for name, variable in variables.by_name(model).items():
        if name.endswith(("/kernel", "/kernel_rdft", "/reparam_gamma")):
            matches = ((re.match(pattern, name), s) for pattern, s in PIXELS_A_SIDE.items())
            match, sides = next((m, s) for m, s in matches if m)
            total += variable.shape.num_elements() / sides[int(match[1] or 0)] ** 2
    return total


def matrix_product(precision: str) -> Callable[[], float]:
    """Returns a function that multiplies two matrices of PEAK_SIDE x PEAK_SIDE."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.stateless_normal([PEAK_SIDE, PEAK_SIDE], [0, 0]), precision)
    product = tf.function(lambda: tf.reduce_sum(matrix @ matrix))
    return lambda: float(product())


def ours(
    num_filters: int, crop: int, batch: int, precision: str, optimizer: str
) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    """The contestant of this project.

    Returns:
      facts: dict with `versions` and `multiply_adds`.
      calls: dict of name to function: a training step, and a matrix product to compare with.
    """
    # Imports gmm_attention before TensorFlow, which reads what that sets in the environment.
    model, train_step = build_step(num_filters, precision, optimizer)
    import tensorflow as tf

    images = smooth_images(batch, crop)
    count = 0

    def step():
        nonlocal count
        count += 1
        float(train_step(images, [0, count], LEARNING_RATE, LMBDA)["loss"])

    facts = {"versions": f"tensorflow {tf.__version__}", "multiply_adds": multiply_adds(model)}
    return facts, {"step": step, "product": matrix_product("float32")}


def compressai(
    num_filters: int, crop: int, batch: int
) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    """As `ours`, for CompressAI, with a step that follows its examples/train.py."""
    from importlib.metadata import version

    import torch
    from compressai.layers import GDN
    from compressai.losses import RateDistortionLoss
    from compressai.models import Cheng2020Attention

    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    model = Cheng2020Attention(num_filters)
    rate_distortion = RateDistortionLoss(LMBDA)
    named = dict(model.named_parameters())
    quantiles = [p for name, p in named.items() if name.endswith(".quantiles")]
    weights = [p for name, p in named.items() if not name.endswith(".quantiles")]
    optimizer = torch.optim.Adam(weights, LEARNING_RATE)
    auxiliary_optimizer = torch.optim.Adam(quantiles, 1e-3)
    images = smooth_images(batch, crop).transpose(0, 3, 1, 2)
    x = torch.tensor(np.ascontiguousarray(images), dtype=torch.float32) / 255

    def step():
        optimizer.zero_grad()
        auxiliary_optimizer.zero_grad()
        loss = rate_distortion(model(x), x)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        auxiliary_loss = model.aux_loss()
        auxiliary_loss.backward()
        auxiliary_optimizer.step()
        return loss.item()

    total = 0

    def count(module, inputs, output):
        nonlocal total
        kernel = module.gamma if isinstance(module, GDN) else module.weight
        total += kernel.numel() * output.shape[2] * output.shape[3]

    kinds = (torch.nn.Conv2d, GDN)
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        model(x[:1])
    for hook in hooks:
        hook.remove()
    versions = f"compressai {version('compressai')}, torch {torch.__version__}"
    return {"versions": versions, "multiply_adds": total / crop**2}, {"step": step}


def work(contestant: str, sizes: tuple[int, int, int], optimizer: str) -> None:
    """Runs a contestant: prints its facts, then the seconds of each call that is named on stdin."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stderr instead, so as not to mix with the answers
    if contestant == "CompressAI":
        facts, calls = compressai(*sizes)
    else:
        facts, calls = ours(*sizes, contestant, optimizer)
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        calls[line.strip()]()
        print(json.dumps(time.perf_counter() - begin), file=answers, flush=True)


def ask(process: subprocess.Popen, call: str | None = None) -> Any:
    """Names a call to a contestant's process, if one is given, and returns the next answer."""
    if call is not None:
        print(call, file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit(f"{' '.join(process.args)}: ended before its answer, see above")
    return json.loads(answer)


def compete(
    commands: Mapping[str, Sequence[str]], rounds: int, warm_ups: int
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Times steps of all contestants in turns, and matrix products in the first one's process.

    Args:
      commands: dict of name to the command of its process.
      rounds: number of timed steps of each.
      warm_ups: number of steps of each before, which do not count.

    Returns:
      facts: dict of name to facts, see `ours`.
      seconds: dict of name, and of "product", to a list of `rounds` times.
    """
    with contextlib.ExitStack() as stack:
        processes, facts = {}, {}
        for name, command in commands.items():
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **ENVIRONMENT},
            )
            processes[name] = stack.enter_context(process)
            facts[name] = ask(process)
        seconds: dict[str, list[float]] = {name: [] for name in [*processes, "product"]}
        for _ in range(warm_ups + rounds):
            for name, process in processes.items():
                seconds[name].append(ask(process, "step"))
            seconds["product"].append(ask(next(iter(processes.values())), "product"))
    return facts, {name: values[warm_ups:] for name, values in seconds.items()}


def print_results(
    facts: Mapping[str, Any], seconds: Mapping[str, list[float]], batch: int, crop: int
) -> None:
    """Prints what `compete` returned, for batches of crops of that size."""
    medians = {name: np.median(values) for name, values in seconds.items()}
    peak = 2 * PEAK_SIDE**3 / medians["product"]
    for name in facts:
        operations = 6 * facts[name]["multiply_adds"] * batch * crop**2
        print(
            f"{name} ({facts[name]['versions']}): {medians[name]:.3f} s a step "
            f"({min(seconds[name]):.3f} to {max(seconds[name]):.3f}), "
            f"{batch / medians[name]:.3f} images/s; {operations / 1e12:.4g} TFLOP a step, "
            f"{operations / medians[name] / peak:.1%} of the matrix product's speed"
        )
    print(
        f"float32 product of {PEAK_SIDE}x{PEAK_SIDE} matrices: {peak / 1e9:.0f} GFLOP/s "
        f"({medians['product']:.3f} s, {min(seconds['product']):.3f} to "
        f"{max(seconds['product']):.3f})"
    )
    for name in facts:
        if "CompressAI" in facts and name != "CompressAI":
            ratio = medians["CompressAI"] / medians[name]
            print(f"images/s, {name} / CompressAI: {ratio:.3f}")


def cpu_model() -> str:
    """The name of the processor, from /proc/cpuinfo."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return re.search(r"model name\s*: (.*)", file.read())[1]


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--compressai-python", help="Python that has compressai; without it, only ours is timed"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=["float32"],
        help="of analysis and synthesis; each precision given is a contestant",
    )
    parser.add_argument("--optimizer", choices=("adam", "muon"), default="adam", help="of ours")
    parser.add_argument("--num-filters", type=int, default=128)
    parser.add_argument("--crop", type=int, default=256, help="side in pixels, a multiple of 64")
    parser.add_argument("--batch", type=int, default=8, help="images in a step")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each contestant")
    parser.add_argument("--warm-ups", type=int, default=2, help="untimed steps before them")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.contestant:
        work(args.contestant, (args.num_filters, args.crop, args.batch), args.optimizer)
        return
    program = [os.path.abspath(__file__), *argv, "--contestant"]
    commands = {f"ours, {p}": [sys.executable, *program, p] for p in args.precision}
    if args.compressai_python:
        commands["CompressAI"] = [args.compressai_python, *program, "CompressAI"]
    print(
        f"{cpu_model()}, {os.cpu_count()} cores; N = {args.num_filters}, {args.batch} images of "
        f"{args.crop}x{args.crop}, {args.rounds} rounds after {args.warm_ups} untimed"
    )
    facts, seconds = compete(commands, args.rounds, args.warm_ups)
    print_results(facts, seconds, args.batch, args.crop)


if __name__ == "__main__":
    main(sys.argv[1:])
