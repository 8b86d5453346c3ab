"""Writing PNG files, and telling our own from others."""

import os

import numpy as np
import pytest
from PIL import Image

from gmm_attention.errors import ImageError
from gmm_attention.images import check_png, encode_png, is_gray, is_ours, read_image, write_png


def noise(*shape):
    return np.random.default_rng(7).integers(0, 256, shape, np.uint8)


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
    assert check_png(tmp_path / "a.png")[:2] == (30, 50)


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


def test_a_gray_picture_is_written_gray(tmp_path):
    gray = np.repeat(noise(30, 50, 1), 3, axis=2)
    assert is_gray(gray) and not is_gray(noise(30, 50, 3))
    almost = gray.copy()
    almost[29, 49, 2] ^= 1
    assert not is_gray(almost)
    for image, mode in ((gray, "L"), (almost, "RGB")):
        write_png(tmp_path / "a.png", image)
        with Image.open(tmp_path / "a.png") as written:
            assert written.mode == mode
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


def test_our_own_pictures_are_known_by_their_first_bytes(tmp_path):
    data = encode_png(noise(300, 500, 3), {"Checksum": "1234abcd", "Model": "m" * 1000})
    assert is_ours(data[:4096])
    (tmp_path / "a.png").write_bytes(data)
    texts = check_png(tmp_path / "a.png").texts
    assert texts["Checksum"] == "1234abcd" and texts["Software"] == "gmm-attention"
    Image.fromarray(noise(3, 5, 3)).save(tmp_path / "b.png")
    assert not is_ours((tmp_path / "b.png").read_bytes())
    assert not is_ours(b"tEXtSoftware\0gmm-attention") and not is_ours(b"")


def test_a_picture_gets_the_time_that_it_is_given(tmp_path):
    write_png(tmp_path / "a.png", noise(3, 5, 3), modified=10**18 + 123_456_700)
    assert os.stat(tmp_path / "a.png").st_mtime_ns == 10**18 + 123_456_700
