"""Names of outputs: distinct on every file system, and no longer than it allows."""

import hashlib
import os
import posixpath
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmm_attention.names import distinct_names

OUTPUTS = (".npz", ".bin", ".gmm", ".png")


def named(*relatives):
    return distinct_names(relatives, (".jpg", ".png"))


@pytest.mark.parametrize(
    "first, second",
    [
        ("a", "A"),
        ("Holiday/a", "holiday/a"),
        ("straße", "STRASSE"),
        ("straße/a", "strasse/A"),
        ("é", "e\u0301"),
        ("É/a", "e\u0301/a"),
        ("ǆ", "ǅ"),
        ("ᾷ", "ᾼ\u0342"),
        ("K", "\u212a"),  # the sign for kelvin
        ("ﬁ", "FI"),
        ("a\u200db", "ab"),  # ignored by HFS+ and by ext4 with the option casefold
        ("☺\ufe0f", "☺"),
    ],
)
def test_names_that_some_file_system_takes_for_one_are_told_apart(first, second):
    assert named(f"{first}.png", f"{second}.png") == [f"{first}.png", f"{second}.png-2"]
    assert named(f"{first}.png", f"{second}.jpg") == [f"{first}.png", f"{second}.jpg"]


def test_folders_that_differ_in_case_may_become_one():
    assert named("Holiday/a.png", "holiday/b.png") == ["Holiday/a", "holiday/b"]


def test_equal_files_of_several_folders_are_numbered():
    assert named("a.png", "a.png", "a.jpg", "a.png", "a.png-2.jpg") == [
        "a.png",
        "a.png-3",
        "a.jpg",
        "a.png-4",
        "a.png-2",
    ]
    assert named("a", "a") == ["a", "a-2"]


def test_no_output_has_the_name_of_a_folder_of_outputs():
    assert named("a.jpg", "a.png/b.png") == ["a.jpg", "a.png/b"]  # the decoder's a.png
    assert named("A.jpg", "a.NPZ/in/b.png") == ["A.jpg", "a.NPZ/in/b"]  # the encoder's A.npz
    assert named("a.jpg", "a.png/b.png", "a.jpg.bin/c.jpg") == [
        "a.jpg-2",
        "a.png/b",
        "a.jpg.bin/c",
    ]


def test_long_names_are_cut_between_characters():
    longest = 255 - len(".npz")
    assert named(f"{'x' * longest}.png") == ["x" * longest]
    (name,) = named(f"sub/x{'é' * 126}.png")
    digest = hashlib.sha256(("x" + "é" * 126).encode()).hexdigest()[:8]
    assert name == f"sub/x{'é' * 120}~{digest}"
    assert len(name.encode()) == len("sub/") + 250  # the next character has two bytes
    # Only the last bytes differ: of the names, of suffixes that are kept, of numbers.
    files = ["y" * 300 + ".png", "y" * 299 + "z.png", "y" * 300 + ".jpg", "y" * 300 + ".png"]
    names = named(*files)
    assert len(set(names)) == 4 and {len(name) for name in names} == {longest}
    assert names == named(*files)
    # Bytes that are no UTF-8 reach Python as surrogates.
    (name,) = named("\udcff" * 253 + ".png")
    assert len(os.fsencode(name)) == longest


def test_a_folder_with_a_name_of_another_file_system_is_cut_for_all_its_files():
    names = named("木" * 255 + "/a.png", "木" * 255 + "/b.png")
    folders = {posixpath.dirname(name) for name in names}
    assert [posixpath.basename(name) for name in names] == ["a", "b"]
    assert len(folders) == 1 and len(os.fsencode(folders.pop())) <= 255


PARTS = st.one_of(
    st.text(alphabet="aAß-2.é\u0301e", min_size=1, max_size=3),
    st.sampled_from(["a.png", "A.npz", "x" * 250, "x" * 251, "X" * 252, "木" * 84, "a.jpg-2"]),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda folders, name, suffix: "/".join([*folders, name + suffix]),
            st.lists(PARTS, max_size=2),
            PARTS,
            st.sampled_from(["", ".png", ".PNG", ".jpg"]),
        ),
        max_size=12,
    )
)
def test_all_outputs_have_a_place_of_their_own(relatives):
    names = named(*relatives)

    def seen(name):
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())

    outputs = {seen(name + suffix) for name in names for suffix in OUTPUTS}
    assert len(outputs) == len(OUTPUTS) * len(relatives)
    folders = set()
    for name in names:
        assert all(len(os.fsencode(part)) <= 255 for part in f"{name}.npz".split("/"))
        while name := posixpath.dirname(name):
            folders.add(seen(name))
    assert not outputs & folders
