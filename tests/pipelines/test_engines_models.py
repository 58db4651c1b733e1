"""Every kind of network on every data source of its domain runs through the engines: FP32 is what PyTorch computes."""

import pytest
import torch

from spikeloom.accel.export.program import export
from spikeloom.accel.trainer.engines.arithmetic import FP32
from spikeloom.accel.trainer.engines.program import Engines
from spikeloom.pipelines.training.toy_datasets import PICTURE_MODELS, SPIKESCRS, SmallTask, small_task
from spikeloom.pipelines.training.toy_trials import MEASURES, toy_problem

QUICK = ("cnn", "spikingformer", "spiking_resnet18", "spikescr")
MODELS = [
    n if n in QUICK else pytest.param(n, marks=pytest.mark.slow)
    for n in (*PICTURE_MODELS, *SPIKESCRS)
    if n != "spikescr_2l_16_256"
]


def engines_agree(task: SmallTask) -> None:
    """Forward bit by bit, gradients within 3e-5 of autograd."""
    model, x, labels = task.build(0), task.encode(task.train.x[:6]), task.train.labels[:6]
    inputs = x if isinstance(x, tuple) else (x,)
    exported = export(model, [inputs], name=task.model_name, source={}, axes=task.axes)
    assert exported.balance.holds, str(exported.balance)
    engines = Engines(exported.program, forward=FP32, learn_statistics=False)
    found = engines.forward(*inputs)
    model.train()
    expected = task.run(model, x)
    assert torch.equal(found, expected.detach())
    task.loss(expected, labels).backward()
    (gradient,) = torch.autograd.grad(task.loss(found.requires_grad_(), labels), found)
    gradients = engines.backward(gradient)
    for parameter, p in model.named_parameters():
        if p.grad is not None and p.grad.norm() > 1e-3:  # a bias in front of a norm has none but rounding
            assert float((gradients[parameter] - p.grad).norm() / p.grad.norm()) <= 3e-5, parameter


@pytest.mark.parametrize("name", MODELS)
def test_the_engines_compute_what_pytorch_computes(name: str) -> None:
    engines_agree(small_task("synthetic" if name in SPIKESCRS else "digits", name, limit=32))


@pytest.mark.slow  # of smaller ones in test_training_steps.py
@pytest.mark.parametrize("name", MEASURES)
def test_so_do_they_on_trials_of_eeg(name: str) -> None:
    engines_agree(toy_problem("trials", name, limit=16))


def test_a_model_that_does_not_fit_its_data_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"model=spikingformer does not fit task=synthetic; use one of spikescr, "):
        small_task("synthetic", "spikingformer")
    with pytest.raises(
        ValueError, match=r"use one of cnn, mlp, spikingformer, cml, qkformer, ms_qkformer, sew_resnet18"
    ):
        small_task("digits", "other")
    with pytest.raises(ValueError, match=r"model=mlp does not fit task=trials; use one of cet_mae, e2t_ptr"):
        toy_problem("trials", "mlp")
    with pytest.raises(ValueError, match="names no speakers"):
        small_task("digits", unseen=True)


@pytest.mark.slow
def test_an_unseen_speaker_is_not_trained_on() -> None:
    task = small_task("synthetic", seed=1, unseen=True)
    (speaker,) = set(task.test.groups)
    assert speaker not in task.train.groups and task.split == f"speaker {speaker}, not in the training set"
