"""Reading and writing images; every file is made by the test itself."""

import concurrent.futures
import contextlib
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
from image_files import (
    EVERY_KIND,
    LOSSLESS,
    assert_refused,
    encoded,
    noise,
    opaque,
    png,
    reader,
    tiff,
)
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from gmm_attention.errors import ImageError
from gmm_attention.images import read_image, read_size

VALID = ROOT / "valid"


@pytest.fixture
def read(tmp_path):
    return reader(tmp_path)


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
    # As stored, since the PNG has a profile that the JPEG lacks.
    upright = np.asarray(Image.open(VALID / "rocket.png")).astype(int)
    rotated = read_image(VALID / "rocket_exif6.jpg").astype(int)
    assert np.abs(upright - rotated).mean() < 2


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_broken_exif_does_not_cost_the_picture(read, kind):
    image = Image.fromarray(noise(5, 7, 3))
    broken = encoded(image, exif=b"Exif\0\0neither II nor MM", **EVERY_KIND[kind])
    np.testing.assert_array_equal(read(broken), read(encoded(image, **EVERY_KIND[kind])))


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
    assert_refused(read, png(noise(5, 7, 2, dtype=np.uint16), 4), "transparent")
    some = palette_with_transparent_entry(np.arange(35, dtype=np.uint8).reshape(5, 7) % 16)
    assert_refused(read, some, "transparent")
    rgb, gray = noise(5, 7, 3), noise(5, 7)
    data = encoded(Image.fromarray(rgb), format="PNG", transparency=tuple(map(int, rgb[2, 3])))
    assert_refused(read, data, "transparent")
    data = encoded(Image.fromarray(gray), format="PNG", transparency=int(gray[2, 3]))
    assert_refused(read, data, "transparent")


def test_transparency_everywhere_is_taken_as_opaque(read, caplog):
    rgb = noise(5, 7, 3)
    clear = np.dstack([rgb, np.zeros((5, 7), np.uint8)])
    gray = noise(5, 7, 2, dtype=np.uint16)
    gray[..., 1] = 0
    bmp = bytearray(encoded(Image.fromarray(clear), format="BMP"))
    assert struct.unpack_from("<I", bmp, 14)[0] == 40  # a header without a mask of alpha
    header = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    bmp[10:14] = struct.pack("<I", 14 + 108)
    bmp[14:18], bmp[30:34] = struct.pack("<I", 108), struct.pack("<I", 3)
    bmp[54:54] = header
    for data, expected in (
        (png(clear, 6), rgb),
        (encoded(Image.fromarray(clear), **LOSSLESS["webp"]), rgb),
        (encoded(Image.fromarray(clear), **LOSSLESS["tiff"]), rgb),
        (bytes(bmp), rgb),
        (palette_with_transparent_entry(np.full((5, 7), 15, np.uint8)), noise(16, 3)[15]),
        (png(gray, 4), np.rint(gray[..., :1] / 257)),
    ):
        caplog.clear()
        result = read(data)
        np.testing.assert_array_equal(result, np.broadcast_to(expected, (5, 7, 3)))
        assert "some image: transparent everywhere, which is taken as opaque" in caplog.text


SIXTEEN_BITS = {
    "png gray": lambda rgb: png(rgb[..., :1], 0),
    "png rgb": lambda rgb: png(rgb, 2),
    "png opaque rgba": lambda rgb: png(opaque(rgb), 6),
    "png opaque gray and alpha": lambda rgb: png(opaque(rgb)[..., [0, 3]], 4),
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


SPEAKING = {
    "tiff lzw": {"format": "TIFF", "compression": "tiff_lzw"},
    "tiff deflate": {"format": "TIFF", "compression": "tiff_deflate"},
    "tiff jpeg": {"format": "TIFF", "compression": "jpeg"},
    "jpeg": {"format": "JPEG"},
    "webp": {"format": "WEBP"},
}


@pytest.mark.skipif(sys.platform == "win32", reason="libtiff cannot be reached there")
@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("kind", SPEAKING)
def test_nothing_but_our_words_reaches_the_terminal(kind, capfd, caplog):
    data = encoded(Image.fromarray(noise(30, 20, 3)), **SPEAKING[kind], exif=b"Exif\0\0II*\0broken")
    random = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(100):
            damaged = bytearray(data)
            for place in random.integers(0, len(data), 3):
                damaged[place] ^= int(random.integers(1, 256))
            with contextlib.suppress(ImageError):
                read_image("a", max_pixels=10**6, file=io.BytesIO(damaged))
    assert capfd.readouterr() == ("", "")
    assert all(record.name.startswith("gmm_attention.images") for record in caplog.records)


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


def test_threads_leave_warnings_and_loggers_as_they_were(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(noise(40, 40, 3)).save(path)
    before = list(warnings.filters), logging.getLogger("PIL").propagate
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in pool.map(read_image, [path] * 200):
            pass
    assert (list(warnings.filters), logging.getLogger("PIL").propagate) == before


def test_a_lack_of_memory_is_no_damage(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(noise(40, 40, 3)).save(path)

    def load(self):
        raise MemoryError

    monkeypatch.setattr(PngImageFile, "load", load)
    with pytest.raises(MemoryError):
        read_image(path)
