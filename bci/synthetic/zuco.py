"""Synthetic ZuCo: readers whose eyes move as published and whose EEG carries the words to a known degree.

It is the data of every run that has no recordings, and the test bed where the right answer is known. At
`signal_strength` 0 the EEG knows nothing of the text; the gaze knows the length of the words, as that of people does,
so the number of fixated words still tells the length of a sentence. Gaze: `zuco.gaze`. EEG: `synthetic.planted`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from spikeloom.accel.common.files import read_text
from spikeloom.bci.raw.fixations import measure_fixations
from spikeloom.bci.synthetic.planted import SENTENCE_NOISE, PlantedSignal, amplitudes
from spikeloom.bci.zuco.corpus import write_sentences
from spikeloom.bci.zuco.gaze import Reader, ScanPath, draw_reader, draw_scan_path, place_fixations, place_words
from spikeloom.bci.zuco.records import SAMPLE_MS, TASKS, Fixations, Recording, Sentence, Word

MAX_SUBJECTS = 99
INITIALS = {1: "Z", 2: "Y"}  # by version, as the published subjects have it
_READER, _TRIAL = 4, 5  # streams of random numbers, after those of spikeloom.bci.synthetic.planted


@dataclass
class SyntheticZuCoConfig:
    """Size, signal and defects of the synthetic set. A smaller set of subjects is the beginning of a larger one.

    version, task: what the files claim to be; the subjects are Z01, Z02, ... in version 1 and Y01, ... in version 2.
    text: a file with a sentence a line in place of the built-in grammar's n_sentences. missing, rejected: shares of the
    sentences without any data, and of the fixations whose EEG is rejected (NaN).
    """

    source: str = "synthetic_zuco"
    version: int = 1
    task: str = "SR"
    n_subjects: int = 6  # readers
    n_sentences: int = 600  # of the built-in grammar
    signal_strength: float = 1.0  # of the planted signal; 0: none
    missing: float = 0.0
    rejected: float = 0.0
    text: str | None = None
    seed: int = 0  # of sentences, gaze and EEG

    def build(self) -> "SyntheticZuCo":
        return SyntheticZuCo(self)


class SyntheticZuCo:
    """The sentences of a synthetic set, made when they are read; equal configurations give equal values.

    texts: sentences in place of those the configuration names. Raises ValueError for a configuration that names no set.
    """

    def __init__(self, config: SyntheticZuCoConfig, texts: Sequence[str] | None = None) -> None:
        if config.version not in (1, 2) or config.task not in TASKS:
            raise ValueError(f"got version {config.version}, task {config.task}; use 1 or 2 and one of {TASKS}")
        if not 1 <= config.n_subjects <= MAX_SUBJECTS:
            raise ValueError(f"n_subjects is {config.n_subjects}; use 1..{MAX_SUBJECTS}")
        for name in ("missing", "rejected"):
            if not 0 <= getattr(config, name) <= 1:
                raise ValueError(f"{name} is {getattr(config, name)}; use a share, 0 to 1")
        self.config = config
        self.signal = PlantedSignal(config.signal_strength, config.seed)
        if texts is not None:
            self.texts = list(texts)
        elif config.text:
            self.texts = read_lines(Path(config.text))
        else:
            self.texts = write_sentences(config.n_sentences, config.seed)
        self.subjects = tuple(f"{INITIALS[config.version]}{i + 1:02d}" for i in range(config.n_subjects))

    @property
    def recordings(self) -> tuple[Recording, ...]:
        return tuple(Recording(subject, self.config.version, self.config.task) for subject in self.subjects)

    def __iter__(self) -> Iterator[Sentence]:
        """Every sentence of every subject, subject by subject."""
        for recording in self.recordings:
            yield from self.read(recording)

    def read(self, recording: Recording) -> Iterator[Sentence]:
        """The sentences of one recording in reading order."""
        if recording not in self.recordings:
            raise ValueError(f"got {recording}; use one of {self.subjects} with the configured version and task")
        subject = self.recordings.index(recording)
        for index in range(len(self.texts)):
            yield self._sentence(recording, subject, index)

    def reader(self, subject: int) -> Reader:
        """How subject number `subject` reads."""
        letters = np.concatenate([count_letters(text.split()) for text in self.texts])
        return draw_reader(letters, self.generator(_READER, subject))

    def generator(self, stream: int, *places: int) -> np.random.Generator:
        """Random numbers of a stream at a place, other ones in every task and version."""
        task = TASKS.index(self.config.task) + len(TASKS) * (self.config.version - 1)
        return np.random.default_rng((self.config.seed, stream, *places, *([task] if task else [])))

    def trial_generator(self, subject: int, index: int) -> np.random.Generator:
        """Random numbers of one trial of one sentence; the first tells whether it is missing."""
        return self.generator(_TRIAL, subject, index)

    @cached_property
    def readers(self) -> list[Reader]:
        return [self.reader(subject) for subject in range(self.config.n_subjects)]

    def _sentence(self, recording: Recording, subject: int, index: int) -> Sentence:
        rng = self.trial_generator(subject, index)
        content = self.texts[index]
        if rng.random() < self.config.missing:
            return Sentence(recording=recording, index=index, content=content)
        tokens = content.split()
        bounds = place_words(tokens)
        path = draw_scan_path(count_letters(tokens), self.readers[subject], rng)
        x_px, y_px = place_fixations(path, bounds, rng)
        gain = self.signal.gain(subject)
        words, logs = self._words(tokens, path, gain, rng)
        mean = np.mean(logs, axis=0) if logs else gain
        whole = mean + SENTENCE_NOISE * self.signal.noise(1, rng)[0]
        return Sentence(
            recording=recording,
            index=index,
            content=content,
            words=words,
            eeg=amplitudes(whole),
            omission_rate=float(np.mean([not word.fixated for word in words])),
            word_bounds_px=bounds,
            fixations=Fixations(x_px=x_px, y_px=y_px, duration_ms=path.samples * SAMPLE_MS, pupil=path.pupil),
        )

    def _words(
        self, tokens: list[str], path: ScanPath, gain: np.ndarray, rng: np.random.Generator
    ) -> tuple[tuple[Word, ...], list[np.ndarray]]:
        """The words with their measures, and the log amplitudes of their gaze duration, those that were fixated."""
        kept = path.kept
        on_word, samples, pupil = path.words[kept], path.samples[kept], path.pupil[kept]
        rejected = rng.random(len(kept)) < self.config.rejected
        measures = [measure_fixations(on_word, place) for place in range(len(tokens))]
        # Measures over the same fixations have the same EEG, those over different ones their own noise.
        sets = [list(dict.fromkeys(tuple(f) for f in found.values())) for found in measures]
        noise = iter(self.signal.noise(sum(map(len, sets)), rng))
        words, logs = [], []
        for token, found, distinct in zip(tokens, measures, sets, strict=True):
            if not found:
                words.append(Word(content=token))
                continue
            base = gain + self.signal.signal(token)
            log_uv = {fixations: base + next(noise) for fixations in distinct}
            eeg = {
                f: np.full(len(base), np.nan) if rejected[list(f)].all() else amplitudes(log_uv[f]) for f in distinct
            }
            own = found["TRT"]
            words.append(
                Word(
                    content=token,
                    fixations=own + 1,
                    n_fixations=len(own),
                    pupil=float(pupil[own].mean()),
                    durations_ms={m: float(samples[f].sum() * SAMPLE_MS) for m, f in found.items()},
                    pupils={m: float(pupil[f].mean()) for m, f in found.items()},
                    eeg={m: eeg[tuple(f)] for m, f in found.items()},
                    n_rejected=int(rejected[own].sum()),
                )
            )
            logs.append(log_uv[tuple(found["GD"])])
        return tuple(words), logs


def count_letters(tokens: list[str]) -> np.ndarray:
    """Letters and digits of each token, int `[W]`."""
    return np.array([sum(c.isalnum() for c in token) for token in tokens], dtype=np.int64)


def read_lines(path: Path) -> list[str]:
    """The sentences of a text file, one a line. Raises ValueError when the file is missing or holds none."""
    lines = read_text(path, "give a file with a sentence a line").split("\n")
    sentences = [line.strip() for line in lines if line.strip()]
    if not sentences:
        raise ValueError(f"{path} holds no sentence; give a file with a sentence a line")
    return sentences
