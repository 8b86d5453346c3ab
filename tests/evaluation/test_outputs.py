"""What an evaluation may replace: what evaluations wrote, and nothing else."""

import re
import shutil
import struct
import zlib

import pytest
from conftest import ROOT
from matplotlib.figure import Figure

from gmm_attention.errors import CodecError
from gmm_attention.evaluation import bits, curves, outputs, plots, results
from gmm_attention.files import write_rows
from gmm_attention.images import write_png

CURVE = curves.Curve("Kodak", "mine", "PSNR", (0.1, 0.25), (30.0, 33.5))
NAMES = ("images.csv", "means.csv", "bits.csv", "channels.csv")


@pytest.fixture
def folder(tmp_path, tiny_codec, large):
    """One file of each kind, as evaluations write them."""
    measured = results.Results(tmp_path / "images.csv")
    row = measured.add(
        set="s", codec=results.OWN, model="m", rate=results.FILES, effort="0", image="a",
        bpp=0.2, psnr=30.0, inputs="of a",
    )  # fmt: skip
    results.write_means(tmp_path / "means.csv", [results.means([row])])
    curves.write_curve(tmp_path, CURVE)
    plots.rate_distortion(str(tmp_path / "Kodak_PSNR"), [], [CURVE], [])
    plots.side_by_side(str(tmp_path / "crops.png"), [("a", large)])
    plots.bits_map(str(tmp_path / "map.png"), large, bits.bits_of(tiny_codec, large), "a")
    for name in NAMES[2:]:
        shutil.copy(ROOT / "docs" / "evaluation" / name, tmp_path)
    return tmp_path


def refused(*paths):
    """Those of the paths that may not be replaced."""
    found = []
    for path in paths:
        try:
            outputs.refuse_foreign_files([str(path)], overwrite=False)
        except CodecError as error:
            assert re.fullmatch(
                f"{re.escape(str(path))}: is there already, and .*; .*--overwrite", str(error)
            )
            outputs.refuse_foreign_files([str(path)], overwrite=True)
            found.append(path.name)
    return found


def test_files_of_evaluations_may_be_replaced(folder):
    paths = sorted(folder.iterdir())
    assert len(paths) == 9 and refused(*paths) == []
    assert refused(folder / "none.csv", folder / "none.png") == []


def test_published_curves_may_not_be_replaced():
    paths = sorted((ROOT / "RDdata").glob("*.dat"))
    assert paths and refused(*paths) == [path.name for path in paths]


def test_what_earlier_versions_wrote_may_be_replaced(tmp_path):
    """The committed results are made again by the command in the README."""
    paths = [path for path in (ROOT / "docs" / "evaluation").iterdir() if path.is_file()]
    assert len(paths) >= 6 and refused(*paths) == []
    write_rows(tmp_path / "images.csv", ["note", *results.COLUMNS[:-1]], [])
    write_rows(tmp_path / "means.csv", results.Means._fields[:-2], [])
    assert refused(*tmp_path.iterdir()) == []


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_plots_without_a_mark_may_be_replaced(folder):
    """Plots of curves carried no text before they were marked."""
    data = (folder / "Kodak_PSNR.png").read_bytes()
    mark = chunk(b"tEXt", b"Software\0gmm-attention")
    assert data.count(mark) == 1
    (folder / "Kodak_PSNR.png").write_bytes(data.replace(mark, b""))
    text = (folder / "Kodak_PSNR.svg").read_text()
    unmarked, count = re.subn(r"\s*<dc:creator>.*</dc:creator>", "", text, flags=re.DOTALL)
    (folder / "Kodak_PSNR.svg").write_text(unmarked)
    assert count == 1 and refused(*folder.glob("Kodak*")) == []


@pytest.mark.parametrize("name", ["Kodak_PSNR.png", "Kodak_PSNR.svg", "crops.png"])
def test_plots_of_the_users_own_are_kept(tmp_path, name):
    figure = Figure(figsize=(7.4, 4.2))
    figure.add_subplot().plot([1, 2])
    figure.savefig(tmp_path / name, dpi=300)
    assert refused(tmp_path / name) == [name]


@pytest.mark.parametrize("name", [*NAMES, "data_Kodak_mine_PSNR.dat", "Kodak_PSNR.png"])
@pytest.mark.parametrize(
    "content",
    [
        b"image,bpp\na,0.25\n",
        b"\xef\xbb\xbfset,codec\n",
        b"0.1\t30\n",
        b"0.100000000\t30.000000\n# mine\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\0\0\0",
        b"\r\r\n",
        b"codec;model;rate;image;bpp;psnr\n",
    ],
    ids=repr,
)
def test_other_files_of_these_names_are_kept(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name) == [name]


def test_nothing_is_lost_with_an_empty_file(tmp_path):
    (tmp_path / "images.csv").touch()
    assert refused(tmp_path / "images.csv") == []


def test_a_photograph_is_no_plot(tmp_path, photograph):
    write_png(tmp_path / "crops.png", photograph)  # by the decoder: may be replaced
    assert refused(tmp_path / "crops.png") == []
    shutil.copy(ROOT / "valid" / "chelsea.png", tmp_path / "crops.png")
    assert refused(tmp_path / "crops.png") == ["crops.png"]
