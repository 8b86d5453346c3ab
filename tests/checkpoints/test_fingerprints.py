"""The fingerprint covers all that decides what a file decodes to."""

from gmm_attention.checkpoints import files as checkpoints
from gmm_attention.checkpoints import fingerprints


def test_any_weight_that_a_decoder_uses_changes_the_fingerprint(tiny_path, tiny_codec):
    arrays, _ = checkpoints.load(tiny_path)
    for name in arrays:
        changed = arrays[name].copy()
        changed.flat[0] += 1
        same = fingerprints.fingerprint({**arrays, name: changed}) == tiny_codec.fingerprint
        only_encoding = name.startswith(("analysis/", "hyper_analysis/")) or (
            name.startswith("entropy_bottleneck/")
            and not name.endswith(("quantized_cdf", "cdf_length", "offset", "integer_medians"))
        )
        assert same == only_encoding, name
