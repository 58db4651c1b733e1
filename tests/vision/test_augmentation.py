"""Augmented samples keep their range and meaning, and depend on (seed, epoch, sample) alone."""

import numpy as np
import pytest
import torch

from spikeloom.vision.datasets.event_sets import MIRRORED_GESTURES
from spikeloom.vision.transforms.augmentation import (
    EventAugmentationConfig,
    ImageAugmentationConfig,
    cut_out,
    erased,
    keyed,
    mirrored,
    moved,
    random_part,
    shifted_crop,
)
from spikeloom.vision.transforms.frames import EventFramesConfig, PixelsConfig
from spikeloom.vision.transforms.mixing import MixingConfig, mix, smoothed
from spikeloom.vision.transforms.rand_augment import OPERATIONS, RandAugment

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
RAMP = (np.add.outer(3 * np.arange(32), 2 * np.arange(32))[:, :, None] + np.array([30, 45, 60])).astype(np.uint8)
CIFAR = PixelsConfig()


def everything(**changes: object) -> ImageAugmentationConfig:
    values = {
        "flip": 0.5, "crop_padding": 4, "rand_magnitude": 9.0, "rand_layers": 1, "rand_spread": 0.4, "erase": 0.25,
    }  # fmt: skip
    return ImageAugmentationConfig(**{**values, **changes})


def test_a_sample_looks_the_same_whenever_seed_epoch_and_sample_are() -> None:
    augment = everything().build(CIFAR, seed=3)
    again = everything().build(CIFAR, seed=3)
    seen = {}
    for sample, epoch in ((0, 0), (1, 0), (0, 1), (7, 5)):
        seen[sample, epoch] = augment(PICTURE, sample, epoch)
        assert torch.equal(seen[sample, epoch], again(PICTURE, sample, epoch))
    pictures = [*seen.values(), everything().build(CIFAR, seed=4)(PICTURE, 0, 0)]
    assert not any(torch.equal(a, b) for i, a in enumerate(pictures) for b in pictures[:i])


def test_shares_beyond_one_and_negative_amounts_are_named() -> None:
    for key, value in (("flip", 2), ("erase", -1), ("crop_padding", -2), ("rand_magnitude", -1)):
        with pytest.raises(ValueError, match=f"augmentation.{key}={value}"):
            everything(**{key: value}).build(CIFAR, 0)
    with pytest.raises(ValueError, match=r"augmentation\.flip=2 must be in \[0, 1\]"):
        EventAugmentationConfig(flip=2).build(EventFramesConfig(), 0)


def test_without_any_change_a_sample_is_as_in_evaluation() -> None:
    augment = ImageAugmentationConfig().build(CIFAR, seed=0)
    assert torch.equal(augment(PICTURE, 0, 0), CIFAR.frames(PICTURE))
    mean, std = torch.tensor(CIFAR.mean)[:, None, None], torch.tensor(CIFAR.std)[:, None, None]
    expected = (torch.from_numpy(PICTURE).permute(2, 0, 1) / 255 - mean) / std
    assert torch.allclose(CIFAR.frames(PICTURE), expected, atol=1e-6)


def test_mirroring_happens_as_often_as_asked_and_twice_is_nothing() -> None:
    augment = ImageAugmentationConfig(flip=0.5).build(CIFAR, seed=0)
    plain = CIFAR.frames(PICTURE)
    flipped = [torch.equal(augment(PICTURE, i, 0), plain.flip(2)) for i in range(400)]
    kept = [torch.equal(augment(PICTURE, i, 0), plain) for i in range(400)]
    assert sum(flipped) + sum(kept) == 400
    assert 150 < sum(flipped) < 250


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_of_rand_augment_keeps_size_and_grows_with_its_strength(name: str, channels: int) -> None:
    from PIL import Image

    picture = RAMP if channels == 3 else RAMP[:, :, 0]
    image, fill = Image.fromarray(picture), (125, 123, 114) if channels == 3 else 125
    changed = []
    for strength in (0.1, 0.5, 1.0):
        made = np.asarray(OPERATIONS[name](image, strength, 1, fill))
        assert made.shape == picture.shape
        assert made.dtype == np.uint8
        changed.append(np.abs(made.astype(int) - picture).mean())
    if name not in ("auto contrast", "equalize", "invert", "sharpness") and (name, channels) != ("colour", 1):
        assert changed[0] <= changed[1] + 1e-9 <= changed[2] + 2e-9, changed
        assert changed[2] > 0


def test_rand_augment_applies_half_of_what_it_draws() -> None:
    rand = RandAugment(magnitude=9, layers=1, spread=0.4, fill=(0, 0, 0))
    unchanged = sum(np.array_equal(rand(RAMP, keyed(0, 0, i)), RAMP) for i in range(300))
    assert 120 < unchanged < 200
    with pytest.raises(ValueError, match="use rand_magnitude=0"):
        everything().build(CIFAR, 0)(PICTURE, 0, 0, full_scale=16.0)


def test_a_random_part_covers_the_asked_share_and_a_whole_one_is_the_middle() -> None:
    wide = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    part = random_part(wide, CIFAR, [0.08, 0.5], [3 / 4, 4 / 3], keyed(0, 0, 0))
    assert part.shape == (32, 32, 3)
    square = random_part(PICTURE, CIFAR, [1.0, 1.0], [1.0, 1.0], keyed(0, 0, 0))
    assert np.array_equal(square, PICTURE)
    assert np.array_equal(everything_whole(PICTURE), CIFAR.frames(PICTURE).numpy())


def everything_whole(picture: np.ndarray) -> np.ndarray:
    return ImageAugmentationConfig(crop_scale=[1.0, 1.0]).build(CIFAR, 0)(picture, 0, 0).numpy()


def test_a_shifted_crop_moves_by_at_most_its_padding() -> None:
    one = np.zeros((9, 9, 1), np.uint8)
    one[4, 4] = 1
    places = {tuple(np.argwhere(shifted_crop(one, 2, keyed(0, 0, i)))[0][:2]) for i in range(300)}
    assert places == {(y, x) for y in range(2, 7) for x in range(2, 7)}


@pytest.mark.parametrize("mode", ["const", "pixel"])
def test_erasing_replaces_one_rectangle_of_2_to_33_percent(mode: str) -> None:
    values = torch.full((3, 32, 32), 5.0)
    for i in range(100):
        gone = (erased(values, mode, keyed(0, 0, i)) != 5.0).all(0)
        rows, columns = gone.any(1), gone.any(0)
        assert bool((gone == rows[:, None] & columns[None]).all())
        assert 0.015 < gone.float().mean() < 0.36
    assert (values == 5.0).all()


def test_refused_settings_name_the_remedy() -> None:
    for config, features, words in (
        (everything(erase_mode="blur"), CIFAR, "use const or pixel"),
        (everything(crop_scale=[0.0, 2.0]), CIFAR, r"use two shares"),
        (everything(mix_prob=1.5), CIFAR, r"in \[0, 1\]"),
        (everything(mixup=-1.0), CIFAR, "use 0 for none"),
        (everything(), EventFramesConfig(), "use augmentation=events"),
        (EventAugmentationConfig(), CIFAR, "use augmentation=images"),
    ):
        with pytest.raises(ValueError, match=words):
            config.build(features, 0)


# --- events ---------------------------------------------------------------------------------------------------------

FRAMES = torch.from_numpy(np.random.default_rng(2).poisson(0.5, (4, 2, 16, 24)).astype(np.float32))


def test_mirroring_a_gesture_twice_restores_frames_and_labels() -> None:
    assert torch.equal(mirrored(mirrored(FRAMES)), FRAMES)
    assert not torch.equal(mirrored(FRAMES), FRAMES)
    swap = np.array(MIRRORED_GESTURES)
    assert swap[swap].tolist() == list(range(11))
    assert {(a, b) for a, b in enumerate(swap.tolist()) if a < b} == {(1, 2), (3, 6), (4, 5)}


def test_moving_frames_keeps_counts_whole_and_comes_back() -> None:
    assert torch.equal(moved(FRAMES, [[1, 0], [0, 1]]), FRAMES)
    down = moved(FRAMES, [[1, 0], [0, 1]], (3, 0))
    assert torch.equal(down[..., 3:, :], FRAMES[..., :-3, :])
    assert (down[..., :3, :] == 0).all()
    square = FRAMES[..., :16]
    turned = moved(square, [[0, -1], [1, 0]])
    assert torch.equal(turned, square.rot90(1, (-1, -2)))
    assert torch.equal(moved(turned, [[0, 1], [-1, 0]]), square)
    sheared = moved(FRAMES, [[1, 0.3], [0, 1]])
    assert set(sheared.unique().tolist()) <= set(FRAMES.unique().tolist())


def test_a_cut_out_empties_one_square_in_every_frame() -> None:
    ones = torch.ones(3, 2, 32, 32)
    for share in (0.001, 0.05, 0.11):
        gone = cut_out(ones, share, keyed(0, 0, 1)) == 0
        assert (gone == gone[0, 0]).all()
        assert float(gone[0, 0].float().mean()) == pytest.approx(share, abs=0.01)


def test_events_are_changed_in_one_of_five_ways_by_key() -> None:
    augment = EventAugmentationConfig(flip=0.5).build(EventFramesConfig(), seed=1)
    made = [augment(FRAMES, i, 0) for i in range(60)]
    assert all(torch.equal(augment(FRAMES, i, 0)[0], frames) for i, (frames, _) in enumerate(made))
    assert 10 < sum(flipped for _, flipped in made) < 50
    assert sum(torch.equal(frames, FRAMES) for frames, flipped in made) > 1
    still = EventAugmentationConfig(one_of=False).build(EventFramesConfig(), seed=1)
    assert torch.equal(still(FRAMES, 0, 0)[0], FRAMES)


# --- mixing ---------------------------------------------------------------------------------------------------------


def test_mixup_mixes_pictures_and_labels_by_one_share() -> None:
    frames = torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 8)
    targets = smoothed(torch.tensor([0, 1, 2, 3]), 4, 0.0)
    mixed, mixed_targets = mix(frames, targets, MixingConfig(mixup=0.5), keyed(0, 0, 0))
    share = float(mixed_targets[0, 0])
    assert 0 < share < 1
    assert torch.allclose(mixed[0], torch.full((3, 8, 8), share * 0 + (1 - share) * 3))
    assert torch.allclose(mixed_targets.sum(1), torch.ones(4))
    assert torch.allclose(mixed_targets, share * targets + (1 - share) * targets.flip(0))


def test_cutmix_counts_the_area_that_was_really_replaced() -> None:
    frames = torch.arange(2.0)[:, None, None, None].expand(2, 1, 16, 16)
    targets = smoothed(torch.tensor([0, 1]), 2, 0.0)
    for i in range(50):
        mixed, mixed_targets = mix(frames, targets, MixingConfig(cutmix=1.0), keyed(0, 0, i))
        replaced = float((mixed[0] == 1).float().mean())
        assert float(mixed_targets[0, 1]) == pytest.approx(replaced)
        assert float(mixed_targets[1, 0]) == pytest.approx(replaced)


def test_mixing_happens_as_often_as_asked_and_ends_on_its_epoch() -> None:
    frames, targets = torch.randn(4, 3, 4, 4), torch.eye(4)
    config = MixingConfig(mixup=0.5, mix_prob=0.5, mix_until_epoch=75)
    unmixed = sum(mix(frames, targets, config, keyed(0, 0, i))[0] is frames for i in range(200))
    assert 70 < unmixed < 130
    assert [config.mixes(epoch) for epoch in (0, 74, 75, 90)] == [True, True, False, False]
    assert not MixingConfig().mixes(0)
    assert MixingConfig(cutmix=1.0).mixes(10_000)


def test_smoothing_takes_from_the_label_what_it_gives_to_all() -> None:
    targets = smoothed(torch.tensor([2]), 10, 0.1)
    assert targets[0, 2] == pytest.approx(0.91)
    assert targets[0, 0] == pytest.approx(0.01)
    assert targets.sum() == pytest.approx(1.0)
