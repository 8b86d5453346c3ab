"""A folder of photographs to a training checkpoint: the paper's loss, Adam, a moving average."""

import argparse
import math
import sys
import time

WARM_UP = 0.02


def learning_rate(progress, peak):
    """Linear warm-up, then half a cosine down to a hundredth of the peak; progress in [0, 1]."""
    if progress < WARM_UP:
        return peak * progress / WARM_UP
    return peak * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", required=True, metavar="DIR", help="folder of photographs")
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="where weights go")
    parser.add_argument("--lambda", dest="lmbda", type=float, required=True, help="of the loss")
    parser.add_argument("--metric", choices=("mse", "ms-ssim"), default="mse", help="distortion")
    parser.add_argument("--num-filters", type=int, default=128, help="N of the paper (128)")
    parser.add_argument("--crop", type=int, default=256, help="side of a crop in pixels (256)")
    parser.add_argument("--batch", type=int, default=8, help="crops in a step (8)")
    parser.add_argument("--minutes", type=float, required=True, help="time to train for")
    parser.add_argument(
        "--learning-rate", type=float, default=1e-4, help="Adam's, at its highest (1e-4)"
    )
    parser.add_argument("--init-from", metavar="DIR", help="checkpoint whose weights to start from")
    return parser.parse_args(argv)


def train(args):
    from gmm_attention import checkpoints
    from gmm_attention.model import variables
    from gmm_attention.training import data
    from gmm_attention.training.step import TrainStep

    images = data.read_photographs(args.train, args.crop)
    model = variables.build_model(args.num_filters, num_mixtures=3, attention=True)
    if args.init_from:
        variables.assign(model, checkpoints.load(args.init_from)[0], args.init_from)
    step = TrainStep(model, args.metric)
    batches = data.batches(images, args.batch, args.crop, seed=0)
    print(f"{len(images)} photographs", flush=True)
    start, count, progress, sums = time.monotonic(), 0, 0.0, {}
    while progress < 1:
        progress = min((time.monotonic() - start) / (60 * args.minutes), 1)
        rate = learning_rate(progress, args.learning_rate)
        metrics = step(next(batches), [0, count], rate, args.lmbda)
        count += 1
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0) + float(value)
        if count % 100 == 0 or progress == 1:
            means = (f"{name} {value / (count % 100 or 100):.5g}" for name, value in sums.items())
            print(f"step {count} ({progress:.1%})", *means, flush=True)
            sums = {}
        if count % 1000 == 0 or progress == 1:
            settings = {
                "num_filters": args.num_filters,
                "num_mixtures": 3,
                "attention": True,
                "metric": args.metric,
                "lambda": args.lmbda,
                "steps": count,
            }
            arrays = {name: average.numpy() for name, average in step.averages.items()}
            checkpoints.save(args.checkpoint, arrays, settings)


def main(argv=None):
    from gmm_attention.errors import CodecError

    args = parse(argv)
    try:
        train(args)
    except CodecError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
