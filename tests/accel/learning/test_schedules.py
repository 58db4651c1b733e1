"""Closed forms against sums and integrals; the integrated learning rate under warm-up, skips, starts and floors."""

import math

import pytest

from spikeloom.accel.learning.pruning.schedules import (
    IntegratedLR,
    geometric_homotopy,
    l1_coefficient,
    lats_epochs,
    linear,
    mu_of_l1,
    s_lats,
    sine,
)


def cosine(steps: int, lr: float = 0.1) -> list[float]:
    return [0.5 * lr * (1 + math.cos(math.pi * n / steps)) for n in range(steps)]


def run(schedule: IntegratedLR, rates: list[float]) -> list[float]:
    """The threshold before each step and after the last one."""
    return [0.0, *(schedule.step(rate) for rate in rates)]


def integral(f, x: float, pieces: int = 2000) -> float:
    """Simpson's rule on [0, x]."""
    h = x / pieces
    inner = sum((4 if i % 2 else 2) * f(i * h) for i in range(1, pieces))
    return h / 3 * (f(0) + inner + f(x))


@pytest.mark.parametrize("epochs", [1, 2, 7, 100, 320])
def test_the_epoch_form_is_the_cumulative_sum_of_the_learning_rates(epochs: int) -> None:
    for n in range(epochs + 1):
        summed = math.fsum(1 + math.cos(k * math.pi / epochs) for k in range(n)) / (epochs + 1)
        assert abs(lats_epochs(n, epochs) - summed) < 1e-14


@pytest.mark.parametrize("x", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
def test_the_smooth_forms_are_integrals(x: float) -> None:
    assert abs(s_lats(x) - integral(lambda t: 1 + math.cos(math.pi * t), x)) < 1e-8
    for b in (0.001, 0.01, 0.1, 0.7, 1 - 1e-9, 1.0):
        rate = lambda t, b=b: b**t * (1 + math.cos(math.pi * t))  # noqa: E731
        assert abs(geometric_homotopy(x, b) - integral(rate, x) / integral(rate, 1.0)) < 1e-8


def test_the_homotopy_has_its_published_middle_and_tends_to_s_lats() -> None:
    assert [round(geometric_homotopy(0.5, b), 4) for b in (0.1, 0.01, 0.001)] == [0.9218, 0.9701, 0.9893]
    assert geometric_homotopy(0.5, 1.0) == s_lats(0.5)
    for exponent in range(3, 15):
        assert geometric_homotopy(0.3, 1 - 10**-exponent) == pytest.approx(s_lats(0.3), abs=10**-exponent)
    for b in (0.0, -1.0, 1.1):
        with pytest.raises(ValueError, match=rf"{b}"):
            geometric_homotopy(0.5, b)


def test_every_form_runs_from_0_to_1() -> None:
    forms = [s_lats, linear, sine, lambda x: geometric_homotopy(x, 0.01), lambda x: lats_epochs(round(50 * x), 50)]
    for form in forms:
        assert form(0.0) == pytest.approx(0, abs=1e-14)
        assert form(1.0) == pytest.approx(1, abs=1e-14)
    assert max(abs(s_lats(n / 100) - lats_epochs(n, 100)) for n in range(101)) == pytest.approx(0.0036, abs=1e-4)


@pytest.mark.parametrize("steps", [10, 100, 1000])
def test_a_cosine_gives_s_lats_and_a_homotopy_its_closed_form(steps: int) -> None:
    rates = cosine(steps)
    for base, form in ((1.0, s_lats), (0.1, lambda x: geometric_homotopy(x, 0.1))):
        thresholds = run(IntegratedLR(rates, final_threshold=0.5, base=base), rates)
        assert thresholds[-1] == pytest.approx(0.5, rel=1e-12)
        for n, threshold in enumerate(thresholds):
            assert abs(threshold / 0.5 - form(n / steps)) <= 2 / steps * (1 if base == 1 else 3)


def test_mu_is_constant_through_warm_up_restarts_and_a_floor() -> None:
    warm = [0.02 * (e + 1) for e in range(5) for _ in range(20)]
    rates = warm + cosine(400) + [rate + 1e-4 for rate in cosine(300)]
    schedule = IntegratedLR(rates, final_threshold=0.3)
    thresholds = run(schedule, rates)
    mu = [(b - a) / rate for a, b, rate in zip(thresholds[:-1], thresholds[1:], rates, strict=True) if rate > 1e-3]
    assert max(mu) - min(mu) < 1e-12
    assert thresholds[-1] == pytest.approx(0.3, rel=1e-12)
    assert schedule.state.lr_sum == pytest.approx(math.fsum(rates))


def test_a_skipped_step_adds_nothing_and_the_end_is_told() -> None:
    rates = [0.1] * 10
    schedule = IntegratedLR(rates, final_threshold=1.0)
    for n in range(10):
        before = schedule.threshold
        after = schedule.step(0.1, stepped=n not in (3, 4))
        assert (after == before) == (n in (3, 4))
    assert schedule.threshold == pytest.approx(0.8)
    assert schedule.finished


def test_other_learning_rates_than_planned_leave_the_l1_coefficient_alone() -> None:
    schedule = IntegratedLR([0.1] * 10, final_threshold=1.0)
    run(schedule, [0.2] * 10)
    assert (schedule.state.mu, schedule.threshold) == (pytest.approx(1.0), pytest.approx(2.0))


def test_a_delayed_start_counts_its_horizon_from_there() -> None:
    rates = cosine(100)
    schedule = IntegratedLR(rates, final_threshold=1.0, start_step=40, base=0.1)
    thresholds = run(schedule, rates)
    assert thresholds[40] == 0.0 < thresholds[41]
    assert thresholds[-1] == pytest.approx(1.0)
    assert schedule.weight(40) == 1.0 and schedule.weight(70) == pytest.approx(0.1**0.5)
    for start in (-1, 100):
        with pytest.raises(ValueError, match="start_step"):
            IntegratedLR(rates, final_threshold=1.0, start_step=start)


def test_aiming_lands_on_the_new_target_with_what_is_left() -> None:
    rates = cosine(100)
    schedule = IntegratedLR(rates, final_threshold=1.0)
    run(schedule, rates[:50])
    schedule.aim(0.9)
    assert run(schedule, rates[50:])[-1] == pytest.approx(0.9)
    schedule = IntegratedLR(rates, final_threshold=1.0)
    run(schedule, rates[:50])
    schedule.aim(0.1)  # less than it already is: it stays
    held = schedule.threshold
    assert run(schedule, rates[50:])[-1] == held


def test_a_state_goes_on_where_it_was() -> None:
    rates = cosine(60)
    whole, first, second = (IntegratedLR(rates, final_threshold=1.0, base=0.5) for _ in range(3))
    expected = run(whole, rates)
    run(first, rates[:25])
    second.load_state_dict(first.state_dict())
    assert run(second, rates[25:])[-1] == expected[-1]
    with pytest.raises(ValueError, match="60 steps of pruning, this run plans 61"):
        IntegratedLR(cosine(61), final_threshold=1.0).load_state_dict(first.state_dict())


def test_the_published_recipe_has_its_coefficients() -> None:
    """ResNet-50: five epochs of warm-up, then a cosine that is constant within an epoch."""
    per_epoch, momentum, decay, d = 5005, 0.875, 2**-15, 1.0
    epochs = [0.256 * (e + 1) / 5 for e in range(5)]
    epochs += [0.256 * 0.5 * (1 + math.cos(math.pi * e / 95)) for e in range(95)]
    rates = [rate for rate in epochs for _ in range(per_epoch)]
    assert math.fsum(rates) == pytest.approx(65_345, abs=1)
    schedule = IntegratedLR(rates, final_threshold=d)
    assert schedule.c == pytest.approx(1.530e-5, rel=1e-3)
    scheduled = l1_coefficient(schedule.c, momentum=momentum)
    assert scheduled == pytest.approx(1.913e-6, rel=1e-3)
    whole = l1_coefficient(schedule.c, momentum=momentum, weight_decay=decay, threshold=d)
    assert (whole - scheduled) / scheduled == pytest.approx(16.0, abs=0.1)
    assert mu_of_l1(scheduled, momentum=momentum) == pytest.approx(schedule.c)


def test_rules_that_ignore_the_learning_rate_have_no_constant_coefficient() -> None:
    h = 1e-6
    for x in (0.2, 0.5, 0.8, 0.95):
        rate = 1 + math.cos(math.pi * x)
        mu = lambda form, x=x, rate=rate: (form(x + h) - form(x - h)) / (2 * h) / rate  # noqa: E731
        assert mu(linear) == pytest.approx(1 / rate, rel=1e-6)
        assert mu(sine) == pytest.approx(math.pi / 2 * math.tan(math.pi * x / 2), rel=1e-5)
        assert mu(s_lats) == pytest.approx(1, rel=1e-6)
