"""Which models make one curve."""

import pytest

from gmm_attention.errors import CurveError
from gmm_attention.evaluation.grouping import by_loss


def settings(num_filters, lmbda, metric="mse"):
    return {"num_filters": num_filters, "metric": metric, "lambda": lmbda}


def test_models_of_one_loss_make_one_curve():
    models = {
        "a": settings(48, 0.01),
        "b": settings(64, 3, "ms-ssim"),
        "c": settings(48, 0.1),
        "d": {"num_filters": 8},  # a TF1 checkpoint does not tell its loss
    }
    curves = {"_optimized_by_MSE": ["a", "c"], "_optimized_by_MSSSIM": ["b"], "": ["d"]}
    assert by_loss(models) == curves


def test_the_papers_models_make_one_curve_of_two_n():
    models = {"a": settings(128, 0.0075), "b": settings(192, 0.015)}
    assert by_loss(models) == {"_optimized_by_MSE": ["a", "b"]}


@pytest.mark.parametrize(
    "other", [settings(192, 0.0075), settings(64, 0.015), {"num_filters": 192, "metric": "mse"}]
)
def test_other_models_of_one_curve_share_n(other):
    with pytest.raises(CurveError, match="a has N = 128, b has N = .*: .*--name"):
        by_loss({"a": settings(128, 0.0075), "b": other})
