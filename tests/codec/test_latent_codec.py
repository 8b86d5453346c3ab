"""The integer path computes on one BLAS thread, and leaves as many as it found."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from integer_model import random_arrays, random_latents
from threadpoolctl import threadpool_info, threadpool_limits

from gmm_attention.codec.latent_codec import LatentCodec
from gmm_attention.entropy_coding.integer_model import IntegerEntropyModel
from gmm_attention.entropy_coding.quantization import integer_arrays
from gmm_attention.errors import BitstreamError


def blas_threads():
    return [blas["num_threads"] for blas in threadpool_info() if blas["user_api"] == "blas"]


def check_the_number_of_threads():
    """Codes in several threads at once; run in a process of its own."""
    # In a thread that ends, because threadpoolctl lets no other one set the number before.
    setter = threading.Thread(target=threadpool_limits, kwargs={"limits": 3, "user_api": "blas"})
    setter.start()
    setter.join()
    found = blas_threads()
    assert set(found) == {3}
    codec = LatentCodec(IntegerEntropyModel(integer_arrays(random_arrays(8))), b"1234", "drawn")
    inside = []
    phi = IntegerEntropyModel.phi

    def observed(*args):
        inside.append(blas_threads())
        return phi(*args)

    IntegerEntropyModel.phi = observed
    start = threading.Barrier(4)

    def code(seed):
        z, y = random_latents(2, 3, 8, seed)
        start.wait()
        for _ in range(5):
            height, width, decoded, _ = codec.decode(*codec.encode(100, 150, z, y))
            assert (height, width) == (100, 150) and (decoded == y).all()
        with pytest.raises(BitstreamError):
            codec.decode(b"", b"")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(code, range(4)))
    assert inside == [[1] * len(found)] * 40
    assert blas_threads() == found


def test_one_blas_thread_while_coding_and_the_former_number_after():
    if not blas_threads():
        pytest.skip("threadpoolctl knows no BLAS of this numpy")
    result = subprocess.run(
        [sys.executable, "-c", "import test_latent_codec as t; t.check_the_number_of_threads()"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert result.returncode == 0, result.stderr
