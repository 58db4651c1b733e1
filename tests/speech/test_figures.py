"""Every figure draws from plain arrays, shows the numbers it was given, and refuses what it cannot show."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from spikeloom.accel.common.charts import confusion, learning_curve, loss_curves, spike_rates
from spikeloom.accel.common.report import Section, render
from spikeloom.speech.charts import (
    accuracy_by_speaker,
    events_and_frames,
    spike_raster,
    waveform_and_coefficients,
    waveform_and_mel,
)

WORDS = ["zero", "one", "two"]
EPOCH = {"epoch": 1.0, "train_loss": 1.0, "valid_loss": 1.0, "valid_accuracy": 0.1}
COUNTS = np.array([[9, 1, 0], [0, 10, 0], [3, 0, 7]])


def spikes() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {f"layer{i}": generator.random((30, 100)) < 0.1 for i in range(8)}


def word() -> Section:
    generator = np.random.default_rng(0)
    return waveform_and_mel(generator.normal(size=4000), 8000, generator.random((50, 40)), 10.0, "seven", "theo")


def ear() -> Section:
    generator = np.random.default_rng(0)
    times_s, units = generator.random(3000), generator.integers(0, 700, 3000)
    return events_and_frames(times_s, units, generator.integers(0, 9, (100, 140)), 10.0, "seven", "theo")


def curve() -> Section:
    rows = [(1, 2.0, 2.1, 0.2), (2, 1.0, 1.2, 0.75), (3, 0.5, 1.3, 0.7)]
    return learning_curve([dict(zip(EPOCH, row, strict=True)) for row in rows], 2, "words")


def losses() -> Section:
    rows = [
        {"epoch": i, "train_eeg": 3.0 - i, "valid_eeg": 3.5 - i, "train_text": 1.0, "valid_text": 2.0} for i in (1, 2)
    ]
    return loss_curves(rows, 2, "eeg: squared error; text: cross-entropy.")


def cepstrum() -> Section:
    generator = np.random.default_rng(0)
    return waveform_and_coefficients(
        generator.normal(size=4000), 8000, generator.normal(size=(50, 13)), 10.0, "seven", "theo"
    )


SECTIONS: dict[str, Callable[[], Section]] = {
    "waveform_and_mel": word,
    "waveform_and_coefficients": cepstrum,
    "events_and_frames": ear,
    "spike_raster": lambda: spike_raster(spikes(), 10.0, "seven"),
    "learning_curve": curve,
    "loss_curves": losses,
    "confusion": lambda: confusion(COUNTS, WORDS, "recordings"),
    "spike_rates": lambda: spike_rates({f"layer{i}": i / 100 for i in range(35)}),
    "accuracy_by_speaker": lambda: accuracy_by_speaker([("theo", 0.9, 0.02, 3), ("lucas", 0.7, float("nan"), 1)], 0.1),
}


def shown(path: Path, section: Section) -> str:
    """All text of the rendered page, figure labels included."""
    text = render("T", "l", [section], path / "r.html").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert "://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    return "".join(root.itertext()).replace("\u00a0", " ")


@pytest.mark.parametrize("name", SECTIONS)
def test_every_figure_renders_the_same_bytes_twice(name: str, tmp_path: Path) -> None:
    section = SECTIONS[name]()
    assert section.figure is not None
    assert len(section.caption) > 80
    assert section.caption.replace("\u00a0", " ") in shown(tmp_path, section)
    first = (tmp_path / "r.html").read_bytes()
    shown(tmp_path, SECTIONS[name]())
    assert (tmp_path / "r.html").read_bytes() == first


@pytest.mark.parametrize("name", SECTIONS)
def test_no_label_is_cut_off_by_the_edge_of_its_figure(name: str) -> None:
    figure = SECTIONS[name]().figure
    assert figure is not None
    figure.draw_without_rendering()
    box = figure.get_tightbbox()  # inches; everything visible
    width_in, height_in = figure.get_size_inches()
    assert box.x0 > -0.02
    assert box.y0 > -0.02
    assert box.x1 < width_in + 0.02
    assert box.y1 < height_in + 0.02


def test_names_with_markup_are_escaped(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    wave = waveform_and_mel(np.zeros(10), 8000, np.zeros((2, 3)), 10, bad, bad)
    for section in (wave, spike_raster({bad: np.ones((3, 2))}, 10, bad), spike_rates({bad: 0.5})):
        assert bad in shown(tmp_path, section)
        assert "<script" not in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_waveform_keeps_a_click_of_one_sample() -> None:
    wave = np.zeros(80_000)
    wave[12_345] = 1.0
    section = waveform_and_mel(wave, 16_000, np.zeros((500, 4)), 10, "click", "theo")
    assert section.figure is not None
    (body,) = section.figure.axes[0].collections
    x_s, height = body.get_paths()[0].vertices.T
    assert height.max() == 1.0
    assert abs(x_s[height.argmax()] - 12_345 / 16_000) < 0.005
    assert "5.00 seconds" in section.caption


def test_the_mel_image_has_time_to_the_right_and_low_bands_below() -> None:
    features = np.zeros((50, 40))
    features[49, 0] = 1.0
    section = waveform_and_mel(np.zeros(4000), 8000, features, 10, "w", "s")
    assert section.figure is not None
    axes = section.figure.axes[1]
    (image,) = axes.collections
    assert np.argwhere(np.asarray(image.get_array())).tolist() == [[0, 49]]  # [band, step]
    assert axes.get_ylabel() == "Frequency (Hz)"
    low, high = axes.get_ylim()
    assert low < 100
    assert 7000 < high < 9000
    assert axes.get_xlim() == pytest.approx((0, 0.5), abs=0.02)


def test_each_dot_of_the_raster_is_a_spike() -> None:
    fired = np.zeros((20, 3))
    fired[4, 0], fired[11, 2] = 1, 2
    section = spike_raster({"stem": fired, "head": np.ones((20, 1))}, 10, "w")
    assert section.figure is not None
    stem, head = section.figure.axes
    assert np.array_equal(stem.lines[0].get_xydata(), [[0.04, 0], [0.11, 2]])
    assert len(head.lines[0].get_xydata()) == 20
    assert "3 neurons · 3.3" in stem.get_title(loc="left")


def test_a_large_raster_says_what_it_leaves_out() -> None:
    section = spike_raster(spikes(), 10, "w")
    assert section.figure is not None
    titles = [axes.get_title(loc="left") for axes in section.figure.axes]
    assert len(titles) == 6
    assert titles[0].startswith("layer0 · 48 of 100 neurons")
    assert titles[-1].startswith("layer7")
    assert "Of 8 layers, 6 are shown" in section.caption


def test_the_best_epoch_is_marked_and_quoted(tmp_path: Path) -> None:
    section = curve()
    text = shown(tmp_path, section)
    assert "epoch 2, whose weights are kept: 75.0 % of" in text and "Validation words recognised (%)" in text
    assert section.figure is not None
    right = section.figure.axes[1]
    assert np.allclose(right.lines[0].get_ydata(), [20, 75, 70])
    assert list(right.lines[1].get_xdata()) == [2, 2]


def test_confusion_counts_and_ranks_the_mistakes(tmp_path: Path) -> None:
    section = confusion(COUNTS, WORDS, "recordings")
    text = shown(tmp_path, section)
    assert "86.7 % of 30 recordings" in text
    assert "“two” taken for “zero”" in text
    assert section.table is not None
    assert section.table.rows == [("two", "zero", 3, "30.0\u00a0%"), ("zero", "one", 1, "10.0\u00a0%")]
    assert section.figure is not None
    written = {(t.get_position(), t.get_text()) for t in section.figure.axes[0].texts}
    assert written == {((0, 0), "9"), ((1, 0), "1"), ((1, 1), "10"), ((0, 2), "3"), ((2, 2), "7")}


def test_a_faultless_confusion_has_no_table_of_mistakes() -> None:
    section = confusion(np.eye(35, dtype=int) * 4, [f"word{i}" for i in range(35)])
    assert section.table is None
    assert "no mistake" in section.caption


def test_rates_stand_in_their_order_with_the_first_on_top(tmp_path: Path) -> None:
    section = spike_rates({"stem": 0.2, "head": 0.013})
    text = shown(tmp_path, section)
    assert "busiest is stem with 20.0 %; the mean over layers is 10.7 %" in text
    assert section.figure is not None
    axes = section.figure.axes[0]
    assert np.allclose([bar.get_width() for bar in axes.patches], [20, 1.3])
    assert axes.yaxis.get_inverted()


def test_speakers_stand_from_best_to_worst_with_their_spread(tmp_path: Path) -> None:
    section = accuracy_by_speaker([("lucas", 0.7, float("nan"), 1), ("theo", 0.9, 0.02, 3)], chance=0.1)
    assert section.table is not None
    rows = [[str(cell).replace("\u00a0", " ") for cell in row] for row in section.table.rows]
    assert rows == [["theo", "90.0 %", "2.0 %", "3"], ["lucas", "70.0 %", "–", "1"]]
    text = shown(tmp_path, section)
    assert "guessing: 10.0 %" in text
    assert "over speakers: 80.0 %" in text
    assert section.figure is not None
    low, high = section.figure.axes[0].get_xlim()
    assert low < 10 < 90 < high  # the line of chance is inside, not on the edge


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: waveform_and_mel(np.zeros((2, 5)), 8000, np.zeros((2, 3)), 10, "w", "s"),
            r"waveform needs 1 .*\(2, 5\)",
        ),
        (lambda: waveform_and_mel(np.zeros(5), 8000, np.zeros((0, 3)), 10, "w", "s"), r"features needs 2 .*\(0, 3\)"),
        (lambda: spike_raster({}, 10, "w"), "number of time steps, got"),
        (lambda: spike_raster({"a": np.ones((3, 2)), "b": np.ones((4, 2))}, 10, "w"), r"got \[3, 4\]"),
        (lambda: learning_curve([{"epoch": 1, "train_loss": 1.0}], 1), "row 0 .* no valid_loss"),
        (lambda: learning_curve([EPOCH, {**EPOCH, "epoch": 2}], 3), r"best_epoch .* got 3; use one of \[1, 2\]"),
        (lambda: loss_curves([{"epoch": 1, "train_loss": 1.0}], 1, ""), "no valid_ loss"),
        (lambda: loss_curves([{"epoch": 1, "valid_eeg": 1.0}], 1, ""), "row 0 .* no train_eeg"),
        (lambda: loss_curves([{"epoch": 1, "train_a": 1.0, "valid_a": 1.0}], 2, ""), r"got 2; use one of \[1\]"),
        (lambda: confusion(np.ones((2, 3)), WORDS), r"3 class names, got \(2, 3\)"),
        (lambda: spike_rates({}), "no values"),
        (lambda: spike_rates({"stem": 12.0}), "'stem' must lie in 0…1, got 12.0"),
        (lambda: accuracy_by_speaker([]), "no values"),
        (lambda: accuracy_by_speaker([("theo", 91.0, 1.0, 3)]), "'theo' must lie in 0…1, got 91.0"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_reason(call: Callable[[], Section], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_every_pair_of_losses_has_a_panel_with_both_curves_and_the_epoch_that_is_kept() -> None:
    figure = losses().figure
    assert figure is not None
    assert [panel.get_title("left") for panel in figure.axes] == ["eeg", "text"]
    training, validation, kept = figure.axes[0].lines
    assert list(training.get_ydata()) == [2.0, 1.0] and list(validation.get_ydata()) == [2.5, 1.5]
    assert list(kept.get_xdata()) == [2, 2]


def test_the_ear_is_drawn_without_events_and_refuses_unequal_ones() -> None:
    assert "0 dots" in events_and_frames([], [], np.zeros((1, 140)), 10.0, "seven", "theo").caption
    with pytest.raises(ValueError, match="one of each per spike"):
        events_and_frames([0.1], [1, 2], np.zeros((1, 140)), 10.0, "seven", "theo")
