"""Where the bits of a coded image go: to which latents, channels and parts of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gmm_attention.codec import file_format

if TYPE_CHECKING:
    from gmm_attention.codec.image_codec import ImageCodec


class Bits(NamedTuple):
    """Bits of one coded image, and bits that the float model would need (its cross-entropy).

    Attributes:
      height, width: pixels.
      file_y, file_z, header: bits of the strings of y and z, and of all else in both files.
      y_channels, z_channels: [N] cross-entropy of each channel, bits.
      live: [N] bool, the channels of y that are not zero everywhere.
      block_bpp: [ceil(H/16), ceil(W/16)] cross-entropy of y and z in each block of 16x16 pixels,
        in bits per pixel. The bits of an element of z are spread over its 64x64 pixels. Blocks
        that lie wholly in the padding are left out.
      padding: share of the cross-entropy that lies in the blocks left out, 0..1.
    """

    height: int
    width: int
    file_y: int
    file_z: int
    header: int
    y_channels: np.ndarray
    z_channels: np.ndarray
    live: np.ndarray
    block_bpp: np.ndarray
    padding: float


def bits_of(codec: ImageCodec, image: np.ndarray) -> Bits:
    """Codes an image and counts its bits by where they go.

    Args:
      codec: ImageCodec.
      image: uint8 [H, W, 3], 0..255.

    Raises:
      ImageError: see `ImageCodec.encode`.
    """
    npz, y_string, _ = codec.encode(image)
    coded = file_format.unpack(
        npz, y_string, codec.num_filters, codec.fingerprint, ("", "", codec.name)
    )
    arrays = codec.inspect(image)
    y, z = arrays["element_bits_y"], arrays["element_bits_z"]
    blocks = y.sum(axis=-1) + np.kron(z.sum(axis=-1), np.full([4, 4], 1 / 16))
    total = blocks.sum()
    rows, columns = (-(-side // 16) for side in image.shape[:2])
    return Bits(
        height=image.shape[0],
        width=image.shape[1],
        file_y=8 * len(y_string),
        file_z=8 * len(coded.z_string),
        header=8 * (len(npz) - len(coded.z_string)),
        y_channels=y.sum(axis=(0, 1)),
        z_channels=z.sum(axis=(0, 1)),
        live=np.unpackbits(np.frombuffer(coded.flags, np.uint8)).astype(bool),
        block_bpp=blocks[:rows, :columns] / 256,
        padding=float(1 - blocks[:rows, :columns].sum() / total) if total else 0.0,
    )
