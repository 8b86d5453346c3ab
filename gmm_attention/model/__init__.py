"""The network of the paper in tf.keras: x to x_hat and likelihoods; knows no bytes."""

from gmm_attention.model.cheng2020 import Cheng2020

__all__ = ["Cheng2020"]
