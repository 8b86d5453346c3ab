"""Writes files whole or not at all: bytes in, files under their final names out."""

import contextlib
import os
import secrets

from gmm_attention.errors import CodecError


def write_atomically(files):
    """Writes files, which appear under their names only when all of them are complete.

    The bytes go to hidden files beside the targets, which are renamed at the end, so a reader
    never meets half a file, and a failure (a full disk) leaves all the older files, not a new one
    beside an old one. A target that is a symbolic link stays one: the file it points to is
    replaced. New files have the permissions that the user's umask gives. The folders must exist.

    Args:
      files: dict of path (str or Path) to bytes; more than one where they are of use only
        together.

    Raises:
      CodecError: a file cannot be written (no such folder, no permission, no space), or a target
        is a folder or a device, which renaming would replace.
    """
    renamings = []
    try:
        for path, data in files.items():
            target = os.path.realpath(path)
            if os.path.exists(target) and not os.path.isfile(target):
                kind = "a folder" if os.path.isdir(target) else "not a regular file"
                raise CodecError(f"{path}: cannot be written: it is {kind}; give a file's name")
            # Not `tempfile`, whose files only their owner may read; and no part of the target's
            # name, which may already be as long as the file system allows.
            temporary = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.tmp")
            renamings.append((temporary, target))
            with open(temporary, "xb") as file:
                file.write(data)
        for temporary, path in renamings:
            os.replace(temporary, path)
    except OSError as error:
        raise CodecError(
            f"{path}: cannot be written: {error.strerror}; check the folder, its permissions "
            "and the free space"
        ) from error
    finally:
        # Also after an interrupt; after success there is nothing left to remove.
        for temporary, _ in renamings:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
