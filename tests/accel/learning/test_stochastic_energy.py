"""Energy from counts: every count by hand on a small network, every item priced once, nothing without its constant."""

from pathlib import Path

import pytest
import yaml

from spikeloom.accel.learning.stochastic.energy import (
    Counts,
    EnergyConstants,
    inference_counts,
    itemise,
    mac_pj,
    ratios,
    training_counts,
)
from spikeloom.accel.learning.stochastic.policies import BsPolicy, Conv, Dense

DEFAULT = Path(__file__).resolve().parents[3] / "conf" / "constants" / "stochastic.yaml"
LAYERS = (Dense(n_in=5, n_out=4), Dense(n_in=4, n_out=3))
CONV = (Conv(n_in=1, n_out=2, size=6, kernel=3, pool=2), Dense(n_in=8, n_out=3))


def test_an_inference_counts_every_read_draw_and_softmax() -> None:
    assert inference_counts(LAYERS, stochastic=True) == Counts(
        samples=1, macs=32, row_drives=9, column_senses=7, random_draws=5 + 4 + 3, softmax_outputs=3
    )
    assert inference_counts(LAYERS, stochastic=False).random_draws == 0
    repeated = inference_counts(LAYERS, stochastic=True, repeats=10)
    assert (repeated.samples, repeated.macs, repeated.random_draws, repeated.softmax_outputs) == (1, 320, 120, 30)


def test_a_convolution_reads_its_array_at_every_position_and_draws_after_pooling() -> None:
    counts = inference_counts(CONV, stochastic=True)
    assert counts.macs == 9 * 2 * 16 + 24 and counts.row_drives == 9 * 16 + 8
    assert counts.column_senses == 2 * 16 + 3 and counts.random_draws == 36 + 2 * 4 + 3


def test_a_training_step_goes_back_through_all_layers_but_the_first() -> None:
    counts = training_counts(LAYERS, BsPolicy(), samples=10, pulses=7, updates=2)
    assert counts.macs == 10 * (32 + 12) and counts.gradient_macs == 320
    assert counts.row_drives == 10 * (9 + 3) and counts.column_senses == 10 * (7 + 4)
    assert counts.random_draws == 10 * (5 + 4 + 4 + 3)  # input, hidden, derivative, output
    assert (counts.accumulations, counts.program_pulses, counts.samples) == (320, 7, 10)
    assert training_counts(LAYERS, BsPolicy(), 10, 7, updates=2, per_batch=True).accumulations == 2 * 32
    plain = BsPolicy(forward="hp", derivative="hp", error="hp", output="hp")
    assert training_counts(LAYERS, plain, 10, 0, updates=2).random_draws == 0


def test_every_item_is_its_count_times_its_price() -> None:
    names = [name for name in vars(EnergyConstants.from_yaml(DEFAULT)) if name != "constants"]
    primes = dict(zip(names, (2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0, 29.0, 31.0), strict=True))
    constants = EnergyConstants(**primes)
    items = itemise(training_counts(LAYERS, BsPolicy(), samples=1, pulses=6, updates=1), constants)
    assert items["stochastic"] == {
        "array": 44 * 5, "row drivers": 12 * 13, "comparators": 11 * 17, "random draws": 16 * 19, "softmax": 3 * 23,
        "accumulators": 32 * 29, "program pulses": 6 * 31,
        "total": 44 * 5 + 12 * 13 + 11 * 17 + 16 * 19 + 3 * 23 + 32 * 29 + 6 * 31,
    }  # fmt: skip
    assert items["digital"]["total"] == 44 * (2 + 3) + 32 * (2 + 3) + 69
    assert items["analog"]["DACs"] == 12 * 7 and items["analog"]["ADCs"] == 11 * 11
    assert mac_pj(constants, rows=4, columns=2) == 5 + 13 / 2 + 17 / 4


def test_a_ratio_needs_all_three_systems() -> None:
    constants = EnergyConstants.from_yaml(DEFAULT)
    items = itemise(inference_counts(LAYERS, stochastic=True), constants)
    found = ratios(items)
    assert found["digital / stochastic"] == items["digital"]["total"] / items["stochastic"]["total"]
    del items["analog"]
    with pytest.raises(ValueError, match="analog"):
        ratios(items)


def test_default_constants_all_name_their_source() -> None:
    constants = EnergyConstants.from_yaml(DEFAULT).constants
    assert len(constants) == 11 and all(c.source and c.tier for c in constants)


@pytest.mark.parametrize("name", ["adc_pj", "random_draw_pj", "program_pulse_pj"])
def test_a_missing_constant_is_an_error(tmp_path: Path, name: str) -> None:
    document = yaml.safe_load(DEFAULT.read_text("utf-8"))
    del document[name]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    with pytest.raises(ValueError, match=rf"mine.yaml[\s\S]*{name}"):
        EnergyConstants.from_yaml(path)


def test_a_constant_without_source_or_in_another_unit_is_an_error(tmp_path: Path) -> None:
    document = yaml.safe_load(DEFAULT.read_text("utf-8"))
    document["adc_pj"] |= {"source": "", "unit": "nJ"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document), "utf-8")
    with pytest.raises(ValueError, match=r"adc_pj.*unit pJ[\s\S]*adc_pj"):
        EnergyConstants.from_yaml(path)
    with pytest.raises(ValueError, match=r"none\.yaml"):
        EnergyConstants.from_yaml(tmp_path / "none.yaml")
