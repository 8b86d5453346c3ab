"""Conversion to sRGB, against formulas in float64 and profiles that are built here by hand."""

import logging
import struct
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import chunk, png, reader
from PIL import ImageCms

from gmm_attention.errors import ImageError
from gmm_attention.images import colour
from gmm_attention.images.colour import Colours, to_srgb

D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
SRGB = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3 = (*D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
ADOBE = (*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
REC2020 = (*D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046)
PROPHOTO = (*D50, 0.734699, 0.265301, 0.159597, 0.840403, 0.036598, 0.000105)

# Colorants as sRGB profiles of HP, Microsoft and the ICC have them, adapted to D50.
SRGB_XYZ = [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)]

BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
PCS_WHITE = np.array([0.9642, 1.0, 0.8249])


def srgb_to_linear(x):
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(y):
    y = np.clip(y, 0, 1)
    return np.where(y <= 0.0031308, y * 12.92, 1.055 * y ** (1 / 2.4) - 0.055)


def power(exponent):
    return lambda x: np.asarray(x, np.float64) ** exponent


def to_d50(chromaticities):
    """The matrix from linear RGB to XYZ, adapted to the white of profiles."""
    x, y = np.reshape(chromaticities, (4, 2)).T
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    matrix = xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0])
    gains = np.diag((BRADFORD @ PCS_WHITE) / (BRADFORD @ xyz[:, 0]))
    return np.linalg.inv(BRADFORD) @ gains @ BRADFORD @ matrix


def unrounded(image, chromaticities, curve):
    white = np.iinfo(image.dtype).max
    linear = curve(image / white) @ (np.linalg.inv(to_d50(SRGB)) @ to_d50(chromaticities)).T
    return 255 * linear_to_srgb(linear)


def expected(image, chromaticities, curve):
    return np.rint(unrounded(image, chromaticities, curve))


def noise(*shape):
    return np.random.default_rng(5).integers(0, 256, shape).astype(np.uint8)


def s15(*numbers):
    return b"".join(struct.pack(">i", round(float(n) * 65536)) for n in numbers)


def curv(*values):
    return b"curv" + bytes(4) + struct.pack(f">I{len(values)}H", len(values), *values)


def table(curve, points=1024):
    return curv(*(int(round(65535 * float(curve(x)))) for x in np.linspace(0, 1, points)))


def gamma(exponent):
    return curv(round(exponent * 256))


def para(kind, *numbers):
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + s15(*numbers)


SRGB_PARA = para(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def desc(name):
    return b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name.encode() + bytes(79)


def mluc(name):
    text = name.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text


def profile(parts, space=b"RGB ", kind=b"mntr", version=2, pcs=b"XYZ "):
    """An ICC profile of some parts, given by their names."""
    parts = {"desc": desc("Some colours"), **parts}
    body, entries = b"", b""
    for name, part in parts.items():
        start = 132 + 12 * len(parts) + len(body)
        entries += struct.pack(">4sII", name.encode(), start, len(part))
        body += part + bytes(-len(part) % 4)
    size = 132 + len(entries) + len(body)
    header = struct.pack(">I4sB3x4s4s4s", size, b"test", version, kind, space, pcs)
    header += bytes(12) + b"acsp" + bytes(28) + s15(*PCS_WHITE)
    return header.ljust(128, b"\0") + struct.pack(">I", len(parts)) + entries + body


def rgb_parts(colorants, curve):
    xyz = {f"{c}XYZ": b"XYZ " + bytes(4) + s15(*v) for c, v in zip("rgb", colorants)}
    return {**xyz, **{f"{c}TRC": curve for c in "rgb"}}


def rgb_profile(colorants, curve, version=2, kind=b"mntr", **parts):
    return profile({**rgb_parts(colorants, curve), **parts}, kind=kind, version=version)


def gray_profile(curve, kind=b"prtr"):
    white = b"XYZ " + bytes(4) + s15(*PCS_WHITE)
    return profile({"wtpt": white, "kTRC": curve}, space=b"GRAY", kind=kind)


def lut_profile(chromaticities, curve, points=33, **parts):
    """An RGB profile of a scanner's kind: a table of Lab colours instead of primaries."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, points)] * 3, indexing="ij"), axis=-1)
    xyz = curve(grid) @ to_d50(chromaticities).T / PCS_WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    lightness = (116 * f[..., 1] - 16) * 652.80
    a = (500 * (f[..., 0] - f[..., 1]) + 128) * 256
    b = (200 * (f[..., 1] - f[..., 2]) + 128) * 256
    values = np.clip(np.rint(np.stack([lightness, a, b], axis=-1)), 0, 65535).astype(">u2")
    lut = b"mft2" + bytes(4) + bytes([3, 3, points, 0]) + s15(*np.eye(3).ravel())
    lut += struct.pack(">HH", 2, 2) + struct.pack(">HH", 0, 65535) * 3
    lut += values.tobytes() + struct.pack(">HH", 0, 65535) * 3
    return profile({"A2B0": lut, **parts}, kind=b"scnr", pcs=b"Lab ")


def p3_profile(curve=SRGB_PARA, version=4, **parts):
    return rgb_profile(to_d50(P3).T, curve, version, **parts)


SPACES = {
    "Display P3": (P3, srgb_to_linear, SRGB_PARA),
    "Display P3, table": (P3, srgb_to_linear, table(srgb_to_linear)),
    "Adobe RGB": (ADOBE, power(563 / 256), gamma(563 / 256)),
    "ProPhoto": (PROPHOTO, power(1.8), para(0, 1.8)),
    "Rec. 2020": (REC2020, power(2.4), gamma(2.4)),
    "linear": (SRGB, power(1), curv()),
    "gamma 1.8": (SRGB, power(1.8), gamma(1.8)),
}


@pytest.fixture
def convert(caplog):
    """Converts an image whose file says nothing that is worth a warning."""

    def convert_quietly(image, is_gray=False, **colours):
        kept = image.copy()
        converted = to_srgb(image, Colours(**colours), is_gray, "photo.png")
        assert converted.dtype == np.uint8 and converted.shape == image.shape
        assert (image == kept).all()
        assert not caplog.records
        return converted

    return convert_quietly


@pytest.fixture
def refusal(caplog):
    """Returns the cause of the one warning that an image gets, which stays as it is."""

    def warned(is_gray=False, **colours):
        caplog.clear()
        image = np.repeat(noise(5, 6, 1), 3, axis=2) if is_gray else noise(5, 6, 3)
        assert to_srgb(image, Colours(**colours), is_gray, "photo.png") is image
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        message = record.getMessage()
        head, tail = "photo.png: its ", "; colours are taken as sRGB"
        assert message.startswith(head) and message.endswith(tail)
        return message[len(head) : -len(tail)]

    return warned


@pytest.mark.parametrize("name", SPACES)
def test_profiles_are_converted(convert, name):
    chromaticities, curve, part = SPACES[name]
    version = 4 if part[:4] == b"para" else 2
    icc = rgb_profile(to_d50(chromaticities).T, part, version)
    image = noise(80, 90, 3)
    converted = convert(image, profile=icc)
    assert np.abs(converted - expected(image, chromaticities, curve)).max() <= 1


def test_a_scanner_s_table_is_converted(convert):
    # Colours well within sRGB: LittleCMS reads its own table, which is coarse at the edge.
    image = noise(80, 90, 3) // 4 + 96
    converted = convert(image, profile=lut_profile(P3, srgb_to_linear))
    assert np.abs(converted - expected(image, P3, srgb_to_linear)).max() <= 2


def test_known_colours(convert):
    # Patches of a colour chart, from CSS's definition of Display P3.
    p3 = np.array([[[191, 150, 132], [145, 145, 145], [255, 255, 255], [0, 0, 0]]], np.uint8)
    srgb = np.array([[[199, 148, 129], [145, 145, 145], [255, 255, 255], [0, 0, 0]]])
    assert np.abs(convert(p3, profile=p3_profile()) - srgb).max() <= 1
    # The nearest that sRGB has to the purest red and green of Display P3.
    pure = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)
    assert (convert(pure, profile=p3_profile()) == pure).all()


@pytest.mark.parametrize(
    "colours, chromaticities, curve",
    [
        ({"cicp": (12, 13, 0, 1)}, P3, srgb_to_linear),
        ({"cicp": (9, 14, 0, 1)}, REC2020, srgb_to_linear),
        ({"cicp": (9, 2, 0, 1)}, REC2020, srgb_to_linear),
        ({"cicp": (1, 8, 0, 1)}, SRGB, power(1)),
        ({"cicp": (2, 4, 0, 1)}, SRGB, power(2.2)),
        ({"gamma": 1.0}, SRGB, power(1)),
        ({"gamma": 0.55}, SRGB, power(1 / 0.55)),
        ({"chromaticities": P3}, P3, srgb_to_linear),
        ({"gamma": 0.45455, "chromaticities": ADOBE}, ADOBE, power(2.2)),
        ({"gamma": 0.55556, "chromaticities": PROPHOTO}, PROPHOTO, power(1.8)),
        ({"adobe_rgb": True}, ADOBE, power(2.2)),
    ],
)
def test_numbers_are_converted(convert, colours, chromaticities, curve):
    image = noise(40, 50, 3)
    converted = convert(image, **colours)
    assert (converted != image).any()
    assert np.abs(converted - expected(image, chromaticities, curve)).max() <= 1


@pytest.mark.parametrize(
    "colours",
    [
        {},
        {"srgb": True},
        {"cicp": (1, 13, 0, 1)},
        {"cicp": (1, 1, 0, 1)},
        {"cicp": (2, 2, 2, 0)},
        {"cicp": (2, 2, 5, 1)},
        {"gamma": 0.45455},
        {"gamma": 0.45},
        {"chromaticities": SRGB},
        {"chromaticities": (0.313, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)},
        {"gamma": 0.45455, "chromaticities": SRGB},
        {"profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
        {"profile": rgb_profile(SRGB_XYZ, table(srgb_to_linear))},
        {"profile": rgb_profile(SRGB_XYZ, table(srgb_to_linear, 26))},
        {"profile": rgb_profile(SRGB_XYZ, table(srgb_to_linear, 4096))},
        {"profile": rgb_profile(SRGB_XYZ, SRGB_PARA, version=4)},
        {"profile": rgb_profile(to_d50(SRGB).T, SRGB_PARA, version=4)},
        {"profile": rgb_profile(np.round(SRGB_XYZ, 4) + 0.0001, SRGB_PARA)},
        # Black that is not quite dark, as in the ICC's profile "without black scaling".
        {"profile": rgb_profile(SRGB_XYZ, table(lambda x: 0.0024 + 0.9976 * srgb_to_linear(x)))},
    ],
)
def test_srgb_is_not_touched(convert, colours):
    image = noise(20, 30, 3)
    assert convert(image, **colours) is image


def test_the_first_of_several_counts(convert):
    image = noise(20, 30, 3)
    p3 = convert(image, profile=p3_profile())
    linear = convert(image, gamma=1.0)
    everything = {
        "cicp": (1, 13, 0, 1),
        "profile": p3_profile(),
        "srgb": True,
        "gamma": 1.0,
        "adobe_rgb": True,
    }
    wanted = {"cicp": image, "profile": p3, "srgb": image, "gamma": linear}
    for name, converted in wanted.items():
        assert (convert(image, **everything) == converted).all()
        del everything[name]
    assert (convert(image, **everything) == convert(image, adobe_rgb=True)).all()


@pytest.mark.parametrize("cicp", [(2, 2, 6, 0), (1, 2, 0, 1), (10, 13, 0, 1), (1, 13, 0, 0)])
def test_a_profile_counts_beside_numbers_that_cannot_be_followed(convert, cicp):
    image = noise(20, 30, 3)
    p3 = convert(image, profile=p3_profile())
    assert (convert(image, cicp=cicp, profile=p3_profile()) == p3).all()


GRAYS = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)


@pytest.mark.parametrize(
    "icc, curve",
    [
        (gray_profile(gamma(1.8)), power(1.8)),
        (gray_profile(curv()), power(1)),
        (gray_profile(gamma(2.2), kind=b"mntr"), power(563 / 256)),
        # A printer's gray, whose dots grow: a curve between gamma 1.7 and 1.8.
        (gray_profile(table(power(1.75), 256)), power(1.75)),
        (p3_profile(gamma(1.8), version=2), power(1.8)),
        (lut_profile(P3, power(1.8)), power(1.8)),
    ],
)
def test_gray_stays_gray(convert, icc, curve):
    converted = convert(GRAYS, is_gray=True, profile=icc)
    assert (converted == converted[..., :1]).all()
    assert converted.min() == 0 and converted.max() == 255
    error = np.abs(converted - np.rint(255 * linear_to_srgb(curve(GRAYS / 255))))
    assert error[GRAYS >= 16].max() <= 2


@pytest.mark.parametrize(
    "colours",
    [
        {"profile": gray_profile(table(srgb_to_linear))},
        {"profile": p3_profile()},
        {"cicp": (12, 13, 0, 1)},
        {"gamma": 0.45455},
    ],
)
def test_grays_that_are_srgb_s_already(convert, colours):
    assert (convert(GRAYS, is_gray=True, **colours) == GRAYS).all()


@pytest.mark.parametrize("chromaticities", [SRGB, P3, PROPHOTO])
def test_rgb_images_without_colour_stay_gray(convert, chromaticities):
    icc = rgb_profile(to_d50(chromaticities).T, gamma(1.0), version=2)
    converted = convert(GRAYS, profile=icc)
    assert (converted == converted[..., :1]).all()
    assert np.abs(converted - np.rint(255 * linear_to_srgb(GRAYS / 255))).max() <= 1


def deep_noise(*shape):
    """16-bit samples, half of them dark."""
    samples = np.random.default_rng(6).integers(0, 65536, shape).astype(np.uint16)
    samples[::2] //= 100
    return samples


def rounded(samples):
    return np.floor(samples / 257 + 0.5).astype(np.uint8)


DEEP_SPACES = {
    "Display P3": ({"profile": p3_profile()}, P3, srgb_to_linear),
    "Display P3, table": ({"profile": p3_profile(table(srgb_to_linear, 4096))}, P3, srgb_to_linear),
    "ProPhoto": ({"profile": rgb_profile(to_d50(PROPHOTO).T, para(0, 1.8))}, PROPHOTO, power(1.8)),
    "linear": ({"profile": rgb_profile(to_d50(SRGB).T, curv())}, SRGB, power(1)),
    "linear ProPhoto": ({"profile": rgb_profile(to_d50(PROPHOTO).T, curv())}, PROPHOTO, power(1)),
    "gAMA": ({"gamma": 1.0}, SRGB, power(1)),
    "gAMA and cHRM": ({"gamma": 0.55556, "chromaticities": PROPHOTO}, PROPHOTO, power(1.8)),
    "cHRM": ({"chromaticities": P3}, P3, srgb_to_linear),
    "cICP": ({"cicp": (9, 8, 0, 1)}, REC2020, power(1)),
    "Adobe RGB": ({"adobe_rgb": True}, ADOBE, power(563 / 256)),
}


@pytest.mark.parametrize("name", DEEP_SPACES)
def test_16_bits_are_converted_before_they_are_rounded(convert, name):
    colours, chromaticities, curve = DEEP_SPACES[name]
    image = deep_noise(90, 80, 3)
    converted = convert(image, **colours)
    # Half a level of rounding, and what the profile's own numbers are rounded by.
    assert np.abs(converted - unrounded(image, chromaticities, curve)).max() <= 0.6


@pytest.mark.parametrize(
    "is_gray, colours",
    [
        (False, {"gamma": 1.0}),
        (True, {"gamma": 1.0}),
        (False, {"profile": p3_profile(curv(), version=2)}),
        (True, {"profile": p3_profile(curv(), version=2)}),
        (True, {"profile": gray_profile(curv())}),
    ],
)
def test_16_bits_of_linear_light_keep_every_level(convert, is_gray, colours):
    light = np.rint(65535 * srgb_to_linear(GRAYS / 255)).astype(np.uint16)
    assert (convert(light, is_gray=is_gray, **colours) == GRAYS).all()
    every = np.repeat(np.arange(65536, dtype=np.uint16).reshape(256, 256, 1), 3, axis=2)
    converted = convert(every, is_gray=is_gray, **colours)
    assert (converted == converted[..., :1]).all()
    # Not 0.5, because a profile's numbers are rounded, too.
    assert np.abs(converted - 255 * linear_to_srgb(every / 65535)).max() <= 0.52


TINTED = rgb_profile(to_d50(P3).T, gamma(1.8), rTRC=gamma(1.7), bTRC=gamma(2.0))
DARK_GRAY = rgb_profile(to_d50(P3).T, table(lambda x: 0.0024 + 0.9976 * x**1.8))
# A table beside primaries and curves that say something else.
TWOFOLD = lut_profile(ADOBE, power(2.2), **rgb_parts(to_d50(P3).T, gamma(1.8)))


@pytest.mark.parametrize(
    "colours",
    [
        *(colours for colours, _, _ in DEEP_SPACES.values()),
        *({"profile": icc} for icc in (TINTED, DARK_GRAY, lut_profile(P3, power(1.8)), TWOFOLD)),
    ],
)
def test_both_depths_agree(convert, colours):
    image = noise(80, 90, 3)
    deep = convert(257 * image.astype(np.uint16), **colours)
    assert np.abs(deep - convert(image, **colours).astype(int)).max() <= 1


@pytest.mark.parametrize("curve", [curv(), gamma(1.8), table(power(1.75), 256), SRGB_PARA])
def test_both_depths_of_gray_agree(convert, curve):
    deep = 257 * GRAYS.astype(np.uint16)
    for icc in (gray_profile(curve), p3_profile(curve)):
        shallow = convert(GRAYS, is_gray=True, profile=icc).astype(int)
        assert np.abs(convert(deep, is_gray=True, profile=icc) - shallow).max() <= 1


def test_tables_are_followed_with_8_bits(convert):
    image = deep_noise(40, 50, 3)
    for icc in (lut_profile(P3, power(1.8)), TWOFOLD):
        assert (convert(image, profile=icc) == convert(rounded(image), profile=icc)).all()


def test_16_bits_of_srgb_are_only_rounded(convert, caplog):
    image = deep_noise(40, 50, 3)
    for colours in ({}, {"srgb": True}, {"gamma": 0.45455}, {"cicp": (1, 13, 0, 1)}):
        assert (convert(image, **colours) == rounded(image)).all()
    converted = to_srgb(image, Colours(profile=b"damaged"), False, "photo.png")
    assert (converted == rounded(image)).all()
    assert "colours are taken as sRGB" in caplog.text


def test_16_bits_in_a_file(tmp_path):
    light = np.rint(65535 * srgb_to_linear(GRAYS / 255)).astype(np.uint16)
    read = reader(tmp_path)
    linear = chunk(b"gAMA", struct.pack(">I", 100_000))
    assert (read(png(light, 2, before=linear)) == GRAYS).all()
    assert (read(png(light[..., :1], 0, before=linear)) == GRAYS).all()


@pytest.mark.parametrize("colours", [{}, {"gamma": 1.0}, {"profile": lut_profile(P3, power(1.8))}])
def test_16_bits_need_little_memory(convert, monkeypatch, colours):
    image = deep_noise(1000, 1000, 3)
    monkeypatch.setattr(colour, "_STRIP", 2**14)
    convert(image[:2], **colours)  # what is kept for the next image
    kept = tracemalloc.start() or tracemalloc.get_traced_memory()[0]
    try:
        to_srgb(image, Colours(**colours), False, "photo.png")
        peak = tracemalloc.get_traced_memory()[1] - kept
    finally:
        tracemalloc.stop()
    # That of the result, or, of tables, that of the rounded image, too.
    assert peak < (2 if "profile" in colours else 1) * image.size + 2**21


@pytest.mark.parametrize(
    "icc, cause",
    [
        (gray_profile(gamma(2.2)), "it is for gray samples"),
        (profile({}, space=b"CMYK", kind=b"prtr"), "it is for CMYK samples"),
        (profile({}, space=b"Lab ", kind=b"spac"), "it is for Lab samples"),
        (profile({}, space=b"\n\x1b[m"), "it is for unknown samples"),
        (profile({}, kind=b"link"), "it does not describe the colours of an image"),
        (profile({}, kind=b"nmcl"), "it does not describe the colours of an image"),
        (profile({}), "it is damaged or of an unknown kind"),
        (p3_profile()[:-1], "it is cut off"),
        (p3_profile()[:300], "it is cut off"),
        (p3_profile()[:131] + b"\xff", "it is cut off"),
        (p3_profile()[:20], "it is damaged"),
        (b"", "it is damaged"),
        (rgb_profile(np.zeros((3, 3)), SRGB_PARA), "white would become as dark as black"),
    ],
)
def test_profiles_that_cannot_be_used(refusal, icc, cause):
    assert refusal(profile=icc) == f"colour profile cannot be used ({cause})"


def test_a_gray_image_with_a_cmyk_profile(refusal):
    icc = profile({}, space=b"CMYK", kind=b"prtr")
    said = refusal(is_gray=True, profile=icc)
    assert said == "colour profile cannot be used (it is for CMYK samples)"


@pytest.mark.parametrize(
    "colours, said",
    [
        ({"gamma": 0.0}, "gamma (gAMA) cannot be used (0)"),
        ({"gamma": 21474.83647}, "gamma (gAMA) cannot be used (21474.8)"),
        ({"gamma": float("nan")}, "gamma (gAMA) cannot be used (nan)"),
        ({"cicp": (12, 13, 1, 1)}, "colour code (cICP) cannot be used (matrix 1 for RGB samples)"),
        (
            {"cicp": (12, 13, 0, 0)},
            "colour code (cICP) cannot be used (samples of limited range)",
        ),
        (
            {"cicp": (10, 99, 0, 1)},
            "colour code (cICP) cannot be used (primaries 10 with transfer function 99)",
        ),
    ],
)
def test_numbers_that_cannot_be_used(refusal, colours, said):
    assert refusal(**colours) == said


@pytest.mark.parametrize(
    "chromaticities",
    [
        (0,) * 8,
        (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6),
        (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, -0.15, 0.06),
        (0.3127, 0.329, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4),
        (0.7, 0.2, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),
        (0.3127, 0.00001, 0.64, 0.33, 0.3, 0.6, 0.15, 0.00001),
        (0.3127, 0.329, 0.64, 0.33, 21474.8, 21474.8, 0.15, 0.06),
        (float("nan"), 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),
        (float("inf"), 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),
    ],
)
def test_impossible_chromaticities(refusal, chromaticities):
    said = refusal(gamma=0.45455, chromaticities=chromaticities)
    assert said == "chromaticities (cHRM) cannot be used (impossible values)"


@pytest.mark.parametrize(
    "colours, transfer",
    [
        ({"cicp": (9, 16, 0, 1)}, "PQ"),
        ({"cicp": (2, 18, 9, 0), "profile": p3_profile()}, "HLG"),
        ({"profile": p3_profile(cicp=b"cicp" + bytes(4) + bytes([9, 16, 0, 1]))}, "PQ"),
        ({"profile": p3_profile(cicp=b"cicp" + bytes(4) + bytes([9, 18, 0, 1]))}, "HLG"),
        *(
            ({"profile": p3_profile(desc=named(name))}, "HLG" if "H" in name[3:] else "PQ")
            for named in (desc, mluc)
            for name in (
                "Rec2020 PQ",
                "ITUR_2100_PQ_FULL",
                "2100 HLG",
                "Rec2100PQ",
                "Rec2100HLG",
                "BT2100PQFullDisplay",
                "Rec. ITU-R BT.2100 HLG",
                "Display P3 PQ",
                "RGB_D65_202_Rel_PeQ",
                "P3 D65 ST 2084",
                "Some Hybrid Log-Gamma",
            )
        ),
    ],
)
def test_high_dynamic_range_is_refused(colours, transfer):
    with pytest.raises(ImageError) as raised:
        to_srgb(noise(2, 3, 3), Colours(**colours), False, "photo.png")
    assert str(raised.value) == (
        f"photo.png: a picture of high dynamic range ({transfer}), which 8 bits of sRGB cannot "
        "hold; export it as SDR, in sRGB"
    )


@pytest.mark.parametrize(
    "parts",
    [
        {"desc": desc("Canon PQ Glossy")},
        {"desc": desc("Stylus Photo 2100 PQ"), "kind": b"prtr"},
        {"desc": desc("Rec2020 PQR")},
        {"desc": mluc("Display P3")},
        {"desc": desc("HDR photo")},
        {"desc": b"mluc"},
        {"desc": b"mluc" + bytes(12) + b"\xff" * 8},
        {"desc": b"desc" + b"\xff" * 8},
        {"cicp": b"cicp" + bytes(4) + bytes([12, 13, 0, 1])},
        {"cicp": b"cicp\0\0\0\0\1"},
    ],
)
def test_names_that_only_resemble_high_dynamic_range(convert, parts):
    image = noise(20, 30, 3)
    converted = convert(image, profile=p3_profile(**parts))
    assert np.abs(converted - expected(image, P3, srgb_to_linear)).max() <= 1


REAL = [p3_profile(), gray_profile(gamma(1.8)), rgb_profile(SRGB_XYZ, table(srgb_to_linear, 20))]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_arbitrary_bytes_are_no_profile(data, is_gray):
    image = noise(3, 4, 3)
    assert to_srgb(image, Colours(profile=data), is_gray, "photo.png") is image


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(REAL), st.integers(0, 2**16), st.booleans())
def test_cut_profiles_are_not_used(icc, length, is_gray):
    image = noise(3, 4, 3)
    cut = icc[: length % len(icc)]
    assert to_srgb(image, Colours(profile=cut), is_gray, "photo.png") is image


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(REAL),
    st.lists(st.tuples(st.integers(0, 2**16), st.binary(min_size=1, max_size=8)), max_size=6),
    st.booleans(),
)
def test_damaged_profiles_do_no_harm(icc, changes, is_gray):
    data = bytearray(icc)
    for place, new in changes:
        place %= len(data) - len(new)
        data[place : place + len(new)] = new
    image = noise(3, 4, 3)
    for samples in (image, 257 * image.astype(np.uint16)):
        converted = to_srgb(samples, Colours(profile=bytes(data)), is_gray, "photo.png")
        assert converted.dtype == np.uint8 and converted.shape == image.shape


@pytest.mark.parametrize("make", [noise, deep_noise])
def test_strips_do_not_show(convert, monkeypatch, make):
    image = make(33, 47, 3)
    grays = np.repeat(make(33, 47, 1), 3, axis=2)
    colours = {"profile": p3_profile(gamma(1.8), version=2)}
    whole = convert(image, **colours), convert(grays, **colours)
    monkeypatch.setattr(colour, "_STRIP", 100)
    assert (convert(image, **colours) == whole[0]).all()
    assert (convert(grays, **colours) == whole[1]).all()
    # The last strip alone has colour.
    grays[-1, -1] = 200, 100, 50
    assert (convert(grays, **colours)[-1, -1] == convert(grays[-1:, -1:], **colours)).all()


def test_threads_share_a_profile(convert):
    images = [noise(200 + i, 300, 3) for i in range(4)]
    wanted = [convert(image, adobe_rgb=True) for image in images]
    colour._conversion.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: convert(images[i % 4], adobe_rgb=True), range(64)))
    assert all((result == wanted[i % 4]).all() for i, result in enumerate(results))


def test_a_pillow_without_littlecms(tmp_path):
    (tmp_path / "srgb").write_bytes(
        rgb_profile(SRGB_XYZ, SRGB_PARA, desc=desc("sRGB IEC61966-2.1"))
    )
    (tmp_path / "p3").write_bytes(p3_profile(desc=mluc("Display P3")))
    code = (
        "import sys; sys.modules['PIL._imagingcms'] = None\n"
        "import numpy as np\n"
        "from gmm_attention.images.colour import Colours, to_srgb\n"
        "image = np.zeros((2, 3, 3), np.uint8)\n"
        "for name in sys.argv[1:]:\n"
        "    colours = Colours(profile=open(name, 'rb').read())\n"
        "    assert to_srgb(image, colours, False, name) is image\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "srgb", "p3"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "SYSTEMROOT": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "p3: its colour profile cannot be used (this Pillow was built without LittleCMS); "
        "colours are taken as sRGB\n"
    )
