"""JPEG files that are odd, and those whose data is damaged."""

import builtins
import io
import logging
import struct
import sys

import numpy as np
import pytest
from image_files import assert_refused, encoded, noise, reader
from PIL import Image

from gmm_attention.errors import ImageError
from gmm_attention.images import read_image, read_size
from gmm_attention.images.jpeg_data import SCAN, Segment, inspect
from gmm_attention.images.reading import read_header

y, x = np.mgrid[:96, :128]
WAVES = np.stack([127 + 80 * np.sin(x / 9 + y / 40), 2 * y, x + y / 2], axis=-1)
PHOTOGRAPH = Image.fromarray(np.clip(WAVES + noise(96, 128, 3) / 16, 0, 255).astype(np.uint8))

KINDS = {
    "baseline": {"quality": 85},
    "fine": {"quality": 95, "subsampling": 0},
    "optimised": {"quality": 75, "optimize": True},
    "progressive": {"quality": 85, "progressive": True},
    "restarts": {"quality": 85, "restart_marker_blocks": 3},
    "restarts by rows": {"quality": 85, "restart_marker_rows": 1},
    "gray": {"quality": 85, "gray": True},
    "gray progressive": {"quality": 85, "gray": True, "progressive": True},
    "RGB": {"quality": 85, "keep_rgb": True},
}


def jpeg(gray=False, **kwargs):
    return encoded(PHOTOGRAPH.convert("L") if gray else PHOTOGRAPH, format="JPEG", **kwargs)


def data_start(data):
    """The place of the coded data of the first scan."""
    place = data.index(b"\xff\xda") + 2
    return place + int.from_bytes(data[place : place + 2], "big")


@pytest.fixture
def read(tmp_path):
    return reader(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_read_as_pillow_does_without_a_word(read, kind, caplog):
    data = jpeg(**KINDS[kind])
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(read(data), expected)
    assert not caplog.records


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_behind_the_pixels_does_not_matter(read, kind, caplog, tmp_path):
    data = jpeg(**KINDS[kind])
    expected = read(data)
    other = encoded(Image.fromarray(noise(9, 9, 3)), format="JPEG")
    for odd in (
        data[:-2],
        data[:-1],
        data[:-2] + bytes(4096),
        data[:-2] + other,
        data + b"junk" * 999,
        data + bytes(4096),
        data + other,
        data + b"\0" + other[:-2],
        data[:-2] + b"\xff" * 20 + data[-2:],
    ):
        np.testing.assert_array_equal(read(odd), expected)
        assert read_size(tmp_path / "some image") == (96, 128)
    assert not caplog.records


def test_two_pictures_of_a_phone(tmp_path, caplog):
    depth = Image.fromarray(noise(24, 32))
    data = encoded(PHOTOGRAPH, format="MPO", save_all=True, append_images=[depth], quality=85)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    for name in ("a.mpo", "b.JPE", "c.jfif", "d.png"):
        (tmp_path / name).write_bytes(data)
        np.testing.assert_array_equal(read_image(tmp_path / name), expected)
        assert read_header(tmp_path / name) == (96, 128, ())
    assert not caplog.records


@pytest.mark.parametrize("kind", KINDS)
def test_data_that_is_cut_in_the_middle_is_refused(read, kind):
    data = jpeg(**KINDS[kind])
    start = data_start(data)
    for end in np.linspace(start, len(data) - 12, 15).astype(int):
        assert_refused(read, data[:end] + b"\xff\xd9", "damaged")
        assert_refused(read, data[:end], "damaged")


@pytest.mark.parametrize("kind", KINDS)
def test_data_that_ends_in_zeros_is_refused(read, kind):
    # As of a copy that was cut off, in a file that had its full length before.
    data = jpeg(**KINDS[kind])
    start = data_start(data)
    for end in np.linspace(start, len(data) - 200, 15).astype(int):
        assert_refused(read, data[:end] + bytes(len(data) - end), "damaged")


@pytest.mark.parametrize("kind", ["baseline", "fine", "optimised", "restarts", "gray", "RGB"])
def test_data_with_zeros_in_it_is_refused(read, kind):
    data = jpeg(**KINDS[kind])
    start = data_start(data)
    for place in np.linspace(start, len(data) - 600, 15).astype(int):
        assert_refused(read, data[:place] + bytes(512) + data[place + 512 :], "damaged")


@pytest.mark.parametrize("size", [100, 512])
def test_zeros_in_any_scan_of_a_progressive_file_are_told(read, size, caplog):
    data, silent = jpeg(**KINDS["progressive"]), 0
    expected = read(data)
    for place in np.linspace(data_start(data), len(data) - 600, 30).astype(int):
        caplog.clear()
        try:
            result = read(data[:place] + bytes(size) + data[place + size :])
        except ImageError:
            continue
        silent += not (caplog.records or np.array_equal(result, expected))
    assert silent <= 1


def test_the_second_reader_gets_no_kind_that_it_dies_of():
    frame = Segment(0xC3, bytes((8, 0, 8, 0, 8, 1, 1, 0x11, 0)))  # without loss
    scan = Segment(SCAN, bytes((1, 1, 0, 1, 0, 0)))
    assert "could not be checked" in inspect([frame, scan], b"some data", has_end=True)
    # Of arithmetic coding nothing shows where it was cut.
    frame = frame._replace(marker=0xC9)
    scan = scan._replace(content=bytes((1, 1, 0, 0, 63, 0)))
    assert "its end is missing" in inspect([frame, scan], bytes(range(1, 40)), has_end=False)


def test_a_picture_of_one_colour_is_no_hole(read, caplog):
    white = Image.new("RGB", (2048, 1024), (255, 255, 255))
    for options in (
        {},
        {"optimize": True},
        {"progressive": True},
        {"optimize": True, "quality": 1},
    ):
        for image in (white, white.convert("L")):
            assert read(encoded(image, format="JPEG", **options)).min() >= 254
    assert not caplog.records


@pytest.mark.parametrize("kind", KINDS)
def test_most_damage_is_refused_or_told(read, kind, caplog):
    data, told = jpeg(**KINDS[kind]), 0
    expected = read(data)
    random = np.random.default_rng(5)
    places = random.integers(data_start(data), len(data) - 700, 40)
    for place in places:
        junk = random.bytes(600).replace(b"\xff", b"\xfe")
        caplog.clear()
        try:
            result = read(data[:place] + junk + data[place + len(junk) :])
        except ImageError:
            told += 1
            continue
        told += "some image: its JPEG data may be damaged" in caplog.text
        told += np.array_equal(result, expected)
    assert told >= 28


def test_data_that_is_left_over_is_told(read, caplog):
    data = jpeg(quality=85)
    expected = read(data)
    np.testing.assert_array_equal(read(data[:-2] + b"\x55" * 40 + data[-2:]), expected)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "some image: its JPEG data may be damaged (Corrupt JPEG data: " in record.getMessage()
    assert "extraneous bytes" in record.getMessage()


def test_a_missing_scan_is_told(read, caplog):
    data = jpeg(progressive=True)
    last = data.rindex(b"\xff\xc4")
    assert read(data[:last] + b"\xff\xd9").shape == (96, 128, 3)
    assert "may be damaged (a scan is missing)" in caplog.text
    assert_refused(read, data[:last], "truncated")


def test_warnings_of_harmless_headers_hide_no_damage(read, caplog):
    data = jpeg(quality=85)
    start = data_start(data)
    version = data.replace(b"JFIF\0\1", b"JFIF\0\7")
    adobe = data[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x09" + data[2:]
    scan = data[: start - 3] + bytes((0, 0, 0)) + data[start:]
    for odd in (version, adobe, scan):
        read(odd)
        assert not caplog.records
        assert_refused(read, odd[:-400] + b"\xff\xd9", "damaged")


def test_samplings_that_the_second_reader_does_not_know_are_read(read, caplog):
    data = bytearray(jpeg(gray=True))
    frame = data.index(b"\xff\xc0")
    data[frame + 11] = 0x22  # of no effect in gray pictures
    np.testing.assert_array_equal(read(bytes(data)), read(jpeg(gray=True)))
    assert not caplog.records


def test_junk_between_segments_is_passed_over(read):
    data = jpeg()
    comment = b"\xff\xfe\0\x09comment"
    odd = data[:2] + b"\xff\xff\xff" + comment[1:] + b"junk\xff\0" + data[2:]
    np.testing.assert_array_equal(read(odd), read(data))
    for length in (0, 1):
        assert_refused(
            read, data[:2] + b"\xff\xe1" + struct.pack(">H", length) + data[2:], "damaged"
        )
    assert_refused(read, data[:2] + b"\xff" + bytes(2**17) + data[2:], "damaged")
    assert_refused(read, data[:2] + b"\xff\xd9", "damaged")


@pytest.mark.parametrize("adobe", [b"", b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\2"])
def test_cmyk_is_refused_as_such(read, adobe):
    data = encoded(PHOTOGRAPH.convert("CMYK"), format="JPEG")
    place = data.index(b"\xff\xee")
    length = int.from_bytes(data[place + 2 : place + 4], "big")
    assert_refused(read, data[:place] + adobe + data[place + 2 + length :], "CMYK")


def test_profile_in_several_segments(read, monkeypatch):
    found = []
    monkeypatch.setattr(
        "gmm_attention.images.reading.to_srgb",
        lambda image, colours, *_: found.append(colours.profile) or image,
    )
    profile = noise(200_000).tobytes()
    data = encoded(PHOTOGRAPH, format="JPEG", icc_profile=profile)
    read(data)
    # The pieces may stand in any order.
    first = data.index(b"\xff\xe2")
    size = 2 + int.from_bytes(data[first + 2 : first + 4], "big")
    second, rest = data[first + size : first + 2 * size], data[first + 2 * size :]
    read(data[:first] + second + data[first : first + size] + rest)
    read(data[:first] + rest)  # two are missing
    read(jpeg())
    assert found == [profile, profile, b"", None]


def test_jpeg_in_a_tiff_is_inspected_too(read):
    data = encoded(PHOTOGRAPH, format="TIFF", compression="jpeg")
    assert read(data).shape == (96, 128, 3)
    start = data.index(b"\xff\xda") + 300
    assert_refused(read, data[:start] + bytes(300) + data[start + 300 :], "damaged")


def test_without_the_second_reader_files_that_are_cut_are_refused(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(ImportError):
        builtins.__import__("simplejpeg")
    data = jpeg(quality=85)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(read(data), expected)
    np.testing.assert_array_equal(read(data + b"junk"), expected)
    assert_refused(read, data[:-400], "truncated")
