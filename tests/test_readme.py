"""The README's Python example and its table of photographs hold as they stand there."""

import io
import re
import zlib

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from gmm_attention.errors import ImageError
from gmm_attention.images import is_gray, read_image


def test_the_python_example_runs_in_a_clone(tmp_path, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"^```python\n(.+?)^```$", readme, re.DOTALL | re.MULTILINE)[1]
    for name in ("models", "valid"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(compile(example, "README.md", "exec"), found)
    # What its comments promise.
    image, decoded = found["image"], found["decoded"]
    assert image.dtype == decoded.dtype == np.uint8 and image.shape == decoded.shape
    assert type(found["data"]) is bytes and len(found["data"]) < image.nbytes / 20
    names = re.search(r"^arrays = .+# (.+)$", example, re.MULTILINE)[1]
    assert {name for name in names.split(", ") if name != "..."} <= set(found["arrays"])


# The table of what becomes of a photograph, row by row.


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient():
    y, x = np.mgrid[:40, :60]
    return np.stack([4 * x, 6 * y, 2 * x + 2 * y], axis=-1).astype(np.uint8)


PHOTO = Image.fromarray(gradient())
GRAY = PHOTO.convert("L")


def with_alpha(alpha):
    image = PHOTO.copy()
    image.putalpha(Image.fromarray(np.asarray(alpha, np.uint8)))
    return image


OPAQUE, HALF, NONE = np.full([40, 60], 255), np.full([40, 60], 128), np.zeros([40, 60])
DAMAGED_JPEG = bytearray(saved(PHOTO.resize([300, 200]), "JPEG", quality=95))
DAMAGED_JPEG[len(DAMAGED_JPEG) // 2 : len(DAMAGED_JPEG) // 2 + 40] = bytes(40)
DAMAGED_PNG = bytearray(saved(PHOTO))
DAMAGED_PNG[len(DAMAGED_PNG) // 2] ^= 1


def exif_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.fromarray(np.ascontiguousarray(np.rot90(gradient()))), exif=exif)


def png_chunk(name, data):
    """A PNG of the photograph with one more chunk behind its header."""
    chunk = len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
    png = saved(PHOTO)
    return png[:33] + chunk + png[33:]


def with_thumbnail():
    thumbnail = PHOTO.resize([15, 10])
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    return saved(PHOTO, "TIFF", save_all=True, append_images=[thumbnail])


# By the first cell of a row: files, and the pixels that they are read as, if that is told.
ROWS = {
    "8-bit RGB: PNG, JPEG, WebP, AVIF, BMP, TIFF": [
        *((saved(PHOTO, kind), gradient()) for kind in ("PNG", "BMP", "TIFF")),
        (saved(PHOTO, "WEBP", lossless=True), gradient()),
        *((saved(PHOTO, kind), None) for kind in ("JPEG", "AVIF")),
    ],
    "EXIF orientation": [(exif_turned(), np.rot90(np.rot90(gradient()), -1))],
    "gray or 1-bit samples": [
        (saved(GRAY), np.dstack([np.asarray(GRAY)] * 3)),
        (saved(GRAY.convert("1")), None),
    ],
    "a palette": [(saved(PHOTO.quantize(200)), np.asarray(PHOTO.quantize(200).convert("RGB")))],
    "a colour profile; Adobe RGB by EXIF; PNG's gAMA, cHRM, cICP": [
        (png_chunk(b"gAMA", (100_000).to_bytes(4, "big")), "other"),
        (png_chunk(b"cICP", bytes([12, 13, 0, 1])), "other"),
    ],
    "a colour profile that cannot be used, a damaged colour chunk": [
        (saved(PHOTO, icc_profile=b"damaged"), gradient()),
        (png_chunk(b"gAMA", bytes(4))[:-1 - len(saved(PHOTO)[33:])] + b"!" + saved(PHOTO)[33:],
         gradient()),
    ],
    "16-bit samples": [
        (saved(Image.fromarray(gradient()[..., 0].astype(np.uint16) * 257)),
         np.dstack([gradient()[..., 0]] * 3)),
    ],
    "alpha that is opaque everywhere, or TIFF's thumbnails and masks": [
        *((saved(with_alpha(OPAQUE), kind), gradient()) for kind in ("PNG", "TIFF")),
        (with_thumbnail(), gradient()),
    ],
    "alpha that is zero everywhere": [(saved(with_alpha(NONE)), gradient())],
    "transparent pixels": [(saved(with_alpha(HALF), kind), None) for kind in ("PNG", "TIFF")],
    "HDR (PQ, HLG), CMYK, float, 32-bit or signed samples": [
        *((png_chunk(b"cICP", bytes([9, transfer, 0, 1])), None) for transfer in (16, 18)),
        (saved(PHOTO.convert("CMYK"), "JPEG"), None),
        *((saved(GRAY.convert(mode), "TIFF"), None) for mode in "FI"),
    ],
    "several frames or pages": [
        (saved(PHOTO, kind, save_all=True, append_images=[PHOTO.rotate(180)]), None)
        for kind in ("PNG", "TIFF", "WEBP", "AVIF")
    ],
    "damaged JPEG data, damaged pixels of a PNG": [
        (bytes(DAMAGED_JPEG), "told"),
        (bytes(DAMAGED_PNG), None),
    ],
    "another format: HEIC, GIF, raw, video": [
        (saved(PHOTO, "GIF"), None),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), None),
    ],
}  # fmt: skip


def table():
    """The outcome in each row, by its first cell."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.search(r"^\| a photograph with .*\n\| --- .*\n((?:\|.*\n)+)", readme, re.MULTILINE)[1]
    return dict(re.match(r"\| (.+?) \| (.+?) \|", row).groups() for row in rows.splitlines())


def test_the_table_of_photographs_is_complete():
    assert set(table()) == set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_table_of_photographs_holds(row, tmp_path, caplog):
    outcome = table()[row]
    for number, (data, expected) in enumerate(ROWS[row]):
        path = tmp_path / f"{number}.photo"
        path.write_bytes(data)
        caplog.clear()
        if isinstance(expected, str) and expected == "told":  # refused or warned of
            try:
                read_image(path)
                assert path.name in caplog.text
            except ImageError as error:
                assert path.name in str(error)
            continue
        if outcome == "refused":
            with pytest.raises(ImageError, match=path.name):
                read_image(path)
            continue
        image = read_image(path)
        assert len(caplog.records) == (outcome == "warned of")
        assert all(path.name in message for message in caplog.messages)
        if isinstance(expected, str):
            assert expected == "other" and np.abs(image.astype(int) - gradient()).max() > 10
        elif expected is not None:
            np.testing.assert_array_equal(image, expected)
        else:
            assert image.shape == (40, 60, 3)
        assert is_gray(image) or not row.startswith("gray")
