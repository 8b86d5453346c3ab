"""Photographs and models to tables, curves and plots of rate and distortion."""

import argparse
import os
import sys

from gmm_attention import checkpoints
from gmm_attention.commands import batch
from gmm_attention.errors import CodecError, CurveError, ImageError
from gmm_attention.files import make_folder, write_rows
from gmm_attention.training.options import number
from gmm_attention.training.recipe import paper_num_filters

DESCRIPTION = """\
Measures models on photographs, by real files, and compares them with published curves.

    evaluate.py --images kodak --models models/A models/B

writes to evaluation/ a row for each image (images.csv), the means (means.csv), the models' curve
(data_*.dat) and plots (PNG, SVG), and prints the means and their distance from the curves in
RDdata/. The same command goes on with a run that was stopped.

    evaluate.py --curves --anchor VTM

prints BD-rate and BD-PSNR of RDdata's curves against one of them, and needs no images."""

OUTPUT = "evaluation"
FORMATS = ("jpeg", "webp", "avif", "jxl")

_LOSSES = {"mse": "MSE", "ms-ssim": "MSSSIM"}


def _parser():
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("what to measure").add_argument
    add("--images", metavar="PATH", help="an image, or a folder searched recursively")
    add(
        "--models",
        metavar="PATH",
        nargs="+",
        default=[batch.DEFAULT_MODEL],
        help=f"each an {batch.MODEL_HELP} ({batch.DEFAULT_MODEL})",
    )
    add(
        "--codecs",
        nargs="+",
        choices=FORMATS,
        default=[],
        metavar="NAME",
        help="the same images by codecs of Pillow, too, each at the rate nearest to each model's: "
        + ", ".join(FORMATS),
    )
    add(
        "--estimate",
        action="store_true",
        help="in place of files, the models' cross-entropy; named so in all that is written",
    )
    add(
        "--bits",
        action="store_true",
        help="where the bits go, too: each channel's (bits.csv, channels.csv), and a map of each "
        "image (bits/MODEL/NAME.png)",
    )
    add(
        "--crop",
        metavar=("X", "Y", "WIDTH", "HEIGHT"),
        type=number(int, 0),
        nargs=4,
        help="with one image and one model: this part, in pixels, of the original and of what "
        "each codec makes of it, side by side (crops.png)",
    )
    add = parser.add_argument_group("what to compare with").add_argument
    add(
        "--curves",
        metavar="PATH",
        nargs="*",
        help="curves, data_SET_NAME_PSNR.dat and ..._MSSSIM.dat, or folders of them (RDdata)",
    )
    add("--set", metavar="NAME", help="what curves call these images (the folder's name)")
    add("--name", default="gmm-attention", help="of the models' own curve (gmm-attention)")
    add(
        "--anchor",
        metavar="NAME",
        help="curve that BD-rate and BD-PSNR are taken against "
        "(Proposed_optimized_by_MSE, or VTM for sets without it)",
    )
    add("--draw", metavar="NAME", nargs="+", help="curves that are drawn (the best known)")
    add = parser.add_argument_group("how").add_argument
    add(
        "--output",
        metavar="DIR",
        help=f"folder for the results, made if need be ({OUTPUT}; with --curves alone, nothing is "
        "written unless this is given)",
    )
    add(
        "--jobs",
        type=number(int, 1),
        default=1,
        metavar="COUNT",
        help="processes that measure at the same time; each takes its own memory, and they slow "
        "down each other's times (1)",
    )
    add(
        "--record",
        action="store_true",
        help="write the means into each model's settings.json, where encoder.py --target-bpp "
        "finds them",
    )
    batch.add_device_and_quiet(add)
    return parser


# Models.


def _settings_of(model):
    """A model's settings, without its weights; empty for a TF1 checkpoint, which has none.

    Raises:
      CheckpointError: nothing there.
    """
    from gmm_attention.commands.measuring import weight_files

    if not os.path.isdir(model) and weight_files(model):
        return {}
    return checkpoints.load_settings(model)


def _loss_of(settings):
    """The end of a curve's name, as in RDdata."""
    loss = _LOSSES.get(settings.get("metric"))
    return f"_optimized_by_{loss}" if loss else ""


def _by_loss(models):
    """Groups models into curves, by what they were trained for.

    Args:
      models: dict of path to settings.

    Returns:
      dict of the end of the curve's name to list of paths.

    Raises:
      CurveError: models of one curve differ in N, but not as the paper's do.
    """
    groups = {}
    for model, settings in models.items():
        groups.setdefault(_loss_of(settings), []).append(model)
    for group in groups.values():
        sizes = {model: models[model].get("num_filters") for model in group}
        if len(set(sizes.values())) > 1 and not all(_is_as_in_paper(models[m]) for m in group):
            listed = ", ".join(f"{model} has N = {size}" for model, size in sizes.items())
            raise CurveError(
                f"{listed}: models of one curve share N, or have the paper's (128, and 192 for its "
                "higher rates); evaluate them one after the other, each with its own --name and "
                "--output, which --curves RDdata OUTPUT puts together"
            )
    return groups


def _is_as_in_paper(settings):
    if settings.get("metric") not in _LOSSES or "lambda" not in settings:
        return False
    return settings["num_filters"] == paper_num_filters(settings["metric"], settings["lambda"])


def _record(all_means, models, image_set, total):
    """Writes means into the settings of models that are directories."""
    for m in all_means:
        if m.images < total:
            raise CodecError(
                f"{m.model}: {total - m.images} images failed, so nothing is recorded; mend or "
                "remove them, and give the same command again"
            )
        figures = {"images": m.images, "bpp": round(m.bpp, 6), "psnr": round(m.psnr, 4)}
        if m.ms_ssim is not None:
            figures["ms_ssim"] = round(m.ms_ssim, 6)
        settings = models[m.model]
        settings["measured"] = {**settings.get("measured", {}), image_set: figures}
        checkpoints.save_settings(m.model, settings)


# Measuring.


def _measure(args, image_set, found, models, measured):
    """Measures models, and other codecs at their rates.

    Args:
      args: the arguments.
      image_set: what the images are called.
      found: list of (path, name).
      models: list of paths.
      measured: Results.

    Returns:
      dict of the codec's title to dict of model to list of rows; the models' own title is
      `results.OWN`.
    """
    from gmm_attention.commands import measuring
    from gmm_attention.evaluation import codecs, results

    rows = {results.OWN: {}, **{codecs.FORMATS[name].title: {} for name in args.codecs}}
    with measuring.start_workers(args.jobs) as workers:
        for model in models:
            tasks = measuring.model_tasks(image_set, found, model, args.device, args.estimate)
            if not all(measured.get(task.identity) for task in tasks):
                measuring.load(workers, model, args.device)
            own = measuring.rows_of(tasks, measured, workers, args.quiet)
            rows[results.OWN][model] = own
            for name in args.codecs if own else ():
                tasks = measuring.format_tasks(found, own, name, args.device)
                title = codecs.FORMATS[name].title
                rows[title][model] = measuring.rows_of(tasks, measured, workers, args.quiet)
    return rows


def _take_bits_apart(args, found, models, folder):
    """Writes bits.csv, channels.csv and the maps.

    Returns:
      the table to print, and how many images failed.
    """
    from gmm_attention.commands import measuring
    from gmm_attention.evaluation import report

    apart, places = {}, _folder_names(models)
    with measuring.start_workers(args.jobs) as workers:
        for model in models:
            place = os.path.join(folder, "bits", places[model])
            tasks = measuring.bits_tasks(found, model, args.device, place)
            done = dict(measuring.finish_all(workers, tasks, _bits_text, args.quiet))
            apart[model] = [(name, done[name]) for _, name in found if name in done]
    images, channels = report.bits_rows(apart)
    for name, rows in (("bits.csv", images), ("channels.csv", channels)):
        if rows:
            write_rows(os.path.join(folder, name), list(rows[0]), rows)
    return report.bits_table(apart), len(models) * len(found) - len(images)


def _folder_names(models):
    """Names for folders of models: the last part of each path, numbered where it is not the first.

    Returns:
      dict of path to name.
    """
    names = {}
    for model in models:
        name = base = os.path.basename(model)
        number = 1
        while name in names.values():
            number += 1
            name = f"{base}-{number}"
        names[model] = name
    return names


def _bits_text(task, result):
    model, image = task.identity["model"], task.identity["image"]
    bpp = (result.file_y + result.file_z + result.header) / (result.height * result.width)
    return f"{model}: {image}: {bpp:.4f} bpp taken apart", (image, result)


def _draw_crops(args, path, model, folder):
    """Draws a part of an image as it was, and by the model and other codecs at its rate."""
    from gmm_attention.commands import measuring
    from gmm_attention.evaluation import codecs, measurement, plots, results
    from gmm_attention.images import read_image

    x, y, width, height = args.crop
    image = read_image(path)
    if 0 in (width, height) or y + height > image.shape[0] or x + width > image.shape[1]:
        raise ImageError(
            f"{path}: --crop {x} {y} {width} {height} is empty or leaves the image of "
            f"{image.shape[1]}x{image.shape[0]} pixels; give a smaller one"
        )
    with batch.about(path):
        figures, picture = measurement.measure(measuring.load_codec(model, args.device), image)
        pictures = [(results.OWN, figures, picture)]
        for name in args.codecs:
            measured = measurement.measure_format(name, image, figures["bpp"])
            pictures.append((codecs.FORMATS[name].title, *measured))
    captions = ["original", *(_caption(title, figures) for title, figures, _ in pictures)]
    whole = [image, *(picture for _, _, picture in pictures)]
    crops = [picture[y : y + height, x : x + width] for picture in whole]
    plots.side_by_side(os.path.join(folder, "crops.png"), list(zip(captions, crops)))


def _caption(title, figures):
    ms_ssim = figures["ms_ssim"]
    quality = f"PSNR {figures['psnr']:.2f} dB" + (f", MS-SSIM {ms_ssim:.4f}" if ms_ssim else "")
    return f"{title}\n{figures['bpp']:.3f} bpp\n{quality}"


def _own_name(args, loss):
    return args.name + ("-estimate" if args.estimate else "") + loss


def _format_name(title):
    return f"Pillow-{title.replace(' ', '-')}"


def _write_curves(args, means, models, image_set, folder):
    """Draws curves through means and writes them.

    Args:
      args: the arguments.
      means: dict of the codec's title to dict of model to Means.
      models: dict of path to settings.
      image_set, folder: of the curves, and where they go.

    Returns:
      list of the models' Curve, and list of the others'.
    """
    from gmm_attention.evaluation import curves, results

    own, beside = [], []
    for loss, group in _by_loss(models).items():
        points = [means[results.OWN][model] for model in group if model in means[results.OWN]]
        own += results.curves_of(points, image_set, _own_name(args, loss))
    for title, points in means.items():
        if title != results.OWN:
            beside += results.curves_of(list(points.values()), image_set, _format_name(title))
    for curve in own + beside:
        curves.write_curve(folder, curve)
    return own, beside


def _evaluate(args):
    """`evaluate.py --images`. Returns the exit status."""
    from gmm_attention.commands import comparing
    from gmm_attention.evaluation import codecs, report, results
    from gmm_attention.images import find_images

    def say(text):
        if text and not args.quiet:
            print(f"\n{text}", flush=True)

    # What may be wrong is looked at before TensorFlow, which takes its time.
    found = find_images(args.images)
    models = {model: _settings_of(model) for model in args.models}
    losses = _by_loss(models)
    for model in models if args.record else ():
        if not os.path.isdir(model):
            raise CodecError(
                f"{model}: a TF1 checkpoint has no settings.json to --record figures in; export it "
                f"by python -m gmm_attention.export {model} models/NAME"
            )
    for name in args.codecs:
        codecs.check(name)
    published = comparing.read_curves(args.curves)
    image_set = args.set or comparing.image_set(args.images, published)
    names = [_own_name(args, loss) for loss in losses]
    names += [_format_name(codecs.FORMATS[name].title) for name in args.codecs]
    comparing.check_names(published, image_set, names, args.anchor, args.draw)
    if args.record and len(found) != comparing.SIZES.get(image_set, len(found)):
        raise CodecError(
            f"{args.images}: {len(found)} images are not {image_set}, which has "
            f"{comparing.SIZES[image_set]}: nothing can be recorded for it; give all of them, or "
            "another --set"
        )
    folder = args.output or OUTPUT
    make_folder(folder)

    measured = results.Results(os.path.join(folder, "images.csv"))
    rows = _measure(args, image_set, found, models, measured)
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
    say(f"{image_set}\n{report.means_table(all_means)}\n" + report.means_notes(rows, len(found)))
    say(
        comparing.compare(
            published, own, beside, own_means, image_set, args.anchor, args.draw, folder
        )
    )
    if args.record:
        _record(own_means, models, image_set, len(found))
    if args.bits:
        table, bits_failed = _take_bits_apart(args, found, models, folder)
        say(table)
        failed += bits_failed
    if args.crop:
        _draw_crops(args, found[0][0], args.models[0], folder)
    say(f"results in {folder}" + (f"; {failed} measurements failed" if failed else ""))
    return 1 if failed else 0


def _run(args):
    if args.images:
        return _evaluate(args)
    from gmm_attention.commands import comparing

    if args.output:
        make_folder(args.output)
    published = comparing.read_curves(args.curves)
    comparing.check_names(published, args.set, [], args.anchor, args.draw)
    text = comparing.show_curves(published, args.set, args.anchor, args.draw, args.output)
    if not args.quiet:
        print(text)
    return 0


def main(argv=None):
    """The command `gmm-evaluate`. Returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    args.models = list(dict.fromkeys(map(os.path.normpath, args.models)))
    if args.images is None and args.curves is None:
        parser.error("--images is needed, or --curves to compare curves alone")
    if args.images is None and (args.crop or args.bits or args.codecs or args.record):
        parser.error("--codecs, --bits, --crop and --record need --images")
    if args.images is None and args.draw and not args.output:
        parser.error("--draw with --curves alone needs an --output")
    if args.crop and (os.path.isdir(args.images) or len(args.models) > 1):
        parser.error("--crop is for one image and one model")
    if args.record and args.estimate:
        parser.error("--record is of real files, not of an --estimate")
    for option, name in (("--set", args.set), ("--name", args.name)):
        if name is not None and (not name or "/" in name or (option == "--set" and "_" in name)):
            parser.error(f"{option} {name!r} cannot be a part of a curve's file name")
    return batch.guarded(lambda: _run(args), args.quiet)


if __name__ == "__main__":
    sys.exit(main())
