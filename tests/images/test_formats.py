"""What a file is, by its content, whatever its name says."""

import struct

import pytest
from image_files import EVERY_KIND, assert_refused, encoded, noise, reader
from PIL import Image

from gmm_attention.errors import ImageError
from gmm_attention.images import read_image


def brands(major, *others):
    content = major + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(content)) + b"ftyp" + content + bytes(99)


OTHERS = {
    "HEIC": [
        brands(b"heic", b"mif1", b"heic"),
        brands(b"mif1", b"mif1", b"heic"),
        brands(b"msf1", b"hevc"),
        brands(b"heix"),
    ],
    "GIF": [b"GIF87a" + bytes(9), b"GIF89a" + bytes(9)],
    "JPEG XL": [b"\xff\x0a" + bytes(9), b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(9)],
    "JPEG 2000": [b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(9), b"\xff\x4f\xff\x51" + bytes(9)],
    "JPEG XR": [b"II\xbc\1" + bytes(9)],
    "camera's raw file": [
        brands(b"crx ", b"crx ", b"isom"),
        b"FUJIFILMCCD-RAW 0201",
        b"IIRO\x08\0\0\0",
        b"IIU\0\x18\0\0\0",
        b"FOVb" + bytes(9),
    ],
    "Photoshop": [b"8BPS\0\1" + bytes(9)],
    "PDF": [b"%PDF-1.7\n"],
    "SVG": [
        b'<svg xmlns="http://www.w3.org/2000/svg">',
        b'<?xml version="1.0"?>\n<!-- made -->\n<!DOCTYPE svg PUBLIC "a">\n<svg>',
    ],
    "not an image but a web page": [
        b"<!DOCTYPE html><html><svg></svg>",
        b"\xef\xbb\xbf\r\n <HTML><head>",
        b"<!-- cached --><html>",
        b"<?xml version='1.0'?><!DOCTYPE html PUBLIC 'x'><html>",
        b"<script>location='x'</script>",
        b"<head><title>404 Not Found</title></head>",
    ],
    "not an image but a text of XML": [b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>"],
    "not an image but a pointer of Git LFS": [b"version https://git-lfs.github.com/spec/v1\n"],
    "not an image but zeros": [bytes(5000)],
    "a video": [brands(b"isom", b"mp42"), brands(b"qt  ")],
    "PPM": [b"P6 7 5 255\n" + bytes(105), b"P2\n1 1\n255\n1"],
    "ZIP": [b"PK\3\4" + bytes(20)],
    "empty": [b""],
    "not a PNG, JPEG, WebP, AVIF, BMP or TIFF file; convert it to PNG": [b"some text", b"\1\2\3"],
}


@pytest.fixture
def read(tmp_path):
    return reader(tmp_path)


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_not_read_is_named(read, what):
    for data in OTHERS[what]:
        with_reason = what.split(";")[0].replace("(", r"\(")
        assert_refused(read, data, with_reason)


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.heic", "a", "a.gif"])
def test_the_content_decides_not_the_name(tmp_path, kind, name):
    data = encoded(Image.fromarray(noise(8, 16, 3)), **EVERY_KIND[kind])
    (tmp_path / name).write_bytes(data)
    assert read_image(tmp_path / name).shape == (8, 16, 3)


def test_a_first_box_of_any_length_is_read_at_once(tmp_path):
    read = reader(tmp_path)
    for size in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1"):
        for brand in (b"avif", b"heic", b"isom"):
            with pytest.raises(ImageError):
                read(size + b"ftyp" + brand + bytes(8))
