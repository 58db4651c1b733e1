"""How synthetic readers move their eyes, with the statistics published for ZuCo 1.0 (12 readers, 56,791 fixated words).

A scan path is drawn word by word. A word is skipped or fixated by its length alone, P = sigmoid(b + 0.35 letters), the
intercept b set so that a reader skips the share of words asked for; a fixated word may be fixated again at once or send
the eyes back to words on its left. Durations are log-normal, exp(4.69 + 0.35 N) samples, 50 at least. The measures
(FFD, GD, TRT, GPT, SFD) are then read off the path by the recipe for real data; nothing is drawn for them.
What this model leaves out: every influence of a word but its length, and of one duration on the next.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from spikeloom.bci.raw.fixations import OFF_WORD, SHORTEST_MS
from spikeloom.bci.zuco.records import SAMPLE_MS

PER_LETTER = 0.35  # logits
OMISSION_RATES = (0.21, 0.53)  # of all subjects
LOG_SAMPLES, LOG_SIGMA = 4.69, 0.35
SHORTEST = round(SHORTEST_MS / SAMPLE_MS)  # samples
SHORT, LONG, LONG_RATE = 0.9, 0.25, 0.12  # chance of each fixation to end a regression; share of the long ones
OFF_WORD_RATE, TOO_SHORT_RATE = 0.03, 0.03  # of fixations: beside the words; under 100 ms

CHARACTER_PX, LINE_TOP_PX, LINE_PITCH_PX, LINE_HEIGHT_PX = 8.0, 70.0, 55.0, 30.0
LEFT_MARGIN_PX, RIGHT_MARGIN_PX = 40.0, 760.0


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A way of reading. intercept: logit of fixating a word of no letters; refixation: chance of each further fixation
    at once; regression: chance that a word sends the eyes back; pupil: mean size, arbitrary units."""

    intercept: float
    refixation: float
    regression: float
    pupil: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanPath:
    """The fixations of one sentence in order. words: int `[n]`, 0-based, OFF_WORD beside all; samples: int `[n]`,
    durations; pupil: `[n]`."""

    words: np.ndarray
    samples: np.ndarray
    pupil: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Places of the fixations that count: on a word, and 100 ms or longer."""
        return np.flatnonzero((self.words != OFF_WORD) & (self.samples >= SHORTEST))


def draw_reader(letters: np.ndarray, rng: np.random.Generator) -> Reader:
    """A reader of words with `letters` letters (all the words to be read); the omission rate is set on these."""
    low, high = OMISSION_RATES
    omission = low + (high - low) * rng.beta(3.0, 4.6)  # median .33
    below, above = -30.0, 30.0
    for _ in range(50):
        middle = (below + above) / 2
        below, above = (
            (middle, above) if expit(middle + PER_LETTER * letters).mean() < 1 - omission else (below, middle)
        )
    return Reader(
        intercept=middle,
        refixation=rng.uniform(0.10, 0.20),
        regression=rng.uniform(0.22, 0.44),
        pupil=float(np.exp(rng.uniform(np.log(290), np.log(1340)))),
    )


def draw_scan_path(letters: np.ndarray, reader: Reader, rng: np.random.Generator) -> ScanPath:
    """Gaze of one trial: a sentence whose words have `letters` letters, int `[W]`."""
    fixated = np.flatnonzero(rng.random(len(letters)) < expit(reader.intercept + PER_LETTER * letters))
    path: list[int] = []
    for place, word in enumerate(fixated):
        path += [int(word)] * int(rng.geometric(1 - reader.refixation))
        if place and rng.random() < reader.regression:
            for _ in range(rng.geometric(LONG if rng.random() < LONG_RATE else SHORT)):
                path.append(int(fixated[max(0, place - rng.geometric(0.6))]))
    words = np.array(path, dtype=np.int64)
    samples = _durations(len(words), rng)
    # Fixations that the recipe must leave out are added to the path, so that they cost no word its fixations.
    strays = [(OFF_WORD, SHORTEST, 400)] * rng.binomial(len(words), OFF_WORD_RATE)
    if len(words):
        strays += [(int(words[rng.integers(len(words))]), 20, SHORTEST)
                   for _ in range(rng.binomial(len(words), TOO_SHORT_RATE))]  # fmt: skip
    for stray, least, most in strays:
        at = int(rng.integers(len(words) + 1))
        words, samples = np.insert(words, at, stray), np.insert(samples, at, rng.integers(least, most))
    return ScanPath(words=words, samples=samples, pupil=reader.pupil * (1 + 0.08 * rng.standard_normal(len(words))))


def _durations(n: int, rng: np.random.Generator) -> np.ndarray:
    """Log-normal durations in samples, drawn again where under the shortest."""
    samples = np.zeros(n, dtype=np.int64)
    while len(short := np.flatnonzero(samples < SHORTEST)):
        samples[short] = np.exp(LOG_SAMPLES + LOG_SIGMA * rng.standard_normal(len(short))).astype(np.int64)
    return samples


def place_words(words: list[str]) -> np.ndarray:
    """Word bounds `[W, 4]` in px (left, top, right, bottom) of a sentence set in lines on a screen of 800 x 600."""
    bounds, left, top = [], LEFT_MARGIN_PX, LINE_TOP_PX
    for word in words:
        width = CHARACTER_PX * len(word)
        if left > LEFT_MARGIN_PX and left + width > RIGHT_MARGIN_PX:
            left, top = LEFT_MARGIN_PX, top + LINE_PITCH_PX
        bounds.append((left, top, left + width, top + LINE_HEIGHT_PX))
        left += width + CHARACTER_PX
    return np.array(bounds, dtype=np.float64).reshape(-1, 4)


def place_fixations(path: ScanPath, bounds_px: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mean positions (x, y) in px, `[n]` each: inside the word, or between two lines."""
    left, top, right, bottom = bounds_px[np.maximum(path.words, 0)].T
    on_word = path.words != OFF_WORD
    x = left + (right - left) * rng.uniform(0.1, 0.9, len(left))
    y = np.where(on_word, top + (bottom - top) * rng.uniform(0.2, 0.8, len(top)), bottom + LINE_HEIGHT_PX / 3)
    return x, y
