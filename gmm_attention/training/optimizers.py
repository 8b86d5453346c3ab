"""How a step moves weights: Adam's arithmetic, and Muon's for the kernels of convolutions."""

import math

import tensorflow as tf

from gmm_attention.model import variables

# Adam's, as in TensorFlow 1, whose default epsilon is not that of Keras.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8

# Muon's (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).
MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)

# Kernels that read the three channels of a picture are left to Adam.
FEWEST_CHANNELS = 4


def adam_move(m, v, updates, gradient, learning_rate):
    """Adam's new moments, and what it subtracts from the weight.

    Args:
      m, v: the moments, of the gradient's shape.
      updates: float32, steps that the moments have seen.

    Returns:
      new m, new v, move.
    """
    correction = tf.sqrt(1 - BETA_2 ** (updates + 1)) / (1 - BETA_1 ** (updates + 1))
    new_m = m + (1 - BETA_1) * (gradient - m)
    new_v = v + (1 - BETA_2) * (gradient**2 - v)
    return new_m, new_v, learning_rate * correction * new_m / (tf.sqrt(new_v) + EPSILON)


def muon_matrices(model):
    """The kernels that Muon moves, each as a matrix; all other weights are Adam's.

    Returns:
      dict of name to (rows, columns): kh * kw * inputs, outputs. A kernel that is stored by its
      real DFT is the same matrix but for a rotation of its rows, which Muon does not see.
    """
    shapes = variables.kernel_shapes(model)
    return {
        name: (height * width * inputs, outputs)
        for name, (height, width, inputs, outputs) in shapes.items()
        if min(inputs, outputs) >= FEWEST_CHANNELS
    }


def muon_moves(matrices, momenta, gradients):
    """Muon's new momenta, and what it subtracts from the weights at a learning rate of 1.

    Args:
      matrices: dict of name to (rows, columns), of `muon_matrices`.
      momenta, gradients: dicts of name to tensor of the weight's shape.

    Returns:
      dict of name to (new momentum, move), each of the weight's shape.
    """
    new_momenta = {n: m + (1 - MOMENTUM) * (gradients[n] - m) for n, m in momenta.items()}
    groups = {}  # shape of a matrix laid on its side -> names
    for name, (rows, columns) in matrices.items():
        groups.setdefault((min(rows, columns), max(rows, columns)), []).append(name)
    moves = {}
    for names in groups.values():
        # Those of one shape go through together: many small products would cost more than large.
        stack = []
        for name in names:
            rows, columns = matrices[name]
            # Nesterov's: the momentum as it will be, were the next gradient this one.
            ahead = new_momenta[name] + (1 - MOMENTUM) * (gradients[name] - new_momenta[name])
            matrix = tf.reshape(ahead, [rows, columns])
            stack.append(tf.transpose(matrix) if rows > columns else matrix)
        for name, direction in zip(names, tf.unstack(orthogonal(tf.stack(stack)))):
            rows, columns = matrices[name]
            direction = tf.transpose(direction) if rows > columns else direction
            # So that a step changes what comes out by the same share whatever the width.
            size = math.sqrt(max(1, columns / rows))
            moves[name] = (new_momenta[name], size * tf.reshape(direction, gradients[name].shape))
    return moves


def orthogonal(matrices):
    """Brings singular values of matrices near to 1 (0.7 to 1.2), by Newton-Schulz steps.

    Those under a few thousandths of the matrix' norm stay smaller.

    Args:
      matrices: [M, R, C] float32, R at most C.

    Returns:
      The same shape. A matrix of zeros stays one.
    """
    a, b, c = COEFFICIENTS
    x = matrices / (tf.norm(matrices, axis=[1, 2], keepdims=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = tf.matmul(x, x, transpose_b=True)
        x = a * x + tf.matmul(b * square + c * tf.matmul(square, square), x)
    return x
