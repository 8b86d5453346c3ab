"""Encoding and decoding against the transforms alone: N = 128, one photograph, all channels live.

    python benchmarks/speed.py IMAGE [--runs 7]

The weights are random, with y scaled to a standard deviation of 1.5, for speed does not depend on
what they were trained for. Prints medians in seconds, and the ratios: everything but the transform
over the transform, each the median of ratios within one run.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from gmm_attention import export, images  # noqa: E402
from gmm_attention.codec.image_codec import ImageCodec  # noqa: E402
from gmm_attention.model import variables  # noqa: E402

NUM_FILTERS = 128


def build_codec(x):
    tf.keras.utils.set_random_seed(0)
    model = variables.build_model(NUM_FILTERS, 3, attention=True, rdft=False)
    named = variables.by_name(model)
    last = named["analysis/Block_3/layer_2/kernel"]
    for name, variable in named.items():  # at its initial size GDN's inverse grows without bound
        if name.startswith("synthesis/") and name.endswith("/kernel"):
            variable.assign(0.5 * variable)
    without_attention = model.analysis.blocks[2](
        model.analysis.attention[0](model.analysis.blocks[1](model.analysis.blocks[0](x)))
    )
    deviation = tf.math.reduce_std(model.analysis.blocks[3](without_attention), axis=[0, 1, 2])
    last.assign(last / deviation)
    last.assign(last * 1.5 / tf.math.reduce_std(model.analysis(x)))
    tables = model.entropy_bottleneck.range_coder_tables()
    return ImageCodec(model, export.export_arrays(model, tables), {}, "random weights")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    image = images.read_image(args.image)
    x = tf.constant(images.pad(image)[None] / np.float32(255))
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
