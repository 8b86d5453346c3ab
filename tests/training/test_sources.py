"""Where photographs come from; `test_data.py` reads whole folders and tar files."""

import io

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
