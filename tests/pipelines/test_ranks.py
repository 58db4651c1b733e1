"""Two processes train as one does, in every domain: samples, losses, metrics, files, and what a kill leaves.

Losses agree to a tolerance: sums are rounded in another order, and a membrane within rounding of its threshold fires
otherwise, which the epochs after it amplify. CET-MAE, which has no neurons, agrees to 1e-4.
"""

import csv
import os
import re
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from torch import nn

from spikeloom.accel.common.batches import CacheBudget
from spikeloom.accel.learning.pruning.at_init import AtInitConfig
from spikeloom.accel.learning.pruning.lats import LATSConfig
from spikeloom.accel.spiking.norm import SequenceBatchNorm
from spikeloom.accel.spiking.synced import synchronise
from spikeloom.bci.data.datamodule import TrialDataModule
from spikeloom.pipelines.config.train import TrainConfig, TrainerConfig
from spikeloom.pipelines.eeg.module import PretrainingModule
from spikeloom.pipelines.training import launch
from spikeloom.pipelines.training.callbacks import Reseed
from spikeloom.pipelines.training.classification import from_labels
from spikeloom.pipelines.training.distillation import DistillationModule, PairedDataModule
from spikeloom.pipelines.training.fit import fit
from spikeloom.pipelines.training.launch import check_devices
from spikeloom.pipelines.training.run_dir import hyperparameters
from spikeloom.speech.batches import featurise
from spikeloom.speech.distillation import DistillationConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.vision.models.norm import TimeBatchNorm
from tests.pipelines.test_experiments import composed
from tests.pipelines.test_lightning import DIGITS, SPEECH, adapter_of
from tests.pipelines.test_trials import composed as composed_trials
from tests.ranks import on_ranks

WORDS = replace(SPEECH.data, n_speakers=6, takes=2, n_valid_speakers=2, n_test_speakers=1)
MLP = ("data=digits", "features=digits", "augmentation=pictures", "model=spiking_mlp", "name=digits", "run=unused",
       "optimizer.lr=0.01")  # fmt: skip


def speech() -> tuple[Any, Any, TrainConfig]:
    config = replace(SPEECH, data=WORDS, model=replace(SPEECH.model, depth=1, dropout=0.0))
    data = adapter_of(config).data_module(config)
    data.setup()
    return *from_labels(config, data), config


def vision() -> tuple[Any, Any, TrainConfig]:
    config = replace(DIGITS, trainer=TrainerConfig(batch_size=64))
    data = adapter_of(config).data_module(config)
    data.setup()
    return *from_labels(config, data), config


def distillation() -> tuple[Any, Any, TrainConfig]:
    _, data, config = speech()
    fine = LogMelConfig.gsc(hop_ms=20.0)
    module = DistillationModule(config, data.spec, distillation=DistillationConfig(kl_weight=0.3))
    paired = PairedDataModule(
        data, module.build(), featurise(data.splits.train, fine.build(), budget=CacheBudget(0))
    )  # fmt: skip
    paired.setup()
    return module, paired, config


def eeg() -> tuple[Any, Any, TrainConfig]:
    config = composed_trials("pretrain", "run=unused", "trainer.batch_size=8")
    data = TrialDataModule(config.data, config.features, batch_size=8)
    data.setup()
    return PretrainingModule(config, data.spec), data, config


def mlp() -> tuple[Any, Any, TrainConfig]:
    config = composed(*MLP, "trainer.batch_size=64")
    data = adapter_of(config).data_module(config)
    data.setup()
    return *from_labels(config, data), config


def lats() -> tuple[Any, Any, TrainConfig]:
    module, data, config = mlp()
    return module, data, replace(config, pruning=LATSConfig(sparsity=0.7))


def at_init() -> tuple[Any, Any, TrainConfig]:
    module, data, config = mlp()
    return module, data, replace(config, pruning=AtInitConfig(sparsity=0.7, steps=2))


def learn(make: Any, run: Path, *, resume: bool = False, kill_at: int | None = None, **keys: Any) -> dict[str, Any]:
    """A training of two epochs: samples of each epoch, files written, sum of the weights."""
    torch.set_num_threads(1)
    lightning.seed_everything(0, verbose=False)
    module, data, config = make()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = replace(config.trainer, **({"epochs": 2, "threads": 1, "devices": world} | keys))
    config = replace(config, trainer=replace(trainer, strategy="ddp" if world > 1 else "auto"))
    data.batch_size = config.trainer.batch_size
    seen: list[tuple[int, int]] = []
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        kind, replaced, reseed = type(data.train_set), os.replace, Reseed.on_train_batch_start

        def watched(self: Any, index: Any) -> Any:
            if self is data.train_set:
                seen.extend((index.epoch, int(i)) for i in index.sample_ids)
            return kind_getitem(self, index)

        def killed(self: Any, trainer: Any, *given: Any) -> None:
            if trainer.current_epoch == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            reseed(self, trainer, *given)

        kind_getitem = kind.__getitem__
        patch.setattr(kind, "__getitem__", watched)
        patch.setattr(os, "replace", lambda *paths: (written.append(str(paths[1])), replaced(*paths)))
        patch.setattr(Reseed, "on_train_batch_start", killed)
        fit(module, data, config, run, seed=0, pick="best_loss", resume=resume, quiet=True)
    weights = sum(float(p.double().abs().sum()) for p in module.model.parameters())
    return {"seen": seen, "written": written, "weights": weights, "n": len(data.train_set)}


def rows(run: Path, file: str = "metrics.csv") -> list[dict[str, float]]:
    with (run / file).open() as opened:
        return [
            {k: float(v) for k, v in row.items() if re.fullmatch(r"-?[\d.e+-]+", v)} for row in csv.DictReader(opened)
        ]


def close(a: list[dict[str, float]], b: list[dict[str, float]], names: tuple[str, ...], tolerance: float) -> None:
    assert len(a) == len(b) and set(names) <= set(a[0]) & set(b[0])
    for one, other in zip(a, b, strict=True):
        assert {n: one[n] for n in names} == pytest.approx({n: other[n] for n in names}, rel=tolerance)


def check_parts(found: list[dict[str, Any]]) -> None:
    """Each sample of an epoch went to one process, the first wrote, and all hold the same weights."""
    for epoch in (0, 1):
        counts = Counter(i for part in found for e, i in part["seen"] if e == epoch)
        assert set(counts.values()) == {1}
        n = found[0]["n"]
        assert len(counts) == n or len(counts) > 0.7 * n, "EEG alone leaves out a batch that is not full"
        sizes = [sum(e == epoch for e, _ in part["seen"]) for part in found]
        assert max(sizes) - min(sizes) <= 4
    assert found[0]["written"] and not found[1]["written"]
    assert found[0]["weights"] == found[1]["weights"]


def joint_keys(make: Any) -> dict[str, Any]:
    """A training whose statistics and losses are those of all samples of a step."""
    return {"sync_batchnorm": True} if make in (speech, vision, distillation) else {}


@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        (speech, 1e-2),
        pytest.param(vision, 1e-2, marks=pytest.mark.slow),
        pytest.param(distillation, 1e-2, marks=pytest.mark.slow),
        pytest.param(mlp, 5e-3, marks=pytest.mark.slow),
    ],
)
def test_two_processes_follow_one_with_their_joint_batch(make: Any, tolerance: float, tmp_path: Path) -> None:
    size = 128 if make in (vision, mlp) else 8
    on_ranks(1, learn_kept, make, tmp_path / "one", {"batch_size": size, **joint_keys(make)})
    found = on_ranks(2, learn_kept, make, tmp_path / "two", {"batch_size": size // 2, **joint_keys(make)})
    check_parts(found)
    close(rows(tmp_path / "one"), rows(tmp_path / "two"), ("train_loss", "valid_loss", "lr"), tolerance)


def learn_kept(make: Any, run: Path, keys: dict[str, Any]) -> dict[str, Any]:
    return learn(make, run, **keys)


@pytest.mark.parametrize(("make", "tolerance"), [(eeg, 1e-4), pytest.param(lats, 5e-3, marks=pytest.mark.slow)])
def test_two_processes_follow_one_that_adds_up_two_batches(make: Any, tolerance: float, tmp_path: Path) -> None:
    """Dropout, masks and contrasts included. A validation set of EEG is contrasted within the batches of each process,
    which are smaller where it does not fill them, so its loss is no measure here."""
    on_ranks(1, learn_kept, make, tmp_path / "one", {"accumulate": 2})
    found = on_ranks(2, learn_kept, make, tmp_path / "two", {})
    check_parts(found)
    names = (
        ("train_loss", "train_eeg", "train_text", "train_contrastive") if make is eeg else ("train_loss", "valid_loss")
    )
    close(rows(tmp_path / "one"), rows(tmp_path / "two"), (*names, "lr"), tolerance)
    if make is lats:
        names = ("threshold", "sparsity_of_pruned_layers")
        close(rows(tmp_path / "one", "pruning.csv"), rows(tmp_path / "two", "pruning.csv"), names, 0.05)


@pytest.mark.slow
def test_processes_share_a_mask_that_is_found_before_training(tmp_path: Path) -> None:
    first, second = on_ranks(2, learn_kept, at_init, tmp_path / "two", {})
    assert first["weights"] == second["weights"] and first["written"] and not second["written"]
    assert rows(tmp_path / "two", "pruning.csv")[-1]["sparsity_of_pruned_layers"] == pytest.approx(0.7, abs=0.01)


@pytest.mark.slow
def test_a_killed_training_goes_on_with_as_many_processes_or_with_another_number(tmp_path: Path) -> None:
    whole = on_ranks(2, learn_kept, mlp, tmp_path / "whole", {"epochs": 3})
    for name, world, size in (("two", 2, 64), ("one", 1, 128)):
        on_ranks(2, learn_kept, mlp, tmp_path / name, {"epochs": 3, "kill_at": 2}, killed=True)
        assert len(rows(tmp_path / name)) == 2
        found = on_ranks(world, learn_kept, mlp, tmp_path / name,
                         {"epochs": 3, "resume": True, "batch_size": size})  # fmt: skip
        if world == 2:
            assert rows(tmp_path / name) == rows(tmp_path / "whole") and found[0]["weights"] == whole[0]["weights"]
        else:
            close(rows(tmp_path / name), rows(tmp_path / "whole"), ("train_loss", "valid_loss"), 1e-3)


def test_a_run_is_the_same_on_another_number_of_processes_with_the_same_joint_batch() -> None:
    two = TrainerConfig(batch_size=64, devices=2, strategy="ddp")
    one = TrainerConfig(batch_size=128)
    config = composed(*MLP)
    assert hyperparameters(replace(config, trainer=two)) == hyperparameters(replace(config, trainer=one))
    other = replace(config, trainer=replace(two, batch_size=128))
    assert hyperparameters(other)["trainer.batch_size"] == 256


@pytest.mark.parametrize(("config", "named"), [
    (TrainerConfig(accelerator="cuda", devices=2, strategy="fsdp"), "this machine has none; use trainer=cpu"),
    (TrainerConfig(devices=2, strategy="fsdp"), "shards parameters over CUDA devices.*use trainer=ddp"),
])  # fmt: skip
@pytest.mark.skipif(torch.cuda.is_available(), reason="there are CUDA devices")
def test_devices_that_are_not_there_are_refused_before_a_process_starts(config: TrainerConfig, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        check_devices(config)


@pytest.mark.parametrize(("variables", "rank", "detected"), [
    ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NUM_NODES": "2",
      "SLURM_PROCID": "3", "SLURM_JOB_NAME": "train"}, 3, SLURMEnvironment),
    ({"TORCHELASTIC_RUN_ID": "7", "RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2",
      "WORLD_SIZE": "2"}, 1, TorchElasticEnvironment),
])  # fmt: skip
def test_processes_of_a_scheduler_are_found_and_not_started_again(
    variables: dict[str, str], rank: int, detected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = composed(*MLP, "trainer=slurm")
    slurm = detected is SLURMEnvironment
    assert (config.trainer.devices, config.trainer.num_nodes) == ((2, 2) if slurm else (1, 1))
    assert config.trainer.strategy == "ddp" and config.trainer.accelerator == "auto"
    assert launch.started_already() and launch.rank() == rank and not launch.is_first()
    assert detected.detect() and detected().global_rank() == rank


class Norms(nn.Module):
    """One norm of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.time, self.sequence = nn.BatchNorm2d(3), TimeBatchNorm(3), SequenceBatchNorm(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.time(self.plain(x).contiguous(memory_format=torch.channels_last)).mean((2, 3))
        return self.sequence(y[None].relu() + y[None])


def normalised(x: list[Any], parts: list[int]) -> list[list[float]]:
    """Gradients and running statistics of the samples x[parts] of this process, loss summed over processes."""
    torch.manual_seed(0)
    model, given = Norms().train(), torch.tensor(x)
    assert synchronise(model) == 3
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        torch.distributed.init_process_group("gloo")
    own = (given.split(parts)[rank] if world > 1 else given).requires_grad_()
    loss = (model(own) * torch.arange(3.0)).pow(2).sum()
    loss.backward()
    norms = [model.plain, model.time, model.sequence]
    weights = torch.stack([p.grad for norm in norms for p in (norm.weight, norm.bias)])
    if world > 1:
        torch.distributed.all_reduce(weights)
    assert own.grad is not None
    statistics = torch.stack([t for norm in norms for t in (norm.running_mean, norm.running_var)])
    return [own.grad.flatten().tolist(), weights.flatten().tolist(), statistics.flatten().tolist()]


@pytest.mark.parametrize("parts", [[4, 4], [6, 2], [7, 1]])
def test_joint_batch_norm_has_gradients_and_statistics_of_one_process(parts: list[int]) -> None:
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 + 1
    ((gradient, *rest),) = on_ranks(1, normalised, x.tolist(), parts)
    (first, *rest1), (second, *rest2) = on_ranks(2, normalised, x.tolist(), parts)
    assert first + second == pytest.approx(gradient, rel=1e-3, abs=1e-5)
    for ours in (rest1, rest2):
        for a, b in zip(ours, rest, strict=True):
            assert a == pytest.approx(b, rel=1e-3, abs=1e-4)
