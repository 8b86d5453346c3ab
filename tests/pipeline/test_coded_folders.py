"""Finding the coded images that paths stand for, and naming their outputs."""

import os
import socket
import struct

import numpy as np
import pytest

from gmm_attention.errors import BitstreamError
from gmm_attention.pipeline.coded_folders import CodedImage, find_coded

OURS = b"GMM\1" + bytes(20)
JOINED = struct.pack("<I", len(OURS)) + OURS + b"y"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(data, *names):
    for name in names:
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            file.write(data)


def put_pair(*stems):
    for stem in stems:
        put(OURS, f"{stem}.npz")
        put(b"y", f"{stem}.bin")


def pair(stem, name):
    return CodedImage((f"{stem}.npz", f"{stem}.bin"), name)


def test_folder_is_searched_with_its_sub_folders(folder):
    put_pair("coded/b", "coded/holiday/beach 1", "coded/IMG.2024")
    put(JOINED, "coded/a.gmm", "coded/holiday/C.GMM")
    put(b"", "coded/notes.txt", "coded/recon/a.png")
    expected = [
        pair("coded/IMG.2024", "IMG.2024"),
        CodedImage(("coded/a.gmm",), "a"),
        pair("coded/b", "b"),
        CodedImage(("coded/holiday/C.GMM",), "holiday/C"),
        pair("coded/holiday/beach 1", "holiday/beach 1"),
    ]
    assert find_coded("coded") == find_coded(["coded/"]) == (expected, [], [])
    os.chdir("coded")
    assert find_coded(".").images[0] == pair("IMG.2024", "IMG.2024")


def test_foreign_files_are_passed_over_with_one_line(folder):
    put_pair("a")
    np.savez("weights.npz", a=np.zeros(3))
    put(b"PK", "pytorch_model.bin")
    assert find_coded(".") == (
        [pair("a", "a")],
        ["2 files that are no coded images are passed over: pytorch_model.bin, weights.npz"],
        [],
    )
    os.remove("weights.npz")
    (note,) = find_coded(".").notes
    assert note == "1 file that is no coded image is passed over: pytorch_model.bin"
    # Neither is a file that lies beside a foreign one of its name, nor one with our own other end.
    put(b"foreign", "weights.npz", "weights.bin", "x.gmm", "sub/deep/y.npz")
    put(b"model", "htk.gmm")
    put(OURS, "unjoined.gmm")
    put(JOINED, "joined.npz")
    put(b"gmm\1", "small.npz")
    put(b"GX", "other.npz")
    put(b"1234gmm", "small.gmm")
    assert find_coded(".") == (
        [pair("a", "a")],
        ["11 files that are no coded images are passed over: htk.gmm, joined.npz, other.npz, ..."],
        [],
    )


@pytest.mark.parametrize("data", [b"", b"G", b"GM"])
def test_a_file_cut_off_within_the_magic_number_is_reported_as_damaged(folder, data):
    put(data, "a.npz")
    put(b"\x18\0\0\0" + data, "b.gmm")
    put(b"", "c.gmm")
    put(b"\x18\0", "d.gmm")
    assert find_coded(".") == (
        [pair("a", "a"), *(CodedImage((f"{name}.gmm",), name) for name in "bcd")],
        [],
        [],
    )


def test_a_pair_with_one_file_missing(folder):
    put(OURS, "a.npz")
    put(b"y", "b.bin")
    (note,) = find_coded(".").notes
    assert find_coded(".").images == [pair("a", "a")]  # reading it reports the error
    assert note == "1 file that is no coded image is passed over: b.bin"


def test_suffixes_in_upper_case(folder):
    put(OURS, "A.NPZ", "b.NPZ")
    put(b"y", "A.BIN", "b.bin")
    expected = [CodedImage(("A.NPZ", "A.BIN"), "A"), CodedImage(("b.NPZ", "b.bin"), "b")]
    assert find_coded(".") == (expected, [], [])
    assert find_coded(["A.BIN", "b.bin"]) == (expected, [], [])


def test_names_of_outputs_are_distinct(folder):
    put_pair("a", "b/x", "B/X", "c.png", "é", "e\u0301")
    put(JOINED, "a.gmm")
    # The picture of d may not have the name of the folder of another.
    put_pair("d", "d.png/e")
    assert [(image.paths[0], image.name) for image in find_coded(".").images] == [
        ("B/X.npz", "B/X.npz"),
        ("a.gmm", "a.gmm"),
        ("a.npz", "a.npz"),
        ("b/x.npz", "b/x.npz-2"),
        ("c.png.npz", "c.png"),
        ("d.npz", "d.npz"),
        ("d.png/e.npz", "d.png/e"),
        ("e\u0301.npz", "e\u0301.npz"),
        ("é.npz", "é.npz-2"),
    ]


def test_hidden_side_and_excluded_files_are_passed_over_in_silence(folder):
    put_pair("a", ".hidden", ".cache/b", "@eaDir/c", "sub/#recycle/d", "__MACOSX/._a", "old/e")
    put(b"X", ".foreign.npz", "@eaDir/foreign.bin", "old/foreign.bin")
    assert find_coded(".", ["old"]) == ([pair("a", "a")], [], [])
    assert find_coded(".", ["*/e.npz", "foreign.bin"]).images == [pair("a", "a")]
    assert find_coded(".cache").images == [pair(".cache/b", "b")]
    assert find_coded(".hidden.npz", [".hidden*"]).images == [pair(".hidden", ".hidden")]


# Given by name.


@pytest.mark.parametrize("given", ["images/a.npz", "images/a.bin", "images/a"])
def test_either_file_and_what_both_share_mean_the_pair(folder, given):
    put_pair("images/a")
    assert find_coded(given) == ([pair("images/a", "a")], [], [])
    absolute = str(folder / given)
    assert find_coded(absolute).images == [pair(str(folder / "images" / "a"), "a")]


def test_the_photograph_beside_its_coded_files_may_have_their_name(folder):
    put(b"photograph", "a")
    put_pair("a")
    assert find_coded("a").images == [pair("a", "a")]


def test_what_is_given_by_name_is_listed_whatever_it_holds(folder):
    put(b"X", "weights.npz", "pytorch_model.bin", "x.gmm", "picture.xyz")
    assert find_coded(["weights.npz", "pytorch_model.bin", "x.gmm", "picture.xyz"]) == (
        [
            CodedImage(("picture.xyz",), "picture.xyz"),
            pair("pytorch_model", "pytorch_model"),
            pair("weights", "weights"),
            CodedImage(("x.gmm",), "x"),
        ],
        [],
        [],
    )
    put(JOINED, "j.gmm")
    assert find_coded("j").images == [CodedImage(("j.gmm",), "j")]


@pytest.mark.parametrize("name", ["pipe", "pipe.gmm", "pipe.npz", "pipe.bin"])
def test_a_pipe_is_one_file(folder, name):
    os.mkfifo(name)
    assert find_coded(name).images == [CodedImage((name,), "pipe")]


def test_process_substitution_is_one_file(folder):
    reading, writing = os.pipe()
    try:
        path = f"/dev/fd/{reading}"
        assert find_coded(path).images == [CodedImage((path,), str(reading))]
    finally:
        os.close(reading)
        os.close(writing)


def test_several_inputs(folder):
    put_pair("A/x", "B/x", "c/y", "z")
    put(JOINED, "c/y.gmm")
    listing = find_coded(["A", "B/", "c/y.npz", "c/y.gmm", "z", "none", "c"])
    assert listing.images == [
        pair("A/x", "A/x"),
        pair("B/x", "B/x"),
        CodedImage(("c/y.gmm",), "y.gmm"),
        pair("c/y", "y.npz"),
        pair("z", "z"),
    ]
    assert listing.failures == [
        "none: cannot be read: No such file or directory; give what the encoder wrote"
    ]


def test_an_image_given_twice_is_listed_once(folder):
    put_pair("A/x", "y")
    inputs = ["A", "A/x.npz", "A/x.bin", "A/x", "./A/../A", str(folder / "A" / "x.bin")]
    assert find_coded([*inputs, "y.bin", "y.npz"]).images == [pair("A/x", "A/x"), pair("y", "y")]


# What goes wrong.


def test_nothing_found_is_an_error_that_says_what_is_there(folder):
    with pytest.raises(BitstreamError, match="^none: cannot be read: No such file or directory; "):
        find_coded("none")
    with pytest.raises(BitstreamError, match="^none.npz: cannot be read: .*; .*: cannot be read"):
        find_coded(["none.npz", "none.gmm"])
    put(b"X", "sub/weights.npz", "sub/model.bin")
    with pytest.raises(
        BitstreamError,
        match="^sub: no coded image in this folder; give the encoder's --output; 2 files that are "
        "no coded images are passed over: sub/model.bin, sub/weights.npz$",
    ):
        find_coded("sub")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.gmm")
        with pytest.raises(BitstreamError, match="^socket.gmm: cannot be read: it is a socket; "):
            find_coded("socket.gmm")


def test_a_file_that_cannot_be_opened_is_a_failure(folder, monkeypatch):
    put_pair("a", "b")
    put(JOINED, "c.gmm")

    def refusing(path, *arguments, **options):
        if path in ("b.npz", "c.gmm"):
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *arguments, **options)

    opened = open
    monkeypatch.setattr("builtins.open", refusing)
    assert find_coded(".") == (
        [pair("a", "a")],
        [],
        [
            f"{name}: cannot be read: Permission denied; check its permissions"
            for name in ("b.npz", "c.gmm")
        ],
    )


def test_a_sub_folder_that_cannot_be_listed_is_a_failure(folder, closed):
    put_pair("a", "closed/b")
    failure = "closed: cannot be listed: Permission denied; change its permissions or move it"
    assert find_coded(".") == ([pair("a", "a")], [], [failure])
    with pytest.raises(BitstreamError, match=f"^{failure}"):
        find_coded("closed")


def test_links_and_pipes(folder):
    put_pair("a", "elsewhere/b")
    os.mkdir("coded")
    os.symlink("../a.npz", "coded/a.npz")
    os.symlink("../a.bin", "coded/a.bin")
    os.symlink("../elsewhere", "coded/link")
    os.symlink("none", "coded/broken.npz")
    put(b"y", "coded/broken.bin")
    os.symlink("none", "coded/broken.gmm")
    os.symlink("none", "coded/folder")
    os.symlink("none", "coded/alone.bin")
    os.mkfifo("coded/pipe.gmm")
    assert find_coded("coded") == (
        [pair("coded/a", "a")],
        [
            "coded/link: a link to a folder, which is not followed; give it by itself",
            "coded/pipe.gmm: a pipe, socket or device, which is passed over",
        ],
        [
            f"coded/{name}: a link that cannot be followed: No such file or directory; "
            "mend or remove it"
            for name in ("broken.gmm", "broken.npz", "folder")
        ],
    )


def test_odd_names_are_exact_in_the_list_and_escaped_in_notes(folder):
    put_pair("a\nb", "\udcff")
    put(b"X", "c\x1b[31m.npz")
    listing = find_coded(".")
    assert listing.images == [pair("a\nb", "a\nb"), pair("\udcff", "\udcff")]
    assert listing.notes == ["1 file that is no coded image is passed over: c\\x1b[31m.npz"]
