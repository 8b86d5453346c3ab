"""How a step moves the weights: Adam's arithmetic, and Muon's for the kernels of convolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping

import tensorflow as tf

from gmm_attention.model import variables
from gmm_attention.model.cheng2020 import Cheng2020

# Adam's constants as in TensorFlow 1; Keras has another default for epsilon.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

# Muon's constants (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).
MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)

# Adam moves the kernels that have fewer inputs or outputs, which are those that read the three
# channels of an image.
FEWEST_CHANNELS = 4

# Factor of the learning rate for weights that Adam moves beside Muon. At Muon's rate biases swing,
# the brightness of x_hat with them, and much of all gradients does nothing but steer against that.
ADAM_RATE = 0.25

# A matrix of smaller singular values moves as if they were as large as this, or a matrix of zeros
# would stay one.
SMALLEST_SIZE = 0.3

# A matrix with a smaller momentum than this moves less, in proportion. (The gradient of all weights
# together is clipped to a norm of 1; most kernels of the transforms have momenta of 1e-3 to 1e-2.)
# Residual blocks of the attention modules start with little influence, so that their gradients are
# mostly noise. Moved as far as others, they add noise themselves, and what lowers that first is a
# ReLU that gives zeros only, from which there is no way back.
SMALLEST_MOMENTUM = 1e-3


def adam_correction(updates: tf.Tensor) -> tf.Tensor:
    """Factor of Adam's learning rate that makes up for moments which began at zero.

    Args:
      updates: float32 scalar, number of steps that the moments have seen.

    Returns:
      float32 scalar.
    """
    return tf.sqrt(1 - BETA_2 ** (updates + 1)) / (1 - BETA_1 ** (updates + 1))


def adam_move(
    m: tf.Tensor,
    v: tf.Tensor,
    gradient: tf.Tensor,
    learning_rate: tf.Tensor | float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Adam's new moments, and what it subtracts from the weight.

    Args:
      m, v: first and second moment, of the gradient's shape.
      gradient: of the weight, float32.
      learning_rate: of this step, times `adam_correction`.

    Returns:
      new m, new v, move: of the gradient's shape.
    """
    new_m = m + (1 - BETA_1) * (gradient - m)
    new_v = v + (1 - BETA_2) * (gradient**2 - v)
    return new_m, new_v, learning_rate * new_m / (tf.sqrt(new_v) + EPSILON)


def muon_matrices(model: Cheng2020) -> dict[str, tuple[int, int, int]]:
    """The kernels that Muon moves, each as one or more matrices; Adam moves all other weights.

    Returns:
      dict of name to (parts, rows, columns): rows = kh * kw * inputs, and columns the outputs of
      each part (see `variables.num_parts`). A kernel that is stored as its real DFT is this matrix
      times a rotation, which makes no difference: the rotation commutes with Muon's
      orthogonalization.
    """
    matrices = {}
    for name, (height, width, inputs, outputs) in variables.kernel_shapes(model).items():
        if min(inputs, outputs) >= FEWEST_CHANNELS:
            # Parts become different tensors, so that each is a matrix of its own. Most are also
            # cheaper so, because the smaller side of all parts together is longer.
            parts = variables.num_parts(name, model)
            matrices[name] = parts, height * width * inputs, outputs // parts
    return matrices


def muon_moves(
    matrices: Mapping[str, tuple[int, int, int]],
    weights: Mapping[str, tf.Tensor],
    momenta: Mapping[str, tf.Tensor],
    gradients: Mapping[str, tf.Tensor],
) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
    """Muon's new momenta, and what it subtracts from the weights at a learning rate of 1.

    A matrix moves in proportion to itself: the singular values of its move are near the root mean
    square of its own, or smaller where the momentum is small. Muon's authors move all matrices of
    one shape equally far. But kernels of shortcuts are a tenth of others here, and move ten times
    as far for their size then.

    Args:
      matrices: dict of name to (parts, rows, columns), see `muon_matrices`.
      momenta: dict of name to tensor of the weight's shape, for the names of `matrices`.
      weights, gradients: the same, for these names or more.

    Returns:
      dict of name to (new momentum, move), each of the weight's shape.
    """
    new_momenta = {n: m + (1 - MOMENTUM) * (gradients[n] - m) for n, m in momenta.items()}
    # Names by the shape of the matrices, transposed if need be to have no more rows than columns.
    groups: dict[tuple[int, int], list[str]] = {}
    for name, (_, rows, columns) in matrices.items():
        groups.setdefault((min(rows, columns), max(rows, columns)), []).append(name)
    moves = {}
    for names in groups.values():
        # Matrices of one shape share one product: many small products would take longer.
        stacks = []
        for name in names:
            parts, rows, columns = matrices[name]
            # Nesterov's momentum: its next value, if the next gradient were the same as this one.
            ahead = new_momenta[name] + (1 - MOMENTUM) * (gradients[name] - new_momenta[name])
            split = tf.reshape(ahead, [rows, parts, columns])
            stacks.append(tf.transpose(split, [1, 2, 0] if rows > columns else [1, 0, 2]))
        counts = [matrices[name][0] for name in names]
        directions = tf.split(orthogonal(tf.concat(stacks, axis=0)), counts)
        for name, direction in zip(names, directions):
            parts, rows, columns = matrices[name]
            direction = tf.transpose(direction, [2, 0, 1] if rows > columns else [1, 0, 2])
            weight = tf.reshape(weights[name], [rows, parts, columns])
            norm = tf.norm(weight, axis=[0, 2], keepdims=True)
            move = direction * tf.maximum(norm / math.sqrt(min(rows, columns)), SMALLEST_SIZE)
            move *= tf.minimum(1.0, tf.norm(new_momenta[name]) / SMALLEST_MOMENTUM)
            moves[name] = new_momenta[name], tf.reshape(move, gradients[name].shape)
    return moves


def orthogonal(matrices: tf.Tensor) -> tf.Tensor:
    """Moves the singular values of matrices close to 1 (0.7 to 1.2) by Newton-Schulz steps.

    Singular values below a few thousandths of the matrix' norm stay smaller.

    Args:
      matrices: [M, R, C] float32, R at most C.

    Returns:
      [M, R, C] float32. A matrix of zeros stays a matrix of zeros.
    """
    a, b, c = COEFFICIENTS
    x = matrices / (tf.norm(matrices, axis=[1, 2], keepdims=True) + 1e-7)
    # A step multiplies x from the left by a symmetric matrix, a polynomial of x x^T. So all steps
    # can be taken with matrices of R by R, which are much smaller than x in most layers. They need
    # full float32: errors of the small eigenvalues of x x^T grow tenfold in each step.
    square = tf.matmul(x, x, transpose_b=True)

    def factor(square):
        return a * tf.eye(x.shape[1]) + b * square + c * tf.matmul(square, square)

    product = last = factor(square)
    for _ in range(ITERATIONS - 1):
        square = tf.matmul(last, tf.matmul(square, last))
        last = factor(square)
        product = tf.matmul(last, product)
    return tf.matmul(product, x)
