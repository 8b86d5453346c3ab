"""NAME.npz and NAME.bin, or NAME.gmm, to NAME.png, for one image or a folder."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gmm_attention import cli
from gmm_attention.checkpoints import by_fingerprint
from gmm_attention.checkpoints.locate import ModelPath, locate, named_models
from gmm_attention.codec import file_format
from gmm_attention.codec.info import describe
from gmm_attention.commands import coding_options
from gmm_attention.commands.coding_options import STANDARD
from gmm_attention.errors import BitstreamError, CodecError, ImageError, naming, printable
from gmm_attention.files import (
    is_stream,
    make_folder,
    read_stream,
    refuse_foreign,
    shown,
    write_stream,
)
from gmm_attention.image_folders import IMAGE_SUFFIXES
from gmm_attention.images import check_png, encode_png, is_ours, write_png
from gmm_attention.pipeline import coded_files
from gmm_attention.pipeline.coded_folders import CodedImage, CodedListing, find_coded
from gmm_attention.pipeline.folder import run_folder
from gmm_attention.pipeline.summary import Summary
from gmm_attention.start_up import Setup, shown_name

COLUMNS = ("name", "width", "height", "bytes", "bpp", "seconds", "error")

_PICTURE = ".png"


class Coded(NamedTuple):
    """The coded files of an image, and the picture that is made of them.

    Attributes:
      paths: of NAME.npz and NAME.bin, or of the one file or stream that holds both.
      name: see `find_coded`.
      target: path of the picture.
      data: bytes of the one file, if they came by a stream, which can be read once only.
      model: the model that made them, as it was given, or "" if it is not here.
      fingerprint: of that model, or None if the header does not tell.
    """

    paths: tuple[str, ...]
    name: str
    target: str
    data: bytes | None
    model: str = ""
    fingerprint: bytes | None = None

    def __str__(self) -> str:
        return shown(self.paths[0])

    def names(self) -> tuple[str, str]:
        """What messages call NAME.npz and NAME.bin."""
        return str(self), str(self) if len(self.paths) == 1 else printable(self.paths[1])


class Decoding:
    """The task of the decoder: read and decode, synthesize, write.

    Its methods are those of `pipeline.folder.ImageTask`.

    Args:
      setups: dict of model to Setup.
      seen: what to call the models that were looked at, where none of them made an image.
      max_pixels: larger images are refused.
      overwrite: whether files that are no pictures of this program may be replaced.
      to_stream: whether the output is a stream.
    """

    def __init__(
        self,
        setups: Mapping[str, Setup],
        seen: str,
        max_pixels: int,
        overwrite: bool,
        to_stream: bool,
    ):
        self._setups, self._seen = setups, seen
        self._max_pixels, self._overwrite, self._to_stream = max_pixels, overwrite, to_stream

    def size(self, coded: Coded) -> int:
        try:
            start = coded_files.read_start(coded.paths, coded.data)
            height, width = file_format.read_size(start, str(coded))
        except CodecError:
            return 0  # reported when the image is decoded
        return height * width

    def process(self, coded: Coded) -> dict[str, Any]:
        if not self._to_stream:
            refuse_foreign(coded.target, is_ours, self._overwrite)
        modified = coded_files.modified(coded.paths) if coded.data is None else None
        strings = coded_files.read(coded.paths, coded.data)
        if not coded.model:
            header = file_format.read_header(strings[0], str(coded))
            raise BitstreamError(
                f"{coded}: made by a model of fingerprint {header.fingerprint.hex()}, which is "
                f"none of {self._seen}; give that model with --model"
            )
        setup = self._setups[coded.model]
        codec = setup.codec(coded.fingerprint)
        begin = time.monotonic()
        with naming(coded):
            picture = codec.decode(*strings, names=coded.names(), max_pixels=self._max_pixels)
        seconds = time.monotonic() - begin
        texts = {
            "Model": printable(os.path.basename(setup.model)),
            "Fingerprint": codec.fingerprint.hex(),
            "Checksum": coded_files.checksum(*strings),
        }
        if self._to_stream:
            write_stream(coded.target, encode_png(picture, texts))
        else:
            make_folder(os.path.dirname(coded.target))
            write_png(coded.target, picture, texts, modified)
        height, width, _ = picture.shape
        figures = coded_files.figures(height, width, sum(map(len, strings)))
        return {**figures, "seconds": seconds}

    def existing(self, coded: Coded) -> dict[str, Any] | None:
        if coded.data is not None or not coded_files.have_one_date([coded.target], coded.paths):
            return None
        try:
            strings = coded_files.read(coded.paths)
            png = check_png(coded.target)
        except CodecError:
            return None  # decoding the image again repairs it or reports the error
        if png.texts.get("Checksum") != coded_files.checksum(*strings):
            return None
        return coded_files.figures(png.height, png.width, sum(map(len, strings)))

    def text(self, coded: Coded, figures: dict[str, Any]) -> str:
        size = f"{figures['width']}x{figures['height']}"
        target = printable(coded.target)
        return f"{coded} -> {target} ({size})\nTime: {figures['seconds']:.2f} s\n"


def _find(args: argparse.Namespace) -> tuple[list[Coded], list[str]]:
    """Finds the coded images, says what was passed over, and decides where the pictures go.

    Returns:
      list of Coded, and list of messages about what cannot be reached.

    Raises:
      BitstreamError: there is no coded image.
      ImageError: several are to go into one file.
    """
    paths = [path for path in args.input if path != STANDARD]
    found, notes, failures = find_coded(paths, args.exclude) if paths else CodedListing([], [], [])
    coding_options.tell(notes, failures)
    if STANDARD in args.input:
        name = coding_options.name_of_standard_input(found)
        found = [*found, CodedImage((STANDARD,), name)]
    if not args.info and coding_options.takes_one(args):
        if len(found) > 1:
            raise ImageError(
                f"{args.output}: holds one picture, and {len(found)} are given; give a folder"
            )
        targets = [args.output] * len(found)
    else:
        targets = [os.path.join(args.output, f"{image.name}{_PICTURE}") for image in found]
    return [
        Coded(
            image.paths,
            image.name,
            target,
            read_stream(image.paths[0]) if is_stream(image.paths[0]) else None,
        )
        for image, target in zip(found, targets)
    ], failures


def _with_models(
    models: Sequence[ModelPath] | None, found: Sequence[Coded]
) -> tuple[list[Coded], list[str], str]:
    """Finds the model that made each image.

    Args:
      models: named by the user, or None to look at all that have a name.
      found: list of Coded, without models.

    Returns:
      coded: list of Coded, sorted by model, so that each process loads each of them once.
      needed: paths of the models that are needed.
      seen: what to call the models that were looked at.

    Raises:
      CheckpointError: a model that the user has named cannot be read.
    """
    if models and len(models) == 1:
        # No other is looked for, and a message about another fingerprint tells both.
        path = models[0].path
        return [coded._replace(model=path) for coded in found], [path], ""
    fingerprints = [_fingerprint(coded) for coded in found]
    by_mark, seen = _models_of(fingerprints, models)
    result = []
    for coded, fingerprint in zip(found, fingerprints):
        model_of = by_mark.get(fingerprint) if fingerprint else None
        path = model_of.path if model_of else ""  # also where the header is damaged
        result.append(coded._replace(model=path, fingerprint=fingerprint))
    result.sort(key=lambda coded: coded.model)
    listed = [f"{shown_name(path)} ({mark})" for path, mark in seen.items()]
    needed = [model.path for model in by_mark.values()]
    return result, needed, ", ".join(listed) or "those in ./models, where there is none"


def _models_of(
    fingerprints: Iterable[bytes | None], models: Sequence[ModelPath] | None
) -> tuple[dict[bytes, ModelPath], dict[str, str]]:
    """Looks for models among those named, or else all that have a name; see `by_fingerprint`."""
    wanted = set(filter(None, fingerprints))
    among = models or named_models(cli.DEFAULT_MODEL)
    return by_fingerprint.find(wanted, among, named=bool(models))


def _fingerprint(coded: Coded) -> bytes | None:
    try:
        return file_format.fingerprint_of(coded_files.read_start(coded.paths, coded.data))
    except BitstreamError:
        return None  # reported when the image is decoded


def _decode(args: argparse.Namespace, named: Sequence[ModelPath] | None) -> int:
    found, unreached = _find(args)
    found, models, seen = _with_models(named, found)
    begin = time.monotonic()
    with coding_options.start(args, models, len(found)) as codecs:
        ready = time.monotonic()
        to_stream = is_stream(args.output)
        task = Decoding(codecs.setups, seen, args.max_pixels, args.overwrite, to_stream)
        with Summary(args.summary, COLUMNS, args.skip_existing, args.overwrite) as summary:
            results, failed = run_folder(
                found, task, codecs.processes, summary, args.skip_existing, args.quiet
            )
    if not args.quiet:
        seconds = [figures["seconds"] for figures in results]
        mean = f": on average {sum(seconds) / len(seconds):.2f} s" if results else ""
        runtime = f"{codecs.started.runtime}, " if codecs.started else ""
        print(
            f"{cli.count_text(len(results), len(results) + len(failed))}{mean}; "
            f"{runtime}start-up {ready - begin:.1f} s, then {time.monotonic() - ready:.1f} s"
        )
        for failure in [*map(str, failed), *unreached]:
            print(f"failed: {printable(failure)}")
    return 1 if failed or unreached else 0


def _show(args: argparse.Namespace, named: Sequence[ModelPath] | None) -> int:
    """Prints what coded files say of themselves. Returns the exit status."""
    found, unreached = _find(args)
    models, _ = _models_of(map(_fingerprint, found), named)

    def show(coded: Coded) -> tuple[str, None]:
        strings = coded_files.read(coded.paths, coded.data)
        fingerprint = file_format.fingerprint_of(strings[0])
        model_of = models.get(fingerprint) if fingerprint else None
        info = describe(*strings, coded.names(), model_of)
        model = printable(shown_name(info.model)) if info.model else "not here"
        parts = f"header and z {info.npz_bytes:,}"
        if info.header_bytes is not None:
            parts = f"header {info.header_bytes:,}, z {info.z_bytes:,}"
        return (
            f"{', '.join(dict.fromkeys(coded.names()))}\n"
            f"Size: {info.width}x{info.height} pixels, {'gray' if info.gray else 'RGB'}\n"
            f"Model: {model} (fingerprint {info.fingerprint})\n"
            f"Bytes: {parts}, y {info.y_bytes:,}\n"
            f"Bits per pixel: {info.bpp:.4f}\n"
            f"Format version: {info.version}\n"
        ), None

    shown = cli.process_all(found, show, args.quiet, len(found))
    return 1 if unreached or len(shown) < len(found) else 0


def _run(args: argparse.Namespace) -> int:
    # First, so that a mistyped image behind --model is not taken for one of a default.
    named = [locate(model) for model in args.model] if args.model else None
    if args.info:
        return _show(args, named)
    with coding_options.printing_elsewhere(args.output):
        return _decode(args, named)


def main(argv: list[str] | None = None) -> int:
    """The command `gmm-decode`. Returns the exit status."""
    parser = coding_options.parser(
        "Decodes what encoder.py wrote: NAME.npz and NAME.bin, or NAME.gmm, to NAME.png.",
        default_input="images",
        default_output="recon",
        input_help="folders searched recursively, or .npz, .bin or .gmm files",
        one_file=_PICTURE,
        no_folder=(*IMAGE_SUFFIXES, coded_files.SUFFIX_OF_BOTH),
    )
    parser.add_argument(
        "--model",
        metavar="PATH",
        nargs="+",
        help=f"{cli.MODEL_HELP}; of several, each image takes the one that made it (all in "
        "./models and all installed)",
    )
    parser.add_argument(
        "--info",
        action="store_true",
        help="print what the files say of themselves (size, model, bytes of header, z and y, "
        "format version), and decode nothing",
    )
    args = coding_options.parse(parser, argv)
    return cli.run_main(lambda: _run(args), args.quiet)


if __name__ == "__main__":
    sys.exit(main())
