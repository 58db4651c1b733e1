"""Processes that train together see each sample once, and learn what one process with their joint batch would."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spikeloom.accel.common.batches import EpochBatches
from spikeloom.pipelines.config.train import TrainerConfig
from spikeloom.pipelines.training.launch import elastic, start_processes

DIGITS = [
    "data=digits", "features=digits", "augmentation=pictures", "model=spiking_mlp", "name=digits", "optimizer.lr=0.01",
    "trainer.epochs=2", "trainer.threads=1",
]  # fmt: skip


@pytest.mark.parametrize(("n", "size", "world", "drop_last"), [
    (24, 4, 2, False), (25, 4, 2, False), (27, 4, 2, False), (30, 4, 3, False), (31, 4, 3, True), (5, 2, 4, False),
])  # fmt: skip
def test_each_sample_goes_to_one_process_and_together_they_are_the_joint_batches(
    n: int, size: int, world: int, drop_last: bool
) -> None:
    def batches(rank: int, world: int, size: int) -> list[list[int]]:
        sampler = EpochBatches(n, size, seed=3, shuffle=True, drop_last=drop_last, rank=rank, world=world)
        sampler.set_epoch(1)
        found = [index.sample_ids.tolist() for index in sampler]
        assert len(found) == len(sampler)
        return found

    parts = [batches(rank, world, size) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1, "a process would wait for ever"
    joint = [sorted(i for part in step for i in part) for step in zip(*parts, strict=True)]
    alone = [sorted(batch) for batch in batches(0, 1, size * world)]
    if len(joint) == len(alone):
        assert joint == alone
    else:  # a remainder of fewer samples than processes joined the batch before
        assert joint[:-1] == alone[:-2] and joint[-1] == sorted(alone[-2] + alone[-1])
    seen = [i for batch in joint for i in batch]
    assert len(seen) == len(set(seen)) == (n // (size * world) * size * world if drop_last else n)


def test_fewer_samples_than_processes_are_refused_and_not_waited_for() -> None:
    with pytest.raises(ValueError, match=r"a set of 1 sample cannot be shared by 2 processes; .*trainer\.devices=1"):
        EpochBatches(1, 4, seed=0, shuffle=False, world=2)
    assert [len(EpochBatches(2, 4, seed=0, shuffle=False, rank=rank, world=2)) for rank in (0, 1)] == [1, 1]


def test_several_machines_need_their_scheduler() -> None:
    with pytest.raises(ValueError, match=r"trainer\.num_nodes=2.*torchrun or SLURM"):
        start_processes(TrainerConfig(devices=2, num_nodes=2), "train", [])


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
@pytest.mark.parametrize(
    "failing", ["1", "", pytest.param("0", marks=pytest.mark.slow), pytest.param("01", marks=pytest.mark.slow)]
)
def test_a_failure_of_any_process_is_told_once_and_ends_all(
    failing: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "work.py"
    script.write_text(
        "import os, sys, time\n"
        "rank = os.environ['RANK']\n"
        f"if rank in {failing!r}:\n"
        "    print('spikeloom: data.root=x is gone', file=sys.stderr)\n"
        "    sys.exit(2)\n"
        f"time.sleep({600 if failing else 0})\n"
    )
    assert elastic(2, [str(script)], str(tmp_path)) == (2 if failing else 0)
    said = capfd.readouterr().err
    assert said.splitlines() == ["spikeloom: data.root=x is gone"] * bool(failing)


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
@pytest.mark.slow
def test_two_processes_follow_the_loss_of_one_with_their_joint_batch(tmp_path: Path) -> None:
    """A network without batch norm, which counts the samples of its process alone."""
    for name, keys in (("one", ["trainer.batch_size=128"]), ("two", ["trainer=ddp", "trainer.batch_size=64"])):
        done = subprocess.run(
            [sys.executable, "-m", "spikeloom", "train", *DIGITS, f"run={tmp_path / name}", *keys],
            capture_output=True, text=True, timeout=600, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch   2/2") == 1, "one process reports"
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    for alone, together in zip(one, two, strict=True):
        assert together["train_loss"] == pytest.approx(alone["train_loss"], rel=2e-3)
        assert together["valid_loss"] == pytest.approx(alone["valid_loss"], rel=5e-3)
        assert together["lr"] == pytest.approx(alone["lr"])
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")]
    assert results[1]["test_samples"] == results[0]["test_samples"]
    assert abs(results[1]["test_accuracy"] - results[0]["test_accuracy"]) <= 0.03
