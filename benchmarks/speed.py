"""Times encoding and decoding against the transforms alone: N = 128, one image, all channels live.

    python benchmarks/speed.py IMAGE [--runs 7]

The weights are random, with y scaled to a standard deviation of 1.5, since speed does not depend on
what they were trained for. It prints median times in seconds, and for either direction the ratio of
everything but the transform to the transform, the median of the ratios within one run.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from gmm_attention import images, padding  # noqa: E402
from gmm_attention.checkpoints import integers, loading  # noqa: E402
from gmm_attention.codec.image_codec import ImageCodec  # noqa: E402
from gmm_attention.model import variables  # noqa: E402

NUM_FILTERS = 128


def build_codec(x: tf.Tensor) -> ImageCodec:
    """Makes a codec of random weights that gives y a standard deviation of 1.5 for the image x."""
    tf.keras.utils.set_random_seed(0)
    model = variables.build_model(NUM_FILTERS, 3, attention=True, rdft=False)
    named = variables.by_name(model)
    last = named["analysis/Block_3/layer_2/kernel"]
    for name, variable in named.items():
        # With kernels of their initial size, the values would grow without bound in inverse GDN.
        if name.startswith("synthesis/") and name.endswith("/kernel"):
            variable.assign(0.5 * variable)
    without_attention = model.analysis.blocks[2](
        model.analysis.attention[0](model.analysis.blocks[1](model.analysis.blocks[0](x)))
    )
    deviation = tf.math.reduce_std(model.analysis.blocks[3](without_attention), axis=[0, 1, 2])
    last.assign(last / deviation)
    last.assign(last * 1.5 / tf.math.reduce_std(model.analysis(x)))
    exported = integers.export_arrays(variables.arrays(model), model.entropy_bottleneck)
    return ImageCodec(loading.LoadedModel(model, exported, {}, "random weights"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    image = images.read_image(args.image)
    x = tf.constant(padding.pad(image)[None] / np.float32(255))
    codec = build_codec(x)
    analysis = tf.function(codec.model.analysis.call, autograph=False)
    synthesis = tf.function(codec.model.synthesis.call, autograph=False)
    npz, y_string, y_hat = codec.encode(image)
    y = tf.constant(y_hat[None], tf.float32)
    live = int(np.any(y_hat, axis=(0, 1)).sum())
    print(
        f"{image.shape[1]}x{image.shape[0]}, {live} channels live, largest |y_hat| "
        f"{np.abs(y_hat).max()}, {8 * len(y_string) / y_hat.size:.2f} bits a symbol"
    )
    calls = {
        "g_a": lambda: analysis(x).numpy(),
        "encode": lambda: codec.encode(image),
        "g_s": lambda: synthesis(y).numpy(),
        "decode": lambda: codec.decode(npz, y_string),
    }
    for call in calls.values():
        call()
    rows = []
    for _ in range(args.runs):
        row = {}
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            row[name] = time.perf_counter() - begin
        rows.append(row)
    for name in calls:
        print(f"{name}: {np.median([row[name] for row in rows]):.3f} s")
    for whole, transform in [("encode", "g_a"), ("decode", "g_s")]:
        ratio = np.median([row[whole] / row[transform] - 1 for row in rows])
        print(f"{whole} without {transform} / {transform}: {ratio:.3f}")


if __name__ == "__main__":
    main()
