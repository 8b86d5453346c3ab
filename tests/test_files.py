"""Files that are written whole or not at all, and rows added to CSV files."""

import os
import resource
import stat

import pytest
from conftest import unless_root

from gmm_attention.errors import CodecError
from gmm_attention.files import append_row, read_rows, refuse_foreign, write_atomically


def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    write_atomically({path: b"old"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as if the disk were full
    try:
        with pytest.raises(CodecError, match="a.bin: cannot be written: File too large; "):
            write_atomically({path: bytes(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_replaced_together_or_not_at_all(tmp_path):
    first, second = tmp_path / "a.npz", tmp_path / "a.bin"
    write_atomically({first: b"old", second: b"old"})
    second.unlink()
    second.mkdir()
    with pytest.raises(CodecError, match="a.bin: cannot be written"):
        write_atomically({first: b"new", second: b"new"})
    assert first.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == [second, first]
    second.rmdir()
    write_atomically({first: b"new", second: b"newer"})
    assert (first.read_bytes(), second.read_bytes()) == (b"new", b"newer")


def test_interrupted_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    path = tmp_path / "a.bin"
    write_atomically({path: b"old"})
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically({path: b"new"})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_regular_files_are_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {"folder": "folder", "pipe": "regular"}.items():
        with pytest.raises(CodecError, match=f"{name}: cannot be written: .*{reason}"):
            write_atomically({tmp_path / name: b"new"})
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_file_in_the_place_of_a_folder_is_reported(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(CodecError, match="Not a directory"):
        write_atomically({tmp_path / "a" / "b": b"new"})


@unless_root
def test_read_only_folder_is_reported(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CodecError, match="Permission denied"):
        write_atomically({tmp_path / "a": b"new"})


def test_written_file_has_the_permissions_of_any_new_file(tmp_path):
    mask = os.umask(0o027)
    try:
        write_atomically({tmp_path / "a": b"new"})
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_link_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "a", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomically({link: b"new"})
    assert link.is_symlink() and target.read_bytes() == b"new"


def test_longest_possible_name_can_be_written(tmp_path):
    write_atomically({tmp_path / ("a" * 255): b"new"})
    assert (tmp_path / ("a" * 255)).read_bytes() == b"new"


def test_a_full_disk_leaves_no_half_row(tmp_path):
    path = tmp_path / "rows.csv"
    append_row(path, {"a": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As if the disk had room for a part of the row.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 4, limits[1]))
    try:
        with pytest.raises(CodecError, match="rows.csv: cannot be written: No space left.*; "):
            append_row(path, {"a": 123456789})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text().split() == ["a", "1"]
    append_row(path, {"a": 2})
    assert read_rows(path) == (["a"], [{"a": "1"}, {"a": "2"}])


def test_a_row_for_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(CodecError, match="none/rows.csv: cannot be written: No such file.*; "):
        append_row(tmp_path / "none" / "rows.csv", {"a": 1})


def test_rows_of_other_columns_never_replace_a_file(tmp_path):
    path = tmp_path / "log.csv"
    (tmp_path / "log.csv.old").write_text("the user's own")
    for row in ({"a": 1}, {"b": 2}, {"c": 3}):
        append_row(path, row)
    assert path.read_text() == "c\n3\n"
    kept = [(tmp_path / f"log.csv.old{number}").read_text() for number in ("", "-2", "-3")]
    assert kept == ["the user's own", "a\n1\n", "b\n2\n"]


def test_only_files_of_ours_are_replaced(tmp_path):
    path = tmp_path / "some file"
    for data, ours in ((b"ours and more", True), (b"theirs", False), (b"", True)):
        path.write_bytes(data)
        refuse_foreign(path, lambda head: head.startswith(b"ours"), overwrite=True)
        if ours:
            refuse_foreign(path, lambda head: head.startswith(b"ours"), overwrite=False)
        else:
            with pytest.raises(CodecError, match="some file: is there already, .*; .*--overwrite"):
                refuse_foreign(path, lambda head: head.startswith(b"ours"), overwrite=False)
    refuse_foreign(tmp_path / "none", lambda head: False, overwrite=False)
