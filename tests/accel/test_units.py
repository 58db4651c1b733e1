"""A number is written in the unit that keeps its digits: nothing small reads as zero, nothing large as a power."""

import math
from collections.abc import Callable

import pytest

from spikeloom.accel.common.units import amount_text, counted, duration_text, energy_text, prefixed, size_text


@pytest.mark.parametrize(
    ("form", "cases"),
    [
        (energy_text, {9.13e11: "913 mJ", 2.5e6: "2.5 µJ", 12e3: "12 nJ", 7.0: "7 pJ", 0.0: "0 pJ", 999.9: "1 nJ",
                       5.1234e15: "5,123 J", -2.5e6: "-2.5 µJ", math.inf: "inf pJ"}),
        (duration_text, {12e-6: "12 ns", 0.5: "500 µs", 1.0: "1 ms", 90_000: "90 s", 5e6: "5,000 s"}),
        (size_text, {0: "0 B", 512: "512 B", 1_536: "1.54 kB", 2.5e9: "2.5 GB", 3e15: "3,000 TB"}),
        (amount_text, {0: "0", 935: "935", 12_345: "12.3 k", 4.56e6: "4.56 M"}),
    ],
)  # fmt: skip
def test_a_number_gets_the_unit_that_suits_it(form: Callable[[float], str], cases: dict[float, str]) -> None:
    assert {value: form(value) for value in cases} == cases


def test_more_digits_are_shown_when_asked_for() -> None:
    assert (energy_text(999.9, 4), size_text(123_456, 5)) == ("999.9 pJ", "123.46 kB")


def test_nouns_follow_their_number() -> None:
    found = [counted(1, "core"), counted(0, "core"), counted(1200, "batch", "batches")]
    assert found == ["1 core", "0 cores", "1,200 batches"]


def test_no_positive_number_reads_as_zero() -> None:
    for form in (energy_text, duration_text, size_text, amount_text):
        for power in range(-12, 16):
            assert float(form(1.5 * 10.0**power).split()[0].replace(",", "")) > 0


def test_an_axis_gets_the_prefix_that_its_largest_value_is_written_with() -> None:
    for pj, expected in ((0.5, (1, "p")), (999, (1, "p")), (12.3e6, (1e6, "µ")), (4e9, (1e9, "m")), (0.0, (1, "p"))):
        assert prefixed(pj) == expected
