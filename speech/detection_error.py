"""How often a listener speaks without being spoken to, and how often it misses: detection-error tradeoff of a spotter.

    false accepts an hour   detections in sound without keywords / its hours
    miss rate               fraction of keyword clips after which that keyword was not detected

for every threshold. The gate and the model do not depend on the threshold, so they run once; a `Decision` for each
threshold takes the same posteriors. Sound comes block by block: memory does not grow with its length.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from spikeloom.accel.common.batches import evenly_spread
from spikeloom.speech.datasets.clips import Clips
from spikeloom.speech.streaming import Decision, Detection, KeywordSpotter, is_keyword

THRESHOLDS = tuple(round(0.1 * i, 1) for i in range(1, 10))
LEAD_S, TAIL_S = 0.5, 1.0  # silence before and after a keyword clip: its gate opens, its score settles


@dataclass(frozen=True, kw_only=True)
class DetectionError:
    """For each of `thresholds`: false accepts in `hours` of sound without keywords, misses among `keywords` clips."""

    thresholds: tuple[float, ...]
    false_accepts: tuple[int, ...]
    hours: float
    misses: tuple[int, ...]
    keywords: int

    def per_hour(self) -> list[float]:
        """False accepts an hour, one a threshold."""
        return [n / self.hours for n in self.false_accepts]

    def miss_rates(self) -> list[float]:
        """Fraction of the keywords missed, one a threshold."""
        return [n / self.keywords for n in self.misses]

    def at(self, per_hour: float) -> tuple[float, float, float] | None:
        """(threshold, false accepts an hour, miss rate) of the threshold that misses least among those with at most
        `per_hour` false accepts; None where there is none."""
        rows = zip(self.thresholds, self.per_hour(), self.miss_rates(), strict=True)
        allowed = [row for row in rows if row[1] <= per_hour]
        return min(allowed, key=lambda row: row[2]) if allowed else None

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "false_accepts_per_hour": self.per_hour(), "miss_rates": self.miss_rates()}


def detection_error(
    spotter: KeywordSpotter,
    without_keywords: Iterable[np.ndarray],
    keywords: Clips[np.ndarray],
    thresholds: Sequence[float] = THRESHOLDS,
    n_clips: int = 500,
) -> DetectionError:
    """Both errors of `spotter` at each threshold.

    Args:
        spotter: its own threshold is not used.
        without_keywords: blocks of float32 samples at the input rate of its front end.
        keywords: labelled clips with the class names of the spotter; those that it never reports are left out.
        thresholds: in (0, 1).
        n_clips: clips of keywords that are streamed at most, evenly spread over all.

    Raises:
        ValueError: n_clips below 1, no sound, no clip of a keyword, or clips with other classes or another rate.
    """
    rate_hz = spotter.front_end.config.input_rate_hz
    if tuple(keywords.class_names) != tuple(spotter.class_names):
        raise ValueError(
            f"the keyword clips have the classes {', '.join(keywords.class_names[:8])}, the model "
            f"{', '.join(spotter.class_names[:8])}; give clips of the words it was trained on"
        )
    waveforms = spotter.front_end.log_mel.recordings(keywords)  # of the right rate, or an error
    asked = [i for i, label in enumerate(keywords.labels) if is_keyword(keywords.class_names[label])]
    if not asked:
        raise ValueError("no clip of a keyword is among the clips; give some, or the miss rate is not defined")
    if n_clips < 1:
        raise ValueError(f"keyword_clips={n_clips} must be at least 1; use 500")
    asked = [asked[i] for i in evenly_spread(len(asked), n_clips).tolist()]
    deciders = [
        Decision(spotter.class_names, replace(spotter.config, threshold=threshold), spotter.hop_s)
        for threshold in thresholds
    ]
    samples = 0

    def counted() -> Iterator[Tensor]:
        nonlocal samples
        for piece in without_keywords:
            samples += len(piece)
            yield torch.from_numpy(np.ascontiguousarray(piece))

    false_accepts = [0] * len(deciders)
    for which, _ in follow(spotter, counted(), deciders):
        false_accepts[which] += 1
    if not samples:
        raise ValueError("the sound without keywords is empty; give a file with samples, or hours above 0")
    misses = [0] * len(deciders)
    lead, tail = torch.zeros(round(LEAD_S * rate_hz)), torch.zeros(round(TAIL_S * rate_hz))
    for i in asked:
        word = keywords.class_names[keywords.labels[i]]
        clip = torch.from_numpy(np.ascontiguousarray(waveforms[i], dtype=np.float32))
        heard = {w for w, found in follow(spotter, [torch.cat((lead, clip, tail))], deciders) if found.keyword == word}
        for which in range(len(deciders)):
            misses[which] += which not in heard
    return DetectionError(
        thresholds=tuple(thresholds), false_accepts=tuple(false_accepts), hours=samples / rate_hz / 3600,
        misses=tuple(misses), keywords=len(asked),
    )  # fmt: skip


def follow(
    spotter: KeywordSpotter, blocks: Iterable[Tensor], deciders: Sequence[Decision]
) -> Iterator[tuple[int, Detection]]:
    """(number of the decider, detection) of every detection in the sound, as it goes by."""
    state, decisions = spotter.init_state(), [decider.init_state() for decider in deciders]
    for samples in blocks:
        before = state.frames
        posteriors, state = spotter.posteriors(samples, state)
        for frame, posterior in enumerate(posteriors, before + 1):
            for which, decider in enumerate(deciders):
                found, decisions[which] = decider.step(posterior, decisions[which], frame)
                if found:
                    yield which, found
    for which, decider in enumerate(deciders):
        if found := decider.standing(decisions[which], state.frames):
            yield which, found
