"""PNG files that are odd: only damage to what makes the pixels refuses them."""

import struct
import zlib

import numpy as np
import pytest
from image_files import assert_refused, chunk, noise, png, reader
from PIL import Image

from gmm_attention.errors import ImageError
from gmm_attention.images import reading
from gmm_attention.images.reading import read_header

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
COLOURS = noise(16, 3)


@pytest.fixture
def read(tmp_path):
    return reader(tmp_path)


def broken(part, place=-1):
    """A chunk with a wrong byte."""
    part = bytearray(part)
    part[place] ^= 1
    return bytes(part)


def text(key, content, compressed=True):
    return chunk(b"zTXt", key + b"\0\0" + (zlib.compress(content) if compressed else content))


ODD = {
    "bomb of text": text(b"Comment", bytes(2**23)),
    "many bombs": text(b"Comment", bytes(2**20)) * 70,
    "bomb of international text": chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(2**23))),
    "bomb in a key that is read": text(b"Raw profile type exif", bytes(2**25)),
    "damaged text": text(b"Comment", b"no zlib data", compressed=False),
    "text without a key": chunk(b"tEXt", b"") + chunk(b"zTXt", b"") + chunk(b"iTXt", b""),
    "text of unknown compression": chunk(b"zTXt", b"a\0\7abc"),
    "text of bytes": chunk(b"iTXt", b"\xff\xfe\0\0\0\xff\0\xff\0\xff"),
    "wrong checksum of text": broken(chunk(b"tEXt", b"Title\0abc")),
    "wrong bit in text": broken(chunk(b"tEXt", b"Title\0abc"), 12),
    "wrong checksum of pHYs": broken(chunk(b"pHYs", bytes(9))),
    "short pHYs": chunk(b"pHYs", bytes(3)),
    "wrong checksum of gAMA": broken(chunk(b"gAMA", struct.pack(">I", 45455))),
    "short gAMA, cHRM, cICP": chunk(b"gAMA", b"") + chunk(b"cHRM", b"abc") + chunk(b"cICP", b"a"),
    "wrong checksum of iCCP": broken(chunk(b"iCCP", b"a\0\0" + zlib.compress(b"abc"))),
    "wrong length of iCCP": b"\0\0\1\0" + chunk(b"iCCP", b"a\0\0" + zlib.compress(b"abc"))[4:],
    "absurd length of text": b"\x7f\xff\xff\xff" + chunk(b"tEXt", b"Title\0abc")[4:],
    "impossible length of text": b"\xff\xff\xff\xff" + chunk(b"tEXt", b"Title\0abc")[4:],
    "too short length of text": b"\0\0\0\1" + chunk(b"tEXt", b"Title\0abc")[4:],
    "length of text that reaches into the pixels": b"\0\0\0\x40" + chunk(b"tEXt", b"Title\0ab")[4:],
    "broken eXIf": chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "wrong checksum of eXIf": broken(chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")),
    "unknown chunk": chunk(b"prVt", b"abc"),
    "unknown broken chunk": broken(chunk(b"prVt", b"abc")),
    "junk": b"some bytes that are no chunk",
    "animation of no frames": chunk(b"acTL", bytes(8)),
    "broken animation": broken(chunk(b"acTL", struct.pack(">II", 9, 0))),
    "short animation": chunk(b"acTL", bytes(3)),
}


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("oddity", ODD)
def test_what_has_no_effect_on_the_pixels_does_no_harm(read, tmp_path, oddity, where):
    samples = noise(20, 30, 3)
    data = png(samples, RGB, **{where: ODD[oddity]})
    np.testing.assert_array_equal(read(data), samples)
    assert read_header(tmp_path / "some image") == (20, 30, ())


def test_pixels_without_an_end_are_whole(read):
    samples = noise(20, 30, 3)
    whole = png(samples, RGB)
    for data in (
        png(samples, RGB, end=False),
        whole[:-4],
        whole[:-9],
        png(samples, RGB, end=False) + b"junk" * 99,
        whole + b"junk" * 99,
        whole + whole,
        png(samples, RGB, end=False) + png(noise(5, 7, 3), RGB),
        png(samples, RGB, after=broken(chunk(b"IEND", b"")), end=False),
    ):
        np.testing.assert_array_equal(read(data), samples)


def test_the_header_is_read_without_the_pixels(tmp_path):
    whole = png(noise(20, 30, 3), RGB)
    for data in (whole[:42], whole[:60], whole[:33] + broken(whole[33:-12], 20)):
        (tmp_path / "a").write_bytes(data)
        assert read_header(tmp_path / "a") == (20, 30, ())


def test_damage_to_the_pixels_is_refused(read):
    samples = noise(20, 30, 3)
    whole = png(samples, RGB)
    pixels = whole[33:-12]
    assert pixels[4:8] == b"IDAT"
    palette = chunk(b"PLTE", COLOURS.tobytes())
    indices = noise(20, 30, 1) % 16
    for data in (
        whole[:33] + broken(pixels) + whole[-12:],
        whole[:33] + broken(pixels, 20) + whole[-12:],
        whole[:33] + broken(pixels, 3) + whole[-12:],
        whole[:33] + broken(pixels, 5) + whole[-12:],
        whole[:33] + whole[-12:],
        whole[:-30],
        whole[:8] + broken(whole[8:33]) + whole[33:],
        whole[:8] + whole[33:],
        whole[:8] + chunk(b"IHDR", whole[16:28]) + whole[33:],
        png(indices, PALETTE),
        png(indices, PALETTE, before=broken(palette)),
        png(indices, PALETTE, before=palette[:-1]),
        png(indices, PALETTE, before=palette + broken(chunk(b"tRNS", b"\xff"))),
        png(samples, RGB, before=broken(chunk(b"tRNS", bytes(6)))),
    ):
        assert_refused(read, data, "damaged")
    assert_refused(read, png(samples, RGB, before=chunk(b"CgBI", bytes(4))), "CgBI")


def test_what_has_no_effect_on_the_pixels_may_be_damaged(read, caplog):
    samples = noise(20, 30, 3)
    palette = chunk(b"PLTE", COLOURS.tobytes())
    np.testing.assert_array_equal(read(png(samples, RGB, before=broken(palette))), samples)
    assert not caplog.records
    data = png(samples, RGB, before=chunk(b"tRNS", bytes(5)))
    np.testing.assert_array_equal(read(data), samples)
    assert caplog.messages[0].endswith("some image: its tRNS chunk is cut, and is passed over")


@pytest.mark.parametrize(
    "content", [(b"gAMA", struct.pack(">I", 100000)), (b"cICP", bytes([9, 16, 0, 1]))]
)
def test_damage_to_what_tells_the_colours_is_told_once(read, content, caplog):
    samples = noise(20, 30, 3)
    data = png(samples, RGB, before=broken(chunk(*content)) * 2)
    np.testing.assert_array_equal(read(data), samples)
    (message,) = caplog.messages
    assert message.endswith(
        "some image: what it says of its colours is damaged; they are taken as sRGB"
    )


def test_a_png_of_apple_is_refused_as_such(read):
    whole = png(noise(20, 30, 3), RGB)
    assert_refused(read, whole[:8] + chunk(b"CgBI", bytes(4)) + whole[8:], "CgBI")


DEPTHS = [(GRAY, depth) for depth in (1, 2, 4, 8, 16)] + [(RGB, 8), (RGB, 16)]


def as_rgb(samples, depth):
    """What a viewer shows of gray or RGB samples, in 8 bits."""
    return np.rint(samples * (255 / (2**depth - 1))).astype(np.uint8) * np.ones(3, np.uint8)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("shape", [(11, 13), (1, 1), (2, 9), (9, 3)])
def test_missing_pixels_are_found_by_the_byte(read, depth, interlaced, shape):
    samples = noise(*shape, 1, dtype=np.uint16) & (2**depth - 1)
    whole = png(samples, GRAY, depth, interlaced)
    np.testing.assert_array_equal(read(whole), as_rgb(samples, depth))
    pixels = zlib.decompress(whole[41:-16])
    for data in (pixels[:-1], pixels[: len(pixels) // 2], b""):
        cut = whole[:33] + chunk(b"IDAT", zlib.compress(data)) + whole[-12:]
        assert_refused(read, cut, "damaged")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("color_type, depth", DEPTHS)
def test_a_clear_colour_counts_only_where_a_pixel_has_it(read, color_type, depth, interlaced):
    largest = 2**depth - 1
    bands = 3 if color_type == RGB else 1
    samples = noise(11, 13, bands, dtype=np.uint16) % largest  # none is the largest
    samples[0, 0] = largest - 1

    def data(colour):
        clear = chunk(b"tRNS", struct.pack(f">{bands}H", *colour))
        return png(samples, color_type, depth, interlaced, before=clear)

    expected = as_rgb(samples, depth)
    np.testing.assert_array_equal(read(data([largest] * bands)), expected)
    if depth > 1:
        assert_refused(read, data([largest - 1] * bands), "transparent")
    if depth == 16:  # the same high byte is not the same colour
        np.testing.assert_array_equal(read(data([largest - 2] * bands)), expected)
    if depth < 16:  # only the low bits of the colour count
        np.testing.assert_array_equal(read(data([65535] * bands)), expected)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_is_opaque_if_no_pixel_uses_its_clear_entries(read, depth, interlaced):
    count = min(2**depth, 16)
    indices = noise(11, 13, 1) % (count - 1)
    palette = chunk(b"PLTE", COLOURS[:count].tobytes())
    expected = COLOURS[indices[..., 0]]
    for alpha in (
        [255] * (count - 1) + [0],
        [255] * (count - 1) + [7],
        [255],
        [255] * count + [0] * 99,
    ):
        data = png(indices, PALETTE, depth, interlaced, palette + chunk(b"tRNS", bytes(alpha)))
        np.testing.assert_array_equal(read(data), expected)
    if depth > 1:
        alpha = [255] * (count - 1) + [0]
        indices[3, 4] = count - 1
        data = png(indices, PALETTE, depth, interlaced, palette + chunk(b"tRNS", bytes(alpha)))
        assert_refused(read, data, "transparent")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("color_type", [GRAY_ALPHA, RGBA])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_opaque_alpha_channel_is_dropped_at_every_depth(read, color_type, dtype, interlaced):
    samples = noise(11, 13, 2 if color_type == GRAY_ALPHA else 4, dtype=dtype)
    limit = np.iinfo(dtype).max
    samples[..., -1] = limit
    # Such a chunk does not belong there.
    data = png(samples, color_type, None, interlaced, before=chunk(b"tRNS", bytes(6)))
    expected = as_rgb(samples[..., :-1], 8 * samples.dtype.itemsize)
    np.testing.assert_array_equal(read(data), expected)
    samples[4, 5, -1] = limit - 1
    assert_refused(read, png(samples, color_type, None, interlaced), "transparent")


@pytest.mark.parametrize("color_type, bands", [(GRAY, 1), (RGB, 3), (GRAY_ALPHA, 2), (RGBA, 4)])
def test_header_tells_kinds(tmp_path, color_type, bands):
    samples = noise(11, 13, bands, dtype=np.uint16)
    (tmp_path / "a").write_bytes(png(samples, color_type))
    kinds = {"16-bit"}
    kinds |= {"gray"} if bands < 3 else set()
    kinds |= {"transparent"} if bands in (2, 4) else set()
    assert set(read_header(tmp_path / "a").kinds) == kinds
    clear = chunk(b"tRNS", bytes(6))
    (tmp_path / "a").write_bytes(png(samples, color_type, before=clear))
    if bands in (1, 3):
        assert set(read_header(tmp_path / "a").kinds) == kinds | {"transparent"}


def frame(number):
    return chunk(b"fcTL", struct.pack(">7I2H2B", number, 7, 5, 0, 0, 1, 1, 0, 0, 0, 0)[:26])


def test_animations_are_refused_with_their_number(read):
    samples = noise(5, 7, 3)

    def animated(count, is_first):
        control = chunk(b"acTL", struct.pack(">II", count, 0))
        return png(samples, RGB, before=control + (frame(0) if is_first else b""))

    np.testing.assert_array_equal(read(animated(1, True)), samples)
    assert_refused(read, animated(5, True), "holds 5 pictures")
    assert_refused(read, animated(5, False), "holds 6 pictures")


def test_colours_are_handed_over(read, monkeypatch):
    found = []
    monkeypatch.setattr(
        reading,
        "to_srgb",
        lambda image, colours, is_gray, path: found.append((colours, is_gray)) or image,
    )
    chromaticities = [31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000]
    parts = {
        "profile": chunk(b"iCCP", b"name\0\0" + zlib.compress(b"profile" * 999)),
        "cicp": chunk(b"cICP", bytes((12, 13, 0, 1))),
        "srgb": chunk(b"sRGB", b"\0"),
        "gamma": chunk(b"gAMA", struct.pack(">I", 45455)),
        "chromaticities": chunk(b"cHRM", struct.pack(">8I", *chromaticities)),
    }
    expected = {
        "profile": b"profile" * 999,
        "cicp": (12, 13, 0, 1),
        "srgb": True,
        "gamma": 0.45455,
        "chromaticities": tuple(value / 100000 for value in chromaticities),
    }
    for name, part in parts.items():
        read(png(noise(5, 7, 3), RGB, before=part))
        colours, is_gray = found[-1]
        assert not is_gray
        assert colours == type(colours)(**{name: expected[name]})
        read(png(noise(5, 7, 3), RGB, after=part))  # where it has no effect
        assert found[-1][0] == type(colours)()
    for color_type, bands, dtype in ((GRAY, 1, np.uint8), (GRAY_ALPHA, 2, np.uint16)):
        samples = noise(5, 7, bands, dtype=dtype)
        samples[..., 1:] = np.iinfo(dtype).max
        read(png(samples, color_type))
        assert found[-1][1]


def test_a_damaged_profile_is_told(read, caplog):
    samples = noise(5, 7, 3)
    data = png(samples, RGB, before=chunk(b"iCCP", b"name\0\0no zlib data"))
    np.testing.assert_array_equal(read(data), samples)
    assert "some image: " in caplog.text and "profile" in caplog.text


def test_pixels_in_many_chunks(read):
    samples = noise(20, 30, 3)
    whole = png(samples, RGB)
    pixels = whole[41:-16]
    parts = b"".join(chunk(b"IDAT", pixels[i : i + 100]) for i in range(0, len(pixels), 100))
    np.testing.assert_array_equal(read(whole[:33] + parts + whole[-12:]), samples)
    middle = (
        chunk(b"IDAT", pixels[:50]) + ODD["wrong checksum of text"] + chunk(b"IDAT", pixels[50:])
    )
    np.testing.assert_array_equal(read(whole[:33] + middle + whole[-12:]), samples)


def test_pillow_agrees_about_the_files_of_this_test(tmp_path):
    for interlaced in (False, True):
        samples = noise(11, 13, 1) % 4
        (tmp_path / "a.png").write_bytes(png(samples, GRAY, 2, interlaced))
        shown = np.asarray(Image.open(tmp_path / "a.png"))
        np.testing.assert_array_equal(shown, 85 * samples[..., 0])


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ImageError, match="none.png: "):
        read_header(tmp_path / "none.png")
