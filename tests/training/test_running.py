"""What train.py and the runner say of the photographs that they are given."""

import argparse

import numpy as np
import pytest
from conftest import unless_root
from PIL import Image

from gmm_attention.errors import ImageError
from gmm_attention.training import running


@pytest.fixture
def folder(tmp_path):
    """Two photographs, one of them in a sub-folder, and a file that is not read."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.png"):
        Image.fromarray(np.zeros((70, 80, 3), np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "c\n.heic").write_bytes(b"")
    return tmp_path / "photos"


def options(**given):
    return argparse.Namespace(memory=0.001, **given)


def test_what_training_passes_over_is_printed_in_lines(folder, capsys):
    (folder / "link.png").symlink_to("nowhere")
    assert len(running.photographs(options(train=[str(folder)]), 64)) == 2
    unread, link, count = capsys.readouterr().out.splitlines()
    assert "1 .heic" in unread and "c\\n.heic" in unread
    assert link.startswith(f"{folder}/link.png: a link that cannot be followed")
    assert count == "2 photographs to learn from"


def test_validation_reads_a_folder_and_says_what_it_passes_over(folder, capsys):
    images = running.validation(options(validate=str(folder)))
    assert [name for name, _ in images] == ["a", "more/b"] and images[0][1].shape == (70, 80, 3)
    (note,) = capsys.readouterr().out.splitlines()
    assert "1 .heic" in note


def test_validation_takes_no_part_of_its_photographs_for_all(folder):
    (folder / "link.png").symlink_to("nowhere")
    (folder / "more" / "link.png").symlink_to("nowhere")
    with pytest.raises(ImageError, match=r"link.png: .*\(and 1 more; --validate is read whole"):
        running.validation(options(validate=str(folder)))


@unless_root
def test_a_sub_folder_that_cannot_be_listed_is_said(folder, capsys):
    (folder / "more").chmod(0)
    try:
        assert len(running.photographs(options(train=[str(folder)]), 64)) == 1
        assert f"{folder}/more: cannot be listed" in capsys.readouterr().out
        with pytest.raises(ImageError, match="more: cannot be listed"):
            running.validation(options(validate=str(folder)))
    finally:
        (folder / "more").chmod(0o700)
