"""Float weights of the entropy model to the integers that coding uses, with proof that they fit.

Every activation of the entropy model is an integer times a power of two, held in float64. A sum of
products of such numbers comes out the same in any order, on any machine, as long as it stays below
2^53 units; `check_integer_arrays` proves that it stays below 2^50 for any input.

Weights are quantized once, at export, and stored: another machine could round them differently.
"""

from __future__ import annotations

import decimal
from typing import Any, NamedTuple

import numpy as np

from gmm_attention.errors import CheckpointError

FRACTION_BITS = 10  # activations, means and scales are in units of 2^-10
LOGIT_FRACTION_BITS = 8
ACTIVATION_LIMIT = 2**22  # in units of 2^-10; every layer's output is clamped to it
LATENT_LIMIT = 2**15  # largest magnitude of y_hat and of z's symbols
LARGEST_WEIGHT = 2**15 - 1
LARGEST_EXPONENT = 40
SUM_LIMIT = 2**50  # 2^53 would be exact; three bits are spare for a BLAS that regroups terms
LEAKY_LIMIT = 2.0**41  # 3277 times this is below 2^53, so that the leaky ReLU is exact
HIDDEN = 640  # width of the 1x1 layers, whatever num_filters is (original network.py)
LARGEST_NUM_MIXTURES = 5
TAPS_BEFORE_CENTRE = 12  # unmasked taps of the masked 5x5 kernel, the first in raster order

Z_TOTAL = 2**16  # total of each of z's tables
LARGEST_TABLE = 1025  # entries; range-coder's decoder takes no more

EXP_TOTAL = 2**20
EXP_STEPS = 2**LOGIT_FRACTION_BITS  # entries per unit of logit
EXP_LENGTH = 11 * EXP_STEPS  # a component below exp(-11) (17.5 of 2^20) is dropped
GAUSSIAN_TOTAL = 2**15
GAUSSIAN_STEPS = 2**8  # entries per standard deviation
GAUSSIAN_HALF = 1152  # entries on either side of the mean, 4.5 standard deviations


class Layer(NamedTuple):
    """One layer of the entropy model; its arrays are NAME/kernel, NAME/exponent, NAME/bias."""

    name: str
    shape: tuple[int, int, int, int]  # the kernel's: height, width, channels in, channels out
    has_bias: bool = True
    leaky: bool = True
    input_fraction_bits: int = FRACTION_BITS
    input_limit: int = ACTIVATION_LIMIT


def layers(num_filters: int, num_mixtures: int) -> list[Layer]:
    """Lists the entropy model's layers in the order in which data passes them."""
    n = num_filters
    widths = [n, n, n, n * 3 // 2, n * 3 // 2, 2 * n]
    hyper_synthesis = [
        Layer(f"hyper_synthesis/layer_{i}", (3, 3, widths[i], widths[i + 1]), leaky=i < 4)
        for i in range(5)
    ]
    return hyper_synthesis + [
        Layer("entropy_parameter/masked", (5, 5, n, 2 * n), leaky=False,
              input_fraction_bits=0, input_limit=LATENT_LIMIT),
        Layer("entropy_parameter/layer_0", (1, 1, 4 * n, HIDDEN)),
        Layer("entropy_parameter/layer_1", (1, 1, HIDDEN, HIDDEN)),
        Layer("entropy_parameter/layer_2", (1, 1, HIDDEN, 3 * num_mixtures * n),
              has_bias=False, leaky=False),
    ]  # fmt: skip


def quantize_kernel(
    kernel: np.ndarray, name: str, largest_exponent: int | np.ndarray = LARGEST_EXPONENT
) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a kernel to int16 with one power of two for each output channel.

    Args:
      kernel: [..., C_out] float64.
      name: the layer's name, for messages.
      largest_exponent: int or [C_out] ints, upper bounds of the exponents.

    Returns:
      weights: int16, of the kernel's shape, about kernel * 2^exponents.
      exponents: [C_out] int8, for each channel the largest in 0..largest_exponent with
        abs(weights) <= 32767.

    Raises:
      CheckpointError: a weight is not finite, or above 32767.
    """
    kernel = np.asarray(kernel, np.float64)
    magnitudes = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(axis=0, initial=0)
    for channel in np.flatnonzero(~np.isfinite(magnitudes)):
        raise CheckpointError(f"{name}: channel {channel}: a weight is not finite")
    fractions, exponents = np.frexp(magnitudes)  # magnitude = fraction * 2^exponent, exact
    # LARGEST_WEIGHT + 1/2 would round to the even number above it.
    exponents = 15 - exponents - (fractions >= (LARGEST_WEIGHT + 0.5) / 2**15)
    exponents = np.where(magnitudes == 0, LARGEST_EXPONENT, exponents)
    exponents = np.minimum(exponents, np.minimum(largest_exponent, LARGEST_EXPONENT))
    for channel in np.flatnonzero(exponents < 0):
        raise CheckpointError(f"{name}: channel {channel}: weights or bias are too large")
    return np.rint(np.ldexp(kernel, exponents)).astype(np.int16), exponents.astype(np.int8)


def integer_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Makes the integer entropy model from float weights.

    Args:
      arrays: dict of arrays: "hyper_synthesis/layer_{0..4}/{kernel,bias}",
        "entropy_parameter/{masked,layer_0,layer_1}/{kernel,bias}",
        "entropy_parameter/layer_2/kernel" (3K blocks of N channels: prob0, mean0, scale0, prob1,
        ...), and "entropy_bottleneck/{quantized_cdf,cdf_length,offset,medians}". Kernels are as the
        original's layers use them, but that of `masked` may hold any values at masked taps. Other
        names are ignored.

    Returns:
      Dict of arrays, as `check_integer_arrays` takes it: for each layer NAME/kernel int16,
      NAME/exponent int8, NAME/bias int64 (in units of 2^-(exponent + the input's fraction bits));
      "entropy_bottleneck/{quantized_cdf,cdf_length,offset}" int32, unchanged;
      "entropy_bottleneck/integer_medians" int32, in units of 2^-10; "tables/exp", "tables/phi".

    Raises:
      CheckpointError: an array is missing or misshapen, or a weight is too large to be quantized.
        IntegerEntropyModel checks the rest.
    """
    num_filters, num_mixtures = _sizes(arrays)
    result = {}
    for layer in layers(num_filters, num_mixtures):
        kernel = np.array(_get(arrays, f"{layer.name}/kernel", layer.shape), np.float64)
        if layer.name == "entropy_parameter/masked":
            kernel.reshape(25, -1)[TAPS_BEFORE_CENTRE:] = 0
        largest_exponent: int | np.ndarray = LARGEST_EXPONENT
        if layer.has_bias:
            bias = np.asarray(_get(arrays, f"{layer.name}/bias", layer.shape[3:]), np.float64)
            for channel in np.flatnonzero(~np.isfinite(bias)):
                raise CheckpointError(f"{layer.name}: channel {channel}: bias is not finite")
            # Tiny weights alone would allow an exponent for which the bias is too large.
            largest_exponent = 49 - layer.input_fraction_bits - np.frexp(bias)[1]
        weights, exponents = quantize_kernel(kernel, layer.name, largest_exponent)
        result[f"{layer.name}/kernel"] = weights
        result[f"{layer.name}/exponent"] = exponents
        if layer.has_bias:
            scaled = np.ldexp(bias, exponents.astype(np.int32) + layer.input_fraction_bits)
            result[f"{layer.name}/bias"] = np.rint(scaled).astype(np.int64)
    for key in ("quantized_cdf", "cdf_length", "offset"):
        result[f"entropy_bottleneck/{key}"] = _get(arrays, f"entropy_bottleneck/{key}")
    medians = _get(arrays, "entropy_bottleneck/medians", (num_filters,)).astype(np.float64)
    if not np.all(np.abs(medians) <= ACTIVATION_LIMIT / 2**FRACTION_BITS):
        raise CheckpointError("entropy_bottleneck/medians: not finite or above 4096")
    scaled = np.rint(medians * 2**FRACTION_BITS)
    result["entropy_bottleneck/integer_medians"] = scaled.astype(np.int32)
    result["tables/exp"] = exp_table()
    result["tables/phi"] = gaussian_table()
    return result


def check_integer_arrays(arrays: dict[str, np.ndarray]) -> tuple[int, int]:
    """Checks an integer entropy model, which may come from an untrusted file.

    Args:
      arrays: dict of arrays as `integer_arrays` returns it.

    Returns:
      num_filters, num_mixtures.

    Raises:
      CheckpointError: an array is missing, misshapen or of another type; a table does not rise or
        fall as it must; or some input could make a sum leave the range in which float64 is exact.
    """
    num_filters, num_mixtures = _sizes(arrays)
    for layer in layers(num_filters, num_mixtures):
        _check_sums(arrays, layer)
    masked = _get(arrays, "entropy_parameter/masked/kernel")
    if masked.reshape(25, -1)[TAPS_BEFORE_CENTRE:].any():
        raise CheckpointError("entropy_parameter/masked/kernel: not masked")
    _check_z_tables(arrays, num_filters)

    exp = _get(arrays, "tables/exp", (EXP_LENGTH + 1,), np.int32)
    if exp[0] != EXP_TOTAL or exp[-1] != 0 or np.any(np.diff(exp) > 0) or exp[1] == EXP_TOTAL:
        raise CheckpointError("tables/exp: must decrease from 2^20 to 0")
    phi = _get(arrays, "tables/phi", (2 * GAUSSIAN_HALF + 2,), np.int32)
    if phi[0] != 0 or phi[-1] != GAUSSIAN_TOTAL or np.any(np.diff(phi) < 0):
        raise CheckpointError("tables/phi: must increase from 0 to 2^15")
    return num_filters, num_mixtures


def exp_table() -> np.ndarray:
    """Tabulates round(2^20 exp(-i / 256)) for i in 0..2815, then 0; [2817] int32."""
    # decimal's exp is correctly rounded; libm's and numpy's depend on the machine.
    with decimal.localcontext(decimal.Context(prec=40)):
        ratio = (decimal.Decimal(-1) / EXP_STEPS).exp()
        value = decimal.Decimal(EXP_TOTAL)
        table = []
        for _ in range(EXP_LENGTH):
            table.append(round(value))
            value *= ratio
    return np.array(table + [0], np.int32)


def gaussian_table() -> np.ndarray:
    """Tabulates the normal distribution function, cut at 4.5 sigma and stretched to 0..2^15.

    Returns:
      [2306] int32: 0, then 2^15 (1/2 + (Phi(x) - 1/2) / (2 Phi(4.5) - 1)) at the middles x =
      (i - 1152.5) / 256 of 2304 steps, then 2^15.
    """
    with decimal.localcontext(decimal.Context(prec=40)):
        end = _gaussian_integral(decimal.Decimal(GAUSSIAN_HALF) / GAUSSIAN_STEPS)
        half = decimal.Decimal(GAUSSIAN_TOTAL) / 2
        distances = [
            half * _gaussian_integral((i + decimal.Decimal("0.5")) / GAUSSIAN_STEPS) / end
            for i in range(GAUSSIAN_HALF)
        ]
        lower = [round(half - distance) for distance in reversed(distances)]
        upper = [round(half + distance) for distance in distances]
    return np.array([0] + lower + upper + [GAUSSIAN_TOTAL], np.int32)


def _gaussian_integral(x: decimal.Decimal) -> decimal.Decimal:
    """Integrates exp(-t^2/2) from 0 to x > 0: exp(-x^2/2) (x + x^3/3 + x^5/(3*5) + ...)."""
    term = total = x
    odd = 1
    while term > total * decimal.Decimal("1e-25"):
        odd += 2
        term = term * x * x / odd
        total += term
    return total * (-x * x / 2).exp()


def _get(
    arrays: dict[str, np.ndarray],
    name: str,
    shape: tuple[int, ...] | None = None,
    dtype: Any = None,
) -> np.ndarray:
    """Looks up an array and checks its shape and type, where they are given."""
    if name not in arrays:
        raise CheckpointError(f"{name}: missing")
    array = np.asarray(arrays[name])
    if shape is not None and array.shape != tuple(shape):
        raise CheckpointError(f"{name}: shape is {list(array.shape)}, expected {list(shape)}")
    if dtype is not None and array.dtype != dtype:
        raise CheckpointError(f"{name}: type is {array.dtype}, expected {np.dtype(dtype)}")
    return array


def _sizes(arrays: dict[str, np.ndarray]) -> tuple[int, int]:
    """Derives num_filters and num_mixtures from the shapes of two kernels."""
    masked = _get(arrays, "entropy_parameter/masked/kernel")
    last = _get(arrays, "entropy_parameter/layer_2/kernel")
    if masked.ndim != 4 or masked.shape[2] == 0 or masked.shape[2] % 8:
        raise CheckpointError(
            f"entropy_parameter/masked/kernel: shape is {list(masked.shape)}, expected "
            "[5, 5, N, 2N] with N a multiple of 8"
        )
    num_filters = masked.shape[2]
    num_mixtures, rest = divmod(last.shape[-1] if last.ndim else 0, 3 * num_filters)
    if rest or not 1 <= num_mixtures <= LARGEST_NUM_MIXTURES:
        raise CheckpointError(
            f"entropy_parameter/layer_2/kernel: shape is {list(last.shape)}, expected "
            f"[1, 1, {HIDDEN}, 3 K {num_filters}] with K in 1..{LARGEST_NUM_MIXTURES}"
        )
    return num_filters, num_mixtures


def _check_sums(arrays: dict[str, np.ndarray], layer: Layer) -> None:
    """Checks that no input within its limits makes a layer's sums or outputs too large."""
    weights = _get(arrays, f"{layer.name}/kernel", layer.shape, np.int16)
    exponents = _get(arrays, f"{layer.name}/exponent", layer.shape[3:], np.int8)
    exponents = exponents.astype(np.int32)
    if np.any(exponents < 0) or np.any(exponents > LARGEST_EXPONENT):
        raise CheckpointError(f"{layer.name}/exponent: not in 0..{LARGEST_EXPONENT}")
    # In int32, because the absolute value of -32768 does not fit int16.
    magnitudes = np.abs(weights.reshape(-1, layer.shape[3]).astype(np.int32))
    bounds = magnitudes.sum(axis=0, dtype=np.int64) * layer.input_limit
    if layer.has_bias:
        bias = _get(arrays, f"{layer.name}/bias", layer.shape[3:], np.int64)
        bounds = np.where((bias > -SUM_LIMIT) & (bias < SUM_LIMIT), bounds + abs(bias), SUM_LIMIT)
    for channel in np.flatnonzero(bounds >= SUM_LIMIT):
        raise CheckpointError(f"{layer.name}: channel {channel}: sums could reach 2^50")
    if layer.leaky:
        # Input and output have equal fraction bits here, so an output of 1 is a sum of 2^exponent.
        for channel in np.flatnonzero(bounds >= np.ldexp(LEAKY_LIMIT, exponents)):
            raise CheckpointError(f"{layer.name}: channel {channel}: outputs could reach 2^41")


def _check_z_tables(arrays: dict[str, np.ndarray], num_filters: int) -> None:
    """Checks z's tables, offsets and medians."""
    cdfs = _get(arrays, "entropy_bottleneck/quantized_cdf", dtype=np.int32)
    if cdfs.ndim != 2 or cdfs.shape[0] != num_filters:
        raise CheckpointError(
            f"entropy_bottleneck/quantized_cdf: shape is {list(cdfs.shape)}, expected "
            f"[{num_filters}, L]"
        )
    lengths = _get(arrays, "entropy_bottleneck/cdf_length", (num_filters,), np.int32)
    for channel, length in enumerate(lengths.tolist()):
        cdf = cdfs[channel, : max(length, 0)]
        if (
            not 3 <= length <= min(cdfs.shape[1], LARGEST_TABLE)
            or cdf[0] != 0
            or cdf[-1] != Z_TOTAL
            or np.any(cdf[1:] <= cdf[:-1])
        ):
            raise CheckpointError(
                f"entropy_bottleneck/quantized_cdf: channel {channel}: must increase strictly "
                f"from 0 to {Z_TOTAL}, with 3..{LARGEST_TABLE} entries"
            )
    offsets = _get(arrays, "entropy_bottleneck/offset", (num_filters,), np.int32)
    if np.any(offsets > LATENT_LIMIT) or np.any(offsets < -LATENT_LIMIT):
        raise CheckpointError("entropy_bottleneck/offset: magnitude above 32768")
    name = "entropy_bottleneck/integer_medians"
    medians = _get(arrays, name, (num_filters,), np.int32)
    if np.any(medians > ACTIVATION_LIMIT) or np.any(medians < -ACTIVATION_LIMIT):
        raise CheckpointError(f"{name}: magnitude above 4096")
