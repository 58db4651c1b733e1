"""What a set of recordings looks like, from one pass over its sentences: what a report shows before any model is named.

Quality counts, the share of words each reader skips, the mean amplitude of every band and channel, and, where raw EEG
was read, its power spectrum. Memory is that of one sentence and the sums. What this module does not do: draw
(`spikeloom.bci.reports.charts`), or decide which rows are fit (`spikeloom.bci.zuco.samples`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spikeloom.bci.zuco.quality import quality_table
from spikeloom.bci.zuco.records import BANDS, N_CHANNELS, N_FEATURES, SAMPLING_HZ, Sentence
from spikeloom.bci.zuco.samples import MEASURE, Samples

WELCH_SAMPLES = 1000  # 2 s: half a hertz apart


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """quality: rows of `quality_table`. omission_rates: subject -> share of words not looked at, `[n]`, of each
    sentence with words. amplitudes_uv: `[8, 105]`, mean over the gaze durations that were not rejected, None where
    there are none. frequencies_hz `[F]` and density `[105, F]` in uV²/Hz: mean over sentences with raw EEG of two
    seconds or more, None where there are none."""

    quality: Sequence[Mapping[str, str | int | float | None]]
    omission_rates: Mapping[str, np.ndarray]
    amplitudes_uv: np.ndarray | None
    frequencies_hz: np.ndarray | None = None
    density: np.ndarray | None = None

    @property
    def n_rows(self) -> int:
        return sum(int(row["n_rows"] or 0) for row in self.quality)

    @property
    def n_kept(self) -> int:
        return sum(int(row["n_kept"] or 0) for row in self.quality)


def summarise(
    sentences: Iterable[Sentence],
    samples: Samples,
    count_tokens: Callable[[str], int] | None = None,
    spectra: Iterable[Sentence] = (),
) -> Summary:
    """One pass; `samples` and `count_tokens` as in `quality_table`. spectra: sentences read with their raw EEG, for the
    spectrum alone, where `sentences` come without. Raises ValueError when there is no sentence."""
    sums = _Sums()
    for sentence in spectra:
        sums.add_spectrum(sentence)
    quality = quality_table(sums.passing(sentences), samples, count_tokens)
    if not quality:
        raise ValueError("got no sentences to summarise; use recordings that hold at least one")
    return Summary(
        quality=quality,
        omission_rates={subject: np.array(rates) for subject, rates in sums.omission.items()},
        amplitudes_uv=sums.amplitude / sums.n_words if sums.n_words else None,
        frequencies_hz=np.fft.rfftfreq(WELCH_SAMPLES, 1 / SAMPLING_HZ)[1:] if sums.n_spectra else None,
        density=sums.density / sums.n_spectra if sums.n_spectra else None,
    )


class _Sums:
    def __init__(self) -> None:
        self.omission: dict[str, list[float]] = {}
        self.amplitude, self.n_words = np.zeros((len(BANDS), N_CHANNELS)), 0
        self.density, self.n_spectra = np.zeros((N_CHANNELS, WELCH_SAMPLES // 2)), 0

    def passing(self, sentences: Iterable[Sentence]) -> Iterator[Sentence]:
        for sentence in sentences:
            self.add(sentence)
            yield sentence

    def add(self, sentence: Sentence) -> None:
        if sentence.words:
            rate = float(np.mean([not word.fixated for word in sentence.words]))
            self.omission.setdefault(sentence.subject, []).append(rate)
        for word in sentence.words:
            vector = word.eeg.get(MEASURE)
            if vector is not None and len(vector) == N_FEATURES and not np.isnan(vector).any():
                self.amplitude += vector.reshape(len(BANDS), N_CHANNELS)
                self.n_words += 1
        self.add_spectrum(sentence)

    def add_spectrum(self, sentence: Sentence) -> None:
        raw = sentence.raw_eeg
        if raw is not None and len(raw) >= WELCH_SAMPLES and raw.shape[1] == N_CHANNELS and np.isfinite(raw).all():
            self.density += spectrum(raw)[1]
            self.n_spectra += 1


def spectrum(eeg_uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz `[F]` above 0 and power `[C, F]` in uV²/Hz of an EEG `[T, C]` of two seconds or more."""
    from scipy.signal import welch

    frequencies_hz, density = welch(eeg_uv.T, SAMPLING_HZ, nperseg=WELCH_SAMPLES)
    return frequencies_hz[1:], density[:, 1:]
