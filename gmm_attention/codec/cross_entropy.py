"""Latents and the float model's densities to bits: what an ideal coder would need."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Y_BOUND, Z_BOUND = 1e-6, 1e-9  # the least likelihoods, as in training


def bits_of_y(
    y_hat: np.ndarray, weights: np.ndarray, means: np.ndarray, scales: np.ndarray
) -> np.ndarray:
    """Returns the cross-entropy of rounded y, computed as for the reference figures.

    Args:
      y_hat: [..., N] integers.
      weights, means, scales: [..., N, K].

    Returns:
      [..., N] float64, bits: -log2 of the likelihoods clipped to [1e-6, 1].

    Source: paper, eq. 9; original encoder.py.
    """
    from scipy.special import ndtr  # takes longer to import than an image to code

    scales = scales.astype(np.float64) + 1e-10
    # By symmetry the mass is taken below the mean, where it is a difference of small numbers and
    # not of numbers near one.
    distance = np.abs(y_hat[..., None] - means.astype(np.float64))
    mass = ndtr((0.5 - distance) / scales) - ndtr((-0.5 - distance) / scales)
    return -np.log2(np.clip((weights * mass).sum(axis=-1), Y_BOUND, 1))


def bits_of_z(z_hat: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the cross-entropy of z_hat under its factorized prior.

    Args:
      z_hat: [..., N] float32.
      arrays: dict of arrays with those of `entropy_bottleneck`, by the names of an exported model.

    Returns:
      [..., N] float64, bits: -log2 of the likelihoods, which are at least 1e-9.

    Source: `model.entropy_bottleneck.EntropyBottleneck.likelihoods`.
    """
    from scipy.special import expit

    values = np.moveaxis(z_hat.astype(np.float64), -1, 0)
    flat = values.reshape(len(values), 1, -1)
    lower, upper = _logits(flat - 0.5, arrays), _logits(flat + 0.5, arrays)
    # Evaluated on the side where sigmoids are small, their difference keeps its digits.
    sign = -np.sign(lower + upper)
    mass = np.abs(expit(sign * upper) - expit(sign * lower))
    return np.moveaxis(-np.log2(np.maximum(mass, Z_BOUND)).reshape(values.shape), 0, -1)


def _logits(values: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Logits of the cumulative distribution at P values of each channel, [N, 1, P] float64."""
    t = values
    for index in range(4):
        matrix, bias = (
            arrays[f"entropy_bottleneck/{name}_{index}"].astype(np.float64)
            for name in ("matrix", "bias")
        )
        t = np.logaddexp(matrix, 0) @ t + bias  # softplus keeps the matrix positive
        if index < 3:
            factor = arrays[f"entropy_bottleneck/factor_{index}"].astype(np.float64)
            t += np.tanh(factor) * np.tanh(t)
    return t
