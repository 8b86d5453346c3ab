"""EXIF data that is odd or broken: the picture is upright, and the rest of it does no harm."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import EVERY_KIND, chunk, encoded, noise, png, reader
from PIL import Image

from gmm_attention.images import exif, reading

ORIENTATION, EXIF, INTEROPERABILITY, COLOUR_SPACE = 0x0112, 0x8769, 0xA005, 0xA001
BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL, DOUBLE = 1, 2, 3, 4, 5, 10, 12
SIX = (ORIENTATION, SHORT, 1, struct.pack("<H", 6))


def directory(entries, start, order="<"):
    """A directory at a place, of (tag, type, number of values, bytes of them)."""
    place = start + 2 + 12 * len(entries) + 4
    records, values = b"", b""
    for tag, kind, number, value in entries:
        records += struct.pack(f"{order}HHI", tag, kind, number)
        if len(value) > 4:
            records += struct.pack(f"{order}I", place + len(values))
            values += value
        else:
            records += value.ljust(4, b"\0")
    return struct.pack(f"{order}H", len(entries)) + records + bytes(4) + values


def block(*entries, order="<"):
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    return head + directory(entries, 8, order)


def adobe_rgb_block(order="<"):
    """The index of interoperability, two directories below the first."""

    def pointer(tag, place):
        return (tag, LONG, 1, struct.pack(f"{order}I", place))

    head = block(pointer(EXIF, 26), order=order)
    middle = directory([pointer(INTEROPERABILITY, 44)], 26, order)
    return head + middle + directory([(1, ASCII, 4, b"R03\0")], 44, order)


ODD = {
    "resolution of zero parts": [(0x011A, RATIONAL, 1, bytes(8)), (0x0128, SHORT, 1, b"\3\0")],
    "negative resolution": [(0x011A, SRATIONAL, 1, struct.pack("<ii", -72, -1))],
    "resolution of no values": [(0x011A, RATIONAL, 0, b""), (0x0128, SHORT, 1, b"\2\0")],
    "resolution as text": [(0x011A, ASCII, 9, b"72 dots!\0"), (0x0128, SHORT, 1, b"\3\0")],
    "resolution of one long": [(0x011A, LONG, 1, b"\x48\0\0\0"), (0x0128, SHORT, 1, b"\3\0")],
    "resolution not a number": [(0x011A, DOUBLE, 1, struct.pack("<d", float("nan")))],
    "unit as fractions": [(0x011A, RATIONAL, 1, bytes(8)), (0x0128, RATIONAL, 2, bytes(16))],
    "unknown type": [(0x010F, 99, 1, b"abcd")],
    "value behind the end": [(0x010F, 2, 2**31, struct.pack("<I", 2**31)[:4] * 2)],
    "directory behind the end": [(EXIF, LONG, 1, struct.pack("<I", 2**31))],
    "directory that is the first": [(EXIF, LONG, 1, struct.pack("<I", 8))],
    "directory as text": [(EXIF, ASCII, 4, b"abc\0")],
    "many directories": [(EXIF, LONG, 3, struct.pack("<III", 1, 2, 3))],
}


@pytest.fixture
def read(tmp_path):
    return reader(tmp_path)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("oddity", ODD)
def test_oddities_do_not_hide_the_orientation(read, kind, oddity):
    image = Image.fromarray(noise(8, 16, 3))
    odd = block(*ODD[oddity], SIX)
    data = encoded(image, **EVERY_KIND[kind], exif=b"Exif\0\0" + odd)
    upright = np.rot90(read(encoded(image, **EVERY_KIND[kind])), -1)
    np.testing.assert_array_equal(read(data), upright)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind, letter", [(BYTE, "B"), (SHORT, "H"), (LONG, "I"), (9, "i")])
def test_orientation_is_found_in_any_form(order, kind, letter):
    data = block((ORIENTATION, kind, 1, struct.pack(f"{order}{letter}", 8)), order=order)
    for head in (b"", b"Exif\0\0", b"Exif\0\0Exif\0\0", b"Exif\0\xff"):
        assert exif.parse([head + data]).orientation == 8
        assert exif.parse([b"", b"junk", head + data]).orientation == 8
    fraction = (ORIENTATION, RATIONAL, 1, struct.pack(f"{order}II", 12, 2))
    assert exif.parse([block(fraction, order=order)]).orientation == 6


def test_a_cut_tail_costs_nothing_before_it():
    data = adobe_rgb_block()
    whole = block(SIX) + data
    for length in range(len(whole)):
        assert exif.parse([whole[:length]]).orientation == (6 if length >= 22 else None)
    for length in range(len(data)):
        assert exif.parse([data[:length]]).adobe_rgb == (length >= len(data) - 4)


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_an_orientation_that_does_not_exist_is_none(value):
    assert exif.parse([block((ORIENTATION, SHORT, 1, struct.pack("<H", value)))]) == (None, False)


@given(st.binary(max_size=200))
def test_any_data_is_parsed(data):
    exif.parse([data, b"II*\0" + data, block(SIX)[:10] + data, b"MM\0*\0\0\0\x08" + data])


@pytest.mark.parametrize("kind", ["jpeg", "webp", "png"])
@pytest.mark.parametrize("order", "<>")
def test_adobe_rgb_is_found_by_exif_alone(read, kind, order, monkeypatch):
    found = []
    monkeypatch.setattr(
        reading, "to_srgb", lambda image, colours, *_: found.append(colours) or image
    )
    image = Image.fromarray(noise(8, 16, 3))
    space = (COLOUR_SPACE, SHORT, 1, struct.pack("<H", 2))
    by_space = block((EXIF, LONG, 1, struct.pack("<I", 26))) + directory([space], 26)
    for data in (adobe_rgb_block(order), by_space):
        read(encoded(image, **EVERY_KIND[kind], exif=b"Exif\0\0" + data))
    read(encoded(image, **EVERY_KIND[kind], exif=b"Exif\0\0" + block(SIX)))
    assert [colours.adobe_rgb for colours in found] == [True, True, False]


def segment(content):
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def test_jpeg_with_exif_in_several_segments(read):
    plain = encoded(Image.fromarray(noise(8, 16, 3)), format="JPEG")
    upright = np.rot90(read(plain), -1)
    long = block((0x010F, ASCII, 50, b"a" * 50), SIX)
    for segments in (
        segment(b"Exif\0\0" + long[:40]) + segment(b"Exif\0\0" + long[40:]),  # in two parts
        segment(b"Exif\0\0" + block(SIX)) * 2,
        segment(b"Exif\0\0" + block((0x010F, ASCII, 1, b"a"))) + segment(b"Exif\0\0" + block(SIX)),
        segment(b"Exif\0\0broken") + segment(b"Exif\0\0" + block(SIX)),
    ):
        np.testing.assert_array_equal(read(plain[:2] + segments + plain[2:]), upright)


def test_png_with_exif_of_imagemagick(read):
    samples = noise(8, 16, 3)
    data = b"Exif\0\0" + block(SIX)
    text = b"\nexif\n%8d\n" % len(data) + data.hex().encode() + b"\n"
    for key in (b"Raw profile type exif", b"Raw profile type APP1"):
        for part in (
            chunk(b"tEXt", key + b"\0" + text),
            chunk(b"zTXt", key + b"\0\0" + zlib.compress(text)),
        ):
            for where in ("before", "after"):
                image = read(png(samples, 2, **{where: part}))
                np.testing.assert_array_equal(image, np.rot90(samples, -1))


@pytest.mark.parametrize(
    "form", [b'tiff:Orientation="6"', b"<tiff:Orientation>6</tiff:Orientation>"]
)
def test_xmp_tells_the_orientation_where_exif_does_not(read, form):
    samples = noise(8, 16, 3)
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + form)
    np.testing.assert_array_equal(read(png(samples, 2, before=xmp)), np.rot90(samples, -1))
    other = chunk(b"eXIf", block((ORIENTATION, SHORT, 1, struct.pack("<H", 8))))
    turned = read(png(samples, 2, before=xmp + other))
    np.testing.assert_array_equal(turned, np.rot90(samples, 1))
    plain = encoded(Image.fromarray(samples), format="JPEG")
    data = plain[:2] + segment(b"http://ns.adobe.com/xap/1.0/\0" + form) + plain[2:]
    np.testing.assert_array_equal(read(data), np.rot90(read(plain), -1))


@pytest.mark.parametrize("deflate", [False, True])
def test_oddities_in_a_tiff_do_not_hide_the_orientation(read, deflate):
    image = Image.fromarray(noise(8, 16, 3))
    options = {"compression": "tiff_deflate"} if deflate else {}
    data = encoded(image, format="TIFF", **options)
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    for oddity in ODD.values():
        start = len(data)
        stored = [data[place + 2 + 12 * i : place + 14 + 12 * i] for i in range(count)]
        known = {struct.unpack_from("<H", record)[0] for record in stored}
        odd = directory([entry for entry in (*oddity, SIX) if entry[0] not in known], start)
        # The odd directory comes last; its records join those of Pillow's.
        number = struct.unpack_from("<H", odd)[0]
        records = [odd[2 + 12 * i : 14 + 12 * i] for i in range(number)]
        merged = (
            struct.pack("<H", count + number)
            + b"".join(
                sorted(stored + records, key=lambda record: struct.unpack_from("<H", record))
            )
            + bytes(4)
        )
        new = data + odd + merged
        new = new[:4] + struct.pack("<I", start + len(odd)) + new[8:]
        np.testing.assert_array_equal(read(new), np.rot90(np.asarray(image), -1))
        assert io.BytesIO(new).read(2) == b"II"
