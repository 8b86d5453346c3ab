"""AVIF files, which Pillow reads."""

import struct

import numpy as np
import pytest
from image_files import assert_refused, encoded, noise, reader
from PIL import Image, features

from gmm_attention.images import avif, reading
from gmm_attention.images.reading import read_header

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")

y, x = np.mgrid[:40, :64]
SMOOTH = np.stack([127 + 80 * np.sin(x / 9 + y / 40), 2 * y, x + y / 2], axis=-1).astype(np.uint8)
EXACT = {"format": "AVIF", "quality": 100, "subsampling": "4:4:4", "speed": 10}


def saved(image, **kwargs):
    return encoded(Image.fromarray(image), **{**EXACT, **kwargs})


@pytest.fixture
def read(tmp_path):
    return reader(tmp_path)


@pytest.fixture
def handed_over(monkeypatch):
    """What is told of the colours."""
    found = []
    monkeypatch.setattr(
        reading, "to_srgb", lambda image, colours, *_: found.append(colours) or image
    )
    return found


def test_pictures_are_read(read, tmp_path, caplog):
    result = read(saved(SMOOTH)).astype(int)
    assert np.abs(result - SMOOTH).max() <= 3 and result.shape == SMOOTH.shape
    assert read_header(tmp_path / "some image") == (40, 64, ())
    assert not caplog.records


def test_alpha(read, caplog):
    def with_alpha(value, corner):
        alpha = np.full((40, 64), value, np.uint8)
        alpha[:20, :20] = corner
        return saved(np.dstack([SMOOTH, alpha]))

    assert np.abs(read(with_alpha(255, 255)).astype(int) - SMOOTH).max() <= 3
    assert not caplog.records
    assert_refused(read, with_alpha(255, 0), "transparent")
    assert np.abs(read(with_alpha(0, 0)).astype(int) - SMOOTH).max() <= 3
    assert "transparent everywhere" in caplog.text


def test_animations_are_refused(read):
    other = Image.fromarray(SMOOTH[::-1].copy())
    assert_refused(read, saved(SMOOTH, save_all=True, append_images=[other]), "holds 2 pictures")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_boxes_tell_the_orientation(read, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = read(saved(SMOOTH, exif=exif)).astype(int)
    expected = reading._TO_UPRIGHT.get(orientation, lambda image: image)(SMOOTH)
    assert np.abs(result - expected).max() <= 3


def test_damaged_exif_data_does_no_harm(read):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    data = saved(SMOOTH, exif=exif)
    place = data.index(b"maker") - 40
    start = data.rindex(b"MM\0*", 0, place + 40) if b"MM\0*" in data else data.rindex(b"II*\0")
    for broken in (b"JUNK", b"II*\0\xff\xff\xff\xff\xff"):
        odd = data[:start] + broken + data[start + len(broken) :]
        np.testing.assert_array_equal(read(odd), read(data))


def with_bits(data, high, twelve):
    """The file, with another depth in its boxes."""
    data = bytearray(data)
    place = data.index(b"av1C") + 6
    data[place] = data[place] & 0x9F | high << 6 | twelve << 5
    place = data.index(b"pixi") + 9
    data[place : place + 3] = bytes([8 + 2 * high + 2 * twelve] * 3)
    return bytes(data)


def test_bits_are_found_in_the_boxes():
    data = saved(SMOOTH)
    for high, twelve, bits in ((0, 0, 8), (1, 0, 10), (1, 1, 12)):
        assert avif._bits(avif._properties(with_bits(data, high, twelve))) == bits


def test_more_than_8_bits_are_told(read, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(avif, "_bits", lambda properties: 10)
    read(saved(SMOOTH))
    assert "some image: 10 bits per sample, rounded to 8" in caplog.text
    assert read_header(tmp_path / "some image").kinds == ("16-bit",)


def with_nclx(data, primaries, transfer):
    place = data.index(b"nclx") + 4
    return data[:place] + struct.pack(">HH", primaries, transfer) + data[place + 4 :]


def test_colours_are_handed_over(read, handed_over):
    data = saved(SMOOTH)
    for primaries, transfer in ((1, 13), (12, 13), (9, 16), (9, 18)):
        read(with_nclx(data, primaries, transfer))
        # A decoder has made the samples RGB of full range.
        assert handed_over[-1].cicp == (primaries, transfer, 0, 1)
        assert handed_over[-1].profile is None
    profile = b"a profile" * 99
    data = saved(SMOOTH, icc_profile=profile)
    read(data)
    assert (handed_over[-1].profile, handed_over[-1].cicp) == (profile, None)
    read(with_nclx(data, 9, 16))
    assert handed_over[-1].cicp == (9, 16, 0, 1)


def test_damage_is_refused(read):
    data = saved(noise(40, 64, 3))
    for length in range(0, len(data) - 40, 97):
        if length:
            assert_refused(read, data[:length], "")


def test_without_avif_in_pillow_the_reason_is_told(read, monkeypatch):
    monkeypatch.setattr("PIL.AvifImagePlugin.SUPPORTED", False)
    assert_refused(read, saved(SMOOTH), "AVIF.*Pillow")
