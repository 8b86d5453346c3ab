"""NAME.npz and NAME.bin to NAME.png."""

import os
import sys
import time

from gmm_attention.commands import batch
from gmm_attention.errors import BitstreamError
from gmm_attention.files import make_folder


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


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise BitstreamError(
            f"{path}: missing; both files of an image are needed, copy it beside the other"
        ) from error
    except OSError as error:
        raise BitstreamError(
            f"{path}: cannot be read: {error.strerror}; check what it is and its permissions"
        ) from error


def _decode(codec, stem, target, max_pixels):
    """Decodes one image; returns what to print, and the seconds it took."""
    from gmm_attention.images import write_png

    names = f"{stem}.npz", f"{stem}.bin"
    npz, y_string = (_read(name) for name in names)
    begin = time.monotonic()
    with batch.about(names[0]):
        image = codec.decode(npz, y_string, names, max_pixels)
    seconds = time.monotonic() - begin
    make_folder(os.path.dirname(target))
    write_png(target, image)
    height, width = image.shape[:2]
    return f"{names[0]} -> {target} ({width}x{height})\nTime: {seconds:.2f} s\n", seconds


def _run(args):
    found = _find_coded(args.input)
    codec, start_up = batch.start(args.model, args.device)
    results = batch.process_all(
        found,
        lambda job: _decode(
            codec, job[0], os.path.join(args.output, f"{job[1]}.png"), args.max_pixels
        ),
        args.quiet,
    )
    if not args.quiet:
        mean = f": on average {sum(results) / len(results):.2f} s" if results else ""
        print(f"{batch.count_text(len(results), len(found))}{mean}; start-up {start_up:.1f} s")
    return 0 if len(results) == len(found) else 1


def main(argv=None):
    """The command `gmm-decode`. Returns the exit status."""
    parser = batch.parser(
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
