"""z's symbols and the y_hat known so far to mixtures, the same integers on every machine.

This is the float model's hyper-synthesis, context model and 1x1 layers on the integers of
`quantization.py`, whose docstring says why float64 sums are exact here. Besides such sums only
exact operations occur: rint, min, max, abs, comparisons, and products below 2^53.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from gmm_attention import strips
from gmm_attention.entropy_coding import quantization
from gmm_attention.entropy_coding.quantization import (
    ACTIVATION_LIMIT,
    FRACTION_BITS,
    HIDDEN,
    LOGIT_FRACTION_BITS,
    TAPS_BEFORE_CENTRE,
)

LEAKY_SLOPE = 3277 / 2**14  # TF's default 0.2; dyadic, so that products are exact
MIXTURE_LIMIT = 2**25  # clamps logits, means and scales, so that int32 holds what follows
BLOCK = 512  # positions for which hyper-synthesis gathers its taps at a time; bounds memory
STRIP = 2**14  # positions of phi per strip, seams not counted; bounds memory

# Before each product OpenBLAS copies the matrix, which takes longer than the product itself if the
# other factor has few rows. With AVX-512 it copies nothing for products of up to 10^6 terms, so for
# few positions at a time the matrix is cut into blocks of columns.
FEW_POSITIONS = 24
BLOCK_COLUMNS = 32

# The taps (kernel index, shift of the input) along one axis: those of out[i] without up-sampling,
# and those of out[2i] and of out[2i + 1] with strides_up=2.
_PLAIN_TAPS = [[(2, -1), (1, 0), (0, 1)]]
_UPSAMPLING_TAPS = [[(1, 0)], [(2, 0), (0, 1)]]

# Row and column of an output phase, the shifts of the inputs that it takes, and its matrix.
_Phase = tuple[int, int, list[tuple[int, int]], np.ndarray]


class IntegerEntropyModel:
    """The entropy model of all images: z's tables, and the layers that predict y's mixtures.

    Attributes:
      num_filters, num_mixtures: N and K.
      exp_table, gaussian_table: [2817], [2306] int32, see `quantization.py`.
      z_cdfs: [N, L] int32, z's tables: row c holds z_escapes[c] + 2 entries from 0 to 2^16.
      z_escapes: [N] int32, the symbol of each table that stands for all values outside the table.
      z_offsets: [N] int32, the value that each table's first symbol stands for.
    """

    num_filters: int
    num_mixtures: int
    exp_table: np.ndarray
    gaussian_table: np.ndarray
    z_cdfs: np.ndarray
    z_escapes: np.ndarray
    z_offsets: np.ndarray

    def __init__(self, arrays: dict[str, np.ndarray]):
        """Checks the weights and folds their powers of two into float64 matrices.

        Args:
          arrays: dict of arrays by name, as `quantization.integer_arrays` returns it.

        Raises:
          CheckpointError: see `quantization.check_integer_arrays`.
        """
        self.num_filters, self.num_mixtures = quantization.check_integer_arrays(arrays)
        self.exp_table, self.gaussian_table = arrays["tables/exp"], arrays["tables/phi"]
        self.z_cdfs = arrays["entropy_bottleneck/quantized_cdf"]
        self.z_escapes = arrays["entropy_bottleneck/cdf_length"] - np.int32(2)
        self.z_offsets = arrays["entropy_bottleneck/offset"]
        self._medians = arrays["entropy_bottleneck/integer_medians"].astype(np.float64)

        layers = quantization.layers(self.num_filters, self.num_mixtures)
        folded = {layer.name: _fold(arrays, layer) for layer in layers}
        self._hyper_synthesis = [
            _stage(*folded[f"hyper_synthesis/layer_{i}"], upsampling=i in (1, 3), leaky=i < 4)
            for i in range(5)
        ]
        n = self.num_filters
        kernel, self._masked_bias = folded["entropy_parameter/masked"]
        self._masked = kernel.reshape(25, n, 2 * n)[:TAPS_BEFORE_CENTRE]
        kernel, self._layer_0_bias = folded["entropy_parameter/layer_0"]
        self._layer_0_masked, self._layer_0_phi = kernel[0, 0, : 2 * n], kernel[0, 0, 2 * n :]
        kernel, self._layer_1_bias = folded["entropy_parameter/layer_1"]
        self._layer_1 = kernel[0, 0]
        kernel, _ = folded["entropy_parameter/layer_2"]
        kernel = kernel.reshape(-1, self.num_mixtures, 3, n)
        kernel[:, :, 0] *= 2.0 ** (LOGIT_FRACTION_BITS - FRACTION_BITS)
        # The stored order is prob, mean, scale of each component; the product's result is to be all
        # logits, all means, all scales.
        self._layer_2 = np.ascontiguousarray(kernel.transpose(0, 2, 1, 3))

    def phi(self, z_symbols: np.ndarray) -> np.ndarray:
        """Runs hyper-synthesis.

        Args:
          z_symbols: [h, w, N] int, magnitude at most 2^15.

        Returns:
          [4h, 4w, 2N] float32, integers in units of 2^-10. Their magnitude is at most 2^22, so that
          float32 holds them exactly.
        """
        sides = z_symbols.shape[:2]

        def z_hat(axis: int, first: int, last: int) -> np.ndarray:
            x = z_symbols[strips.along(axis, first, last)] * 2.0**FRACTION_BITS + self._medians
            _clamp(x, ACTIVATION_LIMIT)
            return x

        stages = self._hyper_synthesis
        phi = np.empty([*strips.output_sides(sides, stages), 2 * self.num_filters], np.float32)
        for where, strip in strips.in_strips(z_hat, sides, stages, 0, np.concatenate, STRIP, 4):
            phi[where] = strip
        return phi

    def matrices(self, live: np.ndarray, in_blocks: bool) -> list[np.ndarray]:
        """Selects the live channels' part of the context model and the 1x1 layers.

        The mixtures of the live channels are the same as with all channels, since a channel that is
        zero everywhere adds nothing to any sum.

        Args:
          live: [N] bool.
          in_blocks: whether to cut the matrices into blocks of columns, which is faster for few
            positions at a time.

        Returns:
          Four arrays [B, C_in, n], as `_product` takes them: masked convolution, the part of
          layer_0 that takes its output, layer_1, layer_2.
        """
        if in_blocks and live.all():
            return self._all_in_blocks
        matrices = self._select(live)
        return [_in_blocks(matrix) if in_blocks else matrix[None] for matrix in matrices]

    @functools.cached_property
    def _all_in_blocks(self) -> list[np.ndarray]:
        return [_in_blocks(matrix) for matrix in self._select(np.ones(self.num_filters, bool))]

    def _select(self, live: np.ndarray) -> tuple[np.ndarray, ...]:
        masked, last = self._masked, self._layer_2
        if not live.all():  # selecting all channels would only copy
            masked, last = masked[:, live], last[..., live]
        masked = masked.reshape(-1, masked.shape[-1])
        return masked, self._layer_0_masked, self._layer_1, last.reshape(last.shape[0], -1)


class ImageContext:
    """Predicts the mixtures of one image's y from z and from the part of y that is known.

    Attributes:
      y_hat: [4h, 4w, L] float32, the L live channels; the caller fills it in. A position's
        mixtures depend on the twelve before it, in raster order, in its 5x5 neighbourhood.
    """

    y_hat: np.ndarray

    def __init__(
        self,
        model: IntegerEntropyModel,
        z_symbols: np.ndarray,
        live: np.ndarray,
        most_positions: int,
    ):
        """Runs hyper-synthesis and sets y_hat to zero.

        Args:
          model: the integer entropy model.
          z_symbols: [h, w, N] int, magnitude at most 2^15.
          live: [N] bool, the channels of y that are not zero everywhere.
          most_positions: largest number of positions in one call of `mixtures`. Only speed depends
            on it.
        """
        self._model = model
        self._matrices = model.matrices(live, most_positions <= FEW_POSITIONS)
        self._phi = model.phi(z_symbols)
        self._num_live = np.count_nonzero(live)
        height, width, _ = self._phi.shape
        # The magnitude of y_hat is at most 2^15, so that float32 holds it exactly.
        padded = np.zeros([height + 2, width + 4, self._num_live], np.float32)
        self.y_hat = padded[2:, 2:-2]
        # At [r, c] this view has five neighbours of one row of y_hat, all channels, side by side.
        self._windows = np.lib.stride_tricks.as_strided(
            padded, [height + 2, width, 5 * self._num_live], padded.strides, writeable=False
        )

    def hyper_part(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Computes the part of layer_0's sums that depends on phi alone, at some positions.

        Args:
          rows, columns: [P] int.

        Returns:
          [P, 640] float64, in units of 2^-10, not rounded.
        """
        part = self._phi[rows, columns].astype(np.float64) @ self._model._layer_0_phi
        part += self._model._layer_0_bias
        return part

    def mixtures(self, rows: np.ndarray, columns: np.ndarray, hyper_part: np.ndarray) -> np.ndarray:
        """Predicts the mixtures of the live channels at some positions.

        Args:
          rows, columns: [P] int.
          hyper_part: [P, 640] float64, what `hyper_part` returns for the same positions.

        Returns:
          [3, K, P, L] int32, magnitude at most 2^25: logits in units of 2^-8, means and scales
          (of either sign) in units of 2^-10.

        Source: original network.py, `entropy_parameter`, without its softmax and abs, which
        `cdf.counts` applies.
        """
        model, live = self._model, self._num_live
        context = np.empty([len(rows), TAPS_BEFORE_CENTRE * live])
        context[:, : 5 * live] = self._windows[rows, columns]
        context[:, 5 * live : 10 * live] = self._windows[rows + 1, columns]
        context[:, 10 * live :] = self._windows[rows + 2, columns, : 2 * live]
        masked, layer_0, layer_1, layer_2 = self._matrices
        x = _product(context, masked, 2 * model.num_filters)
        x += model._masked_bias
        x = _product(_activate(x, leaky=False), layer_0, HIDDEN)
        x += hyper_part
        x = _product(_activate(x), layer_1, HIDDEN)
        x += model._layer_1_bias
        x = _product(_activate(x), layer_2, 3 * model.num_mixtures * live)
        np.rint(x, out=x)
        _clamp(x, MIXTURE_LIMIT)
        x = x.reshape(len(rows), 3, model.num_mixtures, live).transpose(1, 2, 0, 3)
        return x.astype(np.int32, order="C")


def _fold(
    arrays: dict[str, np.ndarray], layer: quantization.Layer
) -> tuple[np.ndarray, np.ndarray]:
    """Scales a layer's kernel and bias to float64 that gives outputs in units of 2^-10; exact.

    The bias of a layer without one is zero.
    """
    exponents = arrays[f"{layer.name}/exponent"].astype(np.int32)
    units = np.ldexp(1.0, FRACTION_BITS - layer.input_fraction_bits - exponents)
    kernel = arrays[f"{layer.name}/kernel"] * units
    bias = arrays[f"{layer.name}/bias"] * units if layer.has_bias else np.zeros_like(units)
    return kernel, bias


def _in_blocks(matrix: np.ndarray) -> np.ndarray:
    """Cuts a matrix [C_in, C_out] into blocks of columns, [B, C_in, 32], filled up with zeros."""
    rows, columns = matrix.shape
    blocks = np.zeros([-(-columns // BLOCK_COLUMNS), rows, BLOCK_COLUMNS])
    for block, start in zip(blocks, range(0, columns, BLOCK_COLUMNS)):
        part = matrix[:, start : start + BLOCK_COLUMNS]
        block[:, : part.shape[1]] = part
    return blocks


def _product(x: np.ndarray, blocks: np.ndarray, columns: int) -> np.ndarray:
    """Multiplies [P, C_in] with a matrix in blocks, [B, C_in, n]: [P, columns] float64."""
    count, _, width = blocks.shape
    out = np.empty([len(x), count * width])
    np.matmul(x, blocks, out=out.reshape(len(x), count, width).transpose(1, 0, 2))
    return out[:, :columns]


def _activate(x: np.ndarray, leaky: bool = True) -> np.ndarray:
    """Rounds x, applies the leaky ReLU and clamps, in place; returns x."""
    np.rint(x, out=x)
    if leaky:
        slope = x * LEAKY_SLOPE
        np.rint(slope, out=slope)
        np.maximum(x, slope, out=x)
    _clamp(x, ACTIVATION_LIMIT)
    return x


def _clamp(x: np.ndarray, limit: int) -> None:
    np.minimum(x, limit, out=x)
    np.maximum(x, -limit, out=x)


def _stage(kernel: np.ndarray, bias: np.ndarray, upsampling: bool, leaky: bool) -> strips.Stage:
    """Makes a Stage of a transposed convolution (corr=False), one product for each output phase.

    Args:
      kernel: [3, 3, C_in, C_out], unflipped.
      bias: [C_out].
      upsampling: whether it doubles the sides.
      leaky: whether a leaky ReLU follows.
    """
    axis = _UPSAMPLING_TAPS if upsampling else _PLAIN_TAPS
    # An output phase is all positions [stride i + row phase, stride j + column phase]. Its inputs
    # at [i + shift, j + shift], for all shifts side by side, times a matrix
    # [len(shifts) C_in, C_out] give its outputs.
    phases = []
    for row_phase, row_taps in enumerate(axis):
        for column_phase, column_taps in enumerate(axis):
            taps = [(row, column) for row in row_taps for column in column_taps]
            shifts = [(row[1], column[1]) for row, column in taps]
            matrix = np.concatenate([kernel[row[0], column[0]] for row, column in taps])
            phases.append((row_phase, column_phase, shifts, matrix))
    convolve = functools.partial(_convolve, phases=phases, bias=bias, leaky=leaky)
    return strips.Stage(convolve, halo=1, up=2 if upsampling else 1)


def _convolve(x: np.ndarray, phases: Sequence[_Phase], bias: np.ndarray, leaky: bool) -> np.ndarray:
    """Applies one layer of hyper-synthesis: [H, W, C_in] to [stride H, stride W, C_out]."""
    height, width, channels = x.shape
    stride = 2 if len(phases) > 1 else 1
    padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
    out = np.empty([stride * height, stride * width, len(bias)])
    block = -(-BLOCK // width)
    for top in range(0, height, block):
        bottom = min(top + block, height)
        for row_phase, column_phase, shifts, matrix in phases:
            gathered = np.concatenate(
                [
                    padded[top + 1 + row : bottom + 1 + row, 1 + column : 1 + column + width]
                    for row, column in shifts
                ],
                axis=-1,
            )
            t = gathered.reshape(-1, len(shifts) * channels) @ matrix
            t += bias
            _activate(t, leaky)
            rows = slice(stride * top + row_phase, stride * bottom, stride)
            out[rows, column_phase::stride] = t.reshape(bottom - top, width, -1)
    return out
