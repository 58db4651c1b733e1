"""Augmentation: keyed by sample, never by batch; masks of the promised size; warps that move what they should."""

import dataclasses

import numpy as np
import pytest
import torch

from spikeloom.speech.augmentation import Augmentation, AugmentationConfig, keyed_uniform, lerp_gather
from spikeloom.speech.features.log_mel import LogMelConfig, hz_to_mel

FEATURES = LogMelConfig.gsc_8k()
NO_MASKS = AugmentationConfig(frequency_mask_bands=0, time_mask_fraction=0.0)
EVERYTHING = AugmentationConfig(
    vocal_tract=0.2, mel_stretch=0.1, mel_shift_bands=3, time_stretch=0.2, level=0.1, noise_floor=0.1, silence_ms=50
)


def batch(n: int = 64, n_steps: int = 101) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = 0.1 + 0.9 * torch.rand(n, n_steps, 140, generator=generator)
    lengths = torch.randint(20, n_steps + 1, (n,), generator=generator)
    lengths[0] = n_steps
    features[torch.arange(n_steps) >= lengths[:, None]] = 0
    return features, lengths, torch.arange(100, 100 + n)


def masks_only(seed: int = 0) -> Augmentation:
    return AugmentationConfig().build(FEATURES, seed)


def test_masks_cover_at_most_ten_bands_and_a_quarter_of_the_valid_steps() -> None:
    features, lengths, ids = batch(400)
    augmented, new_lengths = masks_only()(features, lengths, ids, epoch=0)
    assert torch.equal(new_lengths, lengths)
    assert torch.equal(augmented[augmented != 0], features[augmented != 0])
    bands, shares = [], []
    for sample, n in zip(augmented, lengths.tolist(), strict=True):
        masked = sample[:n] == 0
        rows, columns = masked.all(1).nonzero()[:, 0], masked.all(0).nonzero()[:, 0]
        for indices in (rows, columns):  # one mask each: no gaps
            assert len(indices) == 0 or int(indices[-1] - indices[0]) == len(indices) - 1
        bands.append(len(columns))
        shares.append(len(rows) / n)
        assert len(rows) <= n // 4
    assert set(bands) == set(range(11))
    assert 0.20 < max(shares) <= 0.25
    assert 0.10 < float(np.mean(shares)) < 0.15


def test_every_place_can_be_masked() -> None:
    features, lengths, ids = batch(600, 40)
    lengths[:] = 40
    augmented, _ = masks_only()(features.clamp(min=0.1), lengths, ids, epoch=0)
    masked = augmented == 0
    assert masked.all(1).any(0).all()  # every band, in some sample
    assert masked.all(2).any(0).all()  # every step


@pytest.mark.parametrize("config", [AugmentationConfig(), EVERYTHING])
def test_a_sample_is_augmented_alike_in_any_batch(config: AugmentationConfig) -> None:
    augment = config.build(FEATURES, seed=3)
    features, lengths, ids = batch(16)
    whole, whole_lengths = augment(features, lengths, ids, epoch=5)
    order = torch.tensor([7, 2, 11])
    part, part_lengths = augment(features[order], lengths[order], ids[order], epoch=5)
    assert torch.equal(part_lengths, whole_lengths[order])
    longest = int(part_lengths.max())
    torch.testing.assert_close(part[:, :longest], whole[order, :longest])


@pytest.mark.parametrize(("seed", "epoch", "first_id"), [(1, 0, 100), (0, 1, 100), (0, 0, 101)])
def test_seed_epoch_and_sample_id_each_change_the_masks(seed: int, epoch: int, first_id: int) -> None:
    features, lengths, ids = batch(8)
    base, _ = masks_only(0)(features, lengths, ids, epoch=0)
    other, _ = masks_only(seed)(features, lengths, ids - 100 + first_id, epoch=epoch)
    assert not torch.equal(base, other)


def test_the_inputs_stay_untouched() -> None:
    features, lengths, ids = batch(8)
    copies = features.clone(), lengths.clone()
    EVERYTHING.build(FEATURES, 0)(features, lengths, ids, epoch=0)
    assert torch.equal(features, copies[0])
    assert torch.equal(lengths, copies[1])


def test_zero_switches_everything_off() -> None:
    features, lengths, ids = batch(8)
    augmented, new_lengths = NO_MASKS.build(FEATURES, 0)(features, lengths, ids, epoch=0)
    assert torch.equal(augmented, features)
    assert torch.equal(new_lengths, lengths)


def test_padded_steps_stay_zero() -> None:
    features, lengths, ids = batch(32)
    augmented, new_lengths = EVERYTHING.build(FEATURES, 0)(features, lengths, ids, epoch=2)
    assert not augmented[torch.arange(augmented.shape[1]) >= new_lengths[:, None]].any()
    assert augmented.shape[1] == int(new_lengths.max())


def ridges(bands: list[float], n: int) -> torch.Tensor:
    """Features with one narrow ridge per value of `bands`, the same at all 50 steps: `[n, 50, 140]`."""
    axis = torch.arange(140.0)
    frame = sum(torch.exp(-((axis - band) ** 2) / 8) for band in bands)
    assert isinstance(frame, torch.Tensor)
    return frame.expand(n, 50, 140).clone()


def band_of(frequency_hz: torch.Tensor) -> torch.Tensor:
    low, high = hz_to_mel(FEATURES.f_min_hz), hz_to_mel(FEATURES.f_max_hz)
    return (hz_to_mel(frequency_hz) - low) / (high - low) * 141 - 1


def test_another_vocal_tract_multiplies_all_formants_by_one_factor() -> None:
    n = 64
    lengths, ids = torch.full((n,), 50), torch.arange(n)
    augment = dataclasses.replace(NO_MASKS, vocal_tract=0.2).build(FEATURES, 0)
    factors = []
    for formant_hz in (700.0, 2500.0):
        augmented, _ = augment(ridges([float(band_of(torch.tensor(formant_hz)))], n), lengths, ids, epoch=0)
        # Invert the band of the ridge's centre of mass to Hz by a fine table.
        table_hz = torch.linspace(100, 4000, 40_000)
        weight = augmented[:, 25].double().pow(2)
        centre = (weight * torch.arange(140)).sum(1) / weight.sum(1)
        heard_hz = table_hz[torch.searchsorted(band_of(table_hz).double(), centre)]
        factors.append(heard_hz / formant_hz)
    assert float(factors[0].min()) < 0.85
    assert float(factors[0].max()) > 1.15
    torch.testing.assert_close(factors[0], factors[1], atol=0.01, rtol=0)
    assert float((factors[0] - 1).abs().max()) <= 0.21


def test_a_shift_moves_all_bands_alike_and_a_stretch_in_proportion() -> None:
    n = 64
    lengths, ids = torch.full((n,), 50), torch.arange(n)
    moved = {}
    for name, strength in (("mel_shift_bands", 6.0), ("mel_stretch", 0.1)):
        augment = dataclasses.replace(NO_MASKS, **{name: strength}).build(FEATURES, 0)
        peaks = [augment(ridges([band], n), lengths, ids, epoch=0)[0][:, 25].argmax(1) for band in (40.0, 80.0)]
        moved[name] = [peaks[0] - 40, peaks[1] - 80]
    assert int((moved["mel_shift_bands"][0] - moved["mel_shift_bands"][1]).abs().max()) <= 1
    assert int(moved["mel_shift_bands"][0].abs().max()) in (5, 6)
    assert int((2 * moved["mel_stretch"][0] - moved["mel_stretch"][1]).abs().max()) <= 2
    assert int(moved["mel_stretch"][1].abs().max()) in (7, 8)


def test_time_stretch_changes_lengths_and_keeps_both_ends() -> None:
    features, lengths, ids = batch(64)
    augmented, stretched = dataclasses.replace(NO_MASKS, time_stretch=0.25).build(FEATURES, 0)(
        features, lengths, ids, epoch=0
    )
    ratio = stretched / lengths
    assert 0.72 < float(ratio.min()) < 0.85
    assert 1.15 < float(ratio.max()) < 1.28
    each = torch.arange(64)
    torch.testing.assert_close(augmented[:, 0], features[:, 0])
    torch.testing.assert_close(augmented[each, stretched - 1], features[each, lengths - 1], atol=1e-4, rtol=0)


def test_silence_surrounds_the_clip_and_leaves_it_whole() -> None:
    features, lengths, ids = batch(200)
    build = dataclasses.replace(NO_MASKS, silence_ms=60).build(FEATURES, 0)
    augmented, longer = build(features, lengths, ids, epoch=0)
    before = [int((clip.sum(1) > 0).nonzero()[0]) for clip in augmented]
    behind = (longer - lengths).numpy() - before
    assert set(before) == set(behind.tolist()) == set(range(7))
    for clip, old, start, n in zip(augmented, features, before, lengths.tolist(), strict=True):
        assert torch.equal(clip[start : start + n], old[:n])
        assert clip.count_nonzero() == clip[start : start + n].count_nonzero()


def test_level_and_noise_floor_stay_in_their_limits() -> None:
    features, lengths, ids = batch(64)
    augmented, _ = dataclasses.replace(NO_MASKS, level=0.05).build(FEATURES, 0)(features, lengths, ids, epoch=0)
    change = (augmented - features)[:, :20]
    torch.testing.assert_close(change, change[:, :1, :1].expand_as(change), atol=1e-5, rtol=0)
    assert 0.04 < float(change.max()) <= 0.0501
    assert -0.0501 <= float(change.min()) < -0.04
    raised, _ = dataclasses.replace(NO_MASKS, noise_floor=0.5).build(FEATURES, 0)(features, lengths, ids, epoch=0)
    floors = raised[:, :20].amin(dim=(1, 2))
    assert float(floors.max()) > 0.4
    assert torch.equal(raised[:, :20], torch.maximum(features[:, :20], floors[:, None, None]))


def test_without_level_scaling_masks_fill_the_decibel_floor() -> None:
    unscaled = dataclasses.replace(FEATURES, level_scaling=False)
    features, lengths, ids = batch(32)
    augmented, _ = AugmentationConfig().build(unscaled, 0)(features - 50, lengths, ids, epoch=0)
    inside = augmented[:, :20]
    assert set(inside[inside != (features - 50)[:, :20]].tolist()) == {-100.0}


def test_reading_between_cells_is_linear() -> None:
    values = torch.arange(24.0).reshape(1, 4, 6)
    torch.testing.assert_close(lerp_gather(values, torch.tensor([[0.5, 3.0]]), 1)[0, :, 0], torch.tensor([3.0, 18.0]))
    torch.testing.assert_close(lerp_gather(values, torch.tensor([[0.25, 5.0]]), 2)[0, 0], torch.tensor([0.25, 5.0]))


def test_keyed_numbers_are_uniform_and_unrelated() -> None:
    u = keyed_uniform(0, 0, np.arange(20_000), 3)
    assert u.min() >= 0
    assert u.max() < 1
    np.testing.assert_allclose(u.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(u.var(0), 1 / 12, atol=0.002)
    next_epoch = keyed_uniform(0, 1, np.arange(20_000), 3)
    related = np.corrcoef(np.concatenate([u, next_epoch, np.roll(u, 1, axis=0)], axis=1).T) - np.eye(9)
    assert np.abs(related).max() < 0.03


def coloured(n_bands: int = 140, **strengths: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    features, lengths, ids = batch(200)
    features[:, 0, n_bands // 2] = 1  # a level-scaled clip has its peak at 1
    augmented, _ = dataclasses.replace(NO_MASKS, **strengths).build(FEATURES, 0)(features, lengths, ids, epoch=0)  # type: ignore[arg-type]
    return features, augmented, lengths


@pytest.mark.parametrize("strengths", [{"tilt": 0.3}, {"equaliser": 0.15}, {"tilt": 0.2, "equaliser": 0.1}])
def test_a_microphone_adds_one_curve_to_all_valid_steps_and_keeps_the_peak_at_one(strengths: dict[str, float]) -> None:
    features, augmented, lengths = coloured(**strengths)
    assert float(augmented.min()) >= 0
    torch.testing.assert_close(augmented.amax((1, 2)), torch.ones(200))
    for before, after, n in zip(features, augmented, lengths.tolist(), strict=True):
        assert not after[n:].any()
        inside = (after[:n] > 0) & (after[:n] < 1)
        change = torch.where(inside, after[:n] - before[:n], torch.nan)
        spread = change.nan_to_num(-9).amax(0) - change.nan_to_num(9).amin(0)
        assert float(spread[inside.any(0)].max()) < 1e-5  # the same at every step


def test_a_tilt_is_linear_and_reaches_its_strength_at_the_edges() -> None:
    features, augmented, _ = coloured(tilt=0.3)
    change = (augmented - features)[:, 1:20]
    change = torch.where((augmented[:, 1:20] > 0) & (augmented[:, 1:20] < 1), change, torch.nan).nanmedian(1).values
    slope = (change[:, 120] - change[:, 20]) / 100 * 139 / 2  # of the gain, from the middle to the edge
    middle = change[:, 70] - (change[:, 120] + change[:, 20]) / 2
    assert float(middle[~middle.isnan()].abs().max()) < 1e-5
    assert 0.27 < float(slope[~slope.isnan()].abs().max()) <= 0.3 + 1e-5
    assert abs(float(slope[~slope.isnan()].mean())) < 0.03


def test_an_equaliser_is_a_sum_of_four_waves() -> None:
    augment = dataclasses.replace(NO_MASKS, equaliser=0.2).build(FEATURES, 0)
    draw = torch.rand(50, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
    u = torch.linspace(0, 2, 140)
    literal = sum(
        0.2 * draw[:, 2 * k - 1, None] / k**0.5 * torch.cos(torch.pi * k * u + torch.pi * draw[:, 2 * k, None])
        for k in range(1, 5)
    )
    torch.testing.assert_close(augment._colour(draw, 140), literal)


def test_silence_stays_silent_under_any_microphone() -> None:
    lengths, ids = torch.full((8,), 30), torch.arange(8)
    augment = dataclasses.replace(NO_MASKS, tilt=0.3, equaliser=0.2).build(FEATURES, 0)
    assert not augment(torch.zeros(8, 40, 140), lengths, ids, epoch=0)[0].any()


def test_a_microphone_needs_level_scaling() -> None:
    for name in ("tilt", "equaliser"):
        with pytest.raises(ValueError, match=r"level scaling.*features\.level_scaling=true"):
            dataclasses.replace(NO_MASKS, **{name: 0.1}).build(LogMelConfig.gsc_paper(), 0)


def test_strengths_that_are_off_draw_as_they_always_did() -> None:
    features, lengths, ids = batch(16)
    config = dataclasses.replace(EVERYTHING, tilt=0.0, equaliser=0.0, silence_ms=0)
    augmented, _ = config.build(FEATURES, 7)(features, lengths, ids, epoch=2)
    assert float(augmented.double().sum()) == pytest.approx(
        66078.1807, rel=1e-6
    )  # recorded before there was a microphone


@pytest.mark.parametrize("change", [{"vocal_tract": 1.0}, {"time_stretch": -0.1}, {"level": -1.0}])
def test_strengths_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(NO_MASKS, **change).build(FEATURES, 0)  # type: ignore[arg-type]
