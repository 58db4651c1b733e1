"""Prune a network to 90 % zeros while it trains, and see what a chip that skips zeros saves."""

from pathlib import Path

import torch

import spikeloom
from spikeloom.accel.common.files import read_json
from spikeloom.pipelines.cli import main
from spikeloom.pipelines.reports.pruned_cost import step_cost

common = ["experiment=spiking_cnn_digits", "trainer.epochs=2", "trainer.threads=1", "overwrite=true"]
main(["train", *common, "run=dense"])
main(["train", *common, "run=pruned", "pruning=lats", "pruning.sparsity=0.9"])

pictures = torch.rand(4, 1, 16, 16)
for run in ("dense", "pruned"):
    model = spikeloom.load(run).model
    cost = step_cost(spikeloom.cost(model, pictures, axes="BCHW").workload, "skipping", "neuromc")
    zeros = sum(int((p == 0).sum()) for p in model.parameters()) / sum(p.numel() for p in model.parameters())
    accuracy = read_json(Path(run) / "result.json", "train again")["test_accuracy"]
    print(
        f"{run:7s} accuracy {100 * accuracy:.1f} %, {100 * zeros:.0f} % zeros, {cost.step_uj:.1f} µJ a step and picture"
    )
