"""Writes and reads the folder of an exported training step; needs neither TensorFlow nor JAX.

program.json        batch, crop, settings, and the inputs and outputs of the programs
train.hlo.gz        the training step: an HloModuleProto of XLA, compressed with gzip
validation.hlo.gz   the measures of one image: likewise
state.npz           the state that training starts from, see state.py
runner.pyz          trains with these files under JAX, see runner.py
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any

from gmm_attention.errors import TrainingError
from gmm_attention.files import make_folder, refuse_foreign, write_atomically
from gmm_attention.training.run_folder import LAST
from gmm_attention.training.state import STATE_FILE

FORMAT = 1
DESCRIPTION_FILE = "program.json"
RUNNER_FILE = "runner.pyz"
PROGRAMS = ("train", "validation")

# All files of this package that the runner imports. None of them may import TensorFlow, imageio or
# loky, which the runner has to do without; images/jpeg_data does without simplejpeg if need be.
_RUNNER_MODULES = (
    "__init__ checkpoints/__init__ checkpoints/files cli errors files folders image_folders names "
    "images/__init__ images/avif images/colour images/exif images/formats images/icc images/jpeg "
    "images/jpeg_data images/pillow images/png images/reading images/source images/tags "
    "images/tiff images/webp_bmp images/writing "
    "training/__init__ training/data training/display training/loop training/options "
    "training/progress training/protocols training/recipe training/run_folder training/running "
    "training/sources training/state "
    "training/xla/__init__ training/xla/jax_step training/xla/files training/xla/runner"
).split()

# The runner's first file.
_RUNNER_HEAD = b"gmm_attention/__init__.py"

_RUNNER_MAIN = """\
import os
import sys

from gmm_attention.training.xla.runner import main

sys.exit(main(os.path.dirname(os.path.abspath(sys.argv[0]))))
"""


def _program_path(directory: str | os.PathLike[str], name: str) -> str:
    return os.path.join(directory, f"{name}.hlo.gz")


def _runner() -> bytes:
    """The runner as a zip file with a `__main__.py`, which Python runs like a script."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for module in _RUNNER_MODULES:
            with open(os.path.join(package, f"{module}.py"), "rb") as file:
                archive.writestr(zipfile.ZipInfo(f"gmm_attention/{module}.py"), file.read())
        archive.writestr(zipfile.ZipInfo("__main__.py"), _RUNNER_MAIN)
    return buffer.getvalue()


def refuse_foreign_files(directory: str | os.PathLike[str], overwrite: bool) -> None:
    """Refuses to replace files in a directory that are not those of an exported step.

    Args:
      directory: need not exist.
      overwrite: whether the user allows to replace any file.

    Raises:
      CodecError: a file that `save` would replace is there, and is not of an exported step.
      TrainingError: a state is there, of a run or of something else.
    """
    description, runner, start = (
        os.path.join(directory, name) for name in (DESCRIPTION_FILE, RUNNER_FILE, STATE_FILE)
    )
    refuse_foreign(description, _is_description, overwrite)
    refuse_foreign(runner, lambda head: _RUNNER_HEAD in head, overwrite)
    # Nothing in the other files tells them from those of other programs.
    is_export = os.path.isfile(description)
    for name in PROGRAMS:
        refuse_foreign(_program_path(directory, name), lambda _: is_export, overwrite)
    is_run = os.path.isdir(os.path.join(directory, LAST))
    if os.path.exists(start) and (is_run or not is_export) and not overwrite:
        raise TrainingError(
            f"{start}: is there already, and is no state that an export wrote; give --export "
            "another folder, move the file away, or allow its loss by --overwrite"
        )


def _is_description(head: bytes) -> bool:
    return head.startswith(b'{"format": ') and b'"validation_size": ' in head


def save(
    directory: str | os.PathLike[str],
    description: Mapping[str, Any],
    programs: Mapping[str, bytes],
) -> None:
    """Writes all files but the state.

    Args:
      directory: made if need be.
      description: dict that JSON can hold, with `batch`, `crop` (pixels), `validation_size`
        (height, width), `network`, `settings`, and `programs`: for each of PROGRAMS its `inputs`
        and `outputs`, lists of (name, dtype, shape) in the program's order.
      programs: dict of PROGRAMS to serialized HloModuleProtos.

    Raises:
      CodecError: the directory or a file in it cannot be written.
    """
    make_folder(directory)
    described = {
        name: {**description["programs"][name], "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in programs.items()
    }
    text = json.dumps({"format": FORMAT, **description, "programs": described}) + "\n"
    files = {
        _program_path(directory, name): gzip.compress(data, mtime=0)
        for name, data in programs.items()
    }
    files[os.path.join(directory, RUNNER_FILE)] = _runner()
    files[os.path.join(directory, DESCRIPTION_FILE)] = text.encode()
    write_atomically(files)


def load(directory: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Reads what `save` wrote.

    Args:
      directory: of the exported step.

    Returns:
      description, programs: see `save`.

    Raises:
      TrainingError: a file is missing, unreadable or damaged, or the files belong to different
        exports or to another version of this package.
    """
    path = os.path.join(directory, DESCRIPTION_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            description = json.load(file)
        found = description["format"]
        if found == FORMAT:
            digests = {name: description["programs"][name]["sha256"] for name in PROGRAMS}
            for key in ("batch", "crop", "validation_size", "network", "settings"):
                description[key]  # noqa: B018
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be read: {error.strerror}; {RUNNER_FILE} belongs into the folder "
            "that train.py --export wrote"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{path}: damaged ({error}); copy or export it again") from error
    if found != FORMAT:
        raise TrainingError(f"{path}: has format {found}, not {FORMAT}; export the step again")
    programs = {}
    for name, digest in digests.items():
        path = _program_path(directory, name)
        try:
            with gzip.open(path) as file:
                programs[name] = file.read()
        except gzip.BadGzipFile as error:
            raise TrainingError(f"{path}: damaged: {error}; copy or export it again") from error
        except OSError as error:
            raise TrainingError(f"{path}: cannot be read: {error.strerror}") from error
        except Exception as error:  # zlib.error and EOFError, of damaged data
            raise TrainingError(f"{path}: damaged: {error}; copy or export it again") from error
        if hashlib.sha256(programs[name]).hexdigest() != digest:
            raise TrainingError(
                f"{path}: not the file that {DESCRIPTION_FILE} describes; copy both"
            )
    return description, programs
