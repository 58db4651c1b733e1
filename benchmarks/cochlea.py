"""`spikeloom bench cochlea`: one second of sound to spikes, compared with the same model written unit by unit.

The literal version draws 40 separate afferents a unit, as the public converter does, and loops over samples in Python.
Where that converter (lauscher) is installed it is timed too, with one job.
"""

import logging
import math
from importlib.util import find_spec

import numpy as np
import torch

from spikeloom.accel.spiking.kernels import loader
from spikeloom.benchmarks.measure import apart, clock, forget_peak, median_ms, now_s, peak_mb
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.features.cochlea.bushy_cell import BUSHY
from spikeloom.speech.features.cochlea.cochlea import CochleaConfig
from spikeloom.speech.features.cochlea.hair_cell import MEDDIS, resting_state
from spikeloom.speech.features.cochlea.membrane import N_UNITS

FS = 16000
LITERAL_EVERY = 20  # of the units, one in so many is computed literally; the time is scaled to all of them


def print_cochlea(repeats: int) -> None:
    """One line a batch size; time and memory of each come from a fresh process of this run."""
    print(f"cochlea, clips of 1 s at 16 kHz, 700 units, {loader.backend()} backend, {clock()}")
    print(f"{'threads':>8s} {'clips':>6s} {'ms a clip':>10s} {'x realtime':>11s} {'peak extra MB':>14s}")
    per_clip_ms = {}
    for threads in sorted({1, torch.get_num_threads()}):
        for n_clips in (1, 32):
            ms, mb = apart(convert_clips, threads, n_clips, max(3, repeats // 4))
            per_clip_ms[threads, n_clips] = ms
            print(f"{threads:8d} {n_clips:6d} {ms:10.0f} {1e3 / ms:11.1f} {mb:14.0f}")
    ours_ms = per_clip_ms[1, 1]
    literal_ms, _ = apart(convert_literally)
    print(f"literal version, 1 thread, 1 clip (from every {LITERAL_EVERY}th unit, filters not counted): "
          f"{literal_ms / 1e3:.1f} s, {literal_ms / ours_ms:.0f} times ours")  # fmt: skip
    if find_spec("lauscher") is None:
        print("lauscher, the public converter: not installed")
        return
    public_ms, public_mb = apart(convert_publicly)
    print(f"lauscher, 1 job, 1 clip: {public_ms / 1e3:.1f} s, {public_ms / ours_ms:.0f} times ours, {public_mb:.0f} MB")


def seconds_of_speech(n_clips: int) -> list[np.ndarray]:
    """Synthetic words, repeated to fill one second: float32 `[16000]` each."""
    words = SyntheticConfig(n_words=4, n_speakers=8, takes=1, n_test_speakers=1, n_valid_speakers=1).load().waveforms
    return [np.resize(words[i % len(words)], FS) for i in range(n_clips)]


def convert_clips(threads: int, n_clips: int, repeats: int) -> tuple[float, float]:
    """Median milliseconds a clip, filters ready, and peak memory in MB above what the process held before them."""
    torch.set_num_threads(threads)
    clips = seconds_of_speech(n_clips)
    before = forget_peak()
    cochlea = CochleaConfig().build()
    ms = median_ms(lambda: cochlea(clips, range(n_clips)), repeats) / n_clips
    return ms, peak_mb() - before


def convert_literally() -> tuple[float, float]:
    """Milliseconds of one clip by `literal_events`, and their number, both scaled to all units."""
    cochlea = CochleaConfig().build()
    velocity = cochlea.membrane(cochlea.prepare(seconds_of_speech(1)[0]))[::LITERAL_EVERY]
    start = now_s()
    events = [literal_events(row, np.random.default_rng(unit)) for unit, row in enumerate(velocity)]
    scale = N_UNITS / len(velocity)
    return 1e3 * (now_s() - start) * scale, sum(map(len, events)) * scale


def literal_events(velocity: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Samples at which one unit fires, from its velocity `[samples]` at 16 kHz: every equation written out once more,
    every afferent on its own."""
    m, b, dt = MEDDIS, BUSHY, 1 / FS
    q, c, w = (float(value[0]) for value in resting_state(1))
    tau_m, tau_s = b.tau_membrane_ms / 1e3, b.tau_synapse_ms / 1e3
    rest = round(b.refractory_ms * FS / 1e3)
    last = np.full(b.n_afferents, -FS)
    current, potential, free_at = 0.0, 0.0, 0
    events = []
    for t, s in enumerate(velocity.tolist()):
        k = m.g * (s + m.A) / (s + m.A + m.B) if s + m.A > 0 else 0.0
        q, c, w = (
            q + dt * (m.y * (m.M - q) + m.x * w - k * q),
            c + dt * (k * q - (m.l + m.r) * c),
            w + dt * (m.r * c - m.x * w),
        )
        fired = (rng.random(b.n_afferents) < m.h * c * dt) & (t - last >= b.afferent_refractory_ms * FS / 1e3)
        last[fired] = t
        current += b.weight / b.n_afferents * int(fired.sum())
        decay_m, decay_s = math.exp(-dt / tau_m), math.exp(-dt / tau_s)
        potential = potential * decay_m + current * (tau_m * tau_s / (tau_m - tau_s)) * (decay_m - decay_s)
        current *= decay_s
        if t < free_at:
            potential = 0.0
        elif potential >= b.threshold:
            events.append(t)
            potential, free_at = 0.0, t + rest + 1
    return events


def convert_publicly() -> tuple[float, float]:
    """Milliseconds and peak extra memory in MB of lauscher for one clip. It works at half the sample rate inside."""
    from lauscher.audiowaves import MonoAudioWave
    from lauscher.helpers import CommandLineArguments
    from lauscher.transformations.wave2spike import Wave2Spike

    logging.getLogger().setLevel(logging.WARNING)  # it logs the time of every stage
    CommandLineArguments().num_concurrent_jobs = 1
    wave = MonoAudioWave(seconds_of_speech(1)[0].astype(np.float64), FS)
    before, start = peak_mb(), now_s()
    wave.transform(Wave2Spike(num_channels=N_UNITS))
    return 1e3 * (now_s() - start), peak_mb() - before
