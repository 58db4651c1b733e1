"""Whole training steps of CET-MAE and E2T-PTR: the loss of the training itself, and its gradients by the engines."""

import pytest
import torch
from torch import Tensor, nn

from spikeloom.accel.export.program import Exported, export
from spikeloom.accel.trainer.engines.arithmetic import FP32
from spikeloom.accel.trainer.engines.program import Engines
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.bci.data.tokenizer import PAD
from spikeloom.bci.models.cet_mae import CETMAEConfig
from spikeloom.bci.models.e2t_ptr import build_e2t_ptr
from spikeloom.bci.models.pretraining import Pretraining, PretrainingBatch, PretrainingConfig
from spikeloom.pipelines.config.chips import load_chip
from spikeloom.pipelines.export.training_steps import PretrainingStep, TeacherForcedStep, pretraining_inputs

STEPS, BATCH, IDS, VOCABULARY = 8, 4, 6, 120
TINY = CETMAEConfig(
    width=32, encoder_layers=1, heads=4, ffn=32, unify_heads=4, unify_ffn=32, dropout=0.1,
    text_width=32, text_layers=1, text_heads=4, text_ffn=32, text_positions=32,
)  # fmt: skip


def data() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    eeg, ids = torch.randn(STEPS, BATCH, 840), torch.randint(10, VOCABULARY - 2, (IDS, BATCH))
    return eeg, ids, torch.tensor([0, 1, 1, 2])


def engines_agree(step: nn.Module, inputs: tuple[Tensor, ...]) -> Exported:
    """The export of a step whose gradients are those of autograd."""
    exported = export(step, [inputs], name="step", source={}, axes="TBC")
    engines = Engines(exported.program, forward=FP32)
    loss = step(*inputs)
    loss.backward()
    found = engines.forward(*inputs)
    assert torch.equal(found, loss.detach())
    gradients = engines.backward(torch.ones_like(found))
    for name, p in step.named_parameters():
        if p.grad is not None and p.grad.norm() > 1e-6:
            assert float((gradients[name] - p.grad).norm() / p.grad.norm()) <= 3e-5, name
    return exported


SLOW = [pytest.param(*kind, marks=pytest.mark.slow) for kind in ((False, False), (True, False))]


@pytest.mark.parametrize(("frozen", "padded"), [(False, True), *SLOW])
def test_a_pretraining_step_is_that_of_the_training(frozen: bool, padded: bool) -> None:
    eeg, ids, sentence = data()
    torch.manual_seed(1)
    model = CETMAEConfig(**{**vars(TINY), "freeze_text": frozen}).build(VOCABULARY).eval()
    recipe = PretrainingConfig.planted()
    mask = torch.ones(STEPS, BATCH, dtype=torch.bool)
    if padded:
        mask[5:, 1], mask[6:, 2], ids[4:, 1], ids[5:, 3] = False, False, PAD, PAD
    batch = PretrainingBatch(eeg, mask, ids, sentence)
    inputs = pretraining_inputs(batch, recipe, VOCABULARY - 1, torch.Generator().manual_seed(3))
    expected = Pretraining(recipe)(model, batch, torch.Generator().manual_seed(3)).total
    step = PretrainingStep(model, recipe)
    torch.testing.assert_close(step(*inputs), expected, atol=1e-6, rtol=1e-6)
    exported = engines_agree(step, tuple(inputs))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(layer.parameters for layer in exported.workload.layers) == trained
    assert exported.balance.holds and (exported.balance.frozen > 0) == frozen
    for chip in ("neuromc", "cacti28", "memristor"):
        assert simulate(exported.workload, load_chip(chip)).energy_per_iteration_pj > 0


def test_a_teacher_forced_step_is_that_of_the_training() -> None:
    eeg, ids, _ = data()
    torch.manual_seed(1)
    model = build_e2t_ptr(TINY, VOCABULARY).eval()
    step = TeacherForcedStep(model)
    mask = torch.ones(STEPS, BATCH, dtype=torch.bool)
    mask[5:, 1], ids[4:, 1] = False, PAD
    exported = engines_agree(step, (eeg, mask, ids))
    assert sum(layer.parameters for layer in exported.workload.layers) == sum(p.numel() for p in model.parameters())
