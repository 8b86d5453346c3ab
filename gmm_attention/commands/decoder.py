"""NAME.npz and NAME.bin to NAME.png."""

import functools
import os
import sys
import time
from typing import NamedTuple

import numpy as np

from gmm_attention.codec import file_format
from gmm_attention.codec.latent_codec import z_sides
from gmm_attention.commands import batch, coding
from gmm_attention.commands.summary import Summary
from gmm_attention.errors import BitstreamError, CodecError
from gmm_attention.files import make_folder
from gmm_attention.images import check_png, write_png

COLUMNS = ("name", "width", "height", "bytes", "bpp", "seconds", "error")


class _Pair(NamedTuple):
    """Two files."""

    stem: str
    name: str  # relative to the folder that was given
    target: str

    def __str__(self):
        return coding.coded_names(self.stem)[0]


class _Decoded(NamedTuple):
    """What is decoded of an image: first its latents, then its pixels."""

    height: int
    width: int
    num_bytes: int
    seconds: float
    array: np.ndarray


def _find_coded(path):
    """Finds coded images.

    Args:
      path: a folder, searched recursively, or one of an image's two files, or what both share.

    Returns:
      list of (path without .npz and .bin, the same relative to the folder), sorted.

    Raises:
      BitstreamError: nothing there.
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


def _refuse_folder(error):
    raise BitstreamError(
        f"{error.filename}: cannot be read: {error.strerror}; check its permissions"
    ) from error


# The steps of `pipeline.in_steps`.


def _pixels(pair):
    name = coding.coded_names(pair.stem)[0]
    try:
        height, width = file_format.read_size(coding.read_bytes(name), name)
    except CodecError:
        return 0  # to be told when it is decoded
    return height * width


def _decode_latents(pair, max_pixels):
    files, names = coding.read_coded(pair.stem), coding.coded_names(pair.stem)
    begin = time.monotonic()
    height, width, y_hat = coding.latent_codec().decode(*files, names, max_pixels)
    return _Decoded(height, width, sum(map(len, files)), time.monotonic() - begin, y_hat)


def _synthesize(pairs, several, codec):
    begin = time.monotonic()
    with batch.about(pairs[0]):
        pictures = codec.synthesize(
            [one.array for one in several], [(one.height, one.width) for one in several]
        )
    seconds = (time.monotonic() - begin) / len(several)
    return [
        one._replace(array=picture, seconds=one.seconds + seconds)
        for one, picture in zip(several, pictures)
    ]


def _write(pair, decoded):
    make_folder(os.path.dirname(pair.target))
    write_png(pair.target, decoded.array)
    figures = coding.figures_of(decoded.height, decoded.width, decoded.num_bytes)
    return {**figures, "seconds": decoded.seconds}


def _together(decoded, codec):
    size = decoded.height, decoded.width
    return codec.most_together(*size), z_sides(*size)


def _text(pair, figures):
    size = f"{figures['width']}x{figures['height']}"
    return f"{pair} -> {pair.target} ({size})\nTime: {figures['seconds']:.2f} s\n"


def _existing(pair, codec):
    """What there is of a picture: figures, or None where it is to be made."""

    def fits(coded):
        return check_png(pair.target) == (coded.height, coded.width)

    names = coding.coded_names(pair.stem)
    return coding.existing(codec, pair.stem, [pair.target], names, fits)


def _run(args):
    pairs = [
        _Pair(stem, name, os.path.join(args.output, f"{name}.png"))
        for stem, name in _find_coded(args.input)
    ]
    begin = time.monotonic()
    others = coding.divide_cores(args.jobs, len(pairs), args.device)
    codec = batch.start(args.model, args.device, args.precision)
    ready = time.monotonic()
    direction = coding.Direction(
        pixels=_pixels,
        before=functools.partial(_decode_latents, max_pixels=args.max_pixels),
        transform=functools.partial(_synthesize, codec=codec),
        after=_write,
        together=functools.partial(_together, codec=codec),
        existing=functools.partial(_existing, codec=codec),
        text=_text,
    )
    with Summary(args.summary, COLUMNS, args.skip_existing) as summary:
        results, failed = coding.run_all(
            codec, pairs, direction, others, summary, args.skip_existing, args.quiet
        )
    if not args.quiet:
        seconds = [figures["seconds"] for figures in results]
        mean = f": on average {sum(seconds) / len(seconds):.2f} s" if results else ""
        print(
            f"{batch.count_text(len(results), len(results) + len(failed))}{mean}; "
            f"start-up {ready - begin:.1f} s, then {time.monotonic() - ready:.1f} s"
        )
        for pair in failed:
            print(f"failed: {pair}")
    return 1 if failed else 0


def main(argv=None):
    """The command `gmm-decode`. Returns the exit status."""
    parser = coding.parser(
        "Decodes what encoder.py wrote: NAME.npz and NAME.bin to NAME.png.",
        default_input="images",
        default_output="recon",
        input_help="a folder searched recursively, or one .npz or .bin file",
    )
    parser.add_argument(
        "--model",
        metavar="PATH",
        default=batch.DEFAULT_MODEL,
        help=f"{batch.MODEL_HELP} ({batch.DEFAULT_MODEL})",
    )
    args = parser.parse_args(argv)
    return batch.guarded(lambda: _run(args), args.quiet)


if __name__ == "__main__":
    sys.exit(main())
