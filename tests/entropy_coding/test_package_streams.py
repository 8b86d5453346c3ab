"""What decoding by the package range-coder leaves behind, and a full disk."""

import numpy as np
import pytest

pytest.importorskip("range_coder")
resource = pytest.importorskip("resource")

from gmm_attention.entropy_coding import package_streams, range_coder  # noqa: E402
from gmm_attention.errors import BitstreamError, CodecError  # noqa: E402


@pytest.fixture(autouse=True)
def package_is_chosen(monkeypatch):
    monkeypatch.setattr(range_coder, "reader", package_streams.reader)


@pytest.mark.parametrize("size", [0, 1, 8, 99])
def test_a_temporary_file_that_is_not_written_whole_is_an_error(size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))  # as if the disk were full
    try:
        with pytest.raises(CodecError, match="temporary file"):
            with range_coder.decoder(bytes(100), "string"):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_missing_folder_for_temporary_files_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(package_streams.tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(CodecError, match="TMPDIR"):
        with range_coder.decoder(b"", "string"):
            pass


def test_temporary_files_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(package_streams.tempfile, "tempdir", str(tmp_path))
    with range_coder.decoder(b"\x55", "string") as decoder:
        assert list(tmp_path.iterdir())
        assert decoder.symbols([[0, 1, 2, 3]]) == [1]
    with pytest.raises(BitstreamError):
        with range_coder.decoder(b"", "string") as decoder:
            decoder.charge(np.ones(100, int), 2)
    assert not list(tmp_path.iterdir())


def test_an_error_while_decoding_is_not_taken_for_the_files():
    with pytest.raises(OSError, match="the caller's own"):
        with range_coder.decoder(b"", "string"):
            raise OSError("the caller's own")
