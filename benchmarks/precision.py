"""How much bfloat16 changes the loss: one training state and the same batches, both ways.

    python benchmarks/precision.py runs/NAME PHOTOGRAPHS

Prints the mean and the largest relative difference between the losses of a batch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402

from gmm_attention.training import recipe, step  # noqa: E402
from gmm_attention.training.data import Batches, Photographs  # noqa: E402
from gmm_attention.training.run_folder import RunFolder  # noqa: E402

BATCHES = 30


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a run of train.py")
    parser.add_argument("photographs", help="folder of photographs")
    args = parser.parse_args(argv)
    arrays, settings = RunFolder(args.run).load_state()
    trained = recipe.from_settings(settings)
    photographs = Photographs([args.photographs], trained.crop, 2**30)
    # Another seed than that of the run, for crops that it was not trained on.
    with Batches(photographs, trained.batch, trained.seed + 1) as batches:
        images = [next(batches) for _ in range(BATCHES)]
    network = trained.num_filters, trained.num_mixtures, trained.attention
    losses = []
    for precision in ("float32", "bfloat16"):
        model = step.build_model(*network, precision)
        train_step = step.TrainStep(model, step.build_model(*network), trained.metric)
        train_step.restore(arrays, args.run)
        # At a learning rate of 0 the weights stay the same.
        steps = (train_step(x, [0, i], 0.0, trained.lmbda) for i, x in enumerate(images))
        losses.append(np.array([float(metrics["loss"]) for metrics in steps]))
    change = losses[1] / losses[0] - 1
    print(f"bfloat16 / float32: {change.mean():+.3%} on average, {abs(change).max():.3%} at most")


if __name__ == "__main__":
    main()
