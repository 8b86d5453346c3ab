"""What all programs share on the command line."""

import re
import sys

from gmm_attention import cli


def test_the_bar_shows_while_there_is_work(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    def jobs():
        for number in range(2):  # the work of a job is done before the job is there
            assert re.search(rf" {number}/2(, \d+ s left)?$", capsys.readouterr().err)
            yield number

    assert cli.process_all(jobs(), lambda job: ("text", job), False, 2) == [0, 1]
    assert capsys.readouterr().err.endswith("\r\033[K")
