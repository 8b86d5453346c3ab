"""NAME.npz and NAME.bin to NAME.png, for one image or a folder."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any, NamedTuple, NoReturn

from gmm_attention import cli
from gmm_attention.codec import file_format
from gmm_attention.codec.file_format import Coded
from gmm_attention.commands import coding_options
from gmm_attention.errors import BitstreamError, CodecError, naming
from gmm_attention.files import make_folder
from gmm_attention.images import check_png, write_png
from gmm_attention.pipeline import coded_files
from gmm_attention.pipeline.folder import run_folder
from gmm_attention.pipeline.summary import Summary
from gmm_attention.start_up import Setup, Started

COLUMNS = ("name", "width", "height", "bytes", "bpp", "seconds", "error")


class CodedPair(NamedTuple):
    """The two coded files of an image, and the picture that is made of them.

    Attributes:
      stem: the part that the paths of both files share.
      name: the same, relative to the folder that was given.
      target: path of the picture.
    """

    stem: str
    name: str
    target: str

    def __str__(self) -> str:
        return coded_files.names(self.stem)[0]


class Decoding:
    """The task of the decoder: read and decode, synthesize, write.

    Its methods are those of `pipeline.folder.ImageTask`.

    Args:
      setup: Setup of the codec.
      started: what is known of it since the start.
      max_pixels: larger images are refused.
    """

    def __init__(self, setup: Setup, started: Started, max_pixels: int):
        self._setup, self._started, self._max_pixels = setup, started, max_pixels

    def size(self, pair: CodedPair) -> int:
        name = coded_files.names(pair.stem)[0]
        try:
            height, width = file_format.read_size(coded_files.read_one(name), name)
        except CodecError:
            return 0  # reported when the image is decoded
        return height * width

    def process(self, pair: CodedPair) -> dict[str, Any]:
        codec = self._setup.codec(self._started.fingerprint)
        files, names = coded_files.read(pair.stem), coded_files.names(pair.stem)
        begin = time.monotonic()
        with naming(pair):
            picture = codec.decode(*files, names=names, max_pixels=self._max_pixels)
        seconds = time.monotonic() - begin
        make_folder(os.path.dirname(pair.target))
        write_png(pair.target, picture)
        figures = coded_files.figures(picture.shape[0], picture.shape[1], sum(map(len, files)))
        return {**figures, "seconds": seconds}

    def existing(self, pair: CodedPair) -> dict[str, Any] | None:
        def fits(coded: Coded) -> bool:
            return check_png(pair.target)[:2] == (coded.height, coded.width)

        return coded_files.existing_figures(
            self._started.num_filters,
            self._started.fingerprint,
            pair.stem,
            [pair.target],
            coded_files.names(pair.stem),
            fits,
        )

    def text(self, pair: CodedPair, figures: dict[str, Any]) -> str:
        size = f"{figures['width']}x{figures['height']}"
        return f"{pair} -> {pair.target} ({size})\nTime: {figures['seconds']:.2f} s\n"


def _find_coded(path: str) -> list[tuple[str, str]]:
    """Finds coded images.

    Args:
      path: a folder, searched recursively, or one of an image's two files, or the part of their
        paths that both share.

    Returns:
      list of (path without .npz and .bin, the same relative to the folder), sorted.

    Raises:
      BitstreamError: the path does not exist or holds no coded file, or a folder is unreadable.
    """
    if os.path.isdir(path):
        stems = {
            os.path.join(folder, name[:-4])
            for folder, _, names in os.walk(path, onerror=_refuse_folder)
            for name in names
            if name.endswith((".npz", ".bin")) and not name.startswith(".")
        }
        if not stems:
            raise BitstreamError(f"{path}: no .npz or .bin file in it; give the encoder's --output")
        return [(stem, os.path.relpath(stem, path)) for stem in sorted(stems)]
    stem, suffix = os.path.splitext(path)
    if os.path.exists(f"{path}.npz") or os.path.exists(f"{path}.bin"):
        stem = path
    elif suffix not in (".npz", ".bin") or not os.path.exists(path):
        cause = "neither .npz nor .bin" if os.path.exists(path) else "no such file or folder"
        raise BitstreamError(f"{path}: {cause}; give what the encoder wrote")
    return [(stem, os.path.basename(stem))]


def _refuse_folder(error: OSError) -> NoReturn:
    raise BitstreamError(
        f"{error.filename}: cannot be read: {error.strerror}; check its permissions"
    ) from error


def _run(args: argparse.Namespace) -> int:
    pairs = [
        CodedPair(stem, name, os.path.join(args.output, f"{name}.png"))
        for stem, name in _find_coded(args.input)
    ]
    begin = time.monotonic()
    with coding_options.start(args, args.model, len(pairs)) as (setup, started, processes):
        ready = time.monotonic()
        task = Decoding(setup, started, args.max_pixels)
        with Summary(args.summary, COLUMNS, args.skip_existing) as summary:
            results, failed = run_folder(
                pairs, task, processes, summary, args.skip_existing, args.quiet
            )
    if not args.quiet:
        seconds = [figures["seconds"] for figures in results]
        mean = f": on average {sum(seconds) / len(seconds):.2f} s" if results else ""
        print(
            f"{cli.count_text(len(results), len(results) + len(failed))}{mean}; "
            f"{started.runtime}, start-up {ready - begin:.1f} s, "
            f"then {time.monotonic() - ready:.1f} s"
        )
        for pair in failed:
            print(f"failed: {pair}")
    return 1 if failed else 0


def main(argv: list[str] | None = None) -> int:
    """The command `gmm-decode`. Returns the exit status."""
    parser = coding_options.parser(
        "Decodes what encoder.py wrote: NAME.npz and NAME.bin to NAME.png.",
        default_input="images",
        default_output="recon",
        input_help="a folder searched recursively, or one .npz or .bin file",
    )
    parser.add_argument(
        "--model",
        metavar="PATH",
        default=cli.DEFAULT_MODEL,
        help=f"{cli.MODEL_HELP} ({cli.DEFAULT_MODEL})",
    )
    args = coding_options.parse(parser, argv)
    return cli.run_main(lambda: _run(args), args.quiet)


if __name__ == "__main__":
    sys.exit(main())
