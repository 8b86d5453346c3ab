"""Image files that the tests make themselves, and a reader of their bytes."""

import io
import struct
import zlib

import numpy as np
import pytest

from gmm_attention.errors import ImageError
from gmm_attention.images import read_image

LOSSLESS = {
    "png": {"format": "PNG"},
    "bmp": {"format": "BMP"},
    "webp": {"format": "WEBP", "lossless": True, "exact": True},
    "tiff": {"format": "TIFF"},
    "tiff deflate": {"format": "TIFF", "compression": "tiff_deflate"},
}
EVERY_KIND = {
    **LOSSLESS,
    "jpeg": {"format": "JPEG"},
    "tiff jpeg": {"format": "TIFF", "compression": "jpeg"},
}


def noise(*shape, dtype=np.uint8):
    limit = np.iinfo(dtype).max
    return np.random.default_rng(7).integers(0, limit, shape, endpoint=True).astype(dtype)


def opaque(rgb):
    return np.dstack([rgb, np.full_like(rgb[..., 0], np.iinfo(rgb.dtype).max)])


def encoded(image, **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, **kwargs)
    return buffer.getvalue()


def chunk(name, content):
    """A chunk of a PNG."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


# Adam7: first row and column of each pass, and the steps between rows and columns.
PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
PASSES += [(1, 0, 2, 1)]


def png_rows(samples, depth):
    """The rows of a PNG, with their filter, of samples [H, W, C]."""
    rows = []
    for row in samples:
        if depth >= 8:
            rows.append(row.astype(f">u{depth // 8}").tobytes())
        else:
            bits = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
            rows.append(np.packbits(bits).tobytes())
    return b"".join(b"\0" + row for row in rows)


def png(samples, color_type, depth=None, interlaced=False, before=b"", after=b"", end=True):
    """A PNG of raw samples [H, W, C], with chunks before and after the pixels.

    Pillow writes no 16-bit colour, no interlaced files, and no broken chunks.
    """
    height, width, _ = samples.shape
    depth = depth or 8 * samples.dtype.itemsize
    parts = [samples]
    if interlaced:
        parts = [samples[y::step_y, x::step_x] for y, x, step_y, step_x in PASSES]
    pixels = b"".join(png_rows(part, depth) for part in parts if part.shape[1])
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlaced)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            before,
            chunk(b"IDAT", zlib.compress(pixels)),
            after,
            chunk(b"IEND", b"") if end else b"",
        ]
    )


def tiff(samples, photometric, order="<", deflate=False, planar=1, sample_format=1, extra=()):
    """A TIFF of raw samples, uint8, uint16 or uint32 [H, W, C]."""
    height, width, bands = samples.shape
    raw = samples.astype(samples.dtype.newbyteorder(order))
    strips = [raw.tobytes()] if planar == 1 else [raw[..., i].tobytes() for i in range(bands)]
    strips = [zlib.compress(strip) if deflate else strip for strip in strips]
    starts = np.cumsum([8] + [len(strip) for strip in strips])
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8 * samples.dtype.itemsize] * bands),
        259: ("H", [8 if deflate else 1]),
        262: ("H", [photometric]),
        273: ("I", list(starts[:-1])),
        277: ("H", [bands]),
        278: ("I", [height]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [planar]),
        339: ("H", [sample_format] * bands),
    }
    if extra:
        tags[338] = ("H", list(extra))
    directory, values = b"", b""
    values_start = starts[-1] + 2 + 12 * len(tags) + 4
    for tag, (kind, numbers) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(value) > 4:
            values += value
            value = struct.pack(f"{order}I", values_start + len(values) - len(value))
        directory += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(numbers))
        directory += value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", starts[-1])
    return (
        head
        + b"".join(strips)
        + struct.pack(f"{order}H", len(tags))
        + directory
        + bytes(4)
        + values
    )


def reader(folder):
    """A function that reads the image in some bytes; the file's name tells nothing about them."""

    def read_bytes(data, **kwargs):
        path = folder / "some image"
        path.write_bytes(data)
        return read_image(path, **kwargs)

    return read_bytes


def assert_refused(read, data, reason):
    with pytest.raises(ImageError, match=f"some image: .*{reason}.*; ") as caught:
        read(data)
    assert "\n" not in str(caught.value)
