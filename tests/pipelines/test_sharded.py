"""CET-MAE with its BART, its parameters shared out over two CPU processes (fully_shard), steps as one process does.

Lightning's FSDP strategy runs on CUDA devices alone; what it relies on, sharding by module, is proved on gloo here.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikeloom.bci.models.cet_mae import CETMAE, Layer
from spikeloom.pipelines.training.sharding import average_scalars
from tests.ranks import on_ranks


class Objective(nn.Module):
    """The root whose forward gathers what no inner module does, as Lightning's module is."""

    def __init__(self, model: nn.Module, objective: Any) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Any) -> torch.Tensor:
        loss: torch.Tensor = self.objective(self.model, batch, torch.Generator().manual_seed(7)).total
        return loss


def two_steps(parts: list[list[int]]) -> dict[str, Any]:
    """Losses of two steps, and the parameters that a process holds and those of the whole model afterwards."""
    import torch.distributed as distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from spikeloom.accel.common.batches import BatchIndex
    from spikeloom.bci.data.datamodule import TrialDataModule
    from tests.pipelines.test_trials import composed

    torch.set_num_threads(1)
    config = composed("pretrain", "run=unused")
    data = TrialDataModule(config.data, config.features, batch_size=8)
    data.setup()
    torch.manual_seed(0)
    model = config.model.sizes.build(data.spec.vocab_size)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    assert isinstance(model, CETMAE)
    root = Objective(model.eval(), config.model.pretraining.build())  # eval: no unit drops, wherever it is kept
    world = int(os.environ.get("WORLD_SIZE", "1"))
    total = sum(p.numel() for p in root.parameters())
    if world > 1:
        distributed.init_process_group("gloo")
        mesh = init_device_mesh("cpu", (world,))
        blocks = [m for m in root.modules() if isinstance(m, Layer) or type(m).__name__.startswith("BartEncoderLayer")]
        assert len(blocks) >= 3, "blocks of the EEG side and of BART"
        scalars = average_scalars(root)
        assert [name for name, p in model.named_parameters() if p.dim() == 0] == ["logit_scale"] and len(scalars) == 1
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(root, mesh=mesh, ignored_params=set(scalars))
    held = sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in root.parameters())
    optimizer = torch.optim.AdamW(root.parameters(), lr=1e-3, fused=False)
    losses = []
    for step in range(2):
        optimizer.zero_grad()
        own = [parts[distributed.get_rank()]] if world > 1 else parts
        for rows in own:
            loss = root(data.train_set[BatchIndex(0, torch.tensor(rows) + 20 * step)]) / len(own)
            loss.backward()
            losses.append(float(loss.detach()) * len(own))
        optimizer.step()
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in root.parameters()]
    weights = [float(p.detach().double().norm()) for p in whole]
    return {"losses": losses, "held": held, "total": total, "weights": weights}


def test_sharded_pretraining_steps_as_one_process_does(tmp_path: Path) -> None:
    parts = [list(range(8)), list(range(8, 16))]
    (one,) = on_ranks(1, two_steps, parts)
    first, second = on_ranks(2, two_steps, parts)
    assert first["held"] + second["held"] >= one["total"] and max(first["held"], second["held"]) < 0.6 * one["total"]
    assert first["weights"] == second["weights"]
    torch.testing.assert_close(first["weights"], one["weights"], rtol=1e-4, atol=1e-5)
    together = [first["losses"][0], second["losses"][0], first["losses"][1], second["losses"][1]]
    torch.testing.assert_close(together, one["losses"], rtol=1e-4, atol=1e-5)
