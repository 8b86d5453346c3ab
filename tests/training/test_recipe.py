"""The recipe: learning rates, the paper's points, and settings."""

import numpy as np
import pytest

from gmm_attention.training.recipe import POINTS, Recipe, from_settings, paper_num_filters

RECIPE = Recipe(lmbda=0.01, steps=20, batch=2, crop=64, num_filters=8)


def test_the_learning_rate_is_the_papers():
    paper = Recipe()
    assert (paper.rate_at(0), paper.rate_at(919_999)) == (1e-4, 1e-4)
    assert (paper.rate_at(920_000), paper.rate_at(999_999)) == (1e-5, 1e-5)


def test_the_cosine_rises_in_the_warm_up_and_falls_to_nothing():
    recipe = Recipe(schedule="cosine", steps=1000, warm_up=99, learning_rate=2e-4)
    rates = [recipe.rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(2e-6) and max(rates) == rates[99] == pytest.approx(2e-4)
    assert np.all(np.diff(rates[:100]) > 0) and np.all(np.diff(rates[99:]) < 0)
    assert rates[-1] < 1e-8


def test_a_constant_rate_falls_to_nothing_over_the_last_steps():
    recipe = Recipe(schedule="constant", steps=1000, warm_up=9, cool_down=99, learning_rate=1e-2)
    rates = [recipe.rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-3) and set(rates[9:901]) == {1e-2}
    np.testing.assert_allclose(rates[900:], np.linspace(1e-2, 1e-4, 100))


def test_a_cool_down_longer_than_the_run_takes_all_of_it():
    recipe = Recipe(schedule="constant", steps=100, warm_up=10, learning_rate=1e-2)
    assert max(map(recipe.rate_at, range(100))) == pytest.approx(1e-2, rel=0.02)


def test_the_papers_points_have_its_n():
    numbers = {name: paper_num_filters(*point) for name, point in POINTS.items()}
    wide = {"mse-0.015", "mse-0.03", "mse-0.045", "ms-ssim-40", "ms-ssim-120"}
    assert len(numbers) == 11 and {n for n, count in numbers.items() if count == 192} == wide
    assert set(numbers.values()) == {128, 192}


def test_a_recipe_survives_its_settings():
    assert from_settings({**RECIPE.settings(), "step": 3}) == RECIPE
