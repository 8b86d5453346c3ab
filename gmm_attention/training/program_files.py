"""The folder of an exported training step, written and read; needs neither TensorFlow nor JAX.

program.json        batch, crop and settings, and what the programs take and give
train.hlo.gz        the training step: an HloModuleProto of XLA, compressed by gzip
validation.hlo.gz   the measure of one image, likewise
state.npz           the state that training begins at, see state.py
runner.pyz          trains with them by JAX, see runner.py
"""

import gzip
import hashlib
import io
import json
import os
import zipfile

from gmm_attention.errors import TrainingError
from gmm_attention.files import make_folder, write_atomically

FORMAT = 1
DESCRIPTION_FILE = "program.json"
RUNNER_FILE = "runner.pyz"
PROGRAMS = ("train", "validation")

# All that the runner imports, as files of this package.
_RUNNER_MODULES = (
    "__init__ checkpoints errors files images commands/__init__ commands/batch "
    "training/__init__ training/data training/display training/jax_program training/loop "
    "training/options training/program_files training/recipe training/run_folder "
    "training/runner training/state"
).split()

_RUNNER_MAIN = """\
import os
import sys

from gmm_attention.training.runner import main

sys.exit(main(os.path.dirname(os.path.abspath(sys.argv[0]))))
"""


def _program_path(directory, name):
    return os.path.join(directory, f"{name}.hlo.gz")


def _runner():
    """The runner as one file that Python runs (a zip file with a `__main__.py`)."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for module in _RUNNER_MODULES:
            with open(os.path.join(package, f"{module}.py"), "rb") as file:
                archive.writestr(zipfile.ZipInfo(f"gmm_attention/{module}.py"), file.read())
        archive.writestr(zipfile.ZipInfo("__main__.py"), _RUNNER_MAIN)
    return buffer.getvalue()


def save(directory, description, programs):
    """Writes everything but the state into a directory, made if need be.

    Args:
      description: dict that JSON can hold, with `batch`, `crop` (pixels), `validation_size`
        (height, width), `network`, `settings`, and `programs`: for each of PROGRAMS its `inputs`
        and `outputs`, lists of (name, dtype, shape) in the order of the program's.
      programs: dict of PROGRAMS to bytes, serialized HloModuleProtos.

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


def load(directory):
    """Reads what `save` wrote.

    Returns:
      description, programs.

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
        except Exception as error:  # zlib's error, EOFError
            raise TrainingError(f"{path}: damaged: {error}; copy or export it again") from error
        if hashlib.sha256(programs[name]).hexdigest() != digest:
            raise TrainingError(
                f"{path}: not the file that {DESCRIPTION_FILE} describes; copy both"
            )
    return description, programs
