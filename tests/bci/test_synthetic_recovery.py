"""CET-MAE finds planted content in unseen sentences, claims none where there is none, and what is broken fails."""

import math
from functools import cache

import pytest
import torch

from spikeloom.bci.evaluation.matching import contrast
from spikeloom.bci.models.cet_mae import CETMAE
from spikeloom.bci.synthetic.recovery import (
    LIMITS,
    VARIANTS,
    RecoveryScores,
    SyntheticRecovery,
    SyntheticRecoveryConfig,
)

SEEDS = (3, 4)  # on which no limit was set


@cache
def small_test() -> SyntheticRecovery:
    return SyntheticRecoveryConfig(strength=3.0, steps=70, n_sentences=200, batch_size=24).build()


@torch.no_grad()
def unseen_loss(model: CETMAE) -> float:
    """Contrastive loss of test sentences, minus chance."""
    trials = small_test().trials["test"]
    eeg = model.eeg_vector(trials.eeg, trials.mask)
    text = model.text_vector(trials.ids)
    loss, _, _ = contrast(model, eeg, text, trials.of_row, torch.Generator().manual_seed(0))
    return loss - math.log(len(text))


def test_a_short_training_already_finds_strong_content() -> None:
    assert unseen_loss(small_test().train()) < -0.4


@pytest.mark.slow
def test_a_short_training_on_shuffled_pairs_finds_nothing() -> None:
    assert unseen_loss(small_test().train("shuffled_pairs")) > -0.2


def test_a_frozen_text_encoder_gets_no_gradient_and_a_wrong_position_ignores_order() -> None:
    config = SyntheticRecoveryConfig(steps=2, n_sentences=60, batch_size=8)
    config.optimisation.warmup_steps = 1
    recovery = config.build()
    moved = {}
    for variant in ("correct", "frozen_text"):
        model = recovery.train(variant)
        moved[variant] = any(p.requires_grad for p in model.text_encoder.parameters())
    assert moved == {"correct": True, "frozen_text": False}
    batch = recovery.trials["test"].batch(torch.arange(4))
    swapped = batch.eeg[[1, 0, *range(2, len(batch.eeg))]]
    whole = batch.mask[:2].all()
    assert whole
    for variant, tells_order in (("correct", True), ("position_of_batch", False)):
        front = recovery.train(variant).front
        with torch.no_grad():
            differs = (front(batch.eeg, batch.mask)[2:] - front(swapped, batch.mask)[2:]).abs().max() > 1e-4
        assert bool(differs) == tells_order, variant


def test_limits_name_what_falls_short() -> None:
    good = RecoveryScores(loss=1.0, top1=0.7, top5=0.9, same_length_rank=0.03, p=0.001, mse_ratio=0.97, text_gain=-0.4)
    assert LIMITS[1.0].missed({"valid": good, "test": good}) == []
    bad = RecoveryScores(loss=2.0, top1=0.4, top5=0.7, same_length_rank=0.2, p=0.5, mse_ratio=0.97, text_gain=0.1)
    missed = LIMITS[1.0].missed({"valid": good, "test": bad})
    assert [said.split()[1] for said in missed] == ["loss", "top-1", "top-5", "rank", "p", "text"]
    assert len(LIMITS[0.0].missed({"test": good})) == 3  # rank, p, MSE ratio
    with pytest.raises(ValueError, match=r"0\.7 has no limits"):
        SyntheticRecoveryConfig(strength=0.7, n_sentences=60, steps=2).build().run()


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match=f"use one of {', '.join(VARIANTS)}"):
        small_test().train("upside_down")


@pytest.mark.slow
@pytest.mark.parametrize("strength", LIMITS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_correct_model_passes_on_new_seeds(strength: float, seed: int) -> None:
    assert SyntheticRecoveryConfig(strength=strength, seed=seed).build().run()["missed"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "strength"),
    [("shuffled_pairs", 1.0), ("shuffled_pairs", 0.5), ("frozen_text", 1.0), ("frozen_text", 0.5),
     ("position_of_batch", 0.5)],
)  # fmt: skip
def test_a_broken_model_fails(variant: str, strength: float) -> None:
    assert SyntheticRecoveryConfig(strength=strength, seed=SEEDS[0]).build().run(variant)["missed"]
