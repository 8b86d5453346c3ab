"""Compares Adam and Muon: validation loss over steps and over seconds.

    python benchmarks/optimizers.py PHOTOGRAPHS VALIDATION --output docs/optimizers

Each trains a new network on the same crops. They take turns of 25 steps in one process, so that
the load of the machine affects both alike. Each learning rate falls in half a cosine over the
optimizer's own number of steps. Writes optimizers.csv with a row for each validation, to which
later commands with other seeds or other N add theirs, and the plot optimizers.png. Prints the final
results of each optimizer, and after which share of Adam's steps and seconds Muon was as good as
Adam at its end.

Validation measures the middle 256x256 of each photograph, with rounded latents. Seconds are those
of training steps only.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Sequence

# Before TensorFlow, which reads what this package sets in the environment.
from gmm_attention.files import append_row, make_folder, read_rows
from gmm_attention.image_folders import find_images
from gmm_attention.images import read_image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from training import cpu_model  # noqa: E402

from gmm_attention.training import recipe, step  # noqa: E402
from gmm_attention.training.data import Batches, Photographs  # noqa: E402
from gmm_attention.training.loop import validation_loss  # noqa: E402

TURN = 25
SIDE = 256
RATES = {"adam": 1e-3, "muon": recipe.MUON_LEARNING_RATE}


# (N, seed, optimizer) -> rows of optimizers.csv
Runs = dict[tuple[int, int, str], list[dict[str, float]]]


class Contestant:
    """The run of one optimizer.

    Attributes:
      recipe: Recipe.
      steps: number of steps taken so far.
      seconds: time that they took.
    """

    def __init__(self, settings: recipe.Recipe, photographs: Photographs) -> None:
        self.recipe = settings
        tf.keras.utils.set_random_seed(settings.seed)
        network = settings.num_filters, settings.num_mixtures, settings.attention
        self._step = step.TrainStep(
            step.build_model(*network, settings.precision, settings.optimizer),
            step.build_model(*network),
            settings.metric,
            settings.average_decay,
            settings.clip_norm,
            optimizer=settings.optimizer,
        )
        self._batches = Batches(photographs, settings.batch, settings.seed, workers=1)
        self.steps, self.seconds = 0, 0.0

    def train(self, count: int) -> None:
        """Takes `count` steps, or as many as are left."""
        for i in range(self.steps, min(self.steps + count, self.recipe.steps)):
            images = next(self._batches)
            begin = time.perf_counter()
            arguments = [self.recipe.seed, i], self.recipe.rate_at(i), self.recipe.lmbda
            float(self._step(images, *arguments)["loss"])
            # The first step is not counted, since it includes TensorFlow's compilation.
            self.seconds += time.perf_counter() - begin if i else 0
            self.steps += 1

    def validate(self, images: Sequence[np.ndarray]) -> dict[str, float]:
        """Mean loss, PSNR (dB) and bpp over photographs, uint8 [SIDE, SIDE, 3] each."""
        rows = []
        for image in images:
            measures, _ = self._step.validate(image)
            bpp = measures["bpp_y"] + measures["bpp_z"]
            rows.append([validation_loss(self.recipe, measures), measures["psnr"], bpp])
        return dict(zip(("loss", "psnr", "bpp"), np.mean(rows, axis=0)))

    def close(self) -> None:
        """Ends the threads that make batches."""
        self._batches.close()


def middle(image: np.ndarray) -> np.ndarray:
    """The middle of an image, uint8 [SIDE, SIDE, 3]."""
    top, left = ((side - SIDE) // 2 for side in image.shape[:2])
    return image[top:, left:][:SIDE, :SIDE]


def compete(
    contestants: Sequence[Contestant], images: Sequence[np.ndarray], validations: int, path: str
) -> None:
    """Trains all contestants to the end, in turns, and appends a row for each validation.

    Args:
      contestants: list of Contestant.
      images: list of uint8 [SIDE, SIDE, 3] to validate on.
      validations: number of validations over a run.
      path: of the CSV file.
    """
    while any(c.steps < c.recipe.steps for c in contestants):
        for contestant in contestants:
            settings, every = contestant.recipe, contestant.recipe.steps // validations
            before = contestant.steps
            contestant.train(TURN)
            ended = before < contestant.steps == settings.steps
            if ended or contestant.steps // every > before // every:
                row = {
                    "num_filters": settings.num_filters,
                    "seed": settings.seed,
                    "optimizer": settings.optimizer,
                    "precision": settings.precision,
                    "of_steps": settings.steps,
                    "step": contestant.steps,
                    "seconds": f"{contestant.seconds:.1f}",
                }
                means = contestant.validate(images)
                append_row(path, {**row, **{name: f"{v:.5g}" for name, v in means.items()}})


def by_run(path: str) -> Runs:
    """Reads a CSV file that `compete` wrote."""
    runs: Runs = {}
    for row in read_rows(path)[1]:
        key = int(row["num_filters"]), int(row["seed"]), row["optimizer"]
        numbers = {name: float(row[name]) for name in ("step", "seconds", "loss", "psnr", "bpp")}
        runs.setdefault(key, []).append(numbers)
    return runs


def print_results(runs: Runs) -> None:
    """Prints the end of each run, and when it was as good as Adam's; see `by_run`."""
    print("N, seed, optimizer: steps, s a step, loss, PSNR (dB), bpp")
    for (num_filters, seed, optimizer), rows in runs.items():
        last = rows[-1]
        print(
            f"{num_filters}, {seed}, {optimizer}: {last['step']:.0f}, "
            f"{last['seconds'] / last['step']:.3f}, {last['loss']:.3f}, {last['psnr']:.2f}, "
            f"{last['bpp']:.3f}"
        )
    for (num_filters, seed, optimizer), rows in runs.items():
        adam = runs.get((num_filters, seed, "adam"))
        if optimizer == "adam" or not adam:
            continue
        first = next((row for row in rows if row["loss"] <= adam[-1]["loss"]), None)
        if first:
            print(
                f"N = {num_filters}, seed {seed}: {optimizer} is as good as adam at its end after "
                f"{first['step'] / adam[-1]['step']:.2f} of its steps and "
                f"{first['seconds'] / adam[-1]['seconds']:.2f} of its seconds"
            )


def plot(runs: Runs, path: str) -> None:
    """Plots the validation loss over steps and over seconds; see `by_run`."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    styles = ("-", "--", ":")
    widths, seeds = (sorted({key[i] for key in runs}) for i in (0, 1))
    for (num_filters, seed, optimizer), rows in sorted(runs.items()):
        shown = [row for row in rows if row["loss"] <= 4]
        color = {"adam": "tab:orange", "muon": "tab:blue"}[optimizer]
        color = color if num_filters == widths[0] else {"tab:orange": "tab:red"}.get(color, "k")
        label = f"{optimizer.capitalize()}, N = {num_filters}" if seed == seeds[0] else None
        for axis, name in zip(axes, ("step", "seconds")):
            values = [row[name] for row in shown]
            style = styles[seeds.index(seed) % 3]
            axis.plot(values, [row["loss"] for row in shown], style, color=color, label=label)
    for axis, name in zip(axes, ("steps", "seconds of training")):
        axis.set_xlabel(name)
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("loss of validation")
    axes[0].legend()
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", help="folder of photographs to learn from")
    parser.add_argument("validation", help="folder of other photographs to validate on")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--num-filters", type=int, default=32, metavar="N")
    parser.add_argument("--adam-steps", type=int, default=5000, metavar="COUNT")
    parser.add_argument("--muon-steps", type=int, default=2500, metavar="COUNT")
    parser.add_argument("--validations", type=int, default=20, metavar="COUNT")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    base = recipe.Recipe(
        lmbda=0.0075,
        num_filters=args.num_filters,
        crop=128,
        schedule="cosine",
        warm_up=50,
        average_decay=0.998,
        precision=args.precision,
        seed=args.seed,
    )
    make_folder(args.output)
    path = os.path.join(args.output, "optimizers.csv")
    if any(key[:2] == (args.num_filters, args.seed) for key in by_run(path)):
        parser.error(f"{path} has N = {args.num_filters}, seed {args.seed} already")
    photographs = Photographs([args.photographs], base.crop, 3 * 2**30)
    found = [read_image(path) for path, _ in find_images(args.validation).images]
    images = [middle(image) for image in found if min(image.shape[:2]) >= SIDE]
    print(f"{cpu_model()}, {os.cpu_count()} cores; {args.precision}; {len(images)} to validate on")
    steps = {"adam": args.adam_steps, "muon": args.muon_steps}
    contestants = [
        Contestant(
            dataclasses.replace(base, optimizer=name, steps=count, learning_rate=RATES[name]),
            photographs,
        )
        for name, count in steps.items()
    ]
    try:
        compete(contestants, images, args.validations, path)
    finally:
        for contestant in contestants:
            contestant.close()
    runs = by_run(path)
    print_results(runs)
    plot(runs, os.path.join(args.output, "optimizers.png"))


if __name__ == "__main__":
    main()
