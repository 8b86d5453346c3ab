"""The context model is causal."""

import numpy as np
import pytest

from gmm_attention.model.entropy_parameters import EntropyParameters


@pytest.mark.parametrize("position", [(0, 0), (2, 3), (4, 7), (5, 0)])
def test_the_context_model_sees_only_what_is_decoded(position):
    entropy_parameters = EntropyParameters(8, 3)
    rng = np.random.default_rng(0)
    y_hat = rng.normal(size=[1, 6, 8, 8]).astype(np.float32)
    phi = rng.normal(size=[1, 6, 8, 16]).astype(np.float32)
    before = [t.numpy() for t in entropy_parameters([y_hat, phi])]
    y_hat[(0, *position)] += 5
    after = [t.numpy() for t in entropy_parameters([y_hat, phi])]
    raster = position[0] * 8 + position[1] + 1
    for a, b in zip(before, after):
        a, b = a.reshape(48, -1), b.reshape(48, -1)
        np.testing.assert_array_equal(a[:raster], b[:raster])
        assert not np.array_equal(a[raster:], b[raster:])
