"""Makes the golden files anew, which is a change of the format.

    python tests/make_golden.py

tests/data/golden/ holds coded files that every later version must decode to the same latents: the
proof that nothing changed, and that another machine agrees. Where their test fails, the code is
wrong, not they. Only a new format version, which older programs refuse, renews them; and then the
old ones stay, if the new program is to decode both.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import imageio.v3 as iio  # noqa: E402
import numpy as np  # noqa: E402
from coded_pairs import digest, pack_latents, string_digests, unpack_latents  # noqa: E402

import gmm_attention as ga  # noqa: E402
from gmm_attention.images import write_png  # noqa: E402

GOLDEN = ROOT / "tests" / "data" / "golden"
TINY = ROOT / "tests" / "data" / "tiny"


def main():
    codec = ga.load(TINY)
    rng = np.random.default_rng(0)
    images = {
        "photograph": iio.imread(ROOT / "valid" / "chelsea_61x47.png"),
        "flat": np.full([30, 100, 3], [90, 160, 200], np.uint8),
        "noise": rng.integers(0, 256, [70, 50, 3], np.uint8),
    }
    images["gray"] = np.repeat(images["photograph"][..., 1:2], 3, axis=2)
    pairs = {name: codec.encode(image)[:2] for name, image in images.items()}

    # What images seldom have: tail symbols, escapes, dead channels. No picture to compare, for
    # floats of such latents differ visibly between machines.
    z_symbols = np.rint(rng.laplace(0, 5, [2, 3, 8])).astype(int)
    y_hat = np.rint(rng.laplace(0, 20, [8, 12, 8])).astype(int)
    y_hat[rng.random(y_hat.shape) < 0.3] *= 100
    y_hat[..., [2, 5]] = 0
    y_hat[0, 0, 0], y_hat[7, 11, 7], z_symbols[0, 0, 0] = 2**15, -(2**15), -(2**15)
    pairs["extremes"] = pack_latents(codec, z_symbols, y_hat)

    GOLDEN.mkdir(exist_ok=True)
    digests = {"fingerprint": codec.fingerprint.hex()}
    for name, (npz, y_string) in pairs.items():
        (GOLDEN / f"{name}.npz").write_bytes(npz)
        (GOLDEN / f"{name}.bin").write_bytes(y_string)
        digests[name] = {
            "latents": digest(*unpack_latents(codec, npz, y_string)),
            **string_digests(npz, y_string),
        }
        if name in images:
            write_png(GOLDEN / f"{name}.png", codec.decode(npz, y_string))
    (GOLDEN / "digests.json").write_text(json.dumps(digests, indent=2) + "\n")


if __name__ == "__main__":
    main()
