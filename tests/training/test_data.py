"""Photographs, from folders and tar files, to batches of crops; every file is made by the test."""

import itertools
import logging
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pytest
from conftest import ROOT, unless_root
from PIL import Image

from gmm_attention.errors import ImageError
from gmm_attention.images import read_image, write_png
from gmm_attention.training import data
from gmm_attention.training.data import Batches, Photographs
from gmm_attention.training.sources import FewerWarnings

MEMORY = 10**6


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, image, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **kwargs)


def pack(path, folder, name="."):
    """Makes a tar file of a folder, which is called `name` in it."""
    with tarfile.open(path, "w") as tar:
        tar.add(folder, name)


def taken(batches, count):
    """Closes the batches; uint8 [count, batch, crop, crop, 3]."""
    with batches:
        return np.stack(list(itertools.islice(batches, count)))


@pytest.fixture
def folder(tmp_path):
    """Seven photographs of several sizes, of noise."""
    for i in range(7):
        save(tmp_path / "photos" / f"{i}.png", noise(16 + 3 * i, 40 - 3 * i, seed=i))
    return tmp_path / "photos"


@pytest.fixture
def photographs(folder):
    return Photographs([folder], 16, MEMORY)


# Batches: which photograph and which crop.


def test_same_seed_gives_the_same_batches(photographs):
    first = taken(Batches(photographs, 3, seed=1), 5)
    assert first.shape == (5, 3, 16, 16, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(taken(Batches(photographs, 3, seed=1), 5), first)
    other = taken(Batches(photographs, 3, seed=2), 5)
    assert all(not np.array_equal(a, b) for a, b in zip(first, other))


def test_a_step_does_not_depend_on_where_the_run_began(photographs):
    whole = taken(Batches(photographs, 3, seed=1), 9)
    for step in (1, 5, 8):
        rest = taken(Batches(photographs, 3, seed=1, first_sample=3 * step), 9 - step)
        np.testing.assert_array_equal(rest, whole[step:])


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_parts_of_all_processes_are_the_batch_in_order(photographs, count):
    whole = taken(Batches(photographs, 6, seed=1), 4)
    parts = [taken(Batches(photographs, 6, seed=1, part=(i, count)), 4) for i in range(count)]
    assert all(part.shape[1] == 6 // count for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_number_of_workers_does_not_matter(folder, tmp_path):
    pack(tmp_path / "photos.tar", folder)
    photographs = Photographs([tmp_path / "photos.tar"], 16, memory=5000)  # some are kept
    one = taken(Batches(photographs, 4, seed=1, workers=1), 30)
    np.testing.assert_array_equal(taken(Batches(photographs, 4, seed=1, workers=7), 30), one)


def test_every_photograph_comes_once_an_epoch_in_a_new_order(tmp_path):
    for value in range(7):
        save(tmp_path / f"{value}.png", np.full((30, 40, 3), value, np.uint8))
    crops = taken(Batches(Photographs([tmp_path], 16, MEMORY), 3, seed=1), 14)
    assert (crops == crops[..., :1, :1, :1]).all()  # also where it was scaled
    epochs = crops[..., 0, 0, 0].reshape(6, 7)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(7), [6, 1]))
    assert len({tuple(epoch) for epoch in epochs}) == 6


# Batches: what a crop is.


def test_unscaled_crops_are_windows_of_the_photograph_from_everywhere(tmp_path):
    image = noise(18, 17)
    save(tmp_path / "a.png", image)
    windows = {
        image[top : top + 16, left : left + 16].tobytes() for top in range(3) for left in range(2)
    }
    photographs = Photographs([tmp_path], 16, MEMORY)
    crops = taken(Batches(photographs, 8, seed=1, flip=False, min_scale=1), 10)
    assert {crop.tobytes() for crop in crops.reshape(-1, 16, 16, 3)} == windows


def test_half_of_the_crops_are_mirrored(tmp_path):
    image = noise(16, 16)
    save(tmp_path / "a.png", image)
    crops = taken(Batches(Photographs([tmp_path], 16, MEMORY), 100, seed=1), 2)
    mirrored = (crops == image[:, ::-1]).all(axis=(2, 3, 4))
    assert (mirrored | (crops == image).all(axis=(2, 3, 4))).all()
    assert 80 < mirrored.sum() < 120


def test_scaled_crops_show_square_windows_of_up_to_the_size_asked_for(tmp_path):
    y, x = np.mgrid[:200, :250]
    save(tmp_path / "a.png", np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8))
    photographs = Photographs([tmp_path], 64, MEMORY)
    crops = taken(Batches(photographs, 40, seed=1, flip=False, min_scale=0.5), 1)[0].astype(int)
    inner = crops[:, 8:-8, 8:-8]  # where the edge of the photograph plays no part
    across, down = inner[:, 0, :, 0], inner[:, :, 0, 1]
    sides = np.stack([line[:, -1] - line[:, 0] for line in (across, down)]) * 64 / 47
    assert np.abs(sides[0] - sides[1]).max() < 3
    assert 63 <= sides.min() < 72 and 115 < sides.max() <= 130
    for line, side in ((across, sides[0]), (down, sides[1])):
        expected = line[:, :1] + side[:, None] / 64 * np.arange(48)
        assert np.abs(line - expected).max() <= 1.5


def test_a_scaled_window_is_what_pillow_makes_of_the_whole_photograph():
    image = noise(60, 70)
    whole = Image.fromarray(image)
    for side, top, left in ((17, 0, 0), (32, 28, 38), (23, 20, 30), (60, 0, 5)):
        box = (left, top, left + side, top + side)
        expected = np.asarray(whole.resize((16, 16), Image.Resampling.LANCZOS, box=box))
        np.testing.assert_array_equal(data._scaled(image, side, top, left, 16), expected)


def test_scaling_stops_where_the_crop_would_no_longer_fit(tmp_path):
    image = noise(16, 40)
    save(tmp_path / "a.png", image)
    photographs = Photographs([tmp_path], 16, MEMORY)
    windows = [image[:, left : left + 16].tobytes() for left in range(25)]
    for crop in taken(Batches(photographs, 20, seed=1, flip=False, min_scale=0.1), 1)[0]:
        assert crop.tobytes() in windows


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0},
        {"part": (0, 3)},
        {"part": (2, 2)},
        {"part": (-1, 2)},
        {"part": (0, 0)},
        {"min_scale": 0},
        {"min_scale": 1.1},
        {"workers": 0},
    ],
)
def test_arguments_outside_their_range_are_refused(photographs, wrong):
    with pytest.raises(ValueError):
        Batches(photographs, **{"batch": 4, "seed": 1, **wrong})


# Batches: threads.


def test_closing_ends_the_threads_and_the_batches(photographs):
    before = threading.active_count()
    batches = Batches(photographs, 2, seed=1, workers=3)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before
    assert list(batches) == []
    batches.close()


def test_no_more_than_a_few_batches_are_made_ahead(photographs, monkeypatch):
    made = []
    image = photographs.image
    monkeypatch.setattr(photographs, "image", lambda index: made.append(index) or image(index))
    with Batches(photographs, 1, seed=1, workers=2) as batches:
        next(batches)
        time.sleep(0.2)  # enough for hundreds of such crops
    assert len(made) == 4


def test_an_error_in_a_worker_is_raised_where_the_batch_is_taken(photographs, monkeypatch):
    def fail(index):
        raise RuntimeError("our fault")

    monkeypatch.setattr(photographs, "image", fail)
    with Batches(photographs, 2, seed=1) as batches:
        with pytest.raises(RuntimeError, match="our fault"):
            next(batches)


# Batches: photographs that cannot be decoded.


def damage(path):
    """Leaves the header and all lengths as they were, but one of the pixels."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.name == data.__name__]


def test_the_next_in_order_replaces_what_cannot_be_decoded(folder, caplog):
    whole = Photographs([folder], 16, MEMORY)
    expected = taken(Batches(whole, 7, seed=1, min_scale=1, flip=False), 1)[0]
    order = [int(i) for i in data._order(1, 0, 7)]
    damage(folder / f"{order[2]}.png")
    photographs = Photographs([folder], 16, MEMORY)
    assert len(photographs) == 7 and not photographs.notes  # the header tells nothing
    crops = taken(Batches(photographs, 7, seed=1, min_scale=1, flip=False), 1)[0]
    others = np.arange(7) != 2
    np.testing.assert_array_equal(crops[others], expected[others])
    windows = np.lib.stride_tricks.sliding_window_view(whole.image(order[3]), (16, 16, 3))
    assert (windows == crops[2]).all(axis=(-3, -2, -1)).any()


def test_each_photograph_that_cannot_be_decoded_is_reported_once(folder, caplog):
    damage(folder / "2.png")
    damage(folder / "4.png")
    # Of which the header has told, so that one line is enough.
    for name in ("clear.png", "clear too.png"):
        Image.new("RGBA", (40, 40), (0, 0, 0, 128)).save(folder / name)
    photographs = Photographs([folder], 16, MEMORY)
    with caplog.at_level(logging.WARNING):
        first = taken(Batches(photographs, 9, seed=1, workers=4), 5)
    reports = sorted(warnings_in(caplog))
    assert len(reports) == 3
    for report, words in zip(reports, ("2.png: damaged", "4.png: damaged", ": has transparent")):
        assert f"{folder}" in report and words in report
    np.testing.assert_array_equal(taken(Batches(photographs, 9, seed=1, workers=1), 5), first)


def test_it_is_an_error_if_no_photograph_can_be_decoded(folder):
    for path in folder.iterdir():
        damage(path)
    with Batches(Photographs([folder], 16, MEMORY), 2, seed=1) as batches:
        with pytest.raises(ImageError, match="none of 7 photographs .*png: damaged.*; "):
            next(batches)


def save_deep(path):
    """A gray photograph of 16 bits a sample."""
    samples = np.random.default_rng(0).integers(0, 65536, (40, 40), np.uint16)
    Image.fromarray(samples).save(path)


def test_photographs_of_unusual_kinds_are_counted_at_the_start_and_not_in_training(folder, caplog):
    save_deep(folder / "deep.png")
    save(folder / "gray.png", noise(40, 40)[..., 0])
    save(folder / "opaque.png", np.full((40, 40, 4), 255, np.uint8))
    Image.new("CMYK", (40, 40)).save(folder / "print.jpg")
    photographs = Photographs([folder], 16, memory=0)
    assert photographs.notes == [
        "of 11 photographs: 1 with 16 bits a sample, rounded to 8; 2 gray; 1 CMYK, passed over; "
        "1 with transparency, passed over where a pixel is transparent"
    ]
    assert len(photographs) == len(photographs.names(16)) == 10
    with caplog.at_level(logging.WARNING), FewerWarnings():
        taken(Batches(photographs, 10, seed=1), 3)
    assert caplog.records == []


def test_a_set_of_nothing_but_cmyk_is_refused_with_the_reason(tmp_path):
    Image.new("CMYK", (40, 40)).save(tmp_path / "print.jpg")
    assert_refused(tmp_path, "of 1 photograph: 1 CMYK, passed over")


def test_names_are_those_of_photographs_that_fit_the_crop(folder):
    photographs = Photographs([folder], 20, MEMORY)
    assert photographs.names(20) == ["2.png", "3.png", "4.png", "5.png", "6.png"]
    assert len(photographs.names(16)) == 7


@pytest.mark.parametrize("packed", [False, True])
def test_side_folders_and_our_own_pictures_are_no_photographs(folder, tmp_path, packed):
    for name in ("@eaDir/0.png", "__MACOSX/._0.png", "more/.thumbnails/0.png"):
        save(folder / name, noise(40, 40))
    write_png(folder / "decoded.png", noise(40, 40))
    source = folder
    if packed:
        source = tmp_path / "a.tar"
        pack(source, folder)
    photographs = Photographs([source], 16, MEMORY)
    assert photographs.names(16) == [f"{i}.png" for i in range(7)]
    (note,) = photographs.notes
    assert "passed over" in note and f"{source}/decoded.png" in note and "this program" in note


def test_what_cannot_be_reached_in_a_folder_is_said_and_the_rest_taken(folder):
    for name in ("a.png", "b.png"):
        (folder / name).symlink_to("nowhere.png")
    (folder / "c.heic").write_bytes(b"")
    photographs = Photographs([folder], 16, MEMORY)
    assert len(photographs) == 7
    unread, links = photographs.notes
    assert "1 .heic" in unread
    assert links.startswith(f"2 folders and links that cannot be followed, first {folder}/a.png: ")


# Photographs: where they come from.

FORMATS = {
    "b.PNG": {"format": "PNG"},
    "a/c.jpg": {},
    "a/d.jpeg": {},
    "a/b/e.webp": {"lossless": True},
    "f.bmp": {},
    "g.tif": {},
    "g/a.tiff": {"compression": "tiff_deflate"},
}


@pytest.fixture
def formats(tmp_path):
    """A folder of every format, with sub-folders, and files that are none of its photographs."""
    top = tmp_path / "formats"
    for seed, (name, settings) in enumerate(FORMATS.items()):
        save(top / name, noise(20, 24, seed), **settings)
    save(top / ".hidden.png", noise(20, 24))
    save(top / ".cache" / "a.png", noise(20, 24))
    (top / "notes.txt").write_text("not an image")
    return top


def images_of(photographs):
    return [photographs.image(i) for i in range(len(photographs))]


def test_folder_is_searched_with_its_sub_folders_in_order_of_names(formats):
    images = images_of(Photographs([str(formats)], 16, MEMORY))
    assert len(images) == len(FORMATS)
    for image, name in zip(images, sorted(FORMATS)):
        np.testing.assert_array_equal(image, read_image(formats / name))


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, "pax"])
def test_tar_file_equals_the_folder_that_it_was_made_of(formats, tmp_path, tar_format):
    kind = tarfile.PAX_FORMAT if tar_format == "pax" else tar_format
    with tarfile.open(tmp_path / "formats.tar", "w", format=kind) as tar:
        tar.add(formats, ".")
    folder = Photographs([formats], 16, MEMORY)
    tar = Photographs([tmp_path / "formats.tar"], 16, MEMORY)
    assert len(tar) == len(FORMATS)
    np.testing.assert_array_equal(
        taken(Batches(tar, 4, seed=1), 4), taken(Batches(folder, 4, seed=1), 4)
    )


def test_tar_files_in_folders_count_as_unpacked_in_their_place(formats, tmp_path):
    expected = images_of(Photographs([formats], 16, MEMORY))
    top = tmp_path / "packed"
    (top / "g").mkdir(parents=True)
    with tarfile.open(top / "1.tar", "w") as one, tarfile.open(top / "2.TAR", "w") as two:
        for tar, name in zip(itertools.cycle([one, two]), FORMATS):
            if name != "g/a.tiff":
                tar.add(formats / name, name)
    with tarfile.open(top / "g" / "3.tar", "w") as three:
        three.add(formats / "g/a.tiff", "a.tiff")
    images = images_of(Photographs([top], 16, MEMORY))
    assert len(images) == len(expected)
    for image, other in zip(images, expected):
        np.testing.assert_array_equal(image, other)


def test_sources_add_up_and_an_image_file_is_one(formats, folder):
    sources = [folder, formats / "b.PNG", formats / "a"]
    assert len(Photographs(sources, 16, MEMORY)) == 7 + 1 + 3


def test_of_two_members_with_one_name_the_last_counts(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for seed in range(2):
            save(tmp_path / "a.png", noise(20, 24, seed))
            tar.add(tmp_path / "a.png", "a.png")
    (image,) = images_of(Photographs([tmp_path / "a.tar"], 16, MEMORY))
    np.testing.assert_array_equal(image, noise(20, 24, 1))


def test_links_and_folders_in_a_tar_file_are_no_photographs(folder, tmp_path):
    (folder / "link.png").symlink_to("0.png")
    (folder / "folder.png").mkdir()
    pack(tmp_path / "a.tar", folder)
    photographs = Photographs([tmp_path / "a.tar"], 16, MEMORY)
    assert len(photographs) == 7 and not photographs.notes


# Photographs: what is passed over, and what is kept.


@pytest.mark.parametrize("packed", [False, True])
def test_passed_over_images_are_told_in_one_line_for_each_reason(folder, tmp_path, packed):
    save(folder / "small b.png", noise(15, 30))
    save(folder / "small a.png", noise(30, 11))
    (folder / "x.png").write_bytes(b"some text")
    (folder / "empty.jpg").write_bytes(b"")
    source = folder
    if packed:
        source = tmp_path / "a.tar"
        pack(source, folder)
    photographs = Photographs([source], 16, MEMORY)
    assert len(photographs) == 7
    unreadable, small = photographs.notes
    assert "2 of 11 images" in unreadable and f"{source}/empty.jpg: the file is empty" in unreadable
    assert "2 of 11 images" in small and f"{source}/small a.png (11x30)" in small
    assert "\n" not in unreadable + small


def test_what_is_kept_stays_within_the_memory(folder):
    size = 3 * (16 + 3 * 2) * (40 - 3 * 2)  # of 2.png
    photographs = Photographs([folder], 16, memory=size)
    kept = photographs.image(2)
    assert photographs.image(2) is kept and not kept.flags.writeable
    assert photographs.image(0) is not photographs.image(0)
    np.testing.assert_array_equal(photographs.image(0), noise(16, 40))


# Photographs: errors.


def assert_refused(source, reason, crop=16):
    with pytest.raises(ImageError, match=f"^{source}.*: .*{reason}.*; ") as caught:
        Photographs([source], crop, MEMORY)
    assert "\n" not in str(caught.value)


def test_missing_source_is_refused(tmp_path):
    assert_refused(tmp_path / "none", "no file or folder")


def test_source_without_images_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    pack(tmp_path / "empty.tar", tmp_path / "empty")
    assert_refused(tmp_path / "empty", "no image")
    assert_refused(tmp_path / "empty.tar", "no image")


def test_too_large_a_crop_is_refused(folder):
    assert_refused(folder, r"100 pixels .*passed over 7 of 7 .*0.png \(40x16\)", crop=100)


def test_source_of_which_nothing_can_be_read_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"some text")
    assert_refused(tmp_path, "16 pixels .*1 of 1 images that cannot be read, .*a.png: not a PNG")
    assert_refused(tmp_path / "a.png", "16 pixels .*not a PNG")


@unless_root
def test_unreadable_folder_and_tar_file_are_refused(folder, tmp_path):
    pack(tmp_path / "a.tar", folder)
    for path in (tmp_path / "a.tar", folder):
        path.chmod(0)
        try:
            assert_refused(path, "Permission denied")
        finally:
            path.chmod(0o700)


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar.bz2", "TAR.XZ"])
def test_compressed_tar_file_is_refused_also_in_a_folder(folder, suffix):
    path = folder / f"more.{suffix}"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder / "0.png", "0.png")
    assert_refused(path, "compressed")
    assert_refused(folder, "compressed")


def test_tar_file_that_is_none_or_compressed_is_refused(folder, tmp_path):
    path = tmp_path / "a.tar"
    for content in (b"", b"some text", bytes(range(256)) * 8):
        path.write_bytes(content)
        assert_refused(path, "no uncompressed tar file")
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, ".")
    assert_refused(path, "no uncompressed tar file")


def test_truncated_tar_file_is_refused(folder, tmp_path):
    pack(tmp_path / "whole.tar", folder)
    content = (tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + last.size
    end += -end % 512
    # Within and after a header, within and after its file, within the mark of the end.
    for length in (
        last.offset,
        last.offset + 9,
        last.offset_data,
        end - 513,
        end - 1,
        end,
        end + 9,
    ):
        (tmp_path / "a.tar").write_bytes(content[:length])
        assert_refused(tmp_path / "a.tar", "truncated")


def test_damaged_header_in_a_tar_file_is_refused(folder, tmp_path):
    pack(tmp_path / "a.tar", folder)
    content = bytearray((tmp_path / "a.tar").read_bytes())
    with tarfile.open(tmp_path / "a.tar") as tar:
        content[tar.getmembers()[3].offset] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    assert_refused(tmp_path / "a.tar", "damaged")


@pytest.mark.parametrize("header", [{"GNU.sparse.map": "x,y"}, {"size": str(10**30)}])
def test_odd_numbers_in_a_tar_file_are_refused(tmp_path, header):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("a.png")
        member.pax_headers = header
        tar.addfile(member)
    assert_refused(tmp_path / "a.tar", "damaged")


def test_tar_file_that_vanishes_in_training_is_an_image_error(folder, tmp_path):
    pack(tmp_path / "a.tar", folder)
    photographs = Photographs([tmp_path / "a.tar"], 16, MEMORY)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(ImageError, match="a.tar/0.png: .*No such file.*; "):
        photographs.image(0)


def test_data_module_does_without_tensorflow_jax_and_imageio():
    code = (
        "import sys, gmm_attention.training.data; "
        "sys.exit(bool({'tensorflow', 'jax', 'imageio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
