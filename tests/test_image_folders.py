"""Finding the images that a path stands for, and naming their outputs."""

import os
import tempfile
import unicodedata
from pathlib import Path

import pytest
from conftest import unless_root
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_attention.errors import ImageError
from gmm_attention.image_folders import IMAGE_SUFFIXES, find_images
from gmm_attention.images import read_image


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names_in(folder):
    return {path.relative_to(folder).as_posix(): name for path, name in find_images(folder).images}


def test_folder_is_searched_with_its_sub_folders(tmp_path):
    touch(tmp_path, "b.PNG", "a.jpeg", "holiday/beach 1.Jpg", "holiday/more/c.d.webp")
    touch(tmp_path, "notes.txt", "png", ".hidden.png", ".cache/a.png", "holiday/.a.png")
    assert find_images(str(tmp_path)).images == [
        (tmp_path / "a.jpeg", "a"),
        (tmp_path / "b.PNG", "b"),
        (tmp_path / "holiday/beach 1.Jpg", "holiday/beach 1"),
        (tmp_path / "holiday/more/c.d.webp", "holiday/more/c.d"),
    ]


def test_every_suffix_is_found(tmp_path):
    touch(tmp_path, *(f"{i}{suffix}" for i, suffix in enumerate(IMAGE_SUFFIXES)))
    assert len(find_images(tmp_path).images) == len(IMAGE_SUFFIXES)


def test_single_file_is_taken_whatever_its_name(tmp_path):
    touch(tmp_path, "a.b.PNG", "IMG.2024", ".hidden")
    assert find_images(tmp_path / "a.b.PNG").images == [(tmp_path / "a.b.PNG", "a.b")]
    assert find_images(tmp_path / "IMG.2024").images == [(tmp_path / "IMG.2024", "IMG.2024")]
    assert find_images(tmp_path / ".hidden").images == [(tmp_path / ".hidden", ".hidden")]


def test_outputs_of_equal_stems_do_not_overwrite_each_other(tmp_path):
    touch(tmp_path, "a.png", "a.jpg", "b.png", "sub/a.png", "c.png", "C.jpg")
    assert names_in(tmp_path) == {
        "a.png": "a.png",
        "a.jpg": "a.jpg",
        "b.png": "b",
        "sub/a.png": "sub/a",
        "c.png": "c.png",
        "C.jpg": "C.jpg",
    }


def test_a_suffix_kept_makes_no_new_clash(tmp_path):
    touch(tmp_path, "a.png", "a.jpg", "a.png.jpg", "a.png.jpg.png")
    assert names_in(tmp_path) == {
        "a.png": "a.png",
        "a.jpg": "a.jpg",
        "a.png.jpg": "a.png.jpg",
        "a.png.jpg.png": "a.png.jpg.png",
    }


def test_names_that_differ_in_case_alone_are_numbered(tmp_path):
    touch(tmp_path, "A.png", "a.png", "b.png-2.png", "B.png", "b.png")
    if len(list(tmp_path.iterdir())) < 5:
        pytest.skip("this file system ignores case")
    assert names_in(tmp_path) == {
        "A.png": "A.png",
        "B.png": "B.png",
        "a.png": "a.png-2",
        "b.png": "b.png-3",
        "b.png-2.png": "b.png-2",
    }


@settings(max_examples=60, deadline=None)
@given(
    st.sets(
        st.builds(
            "".join,
            st.tuples(
                st.sampled_from(["", "d/", "D/"]),
                st.text(alphabet="aA-2.é\u0301e", min_size=1, max_size=3),
                st.sampled_from(["", ".png"]),
                st.sampled_from([".png", ".PNG", ".jpg", ".png-2.png"]),
            ),
        ).filter(lambda name: not name.split("/")[-1].startswith(".")),
        min_size=1,
        max_size=12,
    )
)
def test_names_are_distinct_on_any_file_system(files):
    with tempfile.TemporaryDirectory() as folder:
        touch(Path(folder), *files)
        found = names_in(Path(folder))
    assert list(found) == sorted(found) and len(found) >= 1

    def seen(name):
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())

    assert len({seen(name) for name in found.values()}) == len(found)
    stems = [seen(os.path.splitext(file)[0]) for file in found]
    for file, name in found.items():
        stem = os.path.splitext(file)[0]
        assert name.startswith(stem)
        if stems.count(seen(stem)) == 1 and not any(seen(f) == seen(stem) for f in found):
            assert name == stem


def test_loops_of_links_and_broken_links(tmp_path):
    touch(tmp_path, "sub/a.png")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "none.png")
    (tmp_path / "good.png").symlink_to(tmp_path / "sub" / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    found = names_in(tmp_path)
    assert list(found) == ["broken.png", "good.png", "loop.png", "sub/a.png"]
    for broken in ("broken.png", "loop.png"):
        with pytest.raises(ImageError, match=broken):
            read_image(tmp_path / broken)


def test_nothing_found_is_an_error(tmp_path):
    touch(tmp_path, "notes.txt", ".a.png")
    with pytest.raises(ImageError, match="no image in this folder; .*png"):
        find_images(tmp_path)
    with pytest.raises(ImageError, match="none: .*No such file"):
        find_images(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="pipe: neither"):
        find_images(tmp_path / "pipe")


@unless_root
def test_folder_that_cannot_be_listed_is_an_error(tmp_path):
    touch(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(ImageError, match="closed: cannot be listed: Permission denied"):
            find_images(tmp_path)
        with pytest.raises(ImageError, match="b.png: .*Permission denied"):
            find_images(tmp_path / "closed" / "b.png")
    finally:
        (tmp_path / "closed").chmod(0o700)
