"""Random weights and latents of the entropy model, the same with every numpy and on every machine.

Only integer operations, sums, products and square roots of floats: all correctly rounded.
"""

import numpy as np


def random_arrays(num_filters, num_mixtures=3, seed=0):
    """Draws an entropy model whose mixtures resemble a codec's.

    Returns:
      Dict of float64 arrays (and z's int32 tables) as `quantization.integer_arrays` wants it. With
      `random_latents`, scales are around 1 and means around 0, differing by position.
    """
    n = num_filters
    arrays = {}

    def layer(name, shape, gain, bias=True):
        deviation = gain / np.sqrt(float(shape[0] * shape[1] * shape[2]))
        stream = 2 * (64 * seed + len(arrays))
        # Uniform numbers of deviation 1 lie within +-sqrt(3).
        arrays[f"{name}/kernel"] = deviation * np.sqrt(3.0) * uniform(shape, stream)
        if bias:
            arrays[f"{name}/bias"] = 0.2 * uniform(shape[3:], stream + 1)

    widths = [n, n, n, n * 3 // 2, n * 3 // 2, 2 * n]
    for i in range(5):
        # With strides_up each output sees only a quarter of the taps.
        gain = 2.4 if i in (1, 3) else 1.2
        layer(f"hyper_synthesis/layer_{i}", (3, 3, widths[i], widths[i + 1]), gain)
    layer("entropy_parameter/masked", (5, 5, n, 2 * n), 1.4)
    layer("entropy_parameter/layer_0", (1, 1, 4 * n, 640), 1.4)
    layer("entropy_parameter/layer_1", (1, 1, 640, 640), 1.4)
    layer("entropy_parameter/layer_2", (1, 1, 640, 3 * num_mixtures * n), 1, bias=False)
    last = arrays["entropy_parameter/layer_2/kernel"].reshape(640, num_mixtures, 3, n)
    last[:, :, 1] *= 0.5  # means
    last[:, :, 2] *= 0.9  # scales

    lengths = (12 + 8 * uniform([n], 64 * seed + 50)).astype(np.int32)
    cdfs = np.zeros([n, 24], np.int32)
    for channel, length in enumerate(lengths):
        counts = 1000 / (1.001 + uniform([length - 1], 1000 + 64 * seed + channel))
        counts[-1] = 1  # escapes are rare
        ends = np.concatenate([[0], np.cumsum(counts.astype(np.int64))])
        cdfs[channel, :length] = np.arange(length) + ends * (65537 - length) // ends[-1]
    arrays["entropy_bottleneck/quantized_cdf"] = cdfs
    arrays["entropy_bottleneck/cdf_length"] = lengths
    arrays["entropy_bottleneck/offset"] = -(lengths // 2)
    arrays["entropy_bottleneck/medians"] = 0.5 * uniform([n], 64 * seed + 51)
    return arrays


def random_latents(height, width, num_filters, seed=0):
    """Draws z's symbols [h, w, N] and y_hat [4h, 4w, N], int32, mostly small."""
    z = np.rint(3 * _peaked([height, width, num_filters], 2 * seed))
    y = np.rint(8 * _peaked([4 * height, 4 * width, num_filters], 2 * seed + 1))
    return z.astype(np.int32), y.astype(np.int32)


def uniform(shape, stream):
    """Draws numbers in [-1, 1), float64: splitmix64 of a counter."""
    x = np.arange(np.prod(shape, dtype=int), dtype=np.uint64)
    x = (x + np.uint64(stream << 32)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return ((x >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1).reshape(shape)


def _peaked(shape, stream):
    factors = [uniform(shape, 10**6 + 4 * stream + i) for i in range(3)]
    return factors[0] * factors[1] * factors[2]
