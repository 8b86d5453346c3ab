"""Times encoding and decoding against the transforms alone: N = 128, one image, all channels live.

    python benchmarks/speed.py IMAGE [--runs 7] [--runtimes onnx tensorflow]

The weights are random, with y scaled to a standard deviation of 1.5, since speed does not depend on
what they were trained for. The runtimes take turns. For each it prints median times in seconds, for
either direction the ratio of everything but the transform to the transform, and then how many times
as fast the first runtime is as the others; all ratios are medians of those within one turn.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

# Before TensorFlow, which reads what this package sets in the environment.
from gmm_attention import images, padding, strips

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from gmm_attention.checkpoints import integers, loading  # noqa: E402
from gmm_attention.codec import image_codec  # noqa: E402
from gmm_attention.codec.image_codec import ImageCodec  # noqa: E402
from gmm_attention.model import variables  # noqa: E402

NUM_FILTERS = 128


def random_model(image: np.ndarray) -> loading.LoadedModel:
    """Makes an exported model of random weights that gives y a standard deviation of 1.5.

    Args:
      image: uint8 [H, W, 3], for which it does.
    """
    x = tf.constant(padding.pad(image)[None] / np.float32(255))
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
    settings = {**model.get_config(), "exported": True}
    return loading.LoadedModel(exported, settings, "random weights")


def calls(codec: ImageCodec, image: np.ndarray) -> dict[str, Callable[[], Any]]:
    """What is timed, by name; g_a and g_s are the transforms of the whole image."""
    npz, y_string, y_hat = codec.encode(image)
    x, y = padding.pad(image)[None] / np.float32(255), y_hat[None].astype(np.float32)

    def rows(tensor: np.ndarray) -> Callable[[int, int, int], np.ndarray]:
        return lambda axis, first, last: tensor[strips.along(axis + 1, first, last)]

    return {
        "g_a": lambda: codec._analysis.whole(rows(x), x.shape[1:3]),
        "encode": lambda: codec.encode(image),
        "g_s": lambda: codec._synthesis.whole(rows(y), y.shape[1:3]),
        "decode": lambda: codec.decode(npz, y_string),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--runtimes", nargs="+", default=["onnx", "tensorflow"])
    args = parser.parse_args()
    image = images.read_image(args.image)
    model = random_model(image)
    timed = {}
    for name in args.runtimes:
        codec = image_codec.assemble(model, name, "float32", "cpu", None)
        _, y_string, y_hat = codec.encode(image)
        live = int(np.any(y_hat, axis=(0, 1)).sum())
        print(
            f"{codec.runtime.title}: {image.shape[1]}x{image.shape[0]}, {live} channels live, "
            f"largest |y_hat| {np.abs(y_hat).max()}, {8 * len(y_string) / y_hat.size:.2f} bits a "
            "symbol"
        )
        timed[name] = calls(codec, image)
    for of_runtime in timed.values():
        for call in of_runtime.values():
            call()
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(args.runs):
        for name in next(iter(timed.values())):
            for runtime, of_runtime in timed.items():
                begin = time.perf_counter()
                of_runtime[name]()
                seconds.setdefault((runtime, name), []).append(time.perf_counter() - begin)
    array = {key: np.array(values) for key, values in seconds.items()}
    for (runtime, name), values in array.items():
        print(f"{runtime}: {name}: {np.median(values):.3f} s")
    for runtime in timed:
        for whole, transform in [("encode", "g_a"), ("decode", "g_s")]:
            ratio = np.median(array[runtime, whole] / array[runtime, transform] - 1)
            print(f"{runtime}: {whole} without {transform} / {transform}: {ratio:.3f}")
    first, *others = timed
    for other in others:
        for name in timed[first]:
            ratio = np.median(array[other, name] / array[first, name])
            print(f"{name}: {first} is {ratio:.2f} times as fast as {other}")


if __name__ == "__main__":
    main()
