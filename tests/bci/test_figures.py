"""Figures for reading experiments say what the arrays hold, and the page they make needs no network."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spikeloom.accel.common import report
from spikeloom.accel.common.report import Section
from spikeloom.bci.reports import charts as figures
from spikeloom.bci.reports import quality as quality_figures
from spikeloom.bci.reports.page import Findings, eeg_report, write_report
from spikeloom.bci.synthetic.zuco import SyntheticZuCoConfig
from spikeloom.bci.zuco.leakage import overlap
from spikeloom.bci.zuco.quality import COUNTS
from spikeloom.bci.zuco.records import BANDS, CHANNELS
from spikeloom.bci.zuco.samples import SamplesConfig, drop_reason
from spikeloom.bci.zuco.summary import summarise
from tests.pipelines.conftest import blank

RNG = np.random.default_rng(0)
RATES = {"ZAB": np.array([0.2, 0.3, np.nan, 0.4]), "ZDM": np.array([0.5, 0.6])}
SALIENCY = np.full((8, 105), 0.01)
SALIENCY[2, CHANNELS.index("E62")] = 1.0
READ = ("He <won> the prize.", {"EEG": "He was born.", "noise": "He was born."})

SECTIONS: dict[str, Callable[[], Section]] = {
    "omission_rates": lambda: figures.omission_rates(RATES),
    "power_spectrum": lambda: figures.power_spectrum(np.arange(1, 60.0), RNG.random((5, 59)) + 0.1),
    "sensor_layout": figures.sensor_layout,
    "band_topomaps": lambda: figures.band_topomaps(RNG.random(840)),
    "electrode_importance": lambda: figures.electrode_importance(SALIENCY),
    "sample_decodes": lambda: figures.sample_decodes([READ]),
    "control_comparison": lambda: figures.control_comparison(
        {"EEG": (0.01, -0.02, 0.04), "noise": (0.0, -0.03, 0.03)}, "Excess"
    ),
    "power_curve": lambda: figures.power_curve([0, 0.0625, 1], [0.05, 0.6, 1.0], [200, 20, 20]),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, "Reading", [make() for make in SECTIONS.values()], {"seed": 7, "strength": 0.5})
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_the_page_holds_every_section_and_the_seed(page: str) -> None:
    for make in SECTIONS.values():
        assert make().title in page
    assert "Configuration and seeds" in page
    assert re.search(r"<td[^>]*>seed</td><td[^>]*>7</td>", page)
    assert page.count("<svg") >= 7


def test_the_page_loads_nothing_from_elsewhere(page: str) -> None:
    assert not re.search(r'(?:src|href)\s*=\s*["\']?(?:https?:)?//', page)
    assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", page)


def test_text_of_decoders_is_escaped(page: str) -> None:
    assert "He &lt;won&gt; the prize." in page
    assert "He <won>" not in page


def test_every_figure_has_a_caption_that_explains_it() -> None:
    for name, make in SECTIONS.items():
        section = make()
        assert len(section.caption) > 80, name
        assert (section.figure is None) == (name == "sample_decodes"), name


def test_the_reference_electrode_is_not_on_any_map() -> None:
    figure = figures.sensor_layout().figure
    assert figure is not None
    names = {text.get_text() for text in figure.axes[0].texts}
    assert names == set(CHANNELS) - {"Cz"}


def test_the_back_of_the_head_is_at_the_bottom_of_a_map() -> None:
    section = figures.electrode_importance(SALIENCY)  # E62 lies over the occiput, on the midline
    assert section.figure is not None
    image = section.figure.axes[0].images[0]
    values = np.ma.filled(np.ma.masked_invalid(image.get_array()), -1.0)
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert row < 0.35 * len(values)  # origin is lower: the first rows are drawn at the bottom
    assert abs(column / values.shape[1] - 0.5) < 0.1
    assert "E62" in section.caption


def test_bands_are_told_apart_on_their_maps() -> None:
    amplitudes = np.ones((8, 105)) * np.arange(1, 9)[:, None] + 0.01 * RNG.random((8, 105))
    figure = figures.band_topomaps(amplitudes.ravel()).figure
    assert figure is not None
    maps = [axes for axes in figure.axes if axes.images and axes.get_title()]
    assert [axes.get_title().split(" ")[0] for axes in maps] == list(BANDS)
    means = [float(np.nanmean(axes.images[0].get_array())) for axes in maps]
    assert np.allclose(means, np.arange(1, 9), atol=0.1)


def test_importance_is_summed_over_bands_and_leaves_the_reference_out() -> None:
    reference_only = np.zeros((8, 105))
    reference_only[:, :-1] = 0.1
    reference_only[:, -1] = 100.0
    assert "Cz" not in figures.electrode_importance(reference_only).caption.split("largest shares")[1]


def test_intervals_of_the_power_curve_are_wilson_s() -> None:
    figure = figures.power_curve([0, 1], [0.05, 1.0], [200, 20]).figure
    assert figure is not None
    ends = np.array([segment[:, 1] for segment in figure.axes[0].collections[0].get_segments()])
    assert np.allclose(ends, [[2.74, 8.96], [83.89, 100.0]], atol=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.omission_rates({}), "no subjects"),
        (lambda: figures.omission_rates({"ZAB": [40.0]}), "ZAB must lie in 0…1, got 40"),
        (lambda: figures.power_spectrum([1, 2], np.ones((3, 4))), r"\(3, 4\)"),
        (lambda: figures.band_topomaps(np.ones(839)), r"\(839,\)"),
        (lambda: figures.electrode_importance(-np.ones(840)), "negative"),
        (lambda: figures.sample_decodes([("a", {"EEG": "b"})]), "two or more"),
        (lambda: figures.control_comparison({"EEG": (1.0, 2.0, 3.0)}, "Excess"), "outside its interval"),
        (lambda: figures.power_curve([1, 0], [0.1, 0.2], [5, 5]), "rising"),
        (lambda: write_report(Path("r.pdf"), "t", [figures.sample_decodes([READ])]), "NAME.html"),
        (lambda: write_report(Path("r.html"), "t", []), "0 sections"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_reason(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_page_of_an_experiment_opens_with_its_verdict_and_has_every_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_svg", blank)  # built, and drawn above
    samples = SamplesConfig().build()
    recordings = SyntheticZuCoConfig(n_subjects=2, n_sentences=5, rejected=0.05, missing=0.1, seed=3).build()
    found = Findings(
        title="Reading",
        verdict="It does not beat its noise control.",
        summary=summarise(recordings, samples),
        decodes=[READ],
        controls={"EEG": (0.01, -0.02, 0.04), "noise": (0.0, -0.03, 0.03)},
        saliency=SALIENCY,
        power=([0, 1], [0.05, 1.0], [200, 20]),
        leakage=[overlap("train and test", ["A b."], ["a b", "c"])],
        more=[Section("Of our own", "", text="More.")],
        config={"seed": 3},
    )
    page = eeg_report(tmp_path / "report.html", found).read_text(encoding="utf-8")
    titles = ["It does not beat", "The decoder", "What the decoders wrote", "Which electrodes", "Does the test",
              "Sentences on both sides", "What is in the recordings", "Recording by recording", "How many words each",
              "Where the electrodes sit", "Where each rhythm", "Of our own", "Configuration and seeds"]  # fmt: skip
    places = [page.index(title) for title in titles]
    assert places == sorted(places)
    assert "It does not beat its noise control." in page and "1 of 1 splits leak." in page


def test_a_summary_counts_every_sentence_once_and_means_what_was_kept() -> None:
    recordings = SyntheticZuCoConfig(n_subjects=2, n_sentences=6, rejected=0.1, missing=0.2, seed=1).build()
    found = summarise(recordings, SamplesConfig().build())
    read = list(recordings)
    assert found.n_rows == 12 and found.n_kept == sum(drop_reason(s) is None for s in read)
    vectors = [w.eeg["GD"] for s in read for w in s.words if w.fixated and not np.isnan(w.eeg["GD"]).any()]
    assert found.amplitudes_uv is not None
    np.testing.assert_allclose(found.amplitudes_uv.ravel(), np.mean(vectors, axis=0))
    assert {name: len(rates) for name, rates in found.omission_rates.items()} == {
        name: sum(s.subject == name and not s.missing for s in read) for name in ("Z01", "Z02")
    }
    assert found.density is None
    with pytest.raises(ValueError, match="no sentences"):
        summarise([], SamplesConfig().build())


def test_every_count_of_the_quality_table_has_a_meaning() -> None:
    assert set(quality_figures.MEANINGS) == set(COUNTS)
