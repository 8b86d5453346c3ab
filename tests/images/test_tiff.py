"""TIFF files with several pages, of which one is the photograph."""

import struct

import numpy as np
import pytest
from image_files import assert_refused, encoded, noise, reader
from PIL import Image

from gmm_attention.images.reading import read_header

NEW_TYPE, OLD_TYPE, PHOTOMETRIC, BELOW, ORIENTATION = 254, 255, 262, 330, 274
PHOTOGRAPH, SMALL, MASK = noise(20, 30, 3), noise(5, 7, 3), noise(20, 30, 1)


class Page:
    """A page of uint8 samples [H, W, C], with more tags: tag -> (struct's letter, numbers)."""

    def __init__(self, samples, tags=None, below=()):
        self.samples, self.tags, self.below = samples, tags or {}, below


def tiff(*pages, order="<", big=False, circle=False):
    """A TIFF file of pages, each perhaps with pages below it."""
    offset, number = ("Q", "Q") if big else ("I", "H")
    kinds = {"B": 1, "H": 3, "I": 4, "Q": 16}
    data = bytearray(b"II" if order == "<" else b"MM")
    data += struct.pack(f"{order}HHH", 43, 8, 0) if big else struct.pack(f"{order}H", 42)
    link = len(data)  # where the place of the next directory is to be written
    data += bytes(struct.calcsize(f"={offset}"))

    def write(page):
        places = [write(below)[0] for below in page.below]
        height, width, bands = page.samples.shape
        tags = {
            256: ("I", [width]),
            257: ("I", [height]),
            258: ("H", [8] * bands),
            259: ("H", [1]),
            PHOTOMETRIC: ("H", [2 if bands == 3 else 1]),
            273: ("I", [len(data)]),
            277: ("H", [bands]),
            278: ("I", [height]),
            279: ("I", [page.samples.size]),
            **({BELOW: (offset, places)} if places else {}),
            **page.tags,
        }
        data.extend(page.samples.tobytes())
        records = b""
        size = struct.calcsize(f"={offset}")
        for tag, (letter, numbers) in sorted(tags.items()):
            if numbers is None:
                continue
            value = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
            if len(value) > size:
                value, place = struct.pack(f"{order}{offset}", len(data)), value
                data.extend(place)
            records += struct.pack(f"{order}HH{offset}", tag, kinds[letter], len(numbers))
            records += value.ljust(size, b"\0")
        start = len(data)
        data.extend(struct.pack(f"{order}{number}", len(records) // (4 + 2 * size)) + records)
        data.extend(bytes(size))
        return start, len(data) - size

    first = None
    for page in pages:
        start, end = write(page)
        first = first or start
        struct.pack_into(f"{order}{offset}", data, link, start)
        link = end
    if circle:
        struct.pack_into(f"{order}{offset}", data, link, first)
    return bytes(data)


def typed(samples, kind, tag=NEW_TYPE, letter="I", **kwargs):
    return Page(samples, {tag: (letter, [kind])}, **kwargs)


THUMBNAIL = typed(SMALL, 1)
NO_PIXELS = Page(SMALL, {273: ("I", None), 279: ("I", None), 513: ("I", [8]), 514: ("I", [99])})

FILES = {
    "one page": [Page(PHOTOGRAPH)],
    "thumbnail behind it": [Page(PHOTOGRAPH), THUMBNAIL],
    "thumbnail before it": [THUMBNAIL, typed(PHOTOGRAPH, 0)],
    "thumbnails around it": [THUMBNAIL, Page(PHOTOGRAPH), THUMBNAIL],
    "type as a short": [Page(PHOTOGRAPH), typed(SMALL, 1, letter="H")],
    "type as a byte": [Page(PHOTOGRAPH), typed(SMALL, 1, letter="B")],
    "old type": [typed(PHOTOGRAPH, 1, OLD_TYPE, "H"), typed(SMALL, 2, OLD_TYPE, "H")],
    "mask": [Page(PHOTOGRAPH), typed(MASK, 4)],
    "mask before it": [typed(MASK, 4), Page(PHOTOGRAPH)],
    "reduced mask": [Page(PHOTOGRAPH), typed(MASK[::2, ::2].copy(), 5)],
    "pyramid": [Page(PHOTOGRAPH)] + [typed(PHOTOGRAPH[::n, ::n].copy(), 1) for n in (2, 4, 8)],
    "first page of several, alone": [typed(PHOTOGRAPH, 2)],
    "reduced pictures below it": [Page(PHOTOGRAPH, below=[THUMBNAIL, typed(SMALL, 1)])],
    "untyped picture below it": [Page(PHOTOGRAPH, below=[Page(SMALL)])],
    "thumbnail above it": [typed(SMALL, 1, below=[typed(PHOTOGRAPH, 0)])],
    "thumbnail above it and others": [typed(SMALL, 1, below=[THUMBNAIL, typed(PHOTOGRAPH, 0)])],
    "thumbnail of EXIF": [Page(PHOTOGRAPH), NO_PIXELS],
    "alone, but called reduced": [typed(PHOTOGRAPH, 1)],
    "places below that are none": [Page(PHOTOGRAPH, {BELOW: ("I", [0, 2**32 - 1, 3])})],
    "tags of odd types": [
        Page(
            PHOTOGRAPH,
            {282: ("H", [1, 2, 3]), 283: ("B", [0]), 296: ("I", [3]), 700: ("H", [7]),
             34665: ("I", [2**32 - 1]), 34675: ("I", [1]), 34377: ("B", [1] * 9)},
        )
    ],
}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    return reader(tmp_path)


@pytest.mark.parametrize("layout", [{}, {"order": ">"}, {"big": True}, {"circle": True}])
@pytest.mark.parametrize("kind", FILES)
def test_the_photograph_is_read(read, tmp_path, kind, layout, caplog):
    np.testing.assert_array_equal(read(tiff(*FILES[kind], **layout)), PHOTOGRAPH)
    assert read_header(tmp_path / "some image") == (20, 30, ())
    assert not [record for record in caplog.records if "profile" not in record.getMessage()]


def test_several_photographs_are_refused_with_their_number(read):
    other = Page(PHOTOGRAPH[::-1].copy())
    for pages, number in (
        ([Page(PHOTOGRAPH), other], 2),
        ([typed(PHOTOGRAPH, 2), typed(PHOTOGRAPH, 2), typed(PHOTOGRAPH, 2)], 3),
        ([THUMBNAIL, Page(PHOTOGRAPH), other, typed(MASK, 4)], 2),
        ([typed(SMALL, 1, below=[typed(PHOTOGRAPH, 0), typed(PHOTOGRAPH, 0)])], 2),
        ([THUMBNAIL, typed(SMALL, 1)], 2),  # none of which is told to be the photograph
    ):
        for layout in ({}, {"big": True}, {"circle": True}):
            assert_refused(read, tiff(*pages, **layout), f"holds {number} pictures")


def test_a_directory_that_is_its_own_next_one_is_read(read):
    data = bytearray(tiff(Page(PHOTOGRAPH)))
    data[-4:] = data[4:8]
    np.testing.assert_array_equal(read(bytes(data)), PHOTOGRAPH)
    # Without a next one at all.
    np.testing.assert_array_equal(read(bytes(data[:-4])), PHOTOGRAPH)
    data[-4:] = b"\xff\xff\xff\xff"
    np.testing.assert_array_equal(read(bytes(data)), PHOTOGRAPH)


def test_the_page_tells_its_orientation(read):
    turned = Page(PHOTOGRAPH, {ORIENTATION: ("H", [6])})
    for pages in ([turned, THUMBNAIL], [THUMBNAIL, turned]):
        np.testing.assert_array_equal(read(tiff(*pages)), np.rot90(PHOTOGRAPH, -1))
    pages = [Page(SMALL, {ORIENTATION: ("H", [6]), NEW_TYPE: ("I", [1])}), Page(PHOTOGRAPH)]
    np.testing.assert_array_equal(read(tiff(*pages)), np.rot90(PHOTOGRAPH, -1))
    for letter in "BI":
        page = Page(PHOTOGRAPH, {ORIENTATION: (letter, [6])})
        np.testing.assert_array_equal(read(tiff(page)), np.rot90(PHOTOGRAPH, -1))


def test_raw_files_of_cameras_are_refused_not_their_thumbnails(read):
    sensor = typed(MASK, 0)
    sensor.tags[PHOTOMETRIC] = ("H", [32803])
    linear = Page(PHOTOGRAPH, {PHOTOMETRIC: ("H", [34892])})
    packed = Page(PHOTOGRAPH, {259: ("H", [34713])})
    dng = Page(PHOTOGRAPH, {50706: ("B", [1, 4, 0, 0])})
    canon = bytearray(tiff(Page(PHOTOGRAPH)))
    canon[8:10] = b"CR"
    for data in (
        tiff(typed(SMALL, 1, below=[sensor])),
        tiff(typed(SMALL, 1, below=[sensor]), order=">"),
        tiff(Page(SMALL, below=[packed])),
        tiff(THUMBNAIL, linear),
        tiff(dng),
        bytes(canon),
    ):
        assert_refused(read, data, "camera's raw file")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_compressed_pages(read, compression):
    photograph, thumbnail = Image.fromarray(PHOTOGRAPH), Image.fromarray(SMALL)
    data = bytearray(
        encoded(
            thumbnail,
            format="TIFF",
            save_all=True,
            append_images=[photograph],
            compression=compression,
            tiffinfo={NEW_TYPE: 1},
        )
    )
    result = read(bytes(data)) if data.count(struct.pack("<HHII", NEW_TYPE, 4, 1, 1)) == 1 else None
    if result is None:  # Pillow marks both; the second gets another type
        place = data.rindex(struct.pack("<HHII", NEW_TYPE, 4, 1, 1))
        data[place + 8] = 0
        result = read(bytes(data))
    alone = read(encoded(photograph, format="TIFF", compression=compression))
    np.testing.assert_array_equal(result, alone)


def test_damaged_directories_are_refused(read):
    data = tiff(Page(PHOTOGRAPH))
    for place in (b"\0\0\0\0", b"\xff\xff\xff\xff", struct.pack("<I", len(data))):
        assert_refused(read, data[:4] + place + data[8:], "damaged")


def test_a_mask_by_its_samples_is_no_page(read):
    mask = Page(MASK, {PHOTOMETRIC: ("H", [4])})
    np.testing.assert_array_equal(read(tiff(Page(PHOTOGRAPH), mask)), PHOTOGRAPH)


def test_colours_that_a_clear_alpha_has_wiped_out_are_refused(read, caplog):
    samples = np.dstack([PHOTOGRAPH, np.zeros_like(MASK)])
    for extra, refused in ((1, True), (2, False)):  # multiplied by alpha, or not
        page = Page(samples, {PHOTOMETRIC: ("H", [2]), 338: ("H", [extra])})
        if refused:
            assert_refused(read, tiff(page), "transparent")
        else:
            np.testing.assert_array_equal(read(tiff(page)), PHOTOGRAPH)
            assert "taken as opaque" in caplog.text


def test_a_kind_that_pillow_takes_for_another_is_named(read):
    assert_refused(read, tiff(Page(PHOTOGRAPH), order=">", big=True), "big-endian BigTIFF")
    np.testing.assert_array_equal(read(tiff(Page(PHOTOGRAPH), big=True)), PHOTOGRAPH)
