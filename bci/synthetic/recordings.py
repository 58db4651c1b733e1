"""Synthetic continuous recordings: the readers of `bci.synthetic.zuco` with EEG that runs on between their words.

    x(t) = sum over bands of a_b(t) n_b(t) + 1/f + artefacts          [105, T], Cz 0

n_b is noise of one band, smooth over the scalp (the components of `synthetic.planted`) plus white, of unit variance;
a_b(t) is exp(gain_subject) at rest and, while the eyes are on word w, exp(gain + 0.3 (noise + s M z_w)) of that
fixation, over the mean of a Rayleigh envelope. Features are not drawn: `bci.raw.sentences` computes them from the
record, as for a real one. Artefacts: blinks between sentences (over the forehead, beyond 90 uV); a share `rejected` of
the fixations gets a burst of muscle noise, and with it, by the published rule, the whole sentence is rejected.
What this module does not do: saccade potentials, drift of the electrodes, the mains.
"""

from collections.abc import Callable, Iterator

import numpy as np

from spikeloom.bci.raw.montage import unit_positions
from spikeloom.bci.raw.record import Gaze, Record, Shown, runs_of
from spikeloom.bci.raw.sentences import sentences_of
from spikeloom.bci.synthetic.planted import SMOOTH, WHITE, noise_mixing
from spikeloom.bci.synthetic.zuco import SyntheticZuCo, count_letters
from spikeloom.bci.zuco.gaze import draw_scan_path, place_fixations, place_words
from spikeloom.bci.zuco.records import BAND_EDGES_HZ, BANDS, N_CHANNELS, SAMPLE_MS, SAMPLING_HZ, Recording, Sentence

RAYLEIGH_MEAN = np.sqrt(np.pi / 2)  # mean envelope of Gaussian noise of unit variance
BACKGROUND_UV, BACKGROUND_FROM_HZ = 5.0, 0.5
BLINK_UV, BLINK_SAMPLES = 160.0, 150
BURST_UV = 250.0
REST = 1000  # samples before, between and after sentences
FIRST_LOOK, LAST_LOOK = 100, 50  # samples from sentence on to the first fixation, from the last one to sentence off
SACCADE = (8, 22)  # samples
TRACKER_MS = 4_000_000.0  # what the tracker's clock says when a recording begins
TRACKER_RATE = 1 + 2e-6  # its seconds, in seconds of the EEG
_BLOCK, _LAYOUT = 6, 7  # streams of random numbers, after those of spikeloom.bci.synthetic.zuco


class SyntheticRecords:
    """The continuous recordings of a synthetic set, made block by block when they are asked for."""

    def __init__(self, synthetic: SyntheticZuCo) -> None:
        self.synthetic = synthetic
        self.config = synthetic.config

    def of(self, recording: Recording) -> Iterator[Record]:
        """The blocks of one recording as they were read; all sentences are shown, also those whose row is lost."""
        subject = self.synthetic.recordings.index(recording)
        for number, (run, rows) in enumerate(runs_of(recording.version, recording.task, len(self.synthetic.texts))):
            yield self._record(recording, subject, number, run, rows)

    def read(self, recording: Recording, *, raw: bool = True) -> Iterator[Sentence]:
        """Every row of one recording, its features computed from the continuous EEG; missing ones too."""
        for record in self.of(recording):
            yield from self.rows_of(record, raw=raw)

    def rows_of(self, record: Record, *, raw: bool = True) -> Iterator[Sentence]:
        """The rows of one block, as its result file holds them."""
        subject = self.synthetic.recordings.index(record.recording)
        for found in sentences_of(record, raw=raw):
            lost = self.synthetic.trial_generator(subject, found.index).random() < self.config.missing
            yield Sentence(recording=record.recording, index=found.index, content=found.content) if lost else found

    def _record(self, recording: Recording, subject: int, number: int, run: str, rows: range) -> Record:
        layout = self.synthetic.generator(_LAYOUT, subject, number)
        shown: list[Shown] = []
        first, samples, x, y, pupil, words = ([] for _ in range(6))  # lists of arrays, one a sentence
        now = REST
        for index in rows:
            rng = self.synthetic.trial_generator(subject, index)
            content = self.synthetic.texts[index]
            rng.random()  # whether the row is missing
            tokens = content.split()
            bounds = place_words(tokens)
            path = draw_scan_path(count_letters(tokens), self.synthetic.readers[subject], rng)
            x_px, y_px = place_fixations(path, bounds, rng)
            gaps = layout.integers(*SACCADE, len(path.samples))
            starts = (
                now + FIRST_LOOK + np.cumsum(gaps) + np.concatenate(([0], np.cumsum(path.samples)[:-1]))[: len(gaps)]
            )
            off = int(starts[-1] + path.samples[-1] if len(starts) else now + FIRST_LOOK) + LAST_LOOK
            shown.append(Shown(index=index, content=content, word_bounds_px=bounds, on=now, off=off))
            first.append(starts)
            samples.append(path.samples)
            x.append(x_px)
            y.append(y_px)
            pupil.append(path.pupil)
            words.append([tokens[w] if w >= 0 else None for w in path.words])
            now = off + REST
        gaze = Gaze(
            first=_joined(first, np.int64), samples=_joined(samples, np.int64), x_px=_joined(x, np.float64),
            y_px=_joined(y, np.float64), pupil=_joined(pupil, np.float64),
        )  # fmt: skip
        rng = self.synthetic.generator(_BLOCK, subject, number)
        blinks = np.array([s.off + REST // 2 for s in shown], dtype=np.int64)
        eeg = self._eeg(subject, now, gaze, [w for of_sentence in words for w in of_sentence], rng)
        _add_artefacts(eeg, gaze, blinks, self.config.rejected, rng)
        trace = _trace(now, gaze, blinks, layout)
        traced = Gaze(
            first=gaze.first, samples=gaze.samples, x_px=gaze.x_px, y_px=gaze.y_px, pupil=gaze.pupil, trace=trace
        )
        return Record(recording=recording, run=run, eeg_uv=eeg, gaze=traced, shown=tuple(shown))

    def _eeg(
        self, subject: int, n_samples: int, gaze: Gaze, words: list[str | None], rng: np.random.Generator
    ) -> np.ndarray:
        """Bands and background, `[105, T]` in uV."""
        signal = self.synthetic.signal
        gain = signal.gain(subject)
        logs = gain + signal.noise(len(words), rng)  # one row a fixation
        for log, word in zip(logs, words, strict=True):
            log += signal.signal(word) if word else 0.0
        amplitude = (np.exp(logs) / RAYLEIGH_MEAN).reshape(-1, len(BANDS), N_CHANNELS)
        rest = (np.exp(gain) / RAYLEIGH_MEAN).reshape(len(BANDS), N_CHANNELS)
        eeg = BACKGROUND_UV * _coloured(noise_mixing(signal.seed)[0], n_samples, _one_over_f, rng)
        for b, band in enumerate(BANDS):
            noise = _coloured(noise_mixing(signal.seed)[b], n_samples, _inside(*BAND_EDGES_HZ[band]), rng)
            envelope = np.repeat(rest[b][:, None], n_samples, axis=1)
            for first, length, row in zip(gaze.first, gaze.samples, amplitude, strict=True):
                envelope[:, first : first + length] = row[b][:, None]
            eeg += envelope * noise
        eeg[-1] = 0.0
        return eeg


def _coloured(
    mixing: np.ndarray, n_samples: int, shape: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Noise `[105, T]` of unit variance a channel, its spectrum shaped, smooth over the scalp and a little white."""
    weights = shape(np.fft.rfftfreq(n_samples, 1 / SAMPLING_HZ))
    weights = weights / np.sqrt((weights**2).sum() * 2 / n_samples)

    def drawn(n: int) -> np.ndarray:
        spectrum = np.fft.rfft(rng.standard_normal((n, n_samples)), axis=1)
        made: np.ndarray = np.fft.irfft(spectrum * weights, n_samples, axis=1)
        return made

    return (SMOOTH * (mixing.T @ drawn(len(mixing))) + WHITE * drawn(mixing.shape[1])) / np.hypot(SMOOTH, WHITE)


def _inside(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda hz: ((hz >= low) & (hz <= high)).astype(np.float64)


def _one_over_f(hz: np.ndarray) -> np.ndarray:
    """Amplitude of a power that falls as 1 / f."""
    shape: np.ndarray = np.where(hz >= BACKGROUND_FROM_HZ, 1 / np.sqrt(np.maximum(hz, BACKGROUND_FROM_HZ)), 0.0)
    return shape


def _add_artefacts(eeg: np.ndarray, gaze: Gaze, blinks: np.ndarray, share: float, rng: np.random.Generator) -> None:
    """Blinks over the forehead, and bursts of muscle noise over the temples during a share of the fixations."""
    at = unit_positions()
    forehead = np.exp(-((1 - at[:, 1]) ** 2) / 0.18)
    bump = np.hanning(BLINK_SAMPLES)
    for blink in blinks:
        first = int(blink) - BLINK_SAMPLES // 2
        eeg[:, first : first + BLINK_SAMPLES] += BLINK_UV * forehead[:, None] * bump
    temples = np.exp(-((1 - np.abs(at[:, 0])) ** 2) / 0.02)
    for n in np.flatnonzero(rng.random(len(gaze.first)) < share):
        span = slice(int(gaze.first[n]), int(gaze.first[n] + gaze.samples[n]))
        length = span.stop - span.start
        eeg[:, span] += BURST_UV * temples[:, None] * np.hanning(length) * np.sign(rng.standard_normal(length))
    eeg[-1] = 0.0


def _trace(n_samples: int, gaze: Gaze, blinks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """TIME, x, y, area of every sample: still in fixations, straight between them, absent during blinks."""
    ends = gaze.first + gaze.samples - 1
    at = np.stack((gaze.first, ends), axis=1).ravel()
    trace = np.empty((n_samples, 4))
    trace[:, 0] = TRACKER_MS + np.arange(n_samples) * SAMPLE_MS * TRACKER_RATE
    for column, values in ((1, gaze.x_px), (2, gaze.y_px), (3, gaze.pupil)):
        still = np.interp(np.arange(n_samples), at, np.repeat(values, 2)) if len(at) else np.zeros(n_samples)
        trace[:, column] = still + 0.3 * rng.standard_normal(n_samples)
    for blink in blinks:
        trace[int(blink) - BLINK_SAMPLES // 2 : int(blink) + BLINK_SAMPLES // 2, 1:] = np.nan
    return trace


def _joined(arrays: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(0, dtype=dtype)
