"""Sound to spike trains: level and window, basilar membrane, hair cells, afferents, bushy cells.

The conversion that made the Spiking Heidelberg Digits (Cramer et al., IEEE TNNLS 33:2744, 2022), written from its
equations. What this module does not do: read or write files (`spikeloom.speech.features.cochlea.convert`).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial

import numpy as np

from spikeloom.accel.spiking.kernels import loader
from spikeloom.speech.datasets.spike_trains import Events
from spikeloom.speech.features.cochlea.membrane import N_UNITS, BasilarMembrane
from spikeloom.speech.features.cochlea.nerve import Key, nerve, silent_state

# Units a thread works on at a time; no number depends on it. The kernel walks 32 at once, the loop is paid per step.
BLOCK_UNITS = {"compiled": 32, "torch": N_UNITS}
CLIPS_UNDER_WAY = 16


@dataclass
class CochleaConfig:
    """seed: of the afferents. sample_rate_hz: of the clips handed in, at least 16,000 (below it the Euler step of the
    hair cell rings). rms: level every clip is brought to. ramp_fraction: share of the clip over which a Hann ramp
    rises, and again falls; 0.5 makes the whole clip one Hann window, 0 leaves it. drive_gain: membrane velocity per
    sound.
    """

    seed: int = 0
    sample_rate_hz: int = 16000
    rms: float = 0.3
    ramp_fraction: float = 0.5
    drive_gain: float = 30.0

    def build(self) -> "Cochlea":
        return Cochlea(self)


class Cochlea:
    """Clips to events on 700 units. Stateless: a clip gives the same events in any batch and on any number of threads.

    Raises ValueError for a sample rate below 16 kHz, a seed that is not in 0..2^64 - 1, a level or gain that is not
    positive, and a ramp outside 0..0.5.
    """

    def __init__(self, config: CochleaConfig) -> None:
        if config.sample_rate_hz < 16000:
            raise ValueError(f"sample_rate_hz must be at least 16000, got {config.sample_rate_hz}; use 16000")
        if not 0 <= config.seed < 2**64:
            raise ValueError(f"seed must be in 0..2^64 - 1, got {config.seed}; use for example 0")
        if not 0 <= config.ramp_fraction <= 0.5:
            raise ValueError(f"ramp_fraction must be in 0..0.5, got {config.ramp_fraction}; use 0.5")
        for name, default in (("rms", 0.3), ("drive_gain", 30.0)):
            value = getattr(config, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be positive, got {value}; use {default}")
        self.config = config
        self.membrane = BasilarMembrane(config.sample_rate_hz)

    def prepare(self, waveform: np.ndarray) -> np.ndarray:
        """`[samples]` brought to the level, windowed, and multiplied by the gain; silence stays silence."""
        sound = np.asarray(waveform, dtype=np.float64)
        if sound.ndim != 1 or len(sound) == 0 or not np.isfinite(sound).all():
            raise ValueError(f"a clip must be finite samples [n], n > 0, got shape {sound.shape}; repair or remove it")
        peak = np.abs(sound).max()
        if peak == 0:
            return sound
        sound = sound / peak  # squares of tiny samples would vanish
        sound = sound * (self.config.rms * self.config.drive_gain / np.sqrt(np.mean(sound**2)))
        n_ramp = int(self.config.ramp_fraction * len(sound))
        ramp = np.sin(np.pi / 2 * np.arange(n_ramp) / max(n_ramp, 1)) ** 2
        sound[:n_ramp] *= ramp
        sound[len(sound) - n_ramp :] *= ramp[::-1]
        return sound

    def __call__(self, waveforms: Sequence[np.ndarray], clip_ids: Sequence[int]) -> list[Events]:
        """Waveforms `[samples]` -> their events, in order of time, then unit.

        Memory does not grow with the batch, but for the events: a few clips are under way at a time, and velocities
        and states exist for one block of units and half a second a thread.

        `clip_ids`, one in 0..2^64 - 1 for each, key the random numbers: equal ids and equal sounds give equal events.
        """
        import torch

        if len(waveforms) != len(clip_ids):
            raise ValueError(f"got {len(waveforms)} clips and {len(clip_ids)} clip ids; give one id for each")
        width = BLOCK_UNITS[loader.backend()]
        blocks = [slice(first, min(first + width, N_UNITS)) for first in range(0, N_UNITS, width)]
        found: list[Events] = []
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            while len(found) < len(waveforms):
                under_way = slice(len(found), len(found) + CLIPS_UNDER_WAY)
                pieces = []
                for waveform, clip_id in zip(waveforms[under_way], clip_ids[under_way], strict=True):
                    spectra = self.membrane.spectra(self.prepare(waveform))
                    block = partial(self._block, spectra, len(waveform), clip_id)
                    # In a copy of the context, where `use_backend` keeps its choice: threads start with none.
                    pieces.append([pool.submit(copy_context().run, block, units) for units in blocks])
                found += [self._events(np.concatenate([piece.result() for piece in of_clip])) for of_clip in pieces]
        return found

    def _block(self, spectra: np.ndarray, n_samples: int, clip_id: int, units: slice) -> np.ndarray:
        """Events int64 `[n, 2]` (step, unit) of some units, segment after segment of the clip."""
        fs = self.config.sample_rate_hz
        key = Key(self.config.seed, clip_id)
        state, step, found = silent_state(units.stop - units.start, fs), 0, []
        for velocity in self.membrane.velocities(spectra, units):
            heard = velocity[:, : n_samples - step]
            events, state = nerve(heard, state, key, fs, first_step=step, first_unit=units.start)
            found.append(events)
            step += heard.shape[1]
        return np.concatenate(found)

    def _events(self, found: np.ndarray) -> Events:
        steps, units = found[np.lexsort((found[:, 1], found[:, 0]))].T
        return Events(times_s=steps / self.config.sample_rate_hz, units=np.ascontiguousarray(units))
