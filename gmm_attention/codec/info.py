"""What a coded file says of itself, without decoding it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple

from gmm_attention.checkpoints import by_fingerprint
from gmm_attention.checkpoints.locate import ModelPath, named_models
from gmm_attention.codec import file_format
from gmm_attention.codec.latent_codec import NAMES
from gmm_attention.errors import BitstreamError


class Info(NamedTuple):
    """What a coded file says of itself.

    Attributes:
      version: format version.
      height, width: pixels.
      gray: whether the picture is gray.
      fingerprint: of the model, 8 hexadecimal digits.
      model: the model's path, or None if it is not here.
      header_bytes, z_bytes: of NAME.npz. They depend on the model's N, so both are None where it is
        not here.
      npz_bytes, y_bytes: sizes of NAME.npz and of NAME.bin.
    """

    version: int
    height: int
    width: int
    gray: bool
    fingerprint: str
    model: str | None
    header_bytes: int | None
    z_bytes: int | None
    npz_bytes: int
    y_bytes: int

    @property
    def bpp(self) -> float:
        """Bits per pixel of both files."""
        return 8 * (self.npz_bytes + self.y_bytes) / (self.height * self.width)


def info(data: bytes) -> Info:
    """Reads what `ImageCodec.compress` returned, or a file NAME.gmm; decodes nothing.

    The model is looked for among those that have a name: in ./models, and those installed.

    Raises:
      BitstreamError: the data is foreign, truncated, damaged or of an unknown format version.
    """
    return describe(*file_format.split(data), NAMES, named_models())


def describe(
    npz: bytes, y_string: bytes, names: tuple[str, str], models: Iterable[ModelPath]
) -> Info:
    """As `info`, of the bytes of NAME.npz and NAME.bin.

    Args:
      npz, y_string: bytes of both.
      names: of both, for messages.
      models: of ModelPath, among which to look for the one that made the file.

    Raises:
      BitstreamError: see `info`; or the two do not belong together.
      CheckpointError: a model cannot be read.
    """
    header = file_format.read_header(npz, names[0])
    if zlib.crc32(y_string) != header.y_checksum:
        raise BitstreamError(
            f"{names[1]}: truncated, damaged, or not the file that belongs to {names[0]}: wrong "
            "checksum; copy it or encode the image again"
        )
    found, _ = by_fingerprint.find([header.fingerprint], models)
    model = found.get(header.fingerprint)
    num_filters = model.settings.get("num_filters") if model else None
    header_bytes = z_bytes = None
    if num_filters:
        header_bytes = header.num_bytes + num_filters // 8 + 4
        z_bytes = len(npz) - header_bytes
    return Info(
        header.version,
        header.height,
        header.width,
        header.version == file_format.GRAY,
        header.fingerprint.hex(),
        model.path if model else None,
        header_bytes,
        z_bytes,
        len(npz),
        len(y_string),
    )
