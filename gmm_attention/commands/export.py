"""A checkpoint of any kind to an exported model, which codes the same on every machine."""

from __future__ import annotations

import argparse
import os

from gmm_attention.checkpoints import files
from gmm_attention.cli import run_main
from gmm_attention.errors import CheckpointError


def _export(checkpoint: str, directory: str, overwrite: bool) -> int:
    from gmm_attention.checkpoints import loading

    files.refuse_foreign_model(directory, overwrite)
    model = loading.load(checkpoint)
    fingerprint = model.fingerprint.hex()
    _keep_another(directory, fingerprint, overwrite)
    settings = {**model.settings, "exported": True, "fingerprint": fingerprint}
    files.save(directory, model.exported, settings)
    print(f"{directory}: fingerprint {fingerprint}")
    return 0


def _keep_another(directory: str, fingerprint: str, overwrite: bool) -> None:
    """Refuses to replace another model, for nothing else decodes the files that it has coded."""
    if overwrite or not os.path.exists(os.path.join(directory, files.SETTINGS_FILE)):
        return
    settings = files.load_settings(directory)
    if not settings.get("exported"):
        raise CheckpointError(
            f"{directory}: holds a checkpoint, which its export would replace; give another "
            "folder, or allow its loss by --overwrite"
        )
    if settings.get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"{directory}: holds another model (fingerprint {settings.get('fingerprint')}), "
            "without which its files cannot be decoded; give another folder, or allow its loss by "
            "--overwrite"
        )


def main(argv: list[str] | None = None) -> int:
    """The command `python -m gmm_attention.export`. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m gmm_attention.export", description="Exports a checkpoint for coding."
    )
    parser.add_argument("checkpoint", help="training checkpoint, or prefix of a TF1 checkpoint")
    parser.add_argument("directory", help="folder of the exported model, such as models/NAME")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that this program did not write, and other models",
    )
    args = parser.parse_args(argv)
    return run_main(lambda: _export(args.checkpoint, args.directory, args.overwrite), quiet=False)
