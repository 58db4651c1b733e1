"""What `bench plan` and `bench ranks` compute from measured steps, against sums by hand."""

import pytest

from spikeloom.benchmarks.plan import STATE, Line, Task, line, planned, print_plan
from spikeloom.benchmarks.ranks import losses, print_ranks
from spikeloom.pipelines.config.bench import PlanBenchConfig, RanksBenchConfig


def task(samples: int = 1000, epochs: int = 3, batch: int = 64) -> Task:
    return Task("a task", "an_experiment", samples, epochs, batch, (1, 2), lambda *_: (0.0, 0.0), lambda: (0, 0))


def test_a_line_goes_through_both_measurements_and_never_below_zero() -> None:
    assert line(4, 10.0, 8, 14.0) == Line(at_none=6.0, per_sample=1.0)
    assert line(4, 10.0, 8, 9.0) == Line(at_none=10.0, per_sample=0.0)
    assert line(1, 1.0, 2, 3.0) == Line(at_none=0.0, per_sample=2.0)


def test_a_plan_is_the_sum_by_hand() -> None:
    step_s, memory_gb = Line(at_none=0.5, per_sample=0.25), Line(at_none=2.0, per_sample=0.125)
    one = planned(task(), step_s, memory_gb, 10_000_000, 5_000_000, 1, 1.0, 10.0)
    steps = 16 * 3  # ceil(1000 / 64) a pass
    assert one.hours == pytest.approx(steps * (0.5 + 0.25 * 64) / 3600)
    assert (one.exchanging, one.ddp_gb, one.fsdp_gb) == (0.0, 10.0, 10.0)

    four = planned(task(), step_s, memory_gb, 10_000_000, 5_000_000, 4, 2.0, 10.0)
    exchange_s = 1.5 * 20e6 / 10e9  # three quarters of the gradients' 20 MB go out, and as many come in
    assert four.hours == pytest.approx(steps * ((0.5 + 0.25 * 16) / 2 + exchange_s) / 3600)
    assert four.exchanging == pytest.approx(exchange_s / (2.25 + exchange_s))
    assert four.ddp_gb == 4.0
    assert four.fsdp_gb == pytest.approx(4.0 - 0.75 * 4e-9 * (5e6 + STATE * 5e6))


def test_sharding_spares_no_more_than_there_is() -> None:
    plan = planned(task(), Line(at_none=1, per_sample=0), Line(at_none=0.1, per_sample=0.5), 10**9, 10**9, 64, 1, 1)
    assert plan.fsdp_gb == 0.5


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (PlanBenchConfig(devices=[0]), r"plan\.devices"),
        (PlanBenchConfig(devices=[]), r"plan\.devices"),
        (PlanBenchConfig(speed=0.0), r"plan\.speed"),
        (PlanBenchConfig(link_gb_s=-1.0), r"plan\.link_gb_s"),
        (PlanBenchConfig(experiments=["tea"]), r"plan\.experiments=\['tea'\]"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(config: PlanBenchConfig, key: str) -> None:
    with pytest.raises(ValueError, match=key):
        print_plan(config, 10)


def test_more_devices_than_samples_of_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match=r"plan\.devices=65"):
        planned(task(), Line(at_none=1, per_sample=1), Line(at_none=1, per_sample=1), 1, 1, 65, 1.0, 1.0)


def test_the_efficiency_of_processes_is_the_product_of_what_is_lost() -> None:
    found = losses({"whole": 8.0, "part": 5.0, "beside": 6.25, "joint": 10.0}, 2)
    assert found == {"batch": 0.8, "sharing": 0.8, "exchange": 0.625, "efficiency": 0.4}
    assert found["efficiency"] == pytest.approx(found["batch"] * found["sharing"] * found["exchange"])


@pytest.mark.parametrize("config", [
    RanksBenchConfig(devices=1), RanksBenchConfig(batch=31), RanksBenchConfig(batch=0), RanksBenchConfig(steps=1),
])  # fmt: skip
def test_a_batch_that_processes_cannot_share_is_refused(config: RanksBenchConfig) -> None:
    with pytest.raises(ValueError, match=r"ranks\.batch="):
        print_ranks(config, 1)
