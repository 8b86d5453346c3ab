"""How a run tells that its photographs are others than before."""

import json

import pytest

from gmm_attention.training import progress
from gmm_attention.training.progress import photograph_set, photographs_changed

NAMES = [f"more/{i:03}.png" for i in range(584)]


def line(before, now, crop=64):
    stored = json.loads(json.dumps(photograph_set(before, 64)))  # as a state keeps it
    return photographs_changed(stored, now, crop)


def test_the_same_photographs_are_no_change():
    assert line(NAMES, list(NAMES)) is None


@pytest.mark.parametrize(
    "now, text",
    [
        ([*NAMES, "new.png"], "584 then, 585 now (1 added: new.png)"),
        (NAMES[1:], "584 then, 583 now (1 removed: more/000.png)"),
        ([*NAMES[1:], "a.png", "b.png"],
         "584 then, 585 now (2 added, first a.png; 1 removed: more/000.png)"),
        # Of two folders in which the same name occurs.
        (sorted([*NAMES, NAMES[3]]), "584 then, 585 now (1 added: more/003.png)"),
        ([], "584 then, 0 now (584 removed, first more/000.png)"),
    ],
)  # fmt: skip
def test_what_was_added_and_removed_is_said_in_a_line(now, text):
    assert line(NAMES, now) == (
        f"the photographs have changed since the run was stopped: {text}; the order of the crops "
        "changes"
    )


def test_names_that_are_no_utf_8_are_kept_as_they_are():
    assert line(["\udcff\n.png"], ["\udcff\n.png"]) is None
    assert "1 added: \udcfe.png" in line(["\udcff.png"], ["\udcfe.png", "\udcff.png"])


def test_the_names_of_a_million_photographs_do_not_fill_the_state(monkeypatch):
    monkeypatch.setattr(progress, "MOST_NAME_CHARACTERS", 100)
    assert len(json.dumps(photograph_set(NAMES, 64))) < 200
    assert line(NAMES, list(NAMES)) is None
    assert "584 then, 585 now; the order" in line(NAMES, [*NAMES, "z.png"])
    assert "584 then, 584 now (others); the order" in line(NAMES, [*NAMES[1:], "z.png"])


def test_the_numbers_are_those_of_the_crop_of_then():
    text = "584 of at least 64 pixels on a side then, 585 now (1 added: z.png)"
    assert text in line(NAMES, [*NAMES, "z.png"], crop=128)
