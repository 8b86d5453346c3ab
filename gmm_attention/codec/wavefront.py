"""Latents to strings and back: z, then y in coding order.

y is coded in wavefronts. Position (row, column) belongs to step column + 3 row, at which all twelve
positions that its context model sees are known. Within a step the elements are ordered by row, then
by channel. Each step holds the first symbols of its elements, then the tail symbols of those that
have one, then the escapes of those beyond their windows (`cdf.py`). A channel of y is live if it is
not zero everywhere; the others are not coded.

Both directions take their mixtures from `_mixtures_in_order`. The encoder, which knows y_hat, asks
for many steps at once, the decoder for one; in exact arithmetic the mixtures are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gmm_attention.entropy_coding import cdf, range_coder
from gmm_attention.entropy_coding.integer_model import ImageContext, IntegerEntropyModel
from gmm_attention.entropy_coding.quantization import LATENT_LIMIT, Z_TOTAL
from gmm_attention.errors import BitstreamError, ImageError

PIECE = 256  # positions that the encoder computes at a time; bounds memory
FIRSTS = 4096  # first symbols whose tables the decoder lists at a time, so that caches hold them
TAILS = 1024  # tail symbols whose tables, of up to 500 entries, the decoder makes at a time

# The rows and the columns of some positions.
_Positions = tuple[np.ndarray, np.ndarray]


def encode_latents(
    model: IntegerEntropyModel, z_symbols: np.ndarray, y_hat: np.ndarray
) -> tuple[bytes, bytes, bytes]:
    """Codes the latents of one image.

    Args:
      model: the entropy model.
      z_symbols: [h, w, N] int, floor(z + 1/2 - median).
      y_hat: [4h, 4w, N] int.

    Returns:
      flags: N/8 bytes, one bit for each channel of y, set where it is live.
      z_string, y_string: bytes; y_string is empty if no channel is live.

    Raises:
      ImageError: a magnitude is above 2^15.
      ValueError: the shapes of z_symbols, y_hat and the model do not agree.
    """
    height, width, _ = z_symbols.shape
    if y_hat.shape != (4 * height, 4 * width, model.num_filters):
        raise ValueError(f"y_hat has shape {y_hat.shape} for z_symbols of {z_symbols.shape}")
    for name, values in (("z", z_symbols), ("y", y_hat)):
        if values.max() > LATENT_LIMIT or values.min() < -LATENT_LIMIT:
            raise ImageError(f"{name} leaves the range of {LATENT_LIMIT} that can be coded")
    z_symbols, y_hat = (t.astype(np.int32, copy=False) for t in (z_symbols, y_hat))
    live = y_hat.any(axis=(0, 1))
    flags = np.packbits(live).tobytes()
    z_string = range_coder.encode([_z_intervals(model, z_symbols)])
    y_string = b""
    if live.any():
        y_string = range_coder.encode(_y_intervals(model, z_symbols, y_hat, live))
    return flags, z_string, y_string


def decode_latents(
    model: IntegerEntropyModel,
    height: int,
    width: int,
    flags: bytes,
    z_string: bytes,
    y_string: bytes,
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes what `encode_latents` coded.

    Time and memory are bounded by height and width whatever the strings hold.

    Args:
      model: the entropy model.
      height, width: h and w, the sides of z.
      flags, z_string, y_string: bytes.

    Returns:
      z_symbols: [h, w, N] int32.
      y_hat: [4h, 4w, N] int32.

    Raises:
      BitstreamError: the strings are not what `encode_latents` returns. Not all damage shows.
    """
    if 8 * len(flags) != model.num_filters:
        raise BitstreamError(
            f"{len(flags)} bytes of channel flags, the model has {model.num_filters} channels"
        )
    live = np.unpackbits(np.frombuffer(flags, np.uint8)).astype(bool)
    with range_coder.decoder(z_string, "z's string") as decoder:
        z_symbols = _decode_z(model, height, width, decoder)
    y_hat = np.zeros([4 * height, 4 * width, model.num_filters], np.int32)
    if live.any():
        with range_coder.decoder(y_string, "y's string") as decoder:
            y_hat[:, :, live] = _decode_y(model, z_symbols, live, decoder)
    elif y_string:
        raise BitstreamError("y's string is not empty although no channel is live")
    return z_symbols, y_hat


def max_positions(model: IntegerEntropyModel, z_string_length: int) -> int:
    """Bounds the number of z's positions, h w, that a z string can hold.

    Args:
      model: the entropy model.
      z_string_length: length of the string in bytes.

    Returns:
      A number that h w does not exceed in any string of this length from `encode_latents`.
    """
    likeliest = np.diff(model.z_cdfs).max(axis=1)
    bits = range_coder.least_bits(likeliest, Z_TOTAL)
    return math.floor((8 * z_string_length + range_coder.SLACK) / bits)


def _mixtures_in_order(
    image: ImageContext, stepwise: bool
) -> Iterator[tuple[_Positions, np.ndarray]]:
    """Yields mixtures in coding order; encoder and decoder share this loop.

    Args:
      image: the image's context. Before resuming, the caller sets image.y_hat at the positions that
        were yielded.
      stepwise: whether to yield one step at a time, or whole steps of some 256 positions together.

    Yields:
      where: rows and columns of P positions, [P] int each.
      mixtures: [3, K, P, L] int32, see `ImageContext.mixtures`.
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
        # This part does not depend on y_hat, so the decoder too computes it in large pieces.
        hyper_part = image.hyper_part(rows[block], columns[block])
        inner = ends[first : last + 1] if stepwise else ends[[first, last]]
        for start, end in zip(inner[:-1], inner[1:]):
            where = rows[start:end], columns[start:end]
            part = hyper_part[start - block.start : end - block.start]
            yield where, image.mixtures(*where, part)


def _steps(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns the step at which each position is coded."""
    return columns + 3 * rows


def _y_intervals(
    model: IntegerEntropyModel, z_symbols: np.ndarray, y_hat: np.ndarray, live: np.ndarray
) -> Iterator[np.ndarray]:
    """Yields y's intervals in coding order, [M, 4] int32, as `range_coder.encode` takes them."""
    image = ImageContext(model, z_symbols, live, PIECE)
    image.y_hat[...] = y_hat[:, :, live]
    for where, mixtures in _mixtures_in_order(image, stepwise=False):
        counts = cdf.counts(mixtures.reshape(*mixtures.shape[:2], -1), model.exp_table)
        offsets = image.y_hat[where].astype(np.int32).ravel() - counts.middle
        low, high = cdf.first_intervals(counts, offsets, model.gaussian_table)
        first = _rows(low, high, np.full_like(low, cdf.TOTAL))

        tails = np.flatnonzero(np.abs(offsets) > cdf.CENTRAL)
        low, high, total, excess = cdf.tail_intervals(
            counts.take(tails), offsets[tails], model.gaussian_table
        )
        beyond = np.flatnonzero(excess > 0)
        escapes, numbers = range_coder.escape_bits(excess[beyond].tolist())
        # In a step, first symbols (key 2 step) come before tail symbols and these before escapes
        # (both 2 step + 1), which the stable sort keeps in the order of concatenation.
        order = np.repeat(2 * _steps(*where), image.y_hat.shape[2])
        order = np.concatenate([order, order[tails] + 1, order[tails][beyond][numbers] + 1])
        pieces = np.concatenate([first, _rows(low, high, total), escapes])
        yield pieces[np.argsort(order, kind="stable")]


def _decode_y(
    model: IntegerEntropyModel,
    z_symbols: np.ndarray,
    live: np.ndarray,
    decoder: range_coder.Decoder,
) -> np.ndarray:
    """Decodes y_hat's live channels: [4h, 4w, L] float32."""
    height, width, _ = z_symbols.shape
    widest_step = min(4 * height, -(-4 * width // 3))
    image = ImageContext(model, z_symbols, live, widest_step)
    for where, mixtures in _mixtures_in_order(image, stepwise=True):
        counts = cdf.counts(mixtures.reshape(*mixtures.shape[:2], -1), model.exp_table)
        tables = cdf.first_tables(counts, model.gaussian_table)
        # Made into an array by way of bytes, since np.array is slow on long lists.
        symbol_bytes = b"".join(
            bytes(decoder.symbols(tables[start : start + FIRSTS].tolist()))
            for start in range(0, len(tables), FIRSTS)
        )
        symbols = np.frombuffer(symbol_bytes, np.uint8)
        decoder.charge(cdf.widths(tables, symbols), cdf.TOTAL)
        offsets = cdf.first_offsets(symbols)

        tails = np.flatnonzero(np.abs(offsets) > cdf.CENTRAL)
        if len(tails):
            offsets[tails] = _decode_tails(model, counts.take(tails), offsets[tails], decoder)
        values = counts.middle + offsets
        if np.abs(values).max() > LATENT_LIMIT:
            raise BitstreamError(f"y's string holds a value beyond {LATENT_LIMIT}")
        image.y_hat[where] = values.reshape(-1, image.y_hat.shape[2])
    return image.y_hat


def _decode_tails(
    model: IntegerEntropyModel,
    counts: cdf.Counts,
    offsets: np.ndarray,
    decoder: range_coder.Decoder,
) -> np.ndarray:
    """Decodes a step's tail symbols and escapes.

    Args:
      model: the entropy model.
      counts: Counts of the E elements that have a tail symbol.
      offsets: [E] int32, positive for 'above', negative for 'below'.
      decoder: Decoder of y's string.

    Returns:
      [E] int, the elements' offsets from the middle.
    """
    sides = np.sign(offsets)
    symbols: list[int] = []
    for start in range(0, len(sides), TAILS):
        part = slice(start, start + TAILS)
        tables = cdf.tail_tables(counts.take(part), sides[part], model.gaussian_table)
        symbols += decoder.symbols(tables)
    distances = np.array(symbols) + (cdf.CENTRAL + 1)
    beyond = np.flatnonzero(distances > cdf.extents(counts, sides))
    distances[beyond] += np.array(decoder.escapes(len(beyond)), int) - 1
    return sides * distances


def _z_intervals(model: IntegerEntropyModel, z_symbols: np.ndarray) -> np.ndarray:
    """Computes z's intervals, [M, 4] int32: all symbols, then the escapes."""
    escape = model.z_escapes
    symbols = z_symbols - model.z_offsets
    beyond = (symbols < 0) | (symbols >= escape)
    # Symbols above the table are numbered 1, 3, 5, ..., those below it 2, 4, 6, ....
    numbers = np.where(symbols < 0, -2 * symbols, 2 * (symbols - escape) + 1)[beyond]
    low, high = _z_edges(model, np.where(beyond, escape, symbols))
    escapes, _ = range_coder.escape_bits(numbers.tolist())
    return np.concatenate([_rows(low, high, np.full_like(low, Z_TOTAL)), escapes])


def _decode_z(
    model: IntegerEntropyModel, height: int, width: int, decoder: range_coder.Decoder
) -> np.ndarray:
    """Decodes z's symbols: [h, w, N] int32."""
    escape = model.z_escapes
    cdfs = [row[: end + 2] for row, end in zip(model.z_cdfs.tolist(), escape.tolist())]
    symbols = np.array(decoder.symbols(cdfs * (height * width)), np.int32)
    symbols = symbols.reshape(height, width, -1)
    low, high = _z_edges(model, symbols)
    decoder.charge(high - low, Z_TOTAL)
    beyond = np.nonzero(symbols == escape)
    numbers = np.array(decoder.escapes(len(beyond[0])), np.int32)
    above = escape[beyond[2]] + numbers // 2
    symbols[beyond] = np.where(numbers % 2, above, -(numbers // 2))
    symbols += model.z_offsets
    if np.abs(symbols).max() > LATENT_LIMIT:
        raise BitstreamError(f"z's string holds a value beyond {LATENT_LIMIT}")
    return symbols


def _z_edges(model: IntegerEntropyModel, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Looks up the intervals of z's table symbols [h, w, N]: low and high, [h w N] int32."""
    channels = np.arange(model.num_filters)
    cdfs = model.z_cdfs
    return cdfs[channels, symbols].ravel(), cdfs[channels, symbols + 1].ravel()


def _rows(low: np.ndarray, high: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Stacks intervals to the rows that `range_coder.encode` takes, [M, 4]."""
    return np.stack([np.zeros_like(low), low, high, total], axis=1)
