"""Figures over seeds."""

import math

import pytest

from pipelines.scores import mean_and_sd


@pytest.mark.parametrize(
    ("values", "found"), [([0.1] * 3, (0.1, 0.0)), ([1, 2, 3], (2.0, 1.0)), ([0.7], (0.7, 0.0))]
)
def test_equal_values_have_no_deviation(values: list[float], found: tuple[float, float]) -> None:
    mean, sd = mean_and_sd(values)
    assert (mean, sd) == (pytest.approx(found[0]), found[1])


def test_an_unknown_value_makes_the_mean_unknown() -> None:
    assert all(math.isnan(x) for x in mean_and_sd([0.5, math.nan]))
