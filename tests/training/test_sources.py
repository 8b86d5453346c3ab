"""Where photographs come from; `test_data.py` reads whole folders and tar files."""

import io
import logging

from gmm_attention.training import sources


def test_a_member_reads_like_a_file_of_its_own(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(100)))
    with open(tmp_path / "a", "rb", buffering=0) as file:
        member = io.BufferedReader(sources._Span(file, 10, 50))
        assert member.read() == bytes(range(10, 60)) and member.read(1) == b""
        assert member.seek(-5, io.SEEK_END) == 45 and member.read(9) == bytes(range(55, 60))
        assert member.seek(7) == 7 and member.read(2) == bytes([17, 18])
        assert member.seek(1, io.SEEK_CUR) == member.tell() == 10
        assert member.seek(70) == 70 and member.read() == b""


def test_of_each_kind_of_warning_the_first_is_told_and_all_are_counted(caplog):
    reading = logging.getLogger("gmm_attention.images.reading")
    with caplog.at_level(logging.WARNING):
        with sources.FewerWarnings():
            for _ in range(3):  # epochs
                for name in ("a.png", "b.png"):
                    reading.warning("%s: odd (%d)", name, 1)
                    reading.warning("%s: 16 bits per sample, rounded to 8", name)
            reading.warning("%s: strange", "b.png")
        reading.warning("%s: odd (%d)", "c.png", 1)
    assert [record.getMessage() for record in caplog.records] == [
        "a.png: odd (1) (others like it are counted at the end)",
        "b.png: strange (others like it are counted at the end)",
        "2 photographs like a.png: odd (1)",
        "c.png: odd (1)",
    ]
