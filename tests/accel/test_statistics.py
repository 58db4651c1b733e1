"""Figures over samples and over seeds: every seed counts once, and what is left out is named."""

import math

import pytest
import torch

from spikeloom.accel.common.statistics import confusion_matrix, mean_and_sd, one_run_a_seed, spread


@pytest.mark.parametrize(("values", "found"), [([0.1] * 3, (0.1, 0.0)), ([1, 2, 3], (2.0, 1.0)), ([0.7], (0.7, 0.0))])
def test_equal_values_have_no_deviation(values: list[float], found: tuple[float, float]) -> None:
    mean, sd = mean_and_sd(values)
    assert (mean, sd) == (pytest.approx(found[0]), found[1])


def test_an_unknown_value_makes_the_mean_unknown() -> None:
    assert all(math.isnan(x) for x in mean_and_sd([0.5, math.nan]))


def test_a_single_value_has_no_spread() -> None:
    assert (spread([]), spread([0.5]), spread([1, 2, 3], 1)) == ("–", "0.50", "2.0 ± 1.0")


def test_six_copies_of_a_seed_are_one_run_and_the_others_are_named() -> None:
    runs, notes = one_run_a_seed([(0, f"run{i}", i) for i in range(6)], keep="run3")
    assert runs == [3]
    assert notes == ["seed 0 was run 6 times: run3 counts, run0, run1, run2, … (5 in all) left out"]


def test_different_seeds_all_count_in_their_order() -> None:
    assert one_run_a_seed([(10, "c", "C"), (0, "a", "A"), (2, "b", "B")]) == (["A", "B", "C"], [])


def test_rows_of_a_confusion_matrix_are_true_classes() -> None:
    log_p = torch.eye(3)[[0, 1, 1, 2]]
    assert confusion_matrix(log_p, torch.tensor([0, 1, 0, 2]), 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
