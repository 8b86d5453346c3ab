"""Memory of ONNX Runtime: want of it is told, and what one image took is given back."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import gmm_attention as ga

MANY_SIZES = """
import sys, numpy as np, gmm_attention as ga
codec = ga.load(sys.argv[1], runtime="onnx")

def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

def through(height, width):
    codec.reconstruct(codec.analyse(np.zeros([height, width, 3], np.uint8))[1], height, width)

through(1100, 1100)
first = megabytes()
for i in range(40):
    through(600 + 11 * i, 1050 - 10 * i)
print(first, megabytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_folder_of_many_sizes_takes_the_memory_of_the_largest(tiny_path):
    command = [sys.executable, "-c", MANY_SIZES, tiny_path]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    first, last = map(float, finished.stdout.split())
    assert last < first + 30, finished.stdout + finished.stderr


def test_want_of_memory_is_told(tiny_path, photograph, monkeypatch):
    codec = ga.load(tiny_path, runtime="onnx")
    session = codec.runtime._session

    class Hungry:
        def __init__(self, *arguments):
            self._session = session(*arguments)

        def run(self, *_):
            raise RuntimeError("Failed to allocate memory for requested buffer of size 1")

    monkeypatch.setattr(codec.runtime, "_session", Hungry)
    with pytest.raises(ga.ImageError, match="not enough memory for an image of 200x160 pixels; "):
        codec.compress(photograph)
    with pytest.raises(ga.ImageError, match="not enough memory for an image of 64x64 pixels; "):
        codec.reconstruct(np.zeros([4, 4, 8], np.int32), 64, 64)
