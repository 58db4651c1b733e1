"""The ear against its equations: membrane, hair cell, afferents and bushy cells, and what physiology says of them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from spikeloom.accel.spiking.kernels import loader
from spikeloom.speech.augmentation import keyed_uniform
from spikeloom.speech.datasets.audio import read_audio
from spikeloom.speech.datasets.spike_trains import Events
from spikeloom.speech.features.cochlea import cochlea as cochlea_module
from spikeloom.speech.features.cochlea import nerve as nerve_module
from spikeloom.speech.features.cochlea.bushy_cell import BUSHY, BushyCellState, binomial, bushy_cell_step
from spikeloom.speech.features.cochlea.cochlea import CochleaConfig
from spikeloom.speech.features.cochlea.hair_cell import MEDDIS, hair_cell_step, resting_state
from spikeloom.speech.features.cochlea.membrane import BasilarMembrane, resonance_hz, transfer
from spikeloom.speech.features.cochlea.nerve import Key, NerveState, nerve, nerve_loop, silent_state
from tests.conftest import data_folder

FS = 16000
needs_compiler = pytest.mark.skipif(loader.compiler() is None, reason="no C++ compiler for the compiled backend")


def tone(frequency_hz: float, seconds: float = 0.25) -> np.ndarray:
    return np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * FS)) / FS).astype(np.float32)


def click_response() -> np.ndarray:
    click = np.zeros(FS // 2)
    click[4000] = 1
    return BasilarMembrane(FS)(click)


def afferent_counts(velocity: np.ndarray, key: Key) -> np.ndarray:
    """int64 [steps, units]: how many afferents fire, read from the state, which remembers the last n_deaf steps."""
    state, counts = silent_state(len(velocity), FS), []
    n_deaf = len(state.recent)
    for first in range(0, velocity.shape[1] // n_deaf * n_deaf, n_deaf):
        _, state = nerve(velocity[:, first : first + n_deaf], state, key, FS, first_step=first)
        counts.append(state.recent)
    return np.concatenate(counts)


def flat(state: NerveState) -> list[np.ndarray]:
    return [*state.hair_cell, state.recent, *state.bushy_cell]


# --- basilar membrane ----------------------------------------------------------------------------------------------


def test_units_resonate_where_the_published_map_says() -> None:
    expected = {0: 22508, 100: 10621, 200: 5011, 300: 2364, 400: 1115, 500: 525, 600: 245, 699: 110.3}
    assert resonance_hz()[list(expected)] == pytest.approx(list(expected.values()), rel=1e-3)
    assert np.count_nonzero(resonance_hz() > 8000) == 138


def test_tones_peak_at_their_units() -> None:
    peaks = np.abs(transfer(np.array([250.0, 500.0, 1000.0, 2000.0, 4000.0]))).argmax(axis=0)
    assert np.abs(peaks - [584, 493, 401, 309, 216]).max() <= 2
    for frequency_hz, unit in ((500, 493), (2000, 309)):  # the same through the filters
        level = np.square(BasilarMembrane(FS)(tone(frequency_hz))[:, 2000:-500]).sum(axis=1)
        assert abs(int(level.argmax()) - unit) <= 2


def test_a_click_arrives_late_at_low_frequencies_and_never_early() -> None:
    energy = np.square(click_response(), dtype=np.float64)
    arrived = np.cumsum(energy, axis=1) / energy.sum(axis=1, keepdims=True)
    # Units 138 to 145 lie at half the sample rate, where the spectrum ends abruptly: there 0.2 % ring before the click.
    assert arrived[150:, 3999].max() < 1e-3
    assert arrived[138:, 3999].max() < 2e-3
    for unit, delay_ms in {150: 0.25, 250: 0.69, 350: 1.5, 450: 3.3, 550: 7.6, 650: 15.6}.items():
        measured_ms = (np.searchsorted(arrived[unit], 0.5) - 4000) * 1e3 / FS
        assert measured_ms == pytest.approx(delay_ms, rel=0.1)


def test_segments_give_what_one_transform_of_the_clip_gives() -> None:
    n, n_fft = 7000, 10000  # longer than one segment; what is left of the transform holds the ringing
    sound = np.random.default_rng(0).standard_normal(n) * np.hanning(n)
    units = [140, 150, 300, 500, 650, 699]
    filters = np.zeros((len(units), n_fft // 2 + 1), dtype=complex)
    filters[:, 1:] = transfer(np.arange(1, n_fft // 2 + 1) * FS / n_fft)[units].conj()
    whole = np.fft.irfft(filters * np.fft.rfft(sound, n_fft), n_fft)[:, :n]
    error = np.linalg.norm(BasilarMembrane(FS)(sound)[units] - whole, axis=1) / np.linalg.norm(whole, axis=1)
    assert error[0] < 0.02  # at half the sample rate the spectrum ends abruptly: that ringing is cut off after 8 ms
    assert error[1:].max() < 2e-3


# --- hair cell -----------------------------------------------------------------------------------------------------


def test_hair_cell_rests_at_the_published_point() -> None:
    q, c, w = (float(value[0]) for value in resting_state(1))
    assert (q, c, w) == pytest.approx((0.358735, 0.00129535, 0.128559), rel=1e-5)
    assert MEDDIS.h * c == pytest.approx(64.77, abs=0.01)
    probability, after = hair_cell_step(np.zeros(1), resting_state(1), 1 / FS)
    assert (*after, probability * FS) == pytest.approx((q, c, w, MEDDIS.h * c), rel=1e-12)


def test_hair_cell_follows_a_literal_euler_loop() -> None:
    velocity = 400 * np.random.default_rng(1).standard_normal(500).astype(np.float32)
    velocity[100:103] = (-5, -305, -304.9)  # where s + A and s + A + B vanish
    state = resting_state(1)
    q, c, w = (float(value[0]) for value in state)
    dt = 1 / FS
    for s in velocity:
        probability, state = hair_cell_step(np.array([s]), state, dt)
        s = float(s)
        k = 2000 * (s + 5) / (s + 5 + 300) if s + 5 > 0 else 0.0
        dq = 5.05 * (1 - q) + 66.3 * w - k * q
        dc = k * q - (2500 + 6580) * c
        dw = 6580 * c - 66.3 * w
        q, c, w = q + dt * dq, c + dt * dc, w + dt * dw
        assert (*state, probability) == pytest.approx((q, c, w, min(max(50000 * c * dt, 0), 1)), rel=1e-9)


# --- afferents -----------------------------------------------------------------------------------------------------


def test_binomial_numbers_are_the_inverse_of_the_distribution() -> None:
    rng = np.random.default_rng(2)
    n, p, uniform = rng.integers(0, 41, 20000), rng.random(20000) ** 3, rng.random(20000)
    drawn = binomial(uniform, n, p)
    # The smallest k whose distribution function exceeds the number; rounding may decide only on the boundary itself.
    boundary = np.minimum(abs(stats.binom.cdf(drawn, n, p) - uniform), abs(stats.binom.cdf(drawn - 1, n, p) - uniform))
    differs = drawn != np.where(n == 0, 0, stats.binom.ppf(uniform, n, p))
    assert boundary[differs].max(initial=0) < 1e-12


def test_binomial_numbers_at_the_edges() -> None:
    uniform = np.array([0.0, 0.5, 1 - 2.0**-53])
    n = np.array([40, 40, 40])
    assert binomial(uniform, n, np.zeros(3)).tolist() == [0, 0, 0]
    assert binomial(uniform, n, np.ones(3)).tolist() == [40, 40, 40]
    assert binomial(uniform, n * 0, np.full(3, 0.7)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("n", "p"), [(40, 0.004), (40, 0.3), (17, 0.9)])
def test_binomial_numbers_of_keyed_uniform_ones_pass_a_chi_square_test(n: int, p: float) -> None:
    uniform = keyed_uniform(0, 1, np.arange(100), 700).ravel()
    counts = np.bincount(binomial(uniform, np.full(70000, n), np.full(70000, p)), minlength=n + 1)
    expected = 70000 * stats.binom.pmf(np.arange(n + 1), n, p)
    often = expected > 5
    observed = [*counts[often], counts[~often].sum()]
    assert stats.chisquare(observed, [*expected[often], expected[~often].sum()]).pvalue > 1e-3


def test_afferents_are_deaf_for_a_millisecond() -> None:
    """In silence each afferent has fired at most once within 15 steps, alone: so the deaf ones are binomial."""
    counts = afferent_counts(np.zeros((700, FS), dtype=np.float32), Key(0, 0))
    n_deaf = BUSHY.steps(FS).n_deaf
    assert n_deaf == 15
    p = MEDDIS.h * float(resting_state(1).c[0]) / FS
    assert counts.mean() * FS / 40 == pytest.approx(FS * p / (1 + n_deaf * p), rel=2e-3)  # 61.1 spikes/s
    deaf = counts[4005:].reshape(-1, n_deaf, 700).sum(axis=1)[::20].ravel()  # far apart: independent
    expected = len(deaf) * stats.binom.pmf(np.arange(41), 40, n_deaf * p / (1 + n_deaf * p))
    often = expected > 5
    observed = np.bincount(deaf, minlength=41)
    observed, expected = [*observed[often], observed[~often].sum()], [*expected[often], expected[~often].sum()]
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_counts_agree_with_forty_separate_afferents() -> None:
    velocity = np.broadcast_to(np.float32(200) * tone(300, 0.1)[None, :1500], (700, 1500))
    counts = afferent_counts(velocity, Key(3, 4))
    rng, state = np.random.default_rng(5), resting_state(1)
    last = np.full((700, 40), -100)
    literal = np.empty((1500, 700), dtype=np.int64)
    for t in range(1500):
        probability, state = hair_cell_step(velocity[:1, t], state, 1 / FS)
        fired = (rng.random((700, 40)) < probability) & (t - last >= FS // 1000)
        last[fired] = t
        literal[t] = fired.sum(axis=1)
    for per_unit in (np.sum, np.max, np.var):  # spikes, the strongest volley, the spread over time
        ours, theirs = per_unit(counts, axis=0), per_unit(literal, axis=0)
        error = math.sqrt((ours.var() + theirs.var()) / 700)
        assert abs(ours.mean() - theirs.mean()) < 4 * error
    assert counts.mean() > 0.2  # the tone drives them: in silence it is 0.15


# --- bushy cells ---------------------------------------------------------------------------------------------------


def test_bushy_cell_answers_a_volley_by_two_exponentials_and_fires_at_one() -> None:
    p = BUSHY.steps(FS)
    state = BushyCellState(np.zeros(2), np.zeros(2), np.zeros(2, dtype=np.int64))
    fired_at = []
    for step in range(1, 40):
        volley = np.array([10, 14] if step == 1 else [0, 14 if step == 6 else 0])
        events, state = bushy_cell_step(volley, state, p)
        t_ms = step / 16
        assert state.potential[0] == pytest.approx(10 * 325e-3 * (math.exp(-t_ms) - math.exp(-2 * t_ms)), rel=1e-9)
        fired_at += [step] * bool(events[1])
        if fired_at and step <= fired_at[0] + 16:
            assert state.potential[1] == 0  # 1 ms of rest, whatever arrives
    assert len(fired_at) == 1
    assert not events[0]


def test_a_bushy_cell_under_full_drive_fires_after_every_millisecond_of_rest() -> None:
    p = BUSHY.steps(FS)
    state = BushyCellState(np.zeros(1), np.zeros(1), np.zeros(1, dtype=np.int64))
    fired_at = []
    for step in range(100):
        events, state = bushy_cell_step(np.array([40]), state, p)
        fired_at += [step] * bool(events[0])
    assert np.diff(fired_at).tolist() == [17] * 5


# --- both backends -------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("n_units", [1, 31, 32, 33, 70])
def test_the_kernel_equals_the_loop_bit_for_bit(n_units: int) -> None:
    velocity = (80 * np.random.default_rng(n_units).standard_normal((n_units, 400))).astype(np.float32)
    velocity[:, 200:] *= 30
    key = Key(2**63 + 11, 2**64 - 5)
    ours = nerve_module._nerve_compiled(velocity, silent_state(n_units, FS), key, FS, 1000, 5)
    loop = nerve_loop(velocity, silent_state(n_units, FS), key, FS, 1000, 5)
    assert len(loop[0]) > 2 * n_units
    assert np.array_equal(ours[0], loop[0])
    assert all(np.array_equal(a, b) for a, b in zip(flat(ours[1]), flat(loop[1]), strict=True))


@pytest.mark.parametrize("backend", [pytest.param("compiled", marks=needs_compiler), "torch"])
def test_pieces_give_the_whole(backend: str) -> None:
    velocity = (150 * np.random.default_rng(6).standard_normal((40, 300))).astype(np.float32)
    with loader.use_backend(backend):
        whole, last = nerve(velocity, silent_state(40, FS), Key(1, 2), FS)
        state, found = silent_state(40, FS), []
        for first in range(0, 300, 37):
            events, state = nerve(velocity[:, first : first + 37], state, Key(1, 2), FS, first_step=first)
            found.append(events)
        upper, _ = nerve(velocity[13:], silent_state(27, FS), Key(1, 2), FS, first_unit=13)
    assert np.array_equal(np.concatenate(found), whole)
    assert all(np.array_equal(a, b) for a, b in zip(flat(state), flat(last), strict=True))
    assert np.array_equal(upper, whole[whole[:, 1] >= 13])


# --- the whole ear -------------------------------------------------------------------------------------------------


def test_silence_stays_silence_and_fires_at_random() -> None:
    ear = CochleaConfig().build()
    assert not ear.prepare(np.zeros(500)).any()
    (events,) = ear([np.zeros(FS)], [0])
    assert 100 <= len(events.units) <= 300
    (brief,) = ear([np.zeros(1)], [0])
    assert len(brief.units) == 0


def test_level_and_window() -> None:
    config = CochleaConfig(ramp_fraction=0, drive_gain=1)
    for scale in (1e-30, 1, 1e4):
        sound = config.build().prepare(scale * tone(440).astype(np.float64))
        assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.3)
    hann = CochleaConfig(drive_gain=1, rms=1).build().prepare(np.ones(400))
    assert hann == pytest.approx(np.sin(np.pi * np.minimum(np.arange(400), np.arange(400)[::-1]) / 400) ** 2)


def test_spoken_words_give_thousands_of_events_below_half_the_sample_rate() -> None:
    folder = data_folder("speech_commands")
    words = [sorted(words.glob("*.wav"))[:1] for words in sorted(folder.iterdir()) if not words.name.startswith("_")]
    files = [file for of_word in words for file in of_word]
    assert len(files) >= 10
    found = CochleaConfig().build()([read_audio(file, FS) for file in files], range(len(files)))
    assert 4000 <= np.median([len(events.units) for events in found]) <= 12000
    assert np.mean(np.concatenate([events.units for events in found]) < 138) < 0.05


def events_of_tone(frequency_hz: float, drive_gain: float) -> Events:
    return CochleaConfig(drive_gain=drive_gain, ramp_fraction=0.05).build()([tone(frequency_hz)], [7])[0]


def test_the_rate_grows_with_the_level_and_saturates() -> None:
    counts = []
    for gain in (1, 3, 10, 30, 100, 300):
        units = events_of_tone(1000, gain).units
        counts.append(np.count_nonzero(abs(units - 401) <= 15))
    assert counts == sorted(counts)
    assert counts[3] > 10 * counts[0]
    assert counts[-1] < 1.25 * counts[-2]  # three times the level, hardly more events


def test_events_lock_to_the_phase_of_low_tones_only() -> None:
    def vector_strength(frequency_hz: float, unit: int) -> float:
        events = events_of_tone(frequency_hz, 100)
        near = abs(events.units - unit) <= 3  # further off, the wave arrives at another phase
        assert np.count_nonzero(near) > 50
        return float(abs(np.exp(2j * np.pi * frequency_hz * events.times_s[near]).mean()))

    assert vector_strength(250, 584) > 0.7
    assert vector_strength(500, 493) > 0.7
    assert vector_strength(4000, 216) < 0.3


# --- determinism ---------------------------------------------------------------------------------------------------


def test_events_depend_on_seed_and_clip_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    clips = [rng.standard_normal(n) for n in (1200, 2000, 700, *([500] * 15))]
    ids = list(range(18))

    def same(found: list[Events], expected: list[Events]) -> bool:
        return all(
            np.array_equal(a, b) for x, y in zip(found, expected, strict=True) for a, b in zip(x, y, strict=True)
        )

    ear = CochleaConfig(seed=3).build()
    expected = ear(clips, ids)
    assert min(len(events.units) for events in expected) > 0
    assert same([ear([clip], [i])[0] for clip, i in zip(clips, ids, strict=True)], expected)
    assert same(ear(clips[::-1], ids[::-1]), expected[::-1])
    threads = torch.get_num_threads()
    try:
        for n_threads, width in ((1, 700), (3, 37)):
            torch.set_num_threads(n_threads)
            monkeypatch.setattr(cochlea_module, "BLOCK_UNITS", {"compiled": width, "torch": width})
            assert same(ear(clips[:3], ids[:3]), expected[:3])
    finally:
        torch.set_num_threads(threads)
    with loader.use_backend("torch"):
        monkeypatch.setattr(nerve_module, "_nerve_compiled", None)  # the threads follow the choice, too
        assert same(ear(clips[2:3], ids[2:3]), expected[2:3])
    monkeypatch.undo()
    assert not same(CochleaConfig(seed=4).build()(clips[:1], ids[:1]), expected[:1])
    assert not same(ear(clips[:1], [99]), expected[:1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sample_rate_hz": 8000}, "at least 16000, got 8000"),
        ({"seed": -1}, "seed must be in"),
        ({"ramp_fraction": 0.7}, "ramp_fraction must be in 0..0.5, got 0.7"),
        ({"rms": 0.0}, "rms must be positive"),
        ({"drive_gain": math.inf}, "drive_gain must be positive"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CochleaConfig(**values).build()


def test_clips_that_cannot_be_heard_are_refused() -> None:
    ear = CochleaConfig().build()
    for clip in (np.zeros(0), np.zeros((2, 5)), np.array([0.0, np.nan])):
        with pytest.raises(ValueError, match="must be finite samples"):
            ear([clip], [0])
    with pytest.raises(ValueError, match="one id for each"):
        ear([np.zeros(10)], [])
