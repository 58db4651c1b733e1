"""Clips of one second cut from long recordings of background noise, read when asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.speech.datasets.clips import LazySequence
from spikeloom.speech.datasets.folders import find_audio
from spikeloom.speech.datasets.utterances import AudioFiles


class NoiseCuts(LazySequence[np.ndarray]):
    """One second of `noises[recording]` from sample `start` on, float32 `[sample_rate_hz]`, for each of `cuts`.

    A recording that was read once is kept whole: there are few of them, and many cuts of each.
    """

    def __init__(self, noises: AudioFiles, cuts: Sequence[tuple[int, int]]) -> None:
        self.noises = noises
        self.cuts = list(cuts)  # (recording, start)
        self._read: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.cuts)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_read": {}}  # another process reads for itself

    def read(self, index: int) -> np.ndarray:
        recording, start = self.cuts[index]
        if recording not in self._read:
            self._read[recording] = self.noises[recording]
        return self._read[recording][start : start + self.noises.sample_rate_hz]

    def names(self) -> list[str]:
        """RECORDING_START, one a cut."""
        return [f"{Path(self.noises.paths[recording]).stem}_{start}" for recording, start in self.cuts]


def cut_noise(
    folder: Path, n: int, sample_rate_hz: int, stretch: tuple[float, float], rng: np.random.Generator
) -> NoiseCuts:
    """`n` clips at random places within the `stretch` (shares of the length) of every recording in `folder`.

    Sets with different stretches share no sample; long recordings give more clips. Raises `FileNotFoundError` without
    recordings, and `ValueError` when every stretch is shorter than a second.
    """
    files = find_audio(folder) if folder.is_dir() else []
    if not files:
        raise FileNotFoundError(f"no recording in {folder}, from which silence is cut; unpack the whole archive there")
    noises = AudioFiles([str(file) for file in files], sample_rate_hz)
    lengths = np.array([noises.n_samples(i) for i in range(len(noises))])
    first = np.ceil(stretch[0] * lengths).astype(np.int64)
    places = (np.floor(stretch[1] * lengths).astype(np.int64) - sample_rate_hz - first + 1).clip(min=0)
    if not places.any():
        raise ValueError(
            f"{folder}: no recording has a second between {stretch[0]:.0%} and {stretch[1]:.0%} of its length, where "
            "this set is cut from; use recordings of a minute"
        )
    chosen = rng.choice(len(files), n, p=places / places.sum())
    starts = first[chosen] + rng.integers(0, places[chosen])
    return NoiseCuts(noises, list(zip(chosen.tolist(), starts.tolist(), strict=True)))
