"""docs/FORMAT.md against the product: the decoder written from it alone gets the same latents.

And the encoder of the range coder that was written from it alone makes the same strings.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import second_decoder
from coded_pairs import checked, pack_latents, unpack_latents
from conftest import ROOT
from integer_model import random_arrays, random_latents

from gmm_attention.checkpoints import fingerprints
from gmm_attention.codec.latent_codec import LatentCodec
from gmm_attention.entropy_coding import range_coder
from gmm_attention.entropy_coding.integer_model import IntegerEntropyModel
from gmm_attention.entropy_coding.quantization import integer_arrays


@pytest.fixture(scope="module")
def tiny(tiny_path):
    return second_decoder.read_model(tiny_path)


def assert_decodes(model, pair, z_symbols, y_hat):
    decoded_z, decoded_y = second_decoder.decode(*pair, model)
    np.testing.assert_array_equal(decoded_z, z_symbols)
    np.testing.assert_array_equal(decoded_y, y_hat)


@pytest.mark.parametrize("kind", ["photograph", "gray", "noise"])
def test_images(kind, tiny_codec, tiny, photograph):
    image = {
        "photograph": photograph[:40, :70],
        "gray": np.full([64, 64, 3], 128, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, [130, 33, 3], np.uint8),
    }[kind]
    npz, y_string, y_hat = tiny_codec.encode(image)
    z_symbols, _ = unpack_latents(tiny_codec, npz, y_string)
    assert_decodes(tiny, (npz, y_string), z_symbols, y_hat)


def outliers(values, seed):
    """Puts numbers of all magnitudes up to 2^15 at random places, the largest ones too."""
    rng = np.random.default_rng(seed)
    large = np.rint(2 ** rng.uniform(0, 15, 12)).astype(np.int32)
    large = np.concatenate([large, [2**15]])
    places = rng.choice(values.size, 2 * len(large), replace=False)
    values.ravel()[places] = np.concatenate([large, -large])


@pytest.mark.parametrize("seed", range(3))
def test_latents_with_outliers(seed, tiny_codec, tiny):
    z, y = random_latents(2, 3, 8, seed)
    outliers(z, seed)
    outliers(y, seed)
    assert_decodes(tiny, pack_latents(tiny_codec, z, y), z, y)


@pytest.mark.parametrize("channels", [[5], [0, 7], []])
def test_few_live_channels(channels, tiny_codec, tiny):
    z, y = random_latents(1, 2, 8)
    y[:, :, [c for c in range(8) if c not in channels]] = 0
    npz, y_string = pack_latents(tiny_codec, z, y)
    assert bool(y_string) == bool(channels)
    assert_decodes(tiny, (npz, y_string), z, y)


# Beside plain ones, weights by which sums reach the clamps, exponents fall below 10, windows are
# cut, and narrow components lie far apart.
@pytest.mark.parametrize(
    "num_mixtures, hyper, context, means, scales",
    [(1, 1, 1, 1, 1), (5, 10**4, 2**14, 1, 1), (2, 1, 1, 300, 300), (3, 1, 1, 5000, 0.01)],
)
def test_other_models(num_mixtures, hyper, context, means, scales):
    floats = random_arrays(16, num_mixtures)
    for layer in ("layer_0", "layer_3", "layer_4"):
        floats[f"hyper_synthesis/{layer}/kernel"] *= hyper
    floats["entropy_parameter/masked/kernel"] *= context
    mixtures = floats["entropy_parameter/layer_2/kernel"].reshape(640, num_mixtures, 3, 16)
    mixtures[:, :, 1] *= means
    mixtures[:, :, 2] *= scales
    arrays = integer_arrays(floats)
    fingerprint = fingerprints.fingerprint(arrays)
    codec = SimpleNamespace(
        latent_codec=LatentCodec(IntegerEntropyModel(arrays), fingerprint, "drawn"),
        fingerprint=fingerprint,
    )
    z, y = random_latents(1, 2, 16)
    outliers(z, 1)
    outliers(y, 0)
    assert_decodes((arrays, num_mixtures), pack_latents(codec, z, y), z, y)


@pytest.mark.parametrize(
    "offset, what",
    [(0, "magic"), (3, "version"), (4, "fingerprint"), (8, "NAME.bin"), (12, "was decoded")],
)
def test_a_wrong_header_is_refused(offset, what, tiny_codec, tiny):
    npz, y_string = pack_latents(tiny_codec, *random_latents(1, 1, 8))
    damaged = bytearray(npz)
    damaged[offset] ^= 1
    with pytest.raises(ValueError, match=what):
        second_decoder.decode(checked(bytes(damaged[:-4])), y_string, tiny)
    damaged[offset] ^= 1
    damaged[-1] ^= 1
    with pytest.raises(ValueError, match="NAME.npz"):
        second_decoder.decode(bytes(damaged), y_string, tiny)


def coded_by_the_document(intervals):
    encoder = second_decoder.RangeEncoder()
    for interval in intervals:
        table = sorted({0, *interval})
        encoder.symbol(table, table.index(interval[0]))
    return encoder.string()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests/data/streams").glob("*.npy")), ids=lambda path: path.stem
)
def test_committed_streams(path):
    assert coded_by_the_document(np.load(path).tolist()) == path.with_suffix(".bin").read_bytes()


@pytest.mark.parametrize("seed", range(20))
def test_strings_of_the_range_coder(seed):
    rng = np.random.default_rng(seed)
    totals = rng.choice([2, 3, 100, 2**16 - 1, 2**16], 300)
    edges = np.sort(rng.integers(0, totals + 1, [2, 300]), axis=0)
    low, high = np.minimum(edges[0], totals - 1), np.maximum(edges[1], edges[0] + 1)
    high = np.minimum(high, totals)
    intervals = np.stack([low, high, totals], axis=1)
    string = range_coder.encode([np.insert(intervals, 0, 0, axis=1)])
    assert coded_by_the_document(intervals.tolist()) == string
    decoder = second_decoder.RangeDecoder(string)
    for interval in intervals.tolist():
        table = sorted({0, *interval})
        assert table[decoder.symbol(table)] == interval[0]
