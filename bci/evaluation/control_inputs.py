"""The trials each control is trained and tested on, made from those of the decoder; see `bci.evaluation.controls`.

What a control learns about the EEG comes from train trials alone. `neutral` lengths are those of other trials of
the same subject and task. Trials that are the only one of their subject and task in a split cannot swap: they are
left out of the controls that need it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property

import numpy as np

from spikeloom.bci.data.trials import N_GAZE, TrialSet
from spikeloom.bci.evaluation.controls import (
    MatchedNoise,
    Training,
    constant_tokens,
    permuted_within,
    phase_randomised,
    resized,
    zeros,
)
from spikeloom.bci.zuco.records import N_FEATURES

_SPLITS = ("train", "valid", "test")  # each its own random numbers


class ControlInputs:
    """Inputs of the controls of one decoder, whose trials are `sets`."""

    def __init__(self, sets: Mapping[str, TrialSet]) -> None:
        self.sets = sets

    @cached_property
    def noise(self) -> MatchedNoise:
        return MatchedNoise(self.sets["train"].eeg, self.sets["train"].groups)

    @cached_property
    def gaze_scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the durations under train tokens, float32 `[5]` each."""
        gaze = np.concatenate(self.sets["train"].gaze)
        return gaze.mean(0), gaze.std(0) + np.float32(1e-6)

    def trials(self, training: Training) -> dict[str, TrialSet]:
        """Every set with the input of a control in place of the EEG. Raises ValueError for an unknown control."""
        control = training.control
        swaps = control == "shuffled" or (training.mask == "neutral" and control != "text_prior_only")
        made = {}
        for name, whole in self.sets.items():
            trials = _swappable(whole) if swaps else whole
            seed = training.seed * len(_SPLITS) + _SPLITS.index(name)
            partner = permuted_within(trials.groups, seed) if swaps else np.arange(len(trials))
            neutral = [trials.lengths[i] for i in partner]
            lengths = neutral if training.mask == "neutral" else trials.lengths
            made[name] = trials.with_eeg(self._tokens(control, trials, lengths, partner, seed))
        return made

    def _tokens(
        self, control: str, trials: TrialSet, lengths: Sequence[int], partner: np.ndarray, seed: int
    ) -> Sequence[np.ndarray]:
        """float32 [L, 840] for each trial."""
        if control == "noise":
            return self.noise.draw(lengths, trials.groups, seed)
        if control == "phase":
            return [phase_randomised(tokens, seed + 7919 * i) for i, tokens in enumerate(trials.eeg)]
        if control == "shuffled":
            return resized([trials.eeg[i] for i in partner], lengths)
        if control == "zero":
            return zeros(lengths, N_FEATURES)
        if control == "mask_only":
            return constant_tokens(lengths, N_FEATURES)
        if control == "random_init":
            return trials.eeg
        if control == "gaze_only":
            mean, sd = self.gaze_scale
            return [np.pad((gaze - mean) / sd, ((0, 0), (0, N_FEATURES - N_GAZE))) for gaze in trials.gaze]
        if control == "text_prior_only":
            return zeros([1] * len(trials), N_FEATURES)
        raise ValueError(f"there is no control {control!r}; use one of spikeloom.bci.evaluation.controls")


def _swappable(trials: TrialSet) -> TrialSet:
    """The trials that are not alone in their group."""
    size = Counter(trials.groups)
    rows = [row for row, group in enumerate(trials.groups) if size[group] > 1]
    if not rows:
        raise ValueError("every trial is the only one of its subject and task, and cannot swap; use more recordings")
    if len(rows) == len(trials):
        return trials
    return replace(trials, **{f.name: tuple(getattr(trials, f.name)[row] for row in rows) for f in fields(trials)})
