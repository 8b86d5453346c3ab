"""Latents <-> strings: z, then y in coding order.

y is coded in wavefronts: position (row, column) at step column + 3 row, when all twelve that its
context model sees are known; rows ascending inside a step, then live channels. Each step holds the
first symbols of its elements, then the tail symbols of those that have one, then the escapes of
those beyond their windows (`cdf.py`). Channels of y that are zero everywhere are not coded.

Both directions take their mixtures from `_mixtures_in_order`. The encoder, who knows y_hat, asks
for many steps at once, the decoder for one; exact arithmetic makes both equal.
"""

import math

import numpy as np

from gmm_attention.entropy_coding import cdf, range_coder
from gmm_attention.entropy_coding.prediction import ImagePrediction
from gmm_attention.entropy_coding.quantization import LATENT_LIMIT, Z_TOTAL
from gmm_attention.errors import BitstreamError, ImageError

PIECE = 256  # positions that the encoder computes at a time; bounds memory
FIRSTS = 4096  # first symbols whose tables the decoder lists at a time, so that caches hold them
TAILS = 1024  # tail symbols whose tables the decoder makes at a time, of up to 500 entries each


def encode_latents(prediction, z_symbols, y_hat):
    """Codes the latents of one image.

    Args:
      prediction: Prediction.
      z_symbols: [h, w, N] int, floor(z + 1/2 - median).
      y_hat: [4h, 4w, N] int.

    Returns:
      flags: N/8 bytes, one bit for each channel of y, set where it is not zero everywhere.
      z_string, y_string: bytes; y_string is empty if no channel is live.

    Raises:
      ImageError: a magnitude is above 2^15.
    """
    height, width, _ = z_symbols.shape
    if y_hat.shape != (4 * height, 4 * width, prediction.num_filters):
        raise ValueError(f"y_hat has shape {y_hat.shape} for z_symbols of {z_symbols.shape}")
    for name, values in (("z", z_symbols), ("y", y_hat)):
        if values.max() > LATENT_LIMIT or values.min() < -LATENT_LIMIT:
            raise ImageError(f"{name} leaves the range of {LATENT_LIMIT} that can be coded")
    z_symbols, y_hat = (t.astype(np.int32, copy=False) for t in (z_symbols, y_hat))
    live = y_hat.any(axis=(0, 1))
    flags = np.packbits(live).tobytes()
    z_string = range_coder.encode([_z_intervals(prediction, z_symbols)])
    y_string = b""
    if live.any():
        y_string = range_coder.encode(_y_intervals(prediction, z_symbols, y_hat, live))
    return flags, z_string, y_string


def decode_latents(prediction, height, width, flags, z_string, y_string):
    """Decodes what `encode_latents` coded.

    Time and memory are bounded by height and width whatever the strings hold.

    Args:
      prediction: Prediction.
      height, width: z's, h and w.
      flags, z_string, y_string: bytes.

    Returns:
      z_symbols: [h, w, N] int32.
      y_hat: [4h, 4w, N] int32.

    Raises:
      BitstreamError: the strings are not what `encode_latents` makes, as far as that shows.
    """
    if 8 * len(flags) != prediction.num_filters:
        raise BitstreamError(
            f"{len(flags)} bytes of channel flags, the model has {prediction.num_filters} channels"
        )
    live = np.unpackbits(np.frombuffer(flags, np.uint8)).astype(bool)
    with range_coder.decoder(z_string, "z's string") as decoder:
        z_symbols = _decode_z(prediction, height, width, decoder)
    y_hat = np.zeros([4 * height, 4 * width, prediction.num_filters], np.int32)
    if live.any():
        with range_coder.decoder(y_string, "y's string") as decoder:
            y_hat[:, :, live] = _decode_y(prediction, z_symbols, live, decoder)
    elif y_string:
        raise BitstreamError("y's string is not empty although no channel is live")
    return z_symbols, y_hat


def max_positions(prediction, z_string_length):
    """Bounds the number of z's positions, h w, that a z string can hold.

    Args:
      prediction: Prediction.
      z_string_length: bytes.

    Returns:
      int; no string of that length that `encode_latents` makes has more positions.
    """
    likeliest = np.diff(prediction.z_cdfs).max(axis=1)
    bits = range_coder.least_bits(likeliest, Z_TOTAL)
    return math.floor((8 * z_string_length + range_coder.SLACK) / bits)


def _mixtures_in_order(image, stepwise):
    """Yields mixtures in coding order; the one loop of both directions.

    Args:
      image: ImagePrediction. Before resuming, the caller sets image.y_hat at what was yielded.
      stepwise: whether to yield step by step, or some 256 positions of whole steps at a time.

    Yields:
      where: rows, columns: [P] int.
      mixtures: [3, K, P, L] int32, see `ImagePrediction.mixtures`.
    """
    height, width, _ = image.y_hat.shape
    rows, columns = np.divmod(np.arange(height * width), width)
    order = np.argsort(_steps(rows, columns), kind="stable")
    rows, columns = rows[order], columns[order]
    ends = np.flatnonzero(np.diff(_steps(rows, columns))) + 1
    ends = np.concatenate([[0], ends, [height * width]])
    _, firsts = np.unique(ends // PIECE, return_index=True)
    firsts = np.append(firsts, len(ends) - 1)
    for first, last in zip(firsts[:-1], firsts[1:]):
        block = slice(ends[first], ends[last])
        # This does not wait for y_hat, so the decoder too does it in large pieces.
        hyper_part = image.hyper_part(rows[block], columns[block])
        inner = ends[first : last + 1] if stepwise else ends[[first, last]]
        for start, end in zip(inner[:-1], inner[1:]):
            where = rows[start:end], columns[start:end]
            part = hyper_part[start - block.start : end - block.start]
            yield where, image.mixtures(*where, part)


def _steps(rows, columns):
    return columns + 3 * rows


def _y_intervals(prediction, z_symbols, y_hat, live):
    """Yields y's intervals in coding order, [M, 4] int32 each, as `range_coder.encode` wants."""
    image = ImagePrediction(prediction, z_symbols, live, PIECE)
    image.y_hat[...] = y_hat[:, :, live]
    for where, mixtures in _mixtures_in_order(image, stepwise=False):
        model = cdf.counts(mixtures.reshape(*mixtures.shape[:2], -1), prediction.exp_table)
        offsets = image.y_hat[where].astype(np.int32).ravel() - model.middle
        low, high = cdf.first_intervals(model, offsets, prediction.gaussian_table)
        first = _rows(low, high, np.full_like(low, cdf.TOTAL))

        tails = np.flatnonzero(np.abs(offsets) > cdf.CENTRAL)
        low, high, total, excess = cdf.tail_intervals(
            model.take(tails), offsets[tails], prediction.gaussian_table
        )
        beyond = np.flatnonzero(excess > 0)
        escapes, numbers = range_coder.escape_bits(excess[beyond].tolist())
        # A step's first symbols come before its tail symbols, and these before its escapes.
        order = np.repeat(2 * _steps(*where), image.y_hat.shape[2])
        order = np.concatenate([order, order[tails] + 1, order[tails][beyond][numbers] + 1])
        pieces = np.concatenate([first, _rows(low, high, total), escapes])
        yield pieces[np.argsort(order, kind="stable")]


def _decode_y(prediction, z_symbols, live, decoder):
    """Decodes y: [4h, 4w, L] float32."""
    height, width, _ = z_symbols.shape
    widest_step = min(4 * height, -(-4 * width // 3))
    image = ImagePrediction(prediction, z_symbols, live, widest_step)
    for where, mixtures in _mixtures_in_order(image, stepwise=True):
        model = cdf.counts(mixtures.reshape(*mixtures.shape[:2], -1), prediction.exp_table)
        tables = cdf.first_tables(model, prediction.gaussian_table)
        # Through bytes, as np.array takes its time with lists.
        symbols = b"".join(
            bytes(decoder.symbols(tables[start : start + FIRSTS].tolist()))
            for start in range(0, len(tables), FIRSTS)
        )
        symbols = np.frombuffer(symbols, np.uint8)
        decoder.charge(cdf.widths(tables, symbols), cdf.TOTAL)
        offsets = cdf.first_offsets(symbols)

        tails = np.flatnonzero(np.abs(offsets) > cdf.CENTRAL)
        if len(tails):
            offsets[tails] = _decode_tails(prediction, model.take(tails), offsets[tails], decoder)
        values = model.middle + offsets
        if np.abs(values).max() > LATENT_LIMIT:
            raise BitstreamError(f"y's string holds a value beyond {LATENT_LIMIT}")
        image.y_hat[where] = values.reshape(-1, image.y_hat.shape[2])
    return image.y_hat


def _decode_tails(prediction, model, offsets, decoder):
    """Decodes a step's tail symbols and escapes; offsets give the sides. Returns offsets, [E]."""
    sides = np.sign(offsets)
    symbols = []
    for start in range(0, len(sides), TAILS):
        part = slice(start, start + TAILS)
        tables = cdf.tail_tables(model.take(part), sides[part], prediction.gaussian_table)
        symbols += decoder.symbols(tables)
    distances = np.array(symbols) + (cdf.CENTRAL + 1)
    beyond = np.flatnonzero(distances > cdf.extents(model, sides))
    distances[beyond] += np.array(decoder.escapes(len(beyond)), int) - 1
    return sides * distances


def _z_intervals(prediction, z_symbols):
    """Computes z's intervals, [M, 4] int32: all symbols, then the escapes."""
    escape = prediction.z_escapes
    symbols = z_symbols - prediction.z_offsets
    beyond = (symbols < 0) | (symbols >= escape)
    # 1, 3, 5, ... for what lies above the table, 2, 4, 6, ... for what lies below.
    numbers = np.where(symbols < 0, -2 * symbols, 2 * (symbols - escape) + 1)[beyond]
    low, high = _z_edges(prediction, np.where(beyond, escape, symbols))
    escapes, _ = range_coder.escape_bits(numbers.tolist())
    return np.concatenate([_rows(low, high, np.full_like(low, Z_TOTAL)), escapes])


def _decode_z(prediction, height, width, decoder):
    """Decodes z's symbols: [h, w, N] int32."""
    escape = prediction.z_escapes
    cdfs = [row[: end + 2] for row, end in zip(prediction.z_cdfs.tolist(), escape.tolist())]
    symbols = np.array(decoder.symbols(cdfs * (height * width)), np.int32)
    symbols = symbols.reshape(height, width, -1)
    low, high = _z_edges(prediction, symbols)
    decoder.charge(high - low, Z_TOTAL)
    beyond = np.nonzero(symbols == escape)
    numbers = np.array(decoder.escapes(len(beyond[0])), np.int32)
    above = escape[beyond[2]] + numbers // 2
    symbols[beyond] = np.where(numbers % 2, above, -(numbers // 2))
    symbols += prediction.z_offsets
    if np.abs(symbols).max() > LATENT_LIMIT:
        raise BitstreamError(f"z's string holds a value beyond {LATENT_LIMIT}")
    return symbols


def _z_edges(prediction, symbols):
    """Looks up the lower and upper counts of table symbols [h, w, N]: two of [h w N] int32."""
    channels = np.arange(prediction.num_filters)
    cdfs = prediction.z_cdfs
    return cdfs[channels, symbols].ravel(), cdfs[channels, symbols + 1].ravel()


def _rows(low, high, total):
    """Puts intervals into the form that `range_coder.encode` takes."""
    return np.stack([np.zeros_like(low), low, high, total], axis=1)
