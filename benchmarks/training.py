"""Training steps on the CPU, in images a second, this project and CompressAI taking turns.

    python benchmarks/training.py [--compressai-python ENVIRONMENT/bin/python] [--rounds 3]

A step is all that one batch takes in training: forward with noise, lambda * 255^2 * MSE + bpp,
backward, gradients clipped, Adam, and Adam again for the quantiles (here also the moving average
of the weights; CompressAI's is that of its examples/train.py, for its cheng2020-attn). Images are
random and smooth, weights random: speed does not depend on either.

Each contestant is a process of its own, asked for one step at a time while the others wait, so
that all meet the same machine in the same minutes. Prints the median seconds of a step, the
extremes, images a second, and the convolutions' operations (2 for a multiply-add, thrice the
forward pass) as a share of what a float32 matrix product reaches between the same steps.

CompressAI has its own environment, with PyTorch:

    python3.11 -m venv ENVIRONMENT
    ENVIRONMENT/bin/pip install torch==2.13.0 compressai==1.2.8

With a CPU build of torch beside the registry's torchvision, which is built for CUDA, importing
compressai fails for want of `torchvision::nms`. It needs only torchvision's names, and an older
one gives them (with a warning about `image.so` that does not matter):

    ENVIRONMENT/bin/pip install --no-deps torchvision==0.15.2
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import time

import numpy as np

LMBDA = 0.013
LEARNING_RATE = 1e-4
PEAK_SIDE = 4096
PRECISIONS = ("float32", "bfloat16")

# Thread pools keep their defaults: a process that waits its turn was measured to use no processor
# (10 ms at most, at once after its step), while OMP_WAIT_POLICY=PASSIVE slows PyTorch's steps.
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

# Pixels a side of the square for which a layer of ours applies its kernel once; the number in the
# name chooses among them. The first pattern that matches counts.
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


def smooth_images(batch, crop):
    """uint8 [batch, crop, crop, 3]: random colours 16 pixels apart, linear between them."""
    colours = np.random.default_rng(0).uniform(0, 255, [batch, crop // 16 + 1, crop // 16 + 1, 3])
    knots = np.eye(colours.shape[1])
    linear = np.stack([np.interp(np.arange(crop) / 16, range(len(knots)), k) for k in knots])
    return np.einsum("nabc,ai,bj->nijc", colours, linear, linear).astype(np.uint8)


def build_step(num_filters, precision):
    """A model of ours and its training step."""
    from gmm_attention.training import step

    bfloat16 = precision == "bfloat16"
    model, average_model = (step.build_model(num_filters, 3, True, bfloat16) for _ in range(2))
    return model, step.TrainStep(model, average_model, "mse")


def multiply_adds(model):
    """Multiply-adds of all convolutions of ours, GDN's among them, a pixel, forward."""
    from gmm_attention.model import variables

    total = 0.0
    for name, variable in variables.by_name(model).items():
        if name.endswith(("/kernel", "/kernel_rdft", "/reparam_gamma")):
            matches = ((re.match(pattern, name), s) for pattern, s in PIXELS_A_SIDE.items())
            match, sides = next((m, s) for m, s in matches if m)
            total += variable.shape.num_elements() / sides[int(match[1] or 0)] ** 2
    return total


def matrix_product(precision):
    """A function that multiplies two matrices of PEAK_SIDE x PEAK_SIDE."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.stateless_normal([PEAK_SIDE, PEAK_SIDE], [0, 0]), precision)
    product = tf.function(lambda: tf.reduce_sum(matrix @ matrix))
    return lambda: float(product())


def ours(num_filters, crop, batch, precision):
    """What it is, and its calls: a training step, and a matrix product to compare with."""
    import tensorflow as tf

    model, train_step = build_step(num_filters, precision)
    images = smooth_images(batch, crop)
    count = 0

    def step():
        nonlocal count
        count += 1
        float(train_step(images, [0, count], LEARNING_RATE, LMBDA)["loss"])

    facts = {"versions": f"tensorflow {tf.__version__}", "multiply_adds": multiply_adds(model)}
    return facts, {"step": step, "product": matrix_product("float32")}


def compressai(num_filters, crop, batch):
    """The same of CompressAI; its step follows its examples/train.py."""
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


def work(contestant, sizes):
    """A contestant's process: its facts to stdout, then the seconds of each call named on stdin."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    facts, calls = compressai(*sizes) if contestant == "CompressAI" else ours(*sizes, contestant)
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        calls[line.strip()]()
        print(json.dumps(time.perf_counter() - begin), file=answers, flush=True)


def ask(process, call=None):
    """The next answer of a contestant's process, once a call is named to it."""
    if call is not None:
        print(call, file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit(f"{' '.join(process.args)}: ended before its answer, see above")
    return json.loads(answer)


def compete(commands, rounds, warm_ups):
    """Has all contestants take their steps by turns, and the first of them matrix products.

    Args:
      commands: dict of name to the command of its process.

    Returns:
      dict of name to facts, and seconds: dict of name, and "product", to [rounds].
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
        seconds = {name: [] for name in [*processes, "product"]}
        for _ in range(warm_ups + rounds):
            for name, process in processes.items():
                seconds[name].append(ask(process, "step"))
            seconds["product"].append(ask(next(iter(processes.values())), "product"))
    return facts, {name: values[warm_ups:] for name, values in seconds.items()}


def print_results(facts, seconds, batch, crop):
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


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return re.search(r"model name\s*: (.*)", file.read())[1]


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--compressai-python", help="Python that has compressai; without, ours only"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=["float32"],
        help="of the operands of our convolutions; each of them is a contestant",
    )
    parser.add_argument("--num-filters", type=int, default=128)
    parser.add_argument("--crop", type=int, default=256, help="pixels a side, a multiple of 64")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each")
    parser.add_argument("--warm-ups", type=int, default=2, help="steps of each before, untimed")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.contestant:
        return work(args.contestant, (args.num_filters, args.crop, args.batch))
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
