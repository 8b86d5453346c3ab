"""Where the bits of a coded image go: to which latents, channels and parts of the image."""

from typing import NamedTuple

import numpy as np

from gmm_attention.codec import file_format


class Bits(NamedTuple):
    """Bits of one coded image, and what the float model would need (its cross-entropy).

    Attributes:
      height, width: pixels.
      file_y, file_z, header: bits of y's and z's strings, and the rest of both files.
      y_channels, z_channels: [N] cross-entropy of each channel, bits.
      live: [N] bool, the channels of y that are not zero everywhere.
      block_bpp: [ceil(H/16), ceil(W/16)] cross-entropy of y and z in each 16x16 pixels, over 256;
        an element of z counts for the 64x64 pixels that it belongs to. Blocks that lie wholly in
        the padding are left out.
      padding: part of the cross-entropy that lies in those, 0..1.
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


def bits_of(codec, image):
    """Codes an image and takes its bits apart.

    Args:
      codec: ImageCodec.
      image: uint8 [H, W, 3], 0..255.

    Returns:
      a Bits.

    Raises:
      ImageError: see `ImageCodec.encode`.
    """
    npz, y_string, _ = codec.encode(image)
    coded = file_format.unpack(
        npz, y_string, codec.model.num_filters, codec.fingerprint, ("", "", codec.name)
    )
    arrays = codec.inspect(image)
    y, z = arrays["element_bits_y"], arrays["element_bits_z"]
    blocks = y.sum(axis=-1) + np.kron(z.sum(axis=-1), np.full([4, 4], 1 / 16))
    rows, columns = (-(-side // 16) for side in image.shape[:2])
    return Bits(
        *image.shape[:2],
        8 * len(y_string),
        8 * len(coded.z_string),
        8 * (len(npz) - len(coded.z_string)),
        y.sum(axis=(0, 1)),
        z.sum(axis=(0, 1)),
        np.unpackbits(np.frombuffer(coded.flags, np.uint8)).astype(bool),
        blocks[:rows, :columns] / 256,
        float(1 - blocks[:rows, :columns].sum() / blocks.sum()),
    )
