"""A second decoder, from files to rounded latents, written from docs/FORMAT.md and nothing else.

And a second encoder, of the range coder alone.

It shares no code with the product and prefers clarity to speed. It computes with integers only:
Python's, or int64 where the bounds that docs/EXACTNESS.md gives keep sums of products below 2^50.
"""

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np

T = 2**16


def read_model(path):
    """The exported model in the folder `path`, as a dict of arrays, and its K."""
    with np.load(Path(path) / "weights.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, json.loads((Path(path) / "settings.json").read_text())["num_mixtures"]


def decode(npz, y_string, model):
    """z's symbols [h, w, N] and y_hat [4h, 4w, N] of an image's two files."""
    arrays, num_mixtures = model
    channels = len(arrays["entropy_bottleneck/cdf_length"])
    check(npz[:3] == b"GMM", "magic number")
    check(zlib.crc32(npz[:-4]) == int.from_bytes(npz[-4:], "little"), "CRC-32 of NAME.npz")
    check(npz[3] in (1, 2), "version")
    check(npz[4:8] == fingerprint(arrays), "fingerprint")
    check(zlib.crc32(y_string) == int.from_bytes(npz[8:12], "little"), "CRC-32 of NAME.bin")
    height, start = leb128(npz, 14)
    width, start = leb128(npz, start)
    h, w = -(-height // 64), -(-width // 64)
    check(0 < height < 2**32 and 0 < width < 2**32 and 4096 * h * w <= 2**28, "sides")
    end = start + channels // 8
    live = [c for c in range(channels) if npz[start + c // 8] >> (7 - c % 8) & 1]
    check(live or not y_string, "NAME.bin without a live channel")

    z = decode_z(npz[end:-4], h, w, arrays)
    y_hat = decode_y(y_string, hyper_synthesis(z, arrays), live, arrays, num_mixtures)
    decoded = zlib.crc32(z.astype("<i4").tobytes() + y_hat.astype("<i4").tobytes())
    check(decoded % 2**16 == int.from_bytes(npz[12:14], "little"), "what was decoded")
    return z, y_hat


def check(condition, what):
    if not condition:
        raise ValueError(f"wrong: {what}")


def leb128(data, start):
    """The number at `start` and where it ends."""
    number = 0
    for n in range(5):
        number += (data[start + n] & 127) << 7 * n
        if data[start + n] < 128:
            return number, start + n + 1
    raise ValueError("wrong: LEB128")


def fingerprint(arrays):
    folders = ("synthesis/", "hyper_synthesis/", "entropy_parameter/", "tables/")
    bottleneck = ("quantized_cdf", "cdf_length", "offset", "integer_medians")
    digest = hashlib.sha256()
    for name in sorted(arrays):
        if name.startswith(folders) or name in [f"entropy_bottleneck/{n}" for n in bottleneck]:
            digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
            digest.update(arrays[name].tobytes())
    return digest.digest()[:4]


class RangeDecoder:
    def __init__(self, string):
        self.bytes = iter(string)
        self.range = 2**32 - 1
        self.code = 0
        for _ in range(4):
            self.code = 256 * self.code + next(self.bytes, 255)

    def symbol(self, table):
        r = self.range // table[-1]
        v = min(self.code // r, table[-1] - 1)
        s = next(s for s in range(len(table) - 1) if table[s] <= v < table[s + 1])
        self.code -= r * table[s]
        last = s == len(table) - 2
        self.range = self.range - r * table[s] if last else r * (table[s + 1] - table[s])
        while self.range < 2**24:
            self.range *= 256
            self.code = (256 * self.code + next(self.bytes, 255)) % 2**32
        return s

    def escape(self):
        zeros = 0
        while self.symbol([0, 1, 2]) == 0:
            zeros += 1
            check(zeros <= 17, "escape")
        m = 1
        for _ in range(zeros):
            m = 2 * m + self.symbol([0, 1, 2])
        return m


class RangeEncoder:
    def __init__(self):
        self.range = 2**32 - 1
        self.low = 0
        self.put_out = 0

    def symbol(self, table, s):
        r = self.range // table[-1]
        self.low += r * table[s]
        last = s == len(table) - 2
        self.range = self.range - r * table[s] if last else r * (table[s + 1] - table[s])
        while self.range < 2**24:
            self.range *= 256
            self.low *= 256
            self.put_out += 1

    def string(self):
        register = self.low % 2**32
        upper = (register + self.range) % 2**32
        pairs = zip(register.to_bytes(4, "big"), upper.to_bytes(4, "big"))
        ending = next(n for n, (a, b) in enumerate(pairs, 1) if a != b)
        return self.low.to_bytes(self.put_out + 4, "big")[: self.put_out + ending]


def decode_z(string, h, w, arrays):
    length, offset = (arrays[f"entropy_bottleneck/{n}"].tolist() for n in ("cdf_length", "offset"))
    rows = arrays["entropy_bottleneck/quantized_cdf"].tolist()
    tables = [row[:n] for row, n in zip(rows, length)]
    decoder = RangeDecoder(string)
    z = np.zeros([h, w, len(tables)], np.int64)
    for i, j, c in np.ndindex(z.shape):
        z[i, j, c] = decoder.symbol(tables[c])
    for i, j, c in np.ndindex(z.shape):
        e = length[c] - 2
        if z[i, j, c] == e:
            m = decoder.escape()
            z[i, j, c] = e + m // 2 if m % 2 else -m // 2
    z += offset
    check((abs(z) <= 2**15).all(), "magnitude of z")
    return z


def rint_shifted(x, shift):
    """rint(x / 2^shift) of int64 arrays, halves to even; the shift may be negative."""
    x, shift = x << np.maximum(-shift, 0), np.maximum(shift, 0)
    floor = x >> shift
    twice_rest, one = 2 * (x - (floor << shift)), 1 << shift
    return floor + ((twice_rest > one) | (twice_rest == one) & (floor % 2 == 1))


def finish(sums, layer, arrays, f=10, to=10, leaky=True, bound=2**22):
    """From sums of products, with inputs in units of 2^-f, to outputs in units of 2^-to."""
    sums = sums + arrays.get(f"{layer}/bias", 0)
    t = rint_shifted(sums, arrays[f"{layer}/exponent"].astype(np.int64) + f - to)
    if leaky:
        t = np.maximum(t, rint_shifted(3277 * t, 14))
    return np.clip(t, -bound, bound)


def hyper_synthesis(z, arrays):
    medians = arrays["entropy_bottleneck/integer_medians"]
    x = np.clip(1024 * z + medians, -(2**22), 2**22)
    for n in range(5):
        layer, stride = f"hyper_synthesis/layer_{n}", 2 if n in (1, 3) else 1
        kernel = arrays[f"{layer}/kernel"].astype(np.int64)
        h, w = stride * x.shape[0], stride * x.shape[1]
        out = np.zeros([h + 2, w + 2, kernel.shape[3]], np.int64)
        for u, v in np.ndindex(3, 3):
            out[u : u + h : stride, v : v + w : stride] += x @ kernel[u, v]
        x = finish(out[1 : h + 1, 1 : w + 1], layer, arrays, leaky=n < 4)
    return x


def mixture(context, phi, arrays, num_mixtures):
    """Logits, means, scales, each [K, N], given the 5 x 5 latents around a position and phi."""
    kernels = {
        layer: arrays[f"entropy_parameter/{layer}/kernel"].astype(np.int64)
        for layer in ("masked", "layer_0", "layer_1", "layer_2")
    }
    taps = [(u, v) for u in range(3) for v in range(5) if u < 2 or v < 2]
    x = sum(context[u, v] @ kernels["masked"][u, v] for u, v in taps)
    x = finish(x, "entropy_parameter/masked", arrays, f=0, leaky=False)
    x = np.concatenate([x, phi])
    x = finish(x @ kernels["layer_0"][0, 0], "entropy_parameter/layer_0", arrays)
    x = finish(x @ kernels["layer_1"][0, 0], "entropy_parameter/layer_1", arrays)
    x = x @ kernels["layer_2"][0, 0]
    # The logits' units are 2^-8.
    to = np.repeat(np.tile([8, 10, 10], num_mixtures), context.shape[2])
    x = finish(x, "entropy_parameter/layer_2", arrays, to=to, leaky=False, bound=2**25)
    return x.reshape(num_mixtures, 3, -1).swapaxes(0, 1)


class Element:
    """What the tables of an element are made of; Python's integers."""

    def __init__(self, logits, means, scales, exp, phi):
        e = [exp[min(max(logits) - logit, len(exp) - 1)] for logit in logits]
        s = [min(max(abs(scale), 32), 2**21) for scale in scales]
        self.middle = (means[logits.index(max(logits))] + 512) // 1024
        low = min(m - 9 * s_k // 2 for m, s_k, e_k in zip(means, s, e) if e_k > 0)
        high = max(m + 9 * s_k // 2 for m, s_k, e_k in zip(means, s, e) if e_k > 0)
        self.below = min(max(self.middle - (low + 512) // 1024, 3), 500)
        self.above = min(max((high + 512) // 1024 - self.middle, 3), 500)
        shared = T - 3 - self.below - self.above
        partial = [sum(e[:k]) * shared // sum(e) for k in range(len(e) + 1)]
        self.w = [end - start for start, end in zip(partial, partial[1:])]
        self.a = [2**25 // s_k for s_k in s]
        from_mean = [1024 * self.middle - 512 - m for m in means]
        self.b = [x * a // 1024 + 1153 * 128 for x, a in zip(from_mean, self.a)]
        self.phi = phi

    def c(self, t):
        """How many of T counts lie below the integer middle + t."""
        total = 0
        for w, a, b in zip(self.w, self.a, self.b):
            total += w * self.phi[min(max((a * t + b) // 128, 0), len(self.phi) - 1)]
        return t + self.below + 1 + total // 2**15

    def first(self, decoder):
        """The value's distance from the middle; 4 says 'above', -4 'below'."""
        s = self.c(1)
        right = [self.c(t) - s for t in (2, 3, 4)]
        left = [T - s + self.c(t) for t in (-3, -2, -1, 0)]
        return [1, 2, 3, 4, -4, -3, -2, -1, 0][decoder.symbol([0, *right, T - s, *left, T])]

    def tail(self, first, decoder):
        """That distance, after `first` said 4 or -4; one further than the window says 'beyond'."""
        if first == 4:
            edges = [self.c(4 + i) - self.c(4) for i in range(self.above - 2)]
            return 4 + decoder.symbol([*edges, T - self.c(4)])
        edges = [self.c(-3) - self.c(-3 - i) for i in range(self.below - 2)]
        return -4 - decoder.symbol([*edges, self.c(-3)])

    def is_beyond(self, distance):
        return not -self.below <= distance <= self.above

    def beyond(self, tail, decoder):
        m = decoder.escape()
        return self.above + m if tail > 0 else -self.below - m


def decode_y(string, phi, live, arrays, num_mixtures):
    exp, gaussian = arrays["tables/exp"].tolist(), arrays["tables/phi"].tolist()
    height, width, channels = phi.shape[0], phi.shape[1], phi.shape[2] // 2
    # y_hat[i, j] is padded[i + 2, j + 2].
    padded = np.zeros([height + 4, width + 4, channels], np.int64)
    decoder = RangeDecoder(string)
    for step in range(width + 3 * (height - 1)):
        elements = {}
        for i, j in [(i, step - 3 * i) for i in range(height) if 0 <= step - 3 * i < width]:
            parameters = mixture(padded[i : i + 5, j : j + 5], phi[i, j], arrays, num_mixtures)
            for c in live:
                elements[i, j, c] = Element(*parameters[:, :, c].tolist(), exp, gaussian)
        distance = {key: element.first(decoder) for key, element in elements.items()}
        for key in [key for key in elements if abs(distance[key]) == 4]:
            distance[key] = elements[key].tail(distance[key], decoder)
        for key in [key for key in elements if elements[key].is_beyond(distance[key])]:
            distance[key] = elements[key].beyond(distance[key], decoder)
        for (i, j, c), element in elements.items():
            value = element.middle + distance[i, j, c]
            check(abs(value) <= 2**15, "magnitude of y")
            padded[i + 2, j + 2, c] = value
    return padded[2:-2, 2:-2]
