"""The README's Python example runs as it stands there."""

import re

import numpy as np
from conftest import ROOT


def test_the_python_example_runs_in_a_clone(tmp_path, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"^```python\n(.+?)^```$", readme, re.DOTALL | re.MULTILINE)[1]
    for name in ("models", "valid"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(compile(example, "README.md", "exec"), found)
    # What its comments promise.
    image, decoded = found["image"], found["decoded"]
    assert image.dtype == decoded.dtype == np.uint8 and image.shape == decoded.shape
    assert type(found["data"]) is bytes and len(found["data"]) < image.nbytes / 20
    names = re.search(r"^arrays = .+# (.+)$", example, re.MULTILINE)[1]
    assert {name for name in names.split(", ") if name != "..."} <= set(found["arrays"])
