"""Distillation over time resolutions: the losses by hand, who is paired with whom, and what a teacher never does."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from spikeloom.accel.common.batches import BatchIndex, batch_loader
from spikeloom.speech.augmentation import AugmentationConfig
from spikeloom.speech.batches import FeatureSet, featurise
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.distillation import (  # fmt: skip
    DistillationConfig,
    PairedSet,
    check_resolutions,
    hand_over,
    kl_on_mean_logits,
    mean_logits,
    pair,
)
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.models.spikescr import SpikeSCR, SpikeSCRConfig

FINE, COARSE = LogMelConfig().at(10), LogMelConfig().at(25)


@pytest.fixture(scope="module")
def clips():
    return SyntheticConfig(n_words=3, n_speakers=6, takes=2, n_test_speakers=2, n_valid_speakers=2).build().train


@pytest.fixture
def coarse(clips) -> FeatureSet:
    return featurise(clips, COARSE.build(), AugmentationConfig().build(COARSE, seed=0))


@pytest.fixture
def fine(clips) -> FeatureSet:
    return featurise(clips, FINE.build())


def network(seed: int, dropout: float = 0.1) -> SpikeSCR:
    """A small model whose batch norms have seen data, so that evaluation mode differs from a fresh one."""
    torch.manual_seed(seed)
    model = SpikeSCRConfig(width=16, heads=1, dropout=dropout).build(FINE.n_channels, 3)
    model(torch.rand(20, 8, FINE.n_channels))
    return model


def tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_kl_is_the_equation_written_out(temperature):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 4, 5))
    total = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        p_s, p_t = (np.exp(z / temperature) / np.exp(z / temperature).sum() for z in (z_s, z_t))
        total += sum(p * (math.log(p) - math.log(q)) for p, q in zip(p_t, p_s, strict=True))
    kl = kl_on_mean_logits(torch.tensor(student), torch.tensor(teacher), temperature)
    assert float(kl) == pytest.approx(temperature**2 * total / 4, rel=1e-12)


def test_kl_pulls_the_student_to_the_teacher_whatever_the_size_of_the_logits():
    teacher = torch.tensor([[1000.0, 0.0, -1000.0]])
    student = torch.tensor([[-1000.0, 0.0, 1000.0]], requires_grad=True)
    kl = kl_on_mean_logits(student, teacher, 2.0)
    kl.backward()
    assert torch.isfinite(kl) and kl > 0 and torch.isfinite(student.grad).all()
    assert student.grad[0, 0] < 0 < student.grad[0, 2]


def test_mean_logits_count_valid_steps_only():
    logits = torch.randn(7, 3, 4)
    lengths = torch.tensor([7, 3, 1])
    by_hand = torch.stack([logits[:n, b].mean(0) for b, n in enumerate(lengths)])
    logits[3:, 1] = math.nan  # padding may hold anything
    torch.testing.assert_close(mean_logits(logits, lengths), by_hand)


def test_a_student_that_is_its_teacher_and_hears_the_same_has_no_kl(fine):
    model = network(0).eval()
    lessons = pair(fine, model, fine)
    distillation = DistillationConfig().build()
    with torch.no_grad():
        for draw in (BatchIndex(0, torch.tensor([4, 1, 9])), BatchIndex(0, torch.arange(len(fine)))):
            assert float(distillation(model, lessons[draw]).kl) <= 1e-7


def test_every_student_row_stands_beside_the_teacher_on_the_same_clip(coarse, fine):
    teacher = network(1)
    lessons = pair(coarse, teacher, fine)
    teacher.eval()
    orders = []
    loader = batch_loader(lessons, batch_size=5, seed=0, shuffle=True)
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        seen = []
        for batch in loader:
            untouched = fine[BatchIndex(0, batch.student.sample_ids)]  # the fine view of the same ids, unaugmented
            with torch.inference_mode():
                logits = teacher(untouched.features.transpose(0, 1), untouched.lengths)
            torch.testing.assert_close(
                batch.teacher_logits, mean_logits(logits, untouched.lengths), atol=1e-4, rtol=0.0
            )
            assert torch.equal(untouched.labels, batch.student.labels)
            assert int(batch.student.lengths.max()) < int(untouched.lengths.max())
            seen += batch.student.sample_ids.tolist()
        assert sorted(seen) == list(range(len(coarse)))
        orders.append(seen)
    assert orders[0] != orders[1]
    ids = torch.arange(len(coarse))
    assert not torch.equal(lessons[BatchIndex(0, ids)].student.features, lessons[BatchIndex(1, ids)].student.features)
    assert torch.equal(lessons[BatchIndex(0, ids)].teacher_logits, lessons[BatchIndex(1, ids)].teacher_logits)


def test_a_teacher_is_never_changed(coarse, fine):
    teacher, student = network(2), network(3)
    before = tensors(teacher)
    was_training = teacher.training
    lessons = pair(coarse, teacher, fine)
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.01)
    student_before = tensors(student)
    for _ in range(2):
        batch = lessons[BatchIndex(0, torch.arange(8))]
        judgement = DistillationConfig().build()(student, batch)
        (judgement.kl - judgement.log_p[torch.arange(8), batch.labels].mean()).backward()
        optimizer.step()
    assert differing(before, tensors(teacher)) == [] and teacher.training is was_training
    assert all(p.grad is None for p in teacher.parameters())
    assert not lessons.teacher_logits.requires_grad
    assert "head.weight" in differing(student_before, tensors(student))


def test_the_hand_over_is_bit_equal_with_the_running_statistics(tmp_path):
    before, student, teacher = network(4), network(5), network(6)
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": {f"model.{k}": v for k, v in before.state_dict().items()}, "epoch": 3}, path)
    hand_over(path, student, teacher)
    assert differing(tensors(before), tensors(student)) == differing(tensors(before), tensors(teacher)) == []
    assert any("running_var" in name for name in before.state_dict())
    with torch.no_grad():
        student.head.weight.zero_()
    assert not torch.equal(student.head.weight, teacher.head.weight), "student and teacher share storage"


def test_a_teacher_that_cannot_be_is_named(tmp_path):
    student = network(7)
    kept = tensors(student)
    with pytest.raises(ValueError, match=r"best\.ckpt is missing.*train the stage before"):
        hand_over(tmp_path / "best.ckpt", student)
    (tmp_path / "cut.ckpt").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"cut\.ckpt is damaged"):
        hand_over(tmp_path / "cut.ckpt", student)
    other = SpikeSCRConfig(width=32, heads=1).build(FINE.n_channels, 3)
    torch.save({"state_dict": {f"model.{k}": v for k, v in other.state_dict().items()}}, tmp_path / "wide.ckpt")
    with pytest.raises(ValueError, match=r"wide\.ckpt does not fit.*blocks\.0.* has shape .*use one model"):
        hand_over(tmp_path / "wide.ckpt", student)
    deep = copy.deepcopy(student.state_dict())
    deep["blocks.1.extra"] = deep.pop("head.weight")
    torch.save({"state_dict": {f"model.{k}": v for k, v in deep.items()}}, tmp_path / "deep.ckpt")
    with pytest.raises(ValueError, match=r"blocks\.1\.extra is not in the model; head\.weight is missing"):
        hand_over(tmp_path / "deep.ckpt", student)
    assert differing(kept, tensors(student)) == []


def test_views_that_do_not_belong_together_are_refused(clips, coarse, fine):
    with pytest.raises(ValueError, match="view is augmented"):
        pair(coarse, network(8), coarse)
    with pytest.raises(ValueError, match="different clips"):
        pair(coarse, network(8), featurise(clips.select(range(6)), FINE.build()))
    with pytest.raises(ValueError, match="use two views of the same clips"):
        PairedSet(student=coarse, teacher_logits=torch.zeros(2, 3))


@pytest.mark.parametrize(
    "resolutions_ms", [[], [10], [10, 10], [25, 10, 5], [5, 10, 8], [0, 5], [-1, 5], [5, math.nan], [5, math.inf]]
)
def test_resolutions_must_coarsen(resolutions_ms):
    with pytest.raises(ValueError, match=r"rise strictly.*use for example"):
        check_resolutions(resolutions_ms)


def test_impossible_distillation_settings_are_refused():
    check_resolutions([2.5, 5, 10, 25])
    for wrong in ({"temperature": 0.0}, {"temperature": math.inf}, {"kl_weight": -1.0}, {"kl_weight": math.nan}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
            DistillationConfig(**wrong).build()
