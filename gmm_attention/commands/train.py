"""Photographs to trained weights, by the paper's recipe."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gmm_attention import requirements
from gmm_attention.cli import number, run_main
from gmm_attention.errors import TrainingError
from gmm_attention.training import options, recipe, running, state
from gmm_attention.training.loop import Loop
from gmm_attention.training.run_folder import BOARD, RunFolder
from gmm_attention.training.state import STATE_FILE
from gmm_attention.training.xla import files

if TYPE_CHECKING:  # these import TensorFlow, which --help must not wait for
    import tensorflow as tf

    from gmm_attention.training.step import TrainStep

DESCRIPTION = """\
Trains the paper's model on photographs, or goes on with a run that was stopped or killed.

    train.py --train photographs --lambda 0.015

writes runs/mse-0.015-n192 (the log, the last and the best weights, and all that the same command
needs to go on with the run).

The paper's ten points, for --point: mse-0.0016, mse-0.0032, mse-0.0075 (N = 128), mse-0.015,
mse-0.03, mse-0.045 (N = 192), ms-ssim-3, ms-ssim-12 (N = 128), ms-ssim-40, ms-ssim-120 (N = 192);
ms-ssim-14 (N = 128) is the authors' published checkpoint."""

DEFAULTS = recipe.Recipe()

_Add = Callable[..., argparse.Action]  # the add_argument method of a group


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_model(parser.add_argument_group("what to train").add_argument)
    _add_recipe(parser.add_argument_group("how to train"))
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--output",
        metavar="DIR",
        help="folder of the run (runs/METRIC-LAMBDA-nN)",
    )
    options.add_run_options(run)
    jax = parser.add_argument_group("training by JAX on machines without TensorFlow")
    _add_export_and_import(jax.add_argument)
    return parser


def _add_model(add: _Add) -> None:
    add("--point", choices=recipe.POINTS, metavar="NAME", help="metric and lambda of a point above")
    add("--metric", choices=("mse", "ms-ssim"), help="distortion in the loss (mse)")
    add(
        "--num-filters",
        type=number(int, 8),
        metavar="N",
        help="channels of y, a multiple of 8 (as in the paper: 192 from lambda 0.015, or 40 for "
        "MS-SSIM, and 128 below)",
    )
    add(
        "--num-mixtures",
        type=number(int, 1, 5),
        metavar="K",
        help=f"Gaussians in each mixture ({DEFAULTS.num_mixtures})",
    )
    add("--attention", action=argparse.BooleanOptionalAction, help="use attention modules (yes)")
    add(
        "--init-from",
        metavar="PATH",
        help="weights to start from: a checkpoint such as runs/NAME/best, an exported model, or "
        "the prefix of a TF1 checkpoint; its K may differ, and its N may be smaller. A run that "
        "goes on ignores it",
    )


def _add_recipe(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--optimizer",
        choices=recipe.OPTIMIZERS,
        help="adam, as in the paper; or muon, which moves kernels by Muon and the rest by Adam: it "
        "needs less than half of the steps, and its default --learning-rate is "
        f"{recipe.MUON_LEARNING_RATE:g} ({DEFAULTS.optimizer})",
    )
    options.add_schedule_options(group, DEFAULTS)
    add(
        "--batch",
        type=number(int, 1),
        metavar="COUNT",
        help=f"crops in a step, on all devices together ({DEFAULTS.batch})",
    )
    add(
        "--crop",
        type=number(int, 64),
        metavar="PIXELS",
        help=f"side of a crop, a multiple of 64 ({DEFAULTS.crop})",
    )
    add(
        "--clip",
        dest="clip_norm",
        type=number(float, 0),
        metavar="NORM",
        help=f"largest norm of the gradient, 0 for no limit ({DEFAULTS.clip_norm:g})",
    )
    add(
        "--average-decay",
        type=number(float, 0, 0.999999),
        metavar="SHARE",
        help="decay of the moving average of the weights, which validation and the codec use; 0 "
        f"for no average ({DEFAULTS.average_decay})",
    )
    add(
        "--synthesis-input",
        choices=recipe.SYNTHESIS_INPUTS,
        help="what synthesis and hyper_synthesis learn from: y and z with noise, as in the paper, "
        "or rounded, as when decoding, meant for the cool-down; rates are always of noisy latents "
        f"({DEFAULTS.synthesis_input})",
    )
    add(
        "--precision",
        choices=("float32", "bfloat16"),
        help="number format of analysis and synthesis but for their last steps; bfloat16 is faster "
        f"on processors and GPUs that compute in it ({DEFAULTS.precision})",
    )
    add(
        "--xla",
        action="store_true",
        help="compile the step with XLA: meant for GPUs, slower on CPUs",
    )


def _add_export_and_import(add: _Add) -> None:
    add(
        "--export",
        metavar="DIR",
        help="write into this folder the step as an XLA program, the state of --output or a new "
        "one, and runner.pyz, which trains with them; needs no photographs",
    )
    add(
        "--half",
        action="store_true",
        help="with --export: write only the weights and their average, as 16-bit floats",
    )
    add(
        "--validation-size",
        nargs=2,
        type=number(int, 64),
        default=(512, 512),
        metavar=("HEIGHT", "WIDTH"),
        help="with --export: size of the middle part of each photograph that the program validates "
        "on, in pixels, multiples of 64 (512 512)",
    )
    add(
        "--import",
        dest="import_from",
        metavar="DIR",
        help="copy a state of runner.pyz, its folder or the pieces that it wrote, into --output",
    )


def _recipe(args: argparse.Namespace, parser: argparse.ArgumentParser) -> recipe.Recipe:
    """Returns the command line's Recipe; exits by parser.error if options do not go together."""
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
        parser.error("--half needs --export")
    if args.state and args.init_from:
        parser.error("--state gives the weights; leave --init-from away")
    return result


def _strategy(batch_size: int, export: bool) -> tf.distribute.Strategy:
    """Chooses a tf.distribute strategy for the machines of TF_CONFIG or this machine's GPUs.

    Args:
      batch_size: of all devices together.
      export: whether the step is exported, which takes one device.

    Raises:
      TrainingError: TF_CONFIG is damaged, or the batch cannot be divided by the devices.
    """
    import tensorflow as tf

    if export:
        # A program traced for a GPU may call libraries that only GPUs have.
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


def _train_step(settings: recipe.Recipe, args: argparse.Namespace) -> TrainStep:
    """Makes a TrainStep for a recipe, with new weights or those of --init-from."""
    from gmm_attention.checkpoints import initial_weights
    from gmm_attention.training import step

    arrays = initial_weights.read(args.init_from) if args.init_from else None
    network = settings.num_filters, settings.num_mixtures, settings.attention
    model = step.build_model(*network, settings.precision, settings.optimizer)
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


def _next_command(weights: str) -> str:
    """What to print about the use of trained weights, given their path."""
    name = os.path.basename(os.path.dirname(os.path.abspath(weights)))
    return (
        f"Export a model for the encoder:\n  python -m gmm_attention.export {weights} models/{name}"
    )


def _train(args: argparse.Namespace, settings: recipe.Recipe) -> int:
    requirements.need_tensorflow("training")
    name = f"{settings.metric}-{settings.lmbda:g}-n{settings.num_filters}"
    folder = RunFolder(args.output or os.path.join("runs", name))
    # Errors in the photographs are reported before the seconds that TensorFlow takes to start.
    photographs, validation = None, []
    if args.export:
        files.refuse_foreign_files(args.export, args.overwrite)
    else:
        folder.refuse_foreign(args.overwrite)
        photographs = running.photographs(args, settings.crop)
        validation = running.validation(args)
        if settings.precision == "bfloat16":
            from gmm_attention.runtimes import tensorflow_runtime

            tensorflow_runtime.need_bfloat16()
        folder.make()
    if args.init_from and folder.has_state():
        print(f"{folder.path} has a state already: --init-from is passed over")
        args.init_from = None
    if args.state and folder.has_state() and not args.export:
        print(f"{folder.path} has a state already: --state is passed over")
        args.state = None
    print("starting; the first step takes longest", flush=True)
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
                return _export(args, loop, trainer)
            if trainer.chief:
                from gmm_attention.training.board import TensorBoard

                loop.board = TensorBoard(folder.join(BOARD))
            if args.state:
                running.begin_elsewhere(loop, args.state)
            return running.run(loop, _next_command)
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


def _without_best(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for a copy of a state, whose best weights stay in the folder of its run."""
    return {**settings, "progress": {**settings.get("progress", {}), "best": None}}


def _export(args: argparse.Namespace, loop: Loop, trainer: TrainStep) -> int:
    """Writes an exported step and its state into --export."""
    from gmm_attention.training.xla import program

    if args.state:
        running.begin_elsewhere(loop, args.state)
    elif loop.folder.has_state():
        running.begin(loop, loop.folder.join(STATE_FILE))
    else:
        print(f"no state in {loop.folder.path}: a new one")
    shapes = loop.recipe.batch, loop.recipe.crop, args.validation_size
    settings = _without_best(loop.settings())
    program.write(trainer, args.export, *shapes, settings, args.half)
    print(f"Train with it: python {args.export}/runner.pyz --train PHOTOGRAPHS")
    return 0


def _import(args: argparse.Namespace) -> int:
    """Copies a runner's state into --output."""
    requirements.need_tensorflow("training")
    arrays, settings = state.load(args.import_from)
    if RunFolder(args.output).has_state():
        raise TrainingError(f"{args.output}: holds a state already; give another --output")
    RunFolder(args.output).refuse_foreign(args.overwrite)
    shapes: dict[str, tuple[int, ...]]
    shapes = {"averaged": (), **{name: array.shape for name, array in arrays.items()}}
    for name, array in arrays.items():
        kind, _, variable = name.partition("/")
        if kind == "weights":
            shapes[f"average/{variable}"] = array.shape
    folder = RunFolder(args.output).make()
    folder.save_state(state.complete(arrays, shapes, args.import_from), _without_best(settings))
    print(
        f"{args.output}: step {settings['step']}; to go on, give the run's options with "
        f"--output {args.output}"
    )
    print(_next_command(folder.join("last")))
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command `gmm-train`. Returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.import_from:
        if not args.output:
            parser.error("--import needs --output")
        return run_main(lambda: _import(args), quiet=False)
    settings = _recipe(args, parser)
    if not args.export and not args.train:
        parser.error("--train is needed")
    return run_main(lambda: _train(args, settings), quiet=False)


if __name__ == "__main__":
    sys.exit(main())
