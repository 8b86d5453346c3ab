"""Photographs and models to tables, curves and plots of rate and distortion."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gmm_attention import cli, requirements
from gmm_attention.checkpoints import files as model_files
from gmm_attention.checkpoints.locate import Kind, ModelPath, locate
from gmm_attention.codec.efforts import trained_lambda
from gmm_attention.commands import coding_options, evaluate_options
from gmm_attention.errors import CodecError, ImageError, naming, printable
from gmm_attention.files import make_folder, write_rows

if TYPE_CHECKING:  # these import matplotlib and more, which --help must not wait for
    from gmm_attention.evaluation.bits import Bits
    from gmm_attention.evaluation.curves import Curve
    from gmm_attention.evaluation.many_images import Task
    from gmm_attention.evaluation.results import Means, Results, RowsByModel
    from gmm_attention.start_up import Setup


def _record(
    all_means: Sequence[Means], models: dict[str, ModelPath], image_set: str, total: int
) -> None:
    """Writes means into the models' settings.

    Args:
      all_means: list of Means, of models that are directories.
      models: dict of the name that results give a model to its ModelPath.
      image_set: name of the set that was measured.
      total: number of its images.

    Raises:
      CodecError: images failed, or a file cannot be written.
    """
    for m in all_means:
        if m.images < total:
            raise CodecError(
                f"{m.model}: {total - m.images} images failed, so nothing is recorded; mend or "
                "remove them, and give the same command again"
            )
        figures = {"images": m.images, "bpp": round(m.bpp, 6)}
        if m.psnr is not None:
            figures["psnr"] = round(m.psnr, 4)
        if m.ms_ssim is not None:
            figures["ms_ssim"] = round(m.ms_ssim, 6)
        settings = models[m.model].settings
        settings["measured"] = {**settings.get("measured", {}), image_set: figures}
        model_files.save_settings(models[m.model].path, settings)


class _Plan(NamedTuple):
    """What there is to evaluate.

    Attributes:
      found: list of (path, name) of the images.
      unreached: number of folders and the like that were asked for and cannot be read.
      image_set: name of the image set in the curves.
      models: dict of the name that results give a model to its ModelPath.
      published: list of Curve to compare with.
      folder: where the results go.
    """

    found: list[tuple[Path, str]]
    unreached: int
    image_set: str
    models: dict[str, ModelPath]
    published: list[Curve]
    folder: str


def _measure(args: argparse.Namespace, plan: _Plan, measured: Results) -> dict[str, RowsByModel]:
    """Measures models, and other codecs at their rates.

    Args:
      args: the arguments.
      plan: _Plan.
      measured: Results, whose rows are not measured again.

    Returns:
      dict of the codec's title to dict of model to list of rows; the title of the models
      themselves is `results.OWN`.
    """
    from gmm_attention import start_up
    from gmm_attention.evaluation import codecs, many_images, results

    titles = [results.OWN, *(codecs.FORMATS[name].title for name in args.codecs)]
    rows: dict[str, RowsByModel] = {title: {} for title in titles}
    with many_images.start_workers(args.jobs) as workers:
        for model, path in plan.models.items():
            setup = _setup(args, path)
            tasks = many_images.model_tasks(
                plan.image_set, plan.found, model, path, setup, args.estimate
            )
            if not all(measured.get(task.identity) for task in tasks):
                started = start_up.start(setup, workers)
                if not args.quiet:
                    name = printable(results.model_title(model, args.effort))
                    print(f"{name}: measured by {started.runtime}", flush=True)
            own = many_images.rows_of(tasks, measured, workers, args.quiet)
            rows[results.OWN][model] = own
            for codec in args.codecs if own else ():
                tasks = many_images.format_tasks(plan.found, own, codec)
                title = codecs.FORMATS[codec].title
                rows[title][model] = many_images.rows_of(tasks, measured, workers, args.quiet)
    return rows


def _setup(args: argparse.Namespace, model: ModelPath) -> Setup:
    """How each of the processes loads a model; see `set_up`."""
    from gmm_attention.start_up import set_up

    options = "float32", args.runtime, args.device
    setup, _ = set_up(model.path, *options, args.jobs, num_images=args.jobs, effort=args.effort)
    return setup._replace(warm=True)


def _take_bits_apart(args: argparse.Namespace, plan: _Plan) -> tuple[str, int]:
    """Writes bits.csv, channels.csv and the maps.

    Returns:
      the table to print, and how many images failed.
    """
    from gmm_attention.evaluation import many_images, report

    by_model: dict[str, list[tuple[str, Bits]]] = {}
    folders = _map_folders(plan)
    with many_images.start_workers(args.jobs) as workers:
        for model, path in plan.models.items():
            tasks = many_images.bits_tasks(plan.found, model, _setup(args, path), folders[model])
            done = dict(many_images.finish_all(workers, tasks, _finish_bits, args.quiet))
            by_model[model] = [(name, done[name]) for _, name in plan.found if name in done]
    images, channels = report.bits_rows(by_model)
    for name, rows in (("bits.csv", images), ("channels.csv", channels)):
        if rows:
            write_rows(os.path.join(plan.folder, name), list(rows[0]), rows)
    return report.bits_table(by_model), len(plan.models) * len(plan.found) - len(images)


def _map_folders(plan: _Plan) -> dict[str, str]:
    """Names the folder of each model's maps after the last part of the model's path.

    Returns:
      dict of path to folder; a number tells those apart whose last part is the same.
    """
    folders: dict[str, str] = {}
    for model in plan.models:
        folder = base = os.path.join(plan.folder, "bits", os.path.basename(model))
        number = 1
        while folder in folders.values():
            number += 1
            folder = f"{base}-{number}"
        folders[model] = folder
    return folders


def _finish_bits(task: Task, result: Bits) -> tuple[str, tuple[str, Bits]]:
    """Returns the text to print about an image, and (its name, its Bits)."""
    model, image = task.identity["model"], task.identity["image"]
    bpp = (result.file_y + result.file_z + result.header) / (result.height * result.width)
    return printable(f"{model}: {image}: {bpp:.4f} bpp taken apart"), (image, result)


def _draw_crops(args: argparse.Namespace, plan: _Plan) -> None:
    """Draws a part of the original, and of what the model and codecs at its rate make of it."""
    from gmm_attention.evaluation import codecs, one_image, plots, results
    from gmm_attention.images import read_image

    ((path, _),), (model,) = plan.found, plan.models.values()
    x, y, width, height = args.crop
    image = read_image(path)
    if 0 in (width, height) or y + height > image.shape[0] or x + width > image.shape[1]:
        raise ImageError(
            f"{path}: --crop {x} {y} {width} {height} is empty or leaves the image of "
            f"{image.shape[1]}x{image.shape[0]} pixels; give a smaller one"
        )
    with naming(path):
        figures, picture = one_image.measure(_setup(args, model).codec(), image, args.effort)
        pictures = [(results.model_title(results.OWN, args.effort), figures, picture)]
        for name in args.codecs:
            measured = one_image.measure_format(name, image, figures["bpp"])
            pictures.append((codecs.FORMATS[name].title, *measured))
    captions = ["original", *(_caption(title, figures) for title, figures, _ in pictures)]
    whole = [image, *(picture for _, _, picture in pictures)]
    crops = [picture[y : y + height, x : x + width] for picture in whole]
    plots.side_by_side(os.path.join(plan.folder, "crops.png"), list(zip(captions, crops)))


def _caption(title: str, figures: dict[str, Any]) -> str:
    ms_ssim = figures["ms_ssim"]
    quality = f"PSNR {figures['psnr']:.2f} dB"
    if ms_ssim is not None:
        quality += f", MS-SSIM {ms_ssim:.4f}"
    return f"{title}\n{figures['bpp']:.3f} bpp\n{quality}"


def _own_name(args: argparse.Namespace, loss: str) -> str:
    how = "-estimate" if args.estimate else f"-effort-{args.effort}" if args.effort else ""
    return args.name + how + loss


def _format_name(title: str) -> str:
    return f"Pillow-{title.replace(' ', '-')}"


def _write_curves(
    args: argparse.Namespace,
    means: dict[str, dict[str, Means]],
    models: dict[str, dict[str, Any]],
    image_set: str,
    folder: str,
) -> tuple[list[Curve], list[Curve]]:
    """Makes curves of means and writes them.

    Args:
      args: the arguments.
      means: dict of the codec's title to dict of model to Means.
      models: dict of model to settings.
      image_set: name of the image set.
      folder: where the files go.

    Returns:
      list of Curve of the models, and list of Curve of the other codecs.
    """
    from gmm_attention.evaluation import curves, grouping, results

    own: list[Curve] = []
    beside: list[Curve] = []
    for loss, group in grouping.by_loss(models).items():
        own_means = [means[results.OWN][m] for m in group if m in means[results.OWN]]
        own += results.curves_of(own_means, image_set, _own_name(args, loss))
    for title, by_model in means.items():
        if title != results.OWN:
            beside += results.curves_of(list(by_model.values()), image_set, _format_name(title))
    for curve in own + beside:
        curves.write_curve(folder, curve)
    return own, beside


def _plan(args: argparse.Namespace) -> _Plan:
    """Finds everything, and reports errors before the seconds that TensorFlow takes to start."""
    from gmm_attention.evaluation import codecs, comparison, grouping, image_sets, outputs
    from gmm_attention.image_folders import find_images
    from gmm_attention.start_up import shown_name

    listing = find_images(args.images)
    found = listing.images
    coding_options.tell(listing.notes, listing.failures)
    models = {shown_name(model.path): model for model in map(locate, args.models)}
    losses = grouping.by_loss({name: model.settings for name, model in models.items()})
    _check_search(args, models)
    for model in models.values() if args.record else ():
        if model.kind is Kind.TF1:
            raise CodecError(
                f"{model.path}: a TF1 checkpoint has no settings.json to --record figures in; "
                f"export it by python -m gmm_attention.export {model.path} models/NAME"
            )
    for name in args.codecs:
        codecs.check(name)
    published = comparison.read_curves(args.curves)
    image_set = args.set or comparison.image_set(args.images, published)
    names = [_own_name(args, loss) for loss in losses]
    names += [_format_name(codecs.FORMATS[name].title) for name in args.codecs]
    comparison.check_names(published, image_set, names, args.anchor, args.draw)
    if args.record and listing.failures:
        raise CodecError(
            f"{args.images}: not all of it can be read, so nothing can be recorded; mend that, or "
            "leave --record away"
        )
    if args.record and not image_sets.fits(image_set, len(found)):
        raise CodecError(
            f"{args.images}: {len(found)} images are not {image_set}, which has "
            f"{image_sets.listed(image_set)}: nothing can be recorded for it; give all of them, or "
            "another --set"
        )
    folder = args.output or evaluate_options.OUTPUT
    plan = _Plan(found, len(listing.failures), image_set, models, published, folder)
    outputs.refuse_foreign_files(_outputs(args, plan, names), args.overwrite)
    make_folder(folder)
    return plan


def _check_search(args: argparse.Namespace, models: dict[str, ModelPath]) -> None:
    """Raises CodecError if latents are to be searched and cannot be, so that it is told once."""
    if not args.effort:
        return
    requirements.need_tensorflow("--effort", "or leave --effort away")
    for model in models.values():
        advice = "leave --effort away, or give encoder.py --effort a --lambda"
        trained_lambda(model.settings, model.path, advice)


def _outputs(args: argparse.Namespace, plan: _Plan, names: Sequence[str]) -> list[str]:
    """The paths of all files that this evaluation may write.

    Args:
      args: the arguments.
      plan: _Plan.
      names: of the curves.
    """
    from gmm_attention.evaluation import comparison, curves, many_images

    files = ["images.csv", "means.csv"]
    for name in names:
        measured = (curves.Curve(plan.image_set, name, m, (), ()) for m in curves.METRICS)
        files += map(curves.file_name, measured)
    if args.crop:
        files.append("crops.png")
    if args.bits:
        files += ["bits.csv", "channels.csv"]
    paths = [os.path.join(plan.folder, name) for name in files]
    if args.bits:
        for folder in _map_folders(plan).values():
            paths += [many_images.map_path(folder, image) for _, image in plan.found]
    return paths + comparison.plot_paths(plan.folder, plan.image_set)


def _evaluate(args: argparse.Namespace) -> int:
    """`evaluate.py --images`. Returns the exit status."""
    from gmm_attention.evaluation import comparison, report, results

    def say(text: str) -> None:
        if text and not args.quiet:
            print(f"\n{text}", flush=True)

    plan = _plan(args)
    found, image_set, folder = plan.found, plan.image_set, plan.folder
    models = {name: model.settings for name, model in plan.models.items()}
    measured = results.Results(os.path.join(folder, "images.csv"))
    rows = _measure(args, plan, measured)
    failed = sum(len(found) - len(r) for by_model in rows.values() for r in by_model.values())
    means = {
        title: {model: results.means(r) for model, r in by_model.items() if r}
        for title, by_model in rows.items()
    }
    own_means = list(means[results.OWN].values())
    if not own_means:
        return 1
    all_means = [m for by_model in means.values() for m in by_model.values()]
    results.write_means(os.path.join(folder, "means.csv"), all_means)
    own, beside = _write_curves(args, means, models, image_set, folder)
    notes = report.means_notes(rows, len(found), args.effort)
    say(f"{image_set}\n{report.means_table(all_means)}\n" + notes)
    say(
        comparison.compare(
            plan.published, own, beside, own_means, image_set, args.anchor, args.draw, folder
        )
    )
    if args.record:
        _record(own_means, plan.models, image_set, len(found))
    if args.bits:
        table, bits_failed = _take_bits_apart(args, plan)
        say(table)
        failed += bits_failed
    if args.crop:
        _draw_crops(args, plan)
    say(f"results in {folder}" + (f"; {failed} measurements failed" if failed else ""))
    return 1 if failed or plan.unreached else 0


def _run(args: argparse.Namespace) -> int:
    if args.images:
        return _evaluate(args)
    from gmm_attention.evaluation import comparison, outputs

    published = comparison.read_curves(args.curves)
    comparison.check_names(published, args.set, [], args.anchor, args.draw)
    if args.output:
        sets = comparison.shown_sets(published, args.set, args.anchor)
        paths = [path for name in sets for path in comparison.plot_paths(args.output, name)]
        outputs.refuse_foreign_files(paths, args.overwrite)
        make_folder(args.output)
    text = comparison.show_curves(published, args.set, args.anchor, args.draw, args.output)
    if not args.quiet:
        print(text)
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command `gmm-evaluate`. Returns the exit status."""
    args = evaluate_options.parse(argv)
    return cli.run_main(lambda: _run(args), args.quiet)


if __name__ == "__main__":
    sys.exit(main())
