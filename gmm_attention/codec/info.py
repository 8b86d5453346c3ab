"""What a coded file says of itself, without decoding it."""

from __future__ import annotations

from typing import NamedTuple

from gmm_attention.checkpoints import by_fingerprint
from gmm_attention.checkpoints.locate import ModelPath, named_models
from gmm_attention.codec import file_format
from gmm_attention.codec.latent_codec import NAMES


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
    npz, y_string = file_format.split(data)
    fingerprint = file_format.fingerprint_of(npz)
    found, _ = by_fingerprint.find([fingerprint] if fingerprint else [], named_models(), False)
    return describe(npz, y_string, NAMES, found.get(fingerprint) if fingerprint else None)


def describe(npz: bytes, y_string: bytes, names: tuple[str, str], model: ModelPath | None) -> Info:
    """As `info`, of the bytes of NAME.npz and NAME.bin.

    Args:
      npz, y_string: bytes of both.
      names: of both, for messages.
      model: the one that made the file, or None if it is not here.

    Raises:
      BitstreamError: see `info`; or the two do not belong together.
    """
    header = file_format.read_header(npz, names[0])
    file_format.check_belongs(header, y_string, names)
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
