"""Photographs to trained weights, by the paper's recipe."""

import argparse
import os
import sys

from gmm_attention.commands import batch
from gmm_attention.errors import TrainingError
from gmm_attention.training import options, recipe, state
from gmm_attention.training.loop import Loop
from gmm_attention.training.run_folder import RunFolder
from gmm_attention.training.state import STATE_FILE

DESCRIPTION = """\
Trains the paper's model on photographs, and goes on with a run that was stopped or killed.

    train.py --train photographs --lambda 0.015

writes runs/mse-0.015-n192 (the log, the last and the best weights, and all that the same command
needs to go on). The paper's ten points, for --point: mse-0.0016, mse-0.0032, mse-0.0075 (N = 128),
mse-0.015, mse-0.03, mse-0.045 (N = 192), ms-ssim-3, ms-ssim-12 (N = 128), ms-ssim-40, ms-ssim-120
(N = 192); ms-ssim-14 (N = 128) is the authors' published checkpoint."""

DEFAULTS = recipe.Recipe()


def _parser():
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_argument_group("what to train")
    add = what.add_argument
    add("--point", choices=recipe.POINTS, metavar="NAME", help="metric and lambda of the paper")
    add("--metric", choices=("mse", "ms-ssim"), help="distortion of the loss (mse)")
    add(
        "--num-filters",
        type=options.number(int, 8),
        metavar="N",
        help="channels of y, a multiple of 8 (as in the paper: 128, from lambda 0.015, or 40 for "
        "MS-SSIM, on 192)",
    )
    add(
        "--num-mixtures",
        type=options.number(int, 1, 5),
        metavar="K",
        help=f"Gaussians in each mixture ({DEFAULTS.num_mixtures})",
    )
    add("--attention", action=argparse.BooleanOptionalAction, help="with attention modules (yes)")
    add(
        "--init-from",
        metavar="PATH",
        help="weights to start from: a checkpoint such as runs/NAME/best, an exported model, or "
        "the prefix of a TF1 checkpoint; K may differ, and N be smaller. A run that goes on has "
        "its own",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--optimizer",
        choices=recipe.OPTIMIZERS,
        help="adam, as the paper; or muon, which moves kernels by Muon and the rest by Adam: less "
        f"than half of the steps, and a --learning-rate of {recipe.MUON_LEARNING_RATE:g} unless "
        f"it is given ({DEFAULTS.optimizer})",
    )
    options.add_schedule_options(how, DEFAULTS)
    add = how.add_argument
    add(
        "--batch",
        type=options.number(int, 1),
        metavar="COUNT",
        help=f"crops in a step, of all devices together ({DEFAULTS.batch})",
    )
    add(
        "--crop",
        type=options.number(int, 64),
        metavar="PIXELS",
        help=f"side of a crop, a multiple of 64 ({DEFAULTS.crop})",
    )
    add(
        "--clip",
        dest="clip_norm",
        type=options.number(float, 0),
        metavar="NORM",
        help=f"largest norm of the gradient, 0 for no limit ({DEFAULTS.clip_norm:g})",
    )
    add(
        "--average-decay",
        type=options.number(float, 0, 0.999999),
        metavar="SHARE",
        help="of the moving average of the weights, which validation and the codec take; 0 for "
        f"none ({DEFAULTS.average_decay})",
    )
    add(
        "--synthesis-input",
        choices=recipe.SYNTHESIS_INPUTS,
        help="what the synthesis learns from: y with noise, as in the paper, or rounded y, as it "
        f"decodes, for the cool-down; the rate keeps its noise ({DEFAULTS.synthesis_input})",
    )
    add(
        "--precision",
        choices=("float32", "bfloat16"),
        help="of analysis' and synthesis' convolutions: bfloat16 is faster on "
        f"processors and GPUs that have it ({DEFAULTS.precision})",
    )
    add("--xla", action="store_true", help="compile the step by XLA: for GPUs, slower on a CPU")
    run = parser.add_argument_group("the run")
    add = run.add_argument
    add(
        "--output",
        metavar="DIR",
        help="folder of the run (runs/METRIC-LAMBDA-nN)",
    )
    options.add_run_options(run)
    elsewhere = parser.add_argument_group("training by JAX on machines without TensorFlow")
    add = elsewhere.add_argument
    add(
        "--export",
        metavar="DIR",
        help="write the step as a program for XLA, the state of --output or a new one, and "
        "runner.pyz, which trains with them; needs no photographs",
    )
    add(
        "--half",
        action="store_true",
        help="write of that state only the weights and their average, as 16-bit floats",
    )
    add(
        "--validation-size",
        nargs=2,
        type=options.number(int, 64),
        default=(512, 512),
        metavar=("HEIGHT", "WIDTH"),
        help="of the photographs' middle that an exported program validates on, multiples of 64 "
        "(512 512)",
    )
    add(
        "--import",
        dest="import_from",
        metavar="DIR",
        help="take the state of runner.pyz, its folder or the pieces that it wrote, into --output",
    )
    return parser


def _recipe(args, parser):
    """The command line's Recipe; leaves by parser.error where it makes no sense."""
    metric, lmbda = args.metric, args.lmbda
    if args.point:
        point_metric, point_lmbda = recipe.POINTS[args.point]
        if metric not in (None, point_metric) or lmbda not in (None, point_lmbda):
            parser.error("--point gives metric and lambda; leave --metric and --lambda away")
        metric, lmbda = point_metric, point_lmbda
    if lmbda is None:
        parser.error("--lambda or --point is needed")
    metric = metric or DEFAULTS.metric
    num_filters = args.num_filters or recipe.paper_num_filters(metric, lmbda)
    if num_filters % 8:
        parser.error(f"--num-filters must be a multiple of 8, not {num_filters}")
    args.metric, args.lmbda, args.num_filters = metric, lmbda, num_filters
    if args.optimizer == "muon" and args.learning_rate is None:
        args.learning_rate = recipe.MUON_LEARNING_RATE
    result = options.apply(args, DEFAULTS)
    if result.crop % 64:
        parser.error(f"--crop must be a multiple of 64, not {result.crop}")
    if metric == "ms-ssim" and result.crop < 192:
        parser.error("--metric ms-ssim has five scales and needs a --crop of 192 or more")
    if any(side % 64 for side in args.validation_size):
        parser.error("--validation-size must be multiples of 64")
    if args.export and metric == "ms-ssim" and min(args.validation_size) < 192:
        parser.error("--metric ms-ssim needs a --validation-size of 192 or more")
    if args.half and not args.export:
        parser.error("--half is of --export")
    if args.state and args.init_from:
        parser.error("--state gives the weights; leave --init-from away")
    return result


def _strategy(batch_size, export):
    """The tf.distribute strategy for what is there: GPUs of this machine, machines of TF_CONFIG."""
    import tensorflow as tf

    if export:
        # A program traced for a GPU may hold calls of its libraries.
        tf.config.set_visible_devices([], "GPU")
        return tf.distribute.get_strategy()
    if "TF_CONFIG" in os.environ:
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"TF_CONFIG: {error}; it is JSON with the keys cluster and task"
            ) from error
    elif len(tf.config.list_logical_devices("GPU")) > 1:
        strategy = tf.distribute.MirroredStrategy()
    else:
        strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise TrainingError(
            f"--batch {batch_size} cannot be shared by {replicas} devices; give a multiple"
        )
    return strategy


def _train_step(settings, args):
    """A TrainStep by the recipe, at new weights or those of --init-from."""
    from gmm_attention.training import initial_weights, step

    arrays = initial_weights.read(args.init_from) if args.init_from else None
    network = settings.num_filters, settings.num_mixtures, settings.attention
    # An exported step is float32; its runner rounds operands itself.
    bfloat16 = settings.precision == "bfloat16" and not args.export
    model = step.build_model(*network, bfloat16, settings.optimizer)
    if arrays is not None:
        initial_weights.assign(model, arrays, args.init_from)
    return step.TrainStep(
        model,
        step.build_model(*network),
        settings.metric,
        settings.average_decay,
        settings.clip_norm,
        args.xla,
        settings.optimizer,
        settings.synthesis_input,
    )


def _next_command(weights):
    name = os.path.basename(os.path.dirname(os.path.abspath(weights)))
    return (
        f"Export a model for the encoder:\n  python -m gmm_attention.export {weights} models/{name}"
    )


def _train(args, settings):
    if args.import_from:
        return _import(args)
    name = f"{settings.metric}-{settings.lmbda:g}-n{settings.num_filters}"
    folder = RunFolder(args.output or os.path.join("runs", name))
    # What may be wrong is looked at before TensorFlow, which takes its time.
    photographs, validation = None, []
    if not args.export:
        photographs = options.photographs(args, settings.crop)
        validation = options.validation(args)
        folder.make()
    if args.init_from and folder.has_state():
        print(f"{folder.path} has a state already: --init-from is passed over")
        args.init_from = None
    if args.state and folder.has_state() and not args.export:
        print(f"{folder.path} has a state already: --state is passed over")
        args.state = None
    print("starts; the first step takes longest", flush=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    try:
        with _strategy(settings.batch, args.export).scope():
            tf.keras.utils.set_random_seed(settings.seed)
            trainer = _train_step(settings, args)
            loop = Loop(
                trainer,
                settings,
                photographs,
                folder,
                options.intervals(args),
                validation,
                args.workers,
            )
            if args.export:
                return _export(args, loop)
            if trainer.chief:
                from gmm_attention.training.board import TensorBoard

                loop.board = TensorBoard(folder.join("tensorboard"))
            if args.state:
                options.begin_elsewhere(loop, args.state)
            return options.run(loop, _next_command)
    except tf.errors.ResourceExhaustedError as error:
        raise TrainingError(
            f"{folder.path}: out of memory; give a smaller --batch or --crop, or smaller "
            "photographs to --validate"
        ) from error
    except (tf.errors.AbortedError, tf.errors.UnavailableError) as error:
        raise TrainingError(
            f"{folder.path}: another of TF_CONFIG's machines has stopped "
            f"({error.message.splitlines()[0]}); start all of them again, they go on from the "
            "last save"
        ) from error


def _without_best(settings):
    """Settings of a state that leaves its folder, and so its best weights."""
    return {**settings, "progress": {**settings.get("progress", {}), "best": None}}


def _export(args, loop):
    from gmm_attention.training import program

    if args.state:
        options.begin_elsewhere(loop, args.state)
    elif loop.folder.has_state():
        options.begin(loop, loop.folder.join(STATE_FILE))
    else:
        print(f"no state in {loop.folder.path}: a new one")
    recipe = loop.recipe
    shapes = recipe.batch, recipe.crop, args.validation_size
    settings = _without_best(loop.settings())
    program.write(loop.trainer, args.export, *shapes, settings, args.half)
    print(f"Train with it: python {args.export}/runner.pyz --train PHOTOGRAPHS")
    return 0


def _import(args):
    """Takes a runner's state into --output."""
    arrays, settings = state.load(args.import_from)
    if RunFolder(args.output).has_state():
        raise TrainingError(f"{args.output}: holds a state already; give another --output")
    shapes = {"averaged": (), **{name: array.shape for name, array in arrays.items()}}
    for name, array in arrays.items():
        kind, _, variable = name.partition("/")
        if kind == "weights":
            shapes[f"average/{variable}"] = array.shape
    folder = RunFolder(args.output).make()
    folder.save_state(state.complete(arrays, shapes, args.import_from), _without_best(settings))
    print(
        f"{args.output}: step {settings['step']}; the run's own options and --output "
        f"{args.output} go on"
    )
    print(_next_command(folder.join("last")))
    return 0


def main(argv=None):
    """The command `gmm-train`. Returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.import_from:
        if not args.output:
            parser.error("--import needs --output")
        settings = None
    else:
        settings = _recipe(args, parser)
        if not args.export and not args.train:
            parser.error("--train is needed")
    return batch.guarded(lambda: _train(args, settings), quiet=False)


if __name__ == "__main__":
    sys.exit(main())
