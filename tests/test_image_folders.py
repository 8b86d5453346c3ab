"""Finding the images that paths stand for, and naming their outputs."""

import os
import socket
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import pytest
from conftest import unless_root
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_attention.errors import ImageError
from gmm_attention.image_folders import IMAGE_SUFFIXES, find_images, list_files
from gmm_attention.images import is_ours


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def touch_ours(folder, *names):
    """Files that begin like a decoded picture."""
    data = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(20) + b"\x16tEXtSoftware\0gmm-attention"
    assert is_ours(data)
    touch(folder, *names)
    for name in names:
        (folder / name).write_bytes(data)


def names_in(folder, **options):
    listing = find_images(folder, **options)
    return {path.relative_to(folder).as_posix(): name for path, name in listing.images}


def test_folder_is_searched_with_its_sub_folders(tmp_path):
    touch(tmp_path, "b.PNG", "a.jpeg", "holiday/beach 1.Jpg", "holiday/more/c.d.webp")
    touch(tmp_path, "notes.txt", "png", ".hidden.png", ".cache/a.png", "holiday/.a.png")
    assert find_images(str(tmp_path)).images == [
        (tmp_path / "a.jpeg", "a"),
        (tmp_path / "b.PNG", "b"),
        (tmp_path / "holiday/beach 1.Jpg", "holiday/beach 1"),
        (tmp_path / "holiday/more/c.d.webp", "holiday/more/c.d"),
    ]


def test_every_suffix_is_found_in_any_case(tmp_path):
    suffixes = "avif bmp dib jfi jfif jif jpe jpeg jpg mpo pjp pjpeg png tif tiff webp".split()
    assert sorted(IMAGE_SUFFIXES) == [f".{suffix}" for suffix in suffixes]
    for change in (str.lower, str.upper, str.title):
        touch(tmp_path, *(f"{change.__name__} {suffix}.{change(suffix)}" for suffix in suffixes))
    assert names_in(tmp_path) == {
        path.name: path.stem for path in sorted(tmp_path.iterdir(), key=str)
    }


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


# Several inputs.


def listed(inputs, **options):
    """The paths, as given, and names; nothing may have failed."""
    listing = find_images(inputs, **options)
    assert not listing.failures
    return {str(path): name for path, name in listing.images}


def test_several_inputs_are_files_and_folders_mixed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "B/x.png", "B/deep/y.jpg", "A/x.png", "one.png", "two.data", "far/three.png")
    assert listed(["one.png", "B", "two.data", "A/", Path("far", "three.png")]) == {
        "A/x.png": "A/x",
        "B/deep/y.jpg": "B/deep/y",
        "B/x.png": "B/x",
        "far/three.png": "three",
        "one.png": "one",
        "two.data": "two.data",
    }
    # A list of one folder is that folder.
    assert listed(["B"]) == listed("B") == {"B/deep/y.jpg": "deep/y", "B/x.png": "x"}


@pytest.mark.parametrize("spelling", [".", "../here", "../here/", "./.", "../here/sub/.."])
def test_a_folder_has_its_own_name_however_it_is_spelled(tmp_path, monkeypatch, spelling):
    touch(tmp_path, "here/x.png", "here/sub/z.png", "y.png")
    monkeypatch.chdir(tmp_path / "here")
    listing = find_images([spelling, "../y.png"])
    assert sorted(name for _, name in listing.images) == ["here/sub/z", "here/x", "y"]


def test_equal_names_of_several_inputs_do_not_overwrite_each_other(tmp_path):
    touch(tmp_path, "1/a.png", "2/a.png", "3/a.jpg", "1/in/b.png", "2/in/b.png", "2/in/c.png")
    inputs = [tmp_path / name for name in ("1/a.png", "2/a.png", "3/a.jpg", "1/in", "2/in")]
    assert [name for _, name in find_images(inputs).images] == [
        "a.png",
        "in/b.png",
        "a.png-2",
        "in/b.png-2",
        "in/c",
        "a.jpg",
    ]


def test_an_image_given_twice_is_listed_once(tmp_path, monkeypatch):
    touch(tmp_path, "A/x.png", "A/sub/y.png", "a.png")
    (tmp_path / "link").symlink_to("A")
    monkeypatch.chdir(tmp_path)
    assert listed(["a.png", "./a.png", str(tmp_path / "a.png"), "A/../a.png"]) == {"a.png": "a"}
    inputs = ["A", "A/", "link", "A/x.png", "link/x.png", "A/sub", Path("A", "sub", "y.png")]
    assert listed(inputs) == {"A/sub/y.png": "A/sub/y", "A/x.png": "A/x"}
    assert sorted(listed(list(reversed(inputs))).values()) == ["x", "y"]


def test_what_is_wrong_in_a_folder_given_twice_is_told_once(tmp_path, closed):
    touch(tmp_path, "A/x.png", "A/sub/y.heic", "A/sub/z.png", "A/sub/closed/a.png")
    touch_ours(tmp_path, "A/sub/o.png")
    os.mkfifo(tmp_path / "A/sub/pipe.png")
    (tmp_path / "A/sub/link").symlink_to(tmp_path)
    listing = find_images([tmp_path / "A", tmp_path / "A" / "sub"])
    assert len(listing.failures) == 1 and len(listing.notes) == 4
    assert all(note.startswith(("1 ", f"{tmp_path}")) for note in listing.notes)


def test_one_missing_input_keeps_no_other_from_being_done(tmp_path):
    touch(tmp_path, "a.png", "empty/notes.txt")
    listing = find_images([tmp_path / name for name in ("none\n.png", "a.png", "empty")])
    assert listing.images == [(tmp_path / "a.png", "a")]
    missing, empty = listing.failures
    assert missing == (
        f"{tmp_path}/none\\n.png: cannot be read: No such file or directory; give an image file "
        "or a folder of them"
    )
    assert empty.startswith(f"{tmp_path}/empty: no image in this folder; its files should end in ")


def test_all_inputs_missing_is_an_error_of_one_line(tmp_path):
    with pytest.raises(ImageError, match="a: cannot be read: .*; .*/b: cannot be read: ") as caught:
        find_images([tmp_path / "a", tmp_path / "b"])
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="2: cannot be read: .*; and 97 more failures$"):
        find_images([tmp_path / str(i) for i in range(100)])
    with pytest.raises(ImageError, match="^'': cannot be read: No such file"):
        find_images("")  # an unset variable of a shell script, and not the current folder


def test_pipes_and_devices_are_files_when_given_by_name(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert find_images(tmp_path / "pipe").images == [(tmp_path / "pipe", "pipe")]
    assert find_images("/dev/null").images == [(Path("/dev/null"), "null")]
    reading, writing = os.pipe()
    try:
        path = f"/dev/fd/{reading}"
        assert find_images(path).images == [(Path(path), str(reading))]
        assert find_images([path, tmp_path / "pipe"]).images[0] == (Path(path), str(reading))
    finally:
        os.close(reading)
        os.close(writing)


def test_a_socket_given_by_name_is_an_error_that_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.png")
        with pytest.raises(ImageError, match="^socket.png: cannot be read: it is a socket; give"):
            find_images("socket.png")


# What is passed over with a note.


def test_formats_that_are_not_read_are_named_in_one_line(tmp_path):
    touch(
        tmp_path, "a.png", "1.heic", "sub/2.HEIC", "sub/deep/3.Heic", "b.gif", "notes.txt", "a.xmp"
    )
    touch(tmp_path, ".4.heic", "@eaDir/5.heic", "a.json", "IMG.AAE", "a.pdf")
    listing = find_images(tmp_path)
    assert listing == (
        [(tmp_path / "a.png", "a")],
        [
            "4 files of formats that are not read: 3 .heic, 1 .gif "
            f"({tmp_path}/1.heic, {tmp_path}/b.gif, {tmp_path}/sub/2.HEIC, ...)"
        ],
        [],
    )
    assert find_images([tmp_path, tmp_path / "sub", tmp_path / "a.png"]).notes == listing.notes


def test_one_file_that_is_not_read(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "b.CR2")
    monkeypatch.chdir(tmp_path)
    assert find_images(".").notes == ["1 file of a format that is not read: 1 .cr2 (b.CR2)"]


@pytest.mark.parametrize(
    "suffixes",
    [
        "heic heif hif gif jxl jp2 j2k jpx jxr apng",
        "cr2 cr3 crw nef nrw arw srf sr2 dng orf rw2 raf pef srw x3f 3fr erf kdc mos mrw raw rwl "
        "iiq dcr fff gpr mef",
        "psd svg eps tga exr hdr pcx pbm pgm ppm pnm pam ico xcf",
        "mov mp4 m4v avi mkv 3gp mts webm mpg",
    ],
)
def test_every_format_of_photographs_and_films_is_known(tmp_path, suffixes):
    touch(tmp_path, "a.png", *(f"b.{suffix}" for suffix in suffixes.split()))
    (note,) = find_images(tmp_path).notes
    assert note.startswith(f"{len(suffixes.split())} files of formats that are not read: ")
    assert all(f"1 .{suffix}" in note for suffix in suffixes.split())


def test_own_pictures_are_not_taken_for_new_photographs(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "b.jpg", "images/a.npz", "images/a.bin", "images/b.gmm")
    touch_ours(tmp_path, "recon/a.png", "recon/b.PNG", "curves.png")
    monkeypatch.chdir(tmp_path)
    note = "3 pictures that this program made are passed over: curves.png, recon/a.png, recon/b.PNG"
    assert find_images(".") == ([(Path("a.png"), "a"), (Path("b.jpg"), "b")], [note], [])
    # By name, it is taken.
    assert find_images("recon/a.png") == ([(Path("recon/a.png"), "a")], [], [])
    (tmp_path / "recon" / "b.PNG").unlink()
    (tmp_path / "curves.png").unlink()
    listing = find_images([".", "recon/a.png"])
    assert [path.as_posix() for path, _ in listing.images] == ["a.png", "b.jpg", "recon/a.png"]
    assert listing.notes == ["1 picture that this program made is passed over: recon/a.png"]
    with pytest.raises(ImageError, match="recon: no image .*; 1 picture that this program made"):
        find_images("recon")


def test_a_png_that_cannot_be_opened_is_left_to_the_reader(tmp_path, monkeypatch):
    touch(tmp_path, "a.png")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert names_in(tmp_path) == {"a.png": "a"}


SIDE_FOLDERS = (
    "@eaDir #recycle #snapshot @Recycle @Recently-Snapshot __MACOSX $RECYCLE.BIN $Recycle.Bin "
    "RECYCLER lost+found .thumbnails .Trash-1000 .hidden"
).split() + ["System Volume Information"]


def test_side_folders_are_passed_over_in_silence_unless_given_by_name(tmp_path):
    touch(tmp_path, "a.png", "._a.png", ".hidden.jpg", "Thumbs.db", "desktop.ini", ".DS_Store")
    for name in SIDE_FOLDERS:
        touch(tmp_path, f"{name}/b.png", f"sub/{name}/deep/b.png", f"{name}/c.heic")
    assert find_images(tmp_path) == ([(tmp_path / "a.png", "a")], [], [])
    for name in SIDE_FOLDERS:
        assert names_in(tmp_path / name) == {"b.png": "b"}
        assert find_images([tmp_path / name, tmp_path / "a.png"]).images == sorted(
            [(tmp_path / name / "b.png", f"{name}/b"), (tmp_path / "a.png", "a")],
            key=lambda image: str(image[0]),
        )
    with pytest.raises(ImageError, match="sub: no image in this folder"):
        find_images(tmp_path / "sub")


@pytest.mark.parametrize(
    "exclude, left",
    [
        (["*_edited*"], ["a.png", "private/d.png", "raw/b.png", "raw/in/c.png", "é/e.png"]),
        (["raw/*"], ["a.png", "a_edited.png", "private/d.png", "é/e.png"]),
        (["raw", "private"], ["a.png", "a_edited.png", "é/e.png"]),
        (["./raw/", "/private/", "**/é"], ["a.png", "a_edited.png"]),
        (["raw/in"], ["a.png", "a_edited.png", "private/d.png", "raw/b.png", "é/e.png"]),
        (["[a-d].png"], ["a_edited.png", "é/e.png"]),
        (["e\u0301", "RAW", "*.jpg", "", "rivate"], ["a.png", "a_edited.png", "private/d.png"]),
    ],
)
def test_what_is_excluded_is_passed_over_in_silence(tmp_path, exclude, left):
    touch(tmp_path, "a.png", "a_edited.png", "raw/b.png", "raw/in/c.png", "private/d.png")
    touch(tmp_path, "é/e.png")
    if "RAW" in exclude:
        left = [*left, "raw/b.png", "raw/in/c.png"]
    assert list(names_in(tmp_path, exclude=exclude)) == left
    assert find_images(tmp_path, exclude=exclude).notes == []
    # The patterns are about paths within each folder, also if there are several.
    several = find_images([tmp_path, tmp_path / "a_edited.png"], exclude)
    assert {path for path, _ in several.images} == {
        tmp_path / name for name in [*left, "a_edited.png"]
    }


def test_an_excluded_folder_is_not_entered_and_an_input_is_not_excluded(tmp_path, closed):
    touch(tmp_path, "a.png", "private/closed/b.png", "private/c.png", "private/d.heic")
    assert find_images(tmp_path, ["private"]) == ([(tmp_path / "a.png", "a")], [], [])
    assert list(names_in(tmp_path / "private", exclude=["private"])) == ["c.png"]
    assert listed(tmp_path / "a.png", exclude=["a*"]) == {str(tmp_path / "a.png"): "a"}
    with pytest.raises(ImageError, match="no image in this folder; .* are excluded$"):
        find_images(tmp_path, ["*"])


# Links, pipes, folders that cannot be read.


def test_links_to_folders_are_named_and_not_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "photos/sub/a.png", "elsewhere/b.png")
    (tmp_path / "photos" / "sub" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / ".hidden").symlink_to(tmp_path / "elsewhere")
    images = [(Path("photos/sub/a.png"), "sub/a")]
    note = "photos/sub/loop: a link to a folder, which is not followed; give it by itself"
    assert find_images("photos") == (images, [note], [])
    (tmp_path / "photos" / "link.png").symlink_to("../elsewhere")
    note = (
        "2 links to folders, which are not followed: photos/link.png, photos/sub/loop; "
        "give them by themselves"
    )
    assert find_images("photos") == (images, [note], [])
    assert find_images("photos", ["loop", "link*"]) == (images, [], [])
    # Who does as told is not told again.
    (tmp_path / "photos" / "sub" / "loop").unlink()
    assert find_images(["photos", "photos/link.png"]) == (
        [
            (Path("photos/link.png/b.png"), "link.png/b"),
            (Path("photos/sub/a.png"), "photos/sub/a"),
        ],
        [],
        [],
    )


def test_a_link_to_a_folder_is_followed_where_it_is_given(tmp_path):
    touch(tmp_path, "photos/a.png")
    (tmp_path / "link").symlink_to("photos")
    assert find_images(tmp_path / "link").images == [(tmp_path / "link" / "a.png", "a")]


def test_broken_links_that_may_have_been_photographs_are_failures(tmp_path):
    touch(tmp_path, "sub/a.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "broken\x1b.JPG").symlink_to(tmp_path / "none.png")
    (tmp_path / "holiday").symlink_to("/media/disk/holiday")
    (tmp_path / "good.png").symlink_to(tmp_path / "sub" / "a.png")
    for name in ("notes.txt", ".hidden.png", ".hidden"):
        (tmp_path / name).symlink_to(tmp_path / "none")
    listing = find_images(tmp_path)
    assert [name for _, name in listing.images] == ["good", "sub/a"] and not listing.notes
    assert listing.failures == [
        f"{tmp_path}/{name}: a link that cannot be followed: {cause}; mend or remove it"
        for name, cause in [
            ("broken\\x1b.JPG", "No such file or directory"),
            ("holiday", "No such file or directory"),
            ("loop.png", os.strerror(40)),
        ]
    ]
    assert find_images(tmp_path, ["broken*", "holiday", "loop*"]).failures == []
    for broken in ("broken\x1b.JPG", "loop.png", "holiday"):
        with pytest.raises(ImageError, match="cannot be read: "):
            find_images(tmp_path / broken)


def test_pipes_and_sockets_in_a_folder_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.png")
    os.mkfifo("pipe.png")
    os.mkfifo("pipe")  # nobody takes it for a photograph
    (tmp_path / "log").symlink_to("/dev/null")
    images = [(Path("a.png"), "a")]
    note = "pipe.png: a pipe, socket or device, which is passed over"
    assert find_images(".") == (images, [note], [])
    (tmp_path / "null.JPG").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.png")
        note = "3 pipes, sockets or devices are passed over: null.JPG, pipe.png, socket.png"
        assert find_images(".") == (images, [note], [])


def test_a_folder_called_like_a_picture_is_a_folder(tmp_path):
    touch(tmp_path, "a.png/b.png", "c.heic/d.jpg")
    assert find_images(tmp_path).notes == []
    assert names_in(tmp_path) == {"a.png/b.png": "a.png/b", "c.heic/d.jpg": "c.heic/d"}
    assert names_in(tmp_path / "a.png") == {"b.png": "b"}


def test_a_sub_folder_that_cannot_be_listed_keeps_no_other_from_being_done(tmp_path, closed):
    touch(tmp_path, "a.png", "closed/b.png", "sub/closed/c.png", "sub/d.png")
    listing = find_images(tmp_path)
    assert [name for _, name in listing.images] == ["a", "sub/d"] and not listing.notes
    assert listing.failures == [
        f"{tmp_path}/{name}: cannot be listed: Permission denied; change its permissions or move it"
        for name in ("closed", "sub/closed")
    ]
    assert list_files(tmp_path, (".png",)).failures == listing.failures


def test_the_folder_that_is_given_must_be_listed(tmp_path, closed, monkeypatch):
    touch(tmp_path, "a.png", "closed/b.png")
    message = "closed: cannot be listed: Permission denied; change its permissions"
    with pytest.raises(ImageError, match=message):
        find_images(tmp_path / "closed")
    with pytest.raises(ImageError, match=message):
        list_files(tmp_path / "closed", (".png",))
    listing = find_images([tmp_path / "closed", tmp_path / "a.png"])
    assert len(listing.images) == len(listing.failures) == 1


@unless_root
def test_permissions_are_respected(tmp_path):
    touch(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    try:
        listing = find_images(tmp_path)
        assert len(listing.images) == 1
        assert "closed: cannot be listed: Permission denied" in listing.failures[0]
        with pytest.raises(ImageError, match="b.png: .*Permission denied"):
            find_images(tmp_path / "closed" / "b.png")
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_nothing_found_is_an_error_that_says_what_is_there(tmp_path, closed):
    touch(tmp_path, "notes.txt", ".a.png")
    with pytest.raises(ImageError, match="no image in this folder; .*png, .*webp$"):
        find_images(tmp_path)
    with pytest.raises(ImageError, match="none: .*No such file"):
        find_images(tmp_path / "none")
    touch(tmp_path, "a.heic", "closed/a.png")
    with pytest.raises(
        ImageError,
        match="no image in this folder; .*webp; .*closed: cannot be listed: .*; "
        "1 file of a format that is not read: 1 .heic",
    ) as caught:
        find_images(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tree_as_deep_as_paths_can_be_is_searched(tmp_path):
    # One step at a time, since the whole path is longer than the system allows.
    script = """
import os, sys
os.chdir(sys.argv[1])
for i in range(1400):
    os.mkdir("ab")
    os.chdir("ab")
    if not i % 100:
        open("a.png", "x").close()
"""
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True)
    try:
        listing = find_images(tmp_path)
        assert len(listing.images) == 14
        (failure,) = listing.failures
        assert "ab: cannot be listed: File name too long" in failure
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "ab"], check=True)


# Names that are no plain text.


def test_odd_names_are_exact_in_the_list_and_escaped_in_notes(tmp_path):
    names = [b"a\nb", b"c\x1b[31m", b"\xff\xfe", b"tab\t\r", "\u202egnp".encode()]
    for name in names:
        for suffix in (b".png", b".heic"):
            with open(os.path.join(os.fsencode(tmp_path), name + suffix), "x"):
                pass
    listing = find_images(tmp_path)
    assert sorted(os.fsencode(path.name) for path, _ in listing.images) == sorted(
        name + b".png" for name in names
    )
    assert sorted(os.fsencode(name) for _, name in listing.images) == sorted(names)
    (note,) = listing.notes
    assert "/a\\nb.heic" in note and "/c\\x1b[31m.heic" in note
    assert not set(note) & set("\n\x1b\t\r")


def test_a_name_too_long_for_its_outputs_is_cut(tmp_path):
    long = "é" * 125  # 250 bytes
    touch(tmp_path, f"{long}.png", f"{long}.jpg", f"{'x' * 251}.png")
    names = names_in(tmp_path)
    assert names[f"{'x' * 251}.png"] == "x" * 251
    for name in names.values():
        touch(tmp_path, f"out/{name}.npz")
    assert len(list((tmp_path / "out").iterdir())) == 3


# list_files.


def test_files_of_other_suffixes_are_listed_by_the_same_rules(tmp_path):
    touch(tmp_path, "b/a.TAR", "b/a.png", "a.tar.gz", "a.txt", ".a.tar", "@eaDir/a.tar", "a.heic")
    touch_ours(tmp_path, "ours.png")
    os.mkfifo(tmp_path / "pipe.tar")
    files = list_files(tmp_path, (*IMAGE_SUFFIXES, ".tar"))
    assert files.relatives == ["b/a.TAR", "b/a.png"] and not files.failures
    assert [note.split(":")[0] for note in files.notes] == [
        "1 file of a format that is not read",
        "1 picture that this program made is passed over",
        f"{tmp_path}/pipe.tar",
    ]
    assert list_files(str(tmp_path), (".png", ".tar"), ["*.TAR"]).relatives == ["b/a.png"]
    assert list_files(tmp_path, (".none",)).relatives == []
