"""NAME.npz and NAME.bin: what is written is read back, and nothing else is taken for it.

The bytes are put together here a second time, by `coded_pairs.header`, so that a change of the
format shows.
"""

import io
import re
import struct
import time
import tracemalloc

import numpy as np
import pytest
from coded_pairs import (
    NAMES,
    checked,
    header,
    latents_check,
    pack_latents,
    unpack_latents,
    varint,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_attention.codec import file_format
from gmm_attention.codec.file_format import Coded
from gmm_attention.errors import BitstreamError, ImageError

FINGERPRINT = b"\x12\x34\x56\x78"
HUGE = 2**32 - 1

sides = st.integers(1, HUGE) | st.sampled_from([1, 127, 128, 2**14 - 1, 2**21 - 1, 2**28, HUGE])
strings = st.binary(max_size=200)


@st.composite
def coded_images(draw, sides=sides):
    num_bytes = draw(st.integers(1, 40))  # N from 8 to 320
    return Coded(
        height=draw(sides),
        width=draw(sides),
        flags=draw(st.binary(min_size=num_bytes, max_size=num_bytes)),
        z_string=draw(strings),
        y_string=draw(strings),
        latents_check=draw(st.integers(0, 2**16 - 1)),
        gray=draw(st.booleans()),
    )


@given(coded=coded_images(), fingerprint=st.binary(min_size=4, max_size=4))
def test_what_is_packed_is_unpacked(coded, fingerprint):
    npz, y_string = file_format.pack(coded, fingerprint)
    unpacked = file_format.unpack(npz, y_string, 8 * len(coded.flags), fingerprint, NAMES)
    assert unpacked == coded


@given(coded=coded_images())
def test_the_size_is_read_without_the_rest(coded):
    npz, _ = file_format.pack(coded, FINGERPRINT)
    end = len(npz) - len(coded.flags) - len(coded.z_string) - 4
    assert file_format.read_size(npz[:end], "a.npz") == (coded.height, coded.width)
    with pytest.raises(BitstreamError, match="a.npz: "):
        file_format.read_size(npz[: end - 1], "a.npz")


@given(coded=coded_images(), fingerprint=st.binary(min_size=4, max_size=4))
def test_the_bytes_are_the_documented_ones(coded, fingerprint):
    sizes = varint(coded.height) + varint(coded.width)
    version = 2 if coded.gray else 1
    start = header(fingerprint, coded.y_string, coded.latents_check, sizes, version=version)
    npz = checked(start + coded.flags + coded.z_string)
    assert file_format.pack(coded, fingerprint) == (npz, coded.y_string)


@given(coded=coded_images(sides=st.integers(1, 2**21 - 1)))
def test_header_is_at_most_16_bytes_longer_than_the_originals(coded):
    npz, _ = file_format.pack(coded, FINGERPRINT)
    original = struct.calcsize("<HHHH") + len(coded.flags) + len(coded.z_string)
    assert len(npz) <= original + 16


def test_a_side_that_the_header_cannot_hold_is_refused():
    coded = Coded(2**32, 1, b"\0", b"", b"", 0)
    with pytest.raises(ImageError, match="1x4294967296 pixels is too large"):
        file_format.pack(coded, FINGERPRINT)


@given(npz=strings, y_string=strings)
def test_joined_files_are_split_again(npz, y_string):
    assert file_format.split(file_format.join(npz, y_string)) == (npz, y_string)


# Damage, with a real pair.


@pytest.fixture(scope="module")
def image(photograph):
    return np.ascontiguousarray(photograph[:20, :24])


@pytest.fixture(scope="module")
def pair(tiny_codec, image):
    npz, y_string, _ = tiny_codec.encode(image)
    assert y_string
    return npz, y_string


def assert_refused(codec, npz, y_string, reason):
    """The message is one line: the file's name, the cause, and advice."""
    with pytest.raises(BitstreamError, match=reason) as caught:
        codec.decode(npz, y_string, NAMES[:2])
    assert re.fullmatch(r"a\.(npz|bin): .+; .+", str(caught.value))


def flipped(data, i, bit):
    return data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :]


def test_any_flipped_bit_is_noticed(tiny_codec, pair):
    npz, y_string = pair
    for bit in range(8):
        for i in range(len(npz)):
            reason = "a.npz: not a file of this codec" if i < 3 else "wrong checksum"
            assert_refused(tiny_codec, flipped(npz, i, bit), y_string, reason)
        for i in range(len(y_string)):
            assert_refused(tiny_codec, npz, flipped(y_string, i, bit), "^a.bin: .*wrong checksum")


def test_any_cut_is_noticed(tiny_codec, pair):
    npz, y_string = pair
    for length in range(len(npz)):
        assert_refused(tiny_codec, npz[:length], y_string, "^a.npz: .*(truncated|empty)")
    for length in range(len(y_string)):
        assert_refused(tiny_codec, npz, y_string[:length], "^a.bin: .*truncated")


def test_bytes_after_the_end_are_noticed(tiny_codec, pair):
    npz, y_string = pair
    for extra in (b"\0", b"\xff", npz, bytes(1000)):
        assert_refused(tiny_codec, npz + extra, y_string, "damaged")
        assert_refused(tiny_codec, npz, y_string + extra, "damaged")


def test_any_flip_or_cut_of_the_joined_string_is_noticed(tiny_codec, pair):
    data = file_format.join(*pair)
    for i in range(len(data)):
        for damaged in (flipped(data, i, i % 8), data[:i]):
            with pytest.raises(BitstreamError, match="; "):
                tiny_codec.decompress(damaged)


def test_swapped_files_are_noticed(tiny_codec, pair, image):
    other = tiny_codec.encode(255 - image)[:2]  # of the same size
    assert_refused(tiny_codec, pair[0], other[1], "not the file that belongs to a.npz")
    assert_refused(tiny_codec, other[0], pair[1], "not the file that belongs to a.npz")
    assert_refused(tiny_codec, pair[1], pair[0], "a.npz: not a file of this codec")


@pytest.mark.parametrize("height, width", [(84, 100), (19783, 77)])  # the latter begins with "GMM"
def test_files_of_the_original_are_recognised(tiny_codec, height, width):
    z_string = bytes(range(40))
    npz = struct.pack("<HHHH", height, width, len(z_string), 7) + b"\xff" * 16 + z_string
    reason = "wrong checksum" if npz.startswith(b"GMM") else "files of the original code"
    assert_refused(tiny_codec, npz, bytes(300), reason)


def test_numpy_archives_are_recognised(tiny_codec):
    for save in (np.savez, np.save):
        file = io.BytesIO()
        save(file, np.arange(50))
        assert_refused(tiny_codec, file.getvalue(), b"", "numpy archives")


def test_empty_files_are_recognised(tiny_codec, pair):
    assert_refused(tiny_codec, b"", pair[1], "^a.npz: the file is empty")
    assert_refused(tiny_codec, b"", b"", "^a.npz: the file is empty")
    assert_refused(tiny_codec, pair[0], b"", "^a.bin: truncated")


@given(npz=strings, y_string=strings)
def test_random_bytes_are_refused(npz, y_string):
    with pytest.raises(BitstreamError):
        file_format.unpack(npz, y_string, 8, FINGERPRINT, NAMES)
    with pytest.raises(BitstreamError):
        file_format.unpack(b"GMM\1" + FINGERPRINT + npz, y_string, 8, FINGERPRINT, NAMES)


# Lies: the checksums are right, what they cover is not.


@pytest.fixture(scope="module")
def forge(tiny_codec, pair, image):
    """Puts the pair together again with some parts replaced."""
    npz, y_string = pair
    coded = file_format.unpack(npz, y_string, 8, tiny_codec.fingerprint, NAMES)
    height, width, _ = image.shape
    right_sizes = varint(height) + varint(width)

    def forged(
        y_string=y_string,
        fingerprint=tiny_codec.fingerprint,
        check=coded.latents_check,
        sizes=right_sizes,
        flags=coded.flags,
        z_string=coded.z_string,
        **kwargs,
    ):
        start = header(fingerprint, y_string, check, sizes, **kwargs)
        return checked(start + flags + z_string), y_string

    assert forged() == pair
    return forged


def assert_refused_cheaply(codec, forged, reason):
    tracemalloc.start()
    begin = time.process_time()
    try:
        assert_refused(codec, *forged, reason)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - begin < 5  # seconds; some 0.1 is usual
    assert peak < 2**26  # bytes; an honest image of 4 million pixels takes more


def test_another_version_is_named(tiny_codec, forge):
    for version in (0, 3, 255):
        assert_refused(tiny_codec, *forge(version=version), f"format version {version}, .*reads")


def test_another_models_file_names_both_models_and_the_way_out(tiny_codec, forge):
    reason = f"another model .*12345678, .*tiny has {tiny_codec.fingerprint.hex()}.*--model.*export"
    assert_refused(tiny_codec, *forge(fingerprint=FINGERPRINT), reason)


def test_a_model_of_another_size_is_noticed(pair, other_path):
    from conftest import load_once

    assert_refused(load_once(str(other_path)), *pair, "another model")


@pytest.mark.parametrize(
    "height, width",
    [
        (HUGE, HUGE),
        (1, HUGE),
        (HUGE, 1),
        (2**28, 1),  # 64 times as many pixels when padded
        (1, 2**28),
        (2**16, 2**16),
        (2**14, 2**14),  # as large as images may be, but not with these strings
        (2**13, 2**12),
    ],
)
def test_sizes_that_the_strings_cannot_hold_are_refused_cheaply(tiny_codec, forge, height, width):
    sizes = varint(height) + varint(width)
    reason = f"cannot hold an image of {width}x{height} pixels"
    assert_refused_cheaply(tiny_codec, forge(sizes=sizes), reason)
    assert_refused_cheaply(tiny_codec, forge(sizes=sizes, flags=b"\0", y_string=b""), reason)


@pytest.mark.parametrize("height, width", [(2**28, 1), (1, 2**28), (2**20, 2**10)])
def test_long_strings_do_not_make_up_for_sizes_beyond_the_limit(tiny_codec, forge, height, width):
    sizes = varint(height) + varint(width)
    forged = forge(sizes=sizes, z_string=bytes(2**24))
    assert_refused_cheaply(tiny_codec, forged, f"cannot hold an image of {width}x{height}")


def test_other_sizes_are_refused_cheaply(tiny_codec, forge):
    for height, width in [(20, 65), (65, 24), (128, 128), (640, 640)]:
        sizes = varint(height) + varint(width)
        assert_refused_cheaply(tiny_codec, forge(sizes=sizes), "^a.npz: ")


@pytest.mark.parametrize(
    "sizes",
    [
        varint(0) + varint(24),
        varint(20) + varint(0),
        varint(2**32) + varint(24),
        varint(2**35 - 1) + varint(24),
        b"\xff" * 40,
        b"\x80" * 4 + b"\0" + varint(24),
    ],
)
def test_sizes_that_are_none_are_refused(tiny_codec, forge, sizes):
    assert_refused(tiny_codec, *forge(sizes=sizes), "no valid image size")


def test_parts_left_away_are_noticed(tiny_codec, forge):
    assert_refused(tiny_codec, *forge(sizes=b"\x94", flags=b"\xff" * 8, z_string=b""), "image size")
    assert_refused(tiny_codec, *forge(flags=b"", z_string=b""), "truncated|flags are cut off")
    sizes = varint(HUGE) + varint(HUGE)
    assert_refused(tiny_codec, *forge(sizes=sizes, flags=b"", z_string=b""), "flags are cut off")


def test_wrong_channel_flags_are_noticed(tiny_codec, forge):
    assert forge()[0][16] == 255
    for flags in (0, 1, 0x0F, 0x7F, 0xBF, 0xDF, 0xEF, 0xF7, 0xFB, 0xFD, 0xFE):
        assert_refused(tiny_codec, *forge(flags=bytes([flags])), "^a.npz: ")


def test_a_wrong_check_of_the_latents_is_noticed(tiny_codec, forge, pair):
    right = struct.unpack_from("<H", pair[0], 12)[0]
    for check in (right ^ 1, right ^ 0x8000, 0):
        assert_refused(tiny_codec, *forge(check=check), "other latents than were encoded")


@settings(max_examples=100)
@given(data=st.data())
def test_forged_strings_give_an_error_or_what_they_check(tiny_codec, forge, data):
    """Only 16 bits check the latents, so a lie may pass; but nothing else may happen."""
    honest, y_string = forge()
    npz_end = honest[16:-4]  # flags and z's string
    mutate = st.tuples(st.integers(0, 200), st.binary(max_size=8))
    at, new = data.draw(mutate)
    npz_end = npz_end[:1] + npz_end[1:][:at] + new + npz_end[1:][at + len(new) :]
    at, new = data.draw(mutate)
    y_string = y_string[:at] + new + y_string[at + len(new) :]
    forged = forge(y_string=y_string, flags=npz_end[:1], z_string=npz_end[1:])
    try:
        decoded = tiny_codec.decode(*forged)
    except BitstreamError:
        return
    assert decoded.shape == (20, 24, 3)
    check = struct.unpack_from("<H", forged[0], 12)[0]
    assert latents_check(*unpack_latents(tiny_codec, *forged)) == check


def test_strings_of_nothing_are_refused_cheaply(tiny_codec, forge):
    for fill in (b"\0", b"\xff"):
        for length in (0, 1, 4, 1000):
            forged = forge(y_string=fill * length, z_string=fill * length)
            assert_refused_cheaply(tiny_codec, forged, "^a.npz: ")


def test_an_honest_pair_of_any_latents_is_decoded(tiny_codec):
    """The forger's tools make good files too, so that what they forge is refused for the lie."""
    rng = np.random.default_rng(0)
    z_symbols, y_hat = rng.integers(-2, 3, [1, 2, 8]), rng.integers(-9, 10, [4, 8, 8])
    image = tiny_codec.decode(*pack_latents(tiny_codec, z_symbols, y_hat, 50, 70))
    np.testing.assert_array_equal(image, tiny_codec.reconstruct(y_hat, 50, 70))
