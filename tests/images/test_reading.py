"""Reading and writing images; every file is made by the test itself."""

import io
import logging
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib

import numpy as np
import pytest
from conftest import ROOT, unless_root
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gmm_attention.errors import ImageError
from gmm_attention.images import check_png, read_image, read_size, write_png

VALID = ROOT / "valid"
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


def png(samples, color_type):
    """A PNG of raw samples, uint8 or uint16 [H, W, C]: Pillow writes no 16-bit colour."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    height, width, _ = samples.shape
    depth = 8 * samples.dtype.itemsize
    rows = samples.astype(samples.dtype.newbyteorder(">"))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
            chunk(b"IEND", b""),
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


@pytest.fixture
def read(tmp_path):
    """Reads the image in some bytes; the file's name tells nothing about them."""

    def read_bytes(data, **kwargs):
        path = tmp_path / "some image"
        path.write_bytes(data)
        return read_image(path, **kwargs)

    return read_bytes


def assert_refused(read, data, reason):
    with pytest.raises(ImageError, match=f"some image: .*{reason}.*; ") as caught:
        read(data)
    assert "\n" not in str(caught.value)


# Reading: the right picture.


@pytest.mark.parametrize("kind", LOSSLESS)
def test_reads_exact_samples_whatever_the_name(read, kind):
    image = noise(5, 7, 3)
    result = read(encoded(Image.fromarray(image), **LOSSLESS[kind]))
    np.testing.assert_array_equal(result, image)
    assert result.dtype == np.uint8 and result.flags.writeable and result.flags.c_contiguous


@pytest.mark.parametrize("kind", ["jpeg", "tiff jpeg"])
def test_reads_jpeg(read, kind):
    y, x = np.mgrid[:40, :50]
    image = np.stack([5 * x, 6 * y, 2 * x + 2 * y], axis=-1).astype(np.uint8)
    result = read(encoded(Image.fromarray(image), **EVERY_KIND[kind])).astype(int)
    assert np.abs(result - image).mean() < 6


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff"])
def test_gray_becomes_rgb(read, kind):
    gray = noise(5, 7)
    result = read(encoded(Image.fromarray(gray), **LOSSLESS[kind]))
    np.testing.assert_array_equal(result, np.stack([gray] * 3, axis=-1))


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff"])
def test_one_bit_becomes_black_and_white(read, kind):
    bits = noise(5, 7) > 127
    result = read(encoded(Image.fromarray(bits), **LOSSLESS[kind]))
    np.testing.assert_array_equal(result, np.stack([bits * np.uint8(255)] * 3, axis=-1))


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff"])
def test_palette_becomes_its_colours(read, kind):
    palette, indices = noise(16, 3), noise(5, 7) % 16
    image = Image.frombytes("P", (7, 5), indices.tobytes())
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(read(encoded(image, **LOSSLESS[kind])), palette[indices])


@pytest.mark.parametrize("kind", ["png", "webp", "tiff", "tiff deflate"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(read, kind, orientation):
    upright = noise(5, 7, 3)
    stored = {  # what a camera held that way would store
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, 3),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif, **LOSSLESS[kind])
    np.testing.assert_array_equal(read(data), upright)


def test_exif_rotated_photograph_is_upright():
    upright = read_image(VALID / "rocket.png").astype(int)
    rotated = read_image(VALID / "rocket_exif6.jpg").astype(int)
    assert np.abs(upright - rotated).mean() < 2


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_broken_exif_does_not_cost_the_picture(read, kind):
    image = Image.fromarray(noise(5, 7, 3))
    broken = encoded(image, exif=b"Exif\0\0neither II nor MM", **EVERY_KIND[kind])
    np.testing.assert_array_equal(read(broken), read(encoded(image, **EVERY_KIND[kind])))


def test_colour_profile_is_ignored(read):
    image = noise(5, 7, 3)
    data = encoded(Image.fromarray(image), format="PNG", icc_profile=b"some profile")
    np.testing.assert_array_equal(read(data), image)


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
def test_opaque_alpha_is_dropped(read, kind):
    image = noise(5, 7, 3)
    data = encoded(Image.fromarray(opaque(image)), **LOSSLESS[kind])
    np.testing.assert_array_equal(read(data), image)


def test_opaque_gray_alpha_is_dropped(read):
    gray = noise(5, 7, 1)
    samples = np.dstack([gray, np.full((5, 7), 255, np.uint8)])
    np.testing.assert_array_equal(read(png(samples, 4)), np.dstack([gray] * 3))


def palette_with_transparent_entry(indices):
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette(noise(16, 3).tobytes())
    return encoded(image, format="PNG", transparency=bytes([255] * 15 + [0]))


def test_transparent_palette_entry_that_no_pixel_uses_is_dropped(read):
    indices = noise(5, 7) % 15
    result = read(palette_with_transparent_entry(indices))
    np.testing.assert_array_equal(result, noise(16, 3)[indices])


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
def test_a_single_transparent_pixel_is_refused(read, kind):
    rgba = opaque(noise(5, 7, 3))
    rgba[4, 6, 3] = 254
    assert_refused(read, encoded(Image.fromarray(rgba), **LOSSLESS[kind]), "transparent")


def test_other_ways_to_be_transparent_are_refused(read):
    assert_refused(read, png(noise(5, 7, 2), 4), "transparent")
    assert_refused(read, palette_with_transparent_entry(np.full((5, 7), 15, np.uint8)), "transp")
    rgb, gray = Image.fromarray(noise(5, 7, 3)), Image.fromarray(noise(5, 7))
    assert_refused(read, encoded(rgb, format="PNG", transparency=(1, 2, 3)), "transparent")
    assert_refused(read, encoded(gray, format="PNG", transparency=9), "transparent")


SIXTEEN_BITS = {
    "png gray": lambda rgb: png(rgb[..., :1], 0),
    "png rgb": lambda rgb: png(rgb, 2),
    "png opaque rgba": lambda rgb: png(opaque(rgb), 6),
    "tiff gray": lambda rgb: tiff(rgb[..., :1], 1),
    "tiff rgb": lambda rgb: tiff(rgb, 2),
    "tiff opaque rgba": lambda rgb: tiff(opaque(rgb), 2, extra=(2,)),
    "tiff big-endian gray": lambda rgb: tiff(rgb[..., :1], 1, ">"),
    "tiff big-endian rgb": lambda rgb: tiff(rgb, 2, ">"),
    "tiff deflate gray": lambda rgb: tiff(rgb[..., :1], 1, deflate=True),
    "tiff deflate rgb": lambda rgb: tiff(rgb, 2, deflate=True),
    "tiff deflate opaque rgba": lambda rgb: tiff(opaque(rgb), 2, deflate=True, extra=(2,)),
    "tiff big-endian deflate gray": lambda rgb: tiff(rgb[..., :1], 1, ">", deflate=True),
    "tiff big-endian deflate rgb": lambda rgb: tiff(rgb, 2, ">", deflate=True),
}


@pytest.mark.parametrize("kind", SIXTEEN_BITS)
def test_16_bits_are_rounded_not_cut(read, kind, caplog):
    # Pillow's own reduction keeps the high byte: up to one level too dark, half a level on average.
    samples = noise(41, 37, 3, dtype=np.uint16)
    samples[0, :8, 0] = [0, 128, 129, 385, 386, 65406, 65407, 65535]
    expected = np.rint(samples * (255 / 65535)).astype(np.uint8)
    if "gray" in kind:
        expected = np.dstack([expected[..., 0]] * 3)
    with caplog.at_level(logging.WARNING):
        result = read(SIXTEEN_BITS[kind](samples))
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.uint8
    assert "some image: 16 bits" in caplog.text


def test_8_bits_are_read_without_a_warning(read, caplog):
    read(png(noise(5, 7, 3), 2))
    assert not caplog.records


def test_almost_opaque_16_bit_alpha_is_refused(read):
    rgba = opaque(noise(5, 7, 3, dtype=np.uint16))
    rgba[2, 3, 3] = 65534  # its high byte alone looks opaque
    assert_refused(read, png(rgba, 6), "transparent")
    assert_refused(read, tiff(rgba, 2, extra=(2,)), "transparent")


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_samples_that_pillow_would_misread_are_refused(read, order, deflate):
    deep, shallow = noise(5, 7, 3, dtype=np.uint16), noise(5, 7, 3)
    layout = {"order": order, "deflate": deflate}
    for data in (
        tiff(deep, 2, planar=2, **layout),
        tiff(deep[..., :1], 0, **layout),
        tiff(opaque(deep), 2, extra=(1,), **layout),
        tiff(shallow[..., :1], 1, sample_format=2, **layout),
        tiff(shallow, 8, **layout),
    ):
        assert_refused(read, data, "unsupported")


def test_8_bit_tiff_variants_are_read_exactly(read):
    image = noise(5, 7, 3)
    for order in "<>":
        for deflate in (False, True):
            layout = {"order": order, "deflate": deflate}
            np.testing.assert_array_equal(read(tiff(image, 2, planar=2, **layout)), image)
            np.testing.assert_array_equal(read(tiff(opaque(image), 2, extra=(1,), **layout)), image)
            inverted = read(tiff(image[..., :1], 0, **layout))
            np.testing.assert_array_equal(inverted, np.dstack([255 - image[..., 0]] * 3))


# Reading: a reason instead of a wrong picture.


def test_gray_alpha_of_16_bits_is_refused(read):
    assert_refused(read, png(noise(5, 7, 2, dtype=np.uint16), 4), "unsupported")


@pytest.mark.parametrize("kind", ["jpeg", "tiff"])
def test_cmyk_is_refused(read, kind):
    image = Image.new("CMYK", (7, 5))
    assert_refused(read, encoded(image, **EVERY_KIND[kind]), "CMYK")


@pytest.mark.parametrize("mode", ["F", "I"])
def test_float_and_32_bit_samples_are_refused(read, mode):
    assert_refused(read, encoded(Image.new(mode, (7, 5)), format="TIFF"), "float, .* 32-bit")


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
def test_animations_and_pages_are_refused(read, kind):
    first, second = Image.fromarray(noise(5, 7, 3)), Image.fromarray(noise(5, 7, 3)[::-1])
    data = encoded(first, save_all=True, append_images=[second], **LOSSLESS[kind])
    assert_refused(read, data, "2 pictures")


def test_camera_jpeg_with_a_preview_is_its_photograph(read):
    photograph, preview = Image.fromarray(noise(40, 56, 3)), Image.fromarray(noise(5, 7, 3))
    data = encoded(photograph, format="MPO", save_all=True, append_images=[preview])
    alone = encoded(photograph, format="JPEG")
    np.testing.assert_array_equal(read(data), read(alone))


def test_files_that_are_no_such_image_are_refused(read):
    assert_refused(read, b"", "empty")
    assert_refused(read, b"P", "not a PNG")
    assert_refused(read, b"%PDF-1.4 some text", "not a PNG")
    assert_refused(read, encoded(Image.new("RGB", (7, 5)), format="GIF"), "not a PNG")
    assert_refused(read, b"\x89PNG\r\n\x1a\n", "damaged")
    assert_refused(read, b"\xff\xd8\xff\xe0", "damaged")
    assert_refused(read, b"RIFF\x00\x00\x00\x00WEBP", "damaged")
    assert_refused(read, b"BM", "damaged")
    assert_refused(read, b"II*\0", "damaged")


@pytest.mark.parametrize("shape", [(0, 7, 3), (5, 0, 3), (0, 0, 3)])
def test_image_without_pixels_is_refused(read, shape):
    assert_refused(read, png(np.zeros(shape, np.uint8), 2), "")


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(ImageError, match="none.png: .*No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="directory"):
        read_image(str(tmp_path))


@unless_root
def test_unreadable_file_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(noise(5, 7, 3), 2))
    path.chmod(0)
    with pytest.raises(ImageError, match="a.png: .*Permission denied"):
        read_image(path)


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_truncated_file_is_an_error_not_a_picture(read, kind):
    data = encoded(Image.fromarray(noise(30, 20, 3)), **EVERY_KIND[kind])
    # A JPEG's or PNG's last bytes only say that it ends.
    for length in np.linspace(1, len(data) - 16, 50).astype(int):
        with pytest.raises(ImageError, match="some image: "):
            read(data[:length])


def test_png_with_one_wrong_bit_is_an_error(read):
    data = png(noise(30, 20, 3), 2)
    for position in range(16, len(data) - 12, 13):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(ImageError, match="some image: "):
            read(bytes(damaged))


FUZZED = {
    **{k: encoded(Image.fromarray(noise(30, 20, 3)), **v) for k, v in EVERY_KIND.items()},
    "png 16": png(noise(9, 8, 3, dtype=np.uint16), 2),
    "tiff 16": tiff(noise(9, 8, 3, dtype=np.uint16), 2),
    "tiff 16 deflate": tiff(noise(9, 8, 3, dtype=np.uint16), 2, deflate=True),
}


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("kind", FUZZED)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damage_never_escapes_as_another_exception(kind, data):
    damaged = bytearray(FUZZED[kind])
    end = data.draw(st.sampled_from([len(damaged), 64]))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, end - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile() as file:
        file.write(damaged)
        file.flush()
        try:
            image = read_image(file.name, max_pixels=10**6)
        except ImageError as error:
            assert str(error).startswith(file.name) and "\n" not in str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_too_many_pixels_are_refused_by_the_header_alone(read):
    bomb = bytearray(png(noise(1, 1, 3), 2))
    bomb[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    assert_refused(read, bytes(bomb), "2147483647x2147483647 pixels .* limit of 268435456")


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_only_our_limit_of_pixels_counts(read, kind, monkeypatch):
    data = encoded(Image.fromarray(noise(30, 20, 3)), **EVERY_KIND[kind])
    with pytest.raises(ImageError, match="20x30 pixels .* limit of 599; "):
        read(data, max_pixels=599)
    for pillows_limit in (10, 400):  # it would raise above twice its limit, warn above the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read(data, max_pixels=600).shape == (30, 20, 3)
        assert Image.MAX_IMAGE_PIXELS == pillows_limit


def test_images_module_does_without_tensorflow():
    code = "import sys, gmm_attention.images; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_reading_does_without_imageio():
    code = "import sys, gmm_attention.images; sys.exit('imageio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_open_file_is_read_in_place_of_the_path_and_stays_open(read, kind):
    data = encoded(Image.fromarray(noise(30, 20, 3)), **EVERY_KIND[kind])
    file = io.BytesIO(data)
    file.seek(9)  # wherever its last reader left it
    for _ in range(2):
        np.testing.assert_array_equal(read_image("no such file", file=file), read(data))
        assert read_size("no such file", file=file) == (30, 20)
    assert not file.closed


def test_errors_in_an_open_file_name_the_path():
    for data in (b"", b"some text", b"\x89PNG\r\n\x1a\n"):
        for function in (read_image, read_size):
            with pytest.raises(ImageError, match="^a.tar/b.png: "):
                function("a.tar/b.png", file=io.BytesIO(data))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_size_is_read_without_the_pixels(tmp_path, kind, monkeypatch):
    path = tmp_path / "some image"
    path.write_bytes(encoded(Image.fromarray(noise(30, 20, 3)), **EVERY_KIND[kind]))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    assert read_size(path) == (30, 20)
    with pytest.raises(ImageError, match="20x30 pixels .* limit of 599; "):
        read_size(path, max_pixels=599)


# Writing.


def test_written_png_holds_the_exact_samples(tmp_path):
    image = noise(70, 65, 3)
    for name, part in {
        "all.png": image,
        "view.png": image[3:9, ::2],
        "1.png": image[:1, :1],
    }.items():
        write_png(tmp_path / name, part)
        np.testing.assert_array_equal(read_image(tmp_path / name), part)
        with Image.open(tmp_path / name) as written:
            assert (written.format, written.mode) == ("PNG", "RGB")


def test_png_is_written_whatever_the_suffix_says(tmp_path):
    write_png(tmp_path / "a.jpg", noise(5, 7, 3))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), noise(5, 7, 3))


@pytest.mark.parametrize(
    "image", [noise(5, 7), noise(5, 7, 4), noise(5, 7, 3) / 255, np.zeros((0, 7, 3), np.uint8)]
)
def test_write_png_takes_nothing_but_8_bit_rgb(tmp_path, image):
    with pytest.raises(ValueError, match="uint8"):
        write_png(tmp_path / "a.png", image)
    assert not list(tmp_path.iterdir())


def test_write_png_reports_a_failure_as_image_error(tmp_path):
    with pytest.raises(ImageError, match="none/a.png: cannot be written: No such file.*; "):
        write_png(tmp_path / "none" / "a.png", noise(5, 7, 3))


def test_the_size_of_a_whole_png_is_told(tmp_path):
    write_png(tmp_path / "a.png", noise(30, 50, 3))
    assert check_png(tmp_path / "a.png") == (30, 50)


@pytest.mark.parametrize("where", ["header", "pixels", "end", "kind"])
def test_a_png_that_is_not_whole_is_told_by_its_checksums(tmp_path, where):
    path = tmp_path / "a.png"
    write_png(path, noise(30, 50, 3))
    data = bytearray(path.read_bytes())
    if where == "kind":
        Image.new("RGB", (9, 9)).save(path, "bmp")
    else:
        data[{"header": 20, "pixels": len(data) // 2, "end": -6}[where]] ^= 1
        path.write_bytes(data[:-20] if where == "end" else data)
    with pytest.raises(ImageError, match="a.png: "):
        check_png(path)
