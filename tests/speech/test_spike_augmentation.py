"""Masks on event frames: of the promised size, in half the clips, keyed by sample."""

import numpy as np
import pytest
import torch

from spikeloom.speech.features.event_bins import EventBinsConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.spike_augmentation import SpikeAugmentation, SpikeAugmentationConfig

FEATURES = EventBinsConfig()


def augment(seed: int = 0, **changes: float) -> SpikeAugmentation:
    return SpikeAugmentationConfig(**changes).build(FEATURES, seed)  # type: ignore[arg-type]


def batch(n: int, n_steps: int = 60) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    lengths = 20 + torch.arange(n) % (n_steps - 19)
    features = 1.0 + torch.randint(0, 5, (n, n_steps, 140), generator=torch.Generator().manual_seed(0))
    return features * (torch.arange(n_steps) < lengths[:, None])[:, :, None], lengths, torch.arange(n)


@pytest.mark.parametrize(("fraction", "channels"), [(0.2, 20), (0.1, 10)])
def test_masks_have_the_published_sizes_in_half_the_clips(fraction: float, channels: int) -> None:
    features, lengths, ids = batch(2000)
    masked, same = augment(time_mask_fraction=fraction, channel_mask_channels=channels)(features, lengths, ids, 0)
    assert torch.equal(same, lengths)
    assert torch.equal(masked[masked != 0], features[masked != 0])  # what is left is untouched
    with_time, widths = 0, []
    for sample, n in zip(masked, lengths.tolist(), strict=True):
        zero = sample[:n] == 0
        rows, columns = zero.all(1).nonzero()[:, 0], zero.all(0).nonzero()[:, 0]
        for indices in (rows, columns):  # one mask of each kind: no gaps
            assert len(indices) == 0 or int(indices[-1] - indices[0]) == len(indices) - 1
        assert len(rows) in (0, int(fraction * n + 1e-9))
        with_time += len(rows) > 0
        widths.append(len(columns))
    assert abs(with_time / 2000 - 0.5) < 0.04
    assert set(widths) == set(range(channels))
    assert abs(np.mean(np.array(widths) > 0) - 0.5 * (channels - 1) / channels) < 0.04


def test_a_sample_is_masked_alike_in_any_batch_and_anew_in_each_epoch() -> None:
    features, lengths, ids = batch(40)
    whole, _ = augment(3)(features, lengths, ids, 5)
    order = torch.tensor([7, 2, 11])
    part, _ = augment(3)(features[order], lengths[order], ids[order], 5)
    assert torch.equal(part, whole[order])
    for other in (augment(4)(features, lengths, ids, 5)[0], augment(3)(features, lengths, ids, 6)[0]):
        assert not torch.equal(other, whole)


def test_every_step_and_channel_can_be_masked() -> None:
    features, lengths, ids = batch(2000, 20)
    zero = augment()(features, lengths, ids, 0)[0] == 0
    assert zero.all(1).any(0).all()
    assert zero.all(2).any(0).all()


def test_probability_zero_changes_nothing_and_nonsense_is_refused() -> None:
    features, lengths, ids = batch(8)
    assert torch.equal(augment(probability=0)(features, lengths, ids, 0)[0], features)
    for change in ({"time_mask_fraction": 1.0}, {"probability": 1.5}, {"channel_mask_channels": 141}):
        with pytest.raises(ValueError, match=next(iter(change))):
            augment(**change)
    with pytest.raises(ValueError, match="kind log_mel"):
        SpikeAugmentationConfig().build(LogMelConfig(), 0)
