"""The workers of a federated training: each holds its samples, its optimizer and a place for the model it is sent."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeloom.accel.trainer.federated.rounds import Weights
from spikeloom.pipelines.config.federate import FederateConfig
from spikeloom.pipelines.training.toy_datasets import Examples, Inputs, SmallTask


class WorkerDied(RuntimeError):
    """A worker that the configuration lets fail."""


class Worker:
    """One edge device. Its samples and its optimizer's moments never leave it; weights come and go."""

    def __init__(self, number: int, task: SmallTask, samples: Examples, config: FederateConfig) -> None:
        self.number, self.task, self.samples, self.config = number, task, samples, config
        self.model = task.build(config.seed)
        self.optimizer = make_optimizer(self.model, config)

    @property
    def steps(self) -> int:
        """Training steps of a round."""
        size = self.config.batch_size or len(self.samples)
        return self.config.local_epochs * -(-len(self.samples) // size)

    def train(self, weights: Weights, turn: int) -> dict[str, np.ndarray]:
        """Load `weights`, train for a round, and return the new ones. Rounds count from 1."""
        if self.config.dies.get(self.number, turn + 1) <= turn:
            raise WorkerDied(f"worker {self.number} died in round {self.config.dies[self.number]}")
        load(self.model, weights)
        anchor = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.model.train()
        for x, labels in self._batches(turn):
            self.optimizer.zero_grad()
            self.task.loss(self.task.run(self.model, x), labels).backward()
            if self.config.strategy == "fedprox":  # a pull back to what the server sent
                for name, p in self.model.named_parameters():
                    if p.grad is not None:
                        p.grad.add_(p.detach() - anchor[name], alpha=self.config.mu)
            self.optimizer.step()
        return unload(self.model)

    def _batches(self, turn: int) -> Iterator[tuple[Inputs, Tensor]]:
        """Shuffled by (seed, worker, epoch); the last one may be short."""
        for epoch in range(self.config.local_epochs):
            count = (turn - 1) * self.config.local_epochs + epoch
            key = (self.config.seed * 1009 + self.number) * 1_000_003 + count
            order = torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(key))
            for ids in order.split(self.config.batch_size or len(self.samples)):
                yield self.task.encode(self.samples.x[ids]), self.samples.labels[ids]


def make_optimizer(model: nn.Module, config: FederateConfig) -> torch.optim.Optimizer:
    if config.local_optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=config.lr)
    if config.local_optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=config.lr)
    raise ValueError(f"optimizer={config.local_optimizer} is unknown; use sgd or adam")


def unload(model: nn.Module) -> dict[str, np.ndarray]:
    """Parameters and buffers as arrays of their own."""
    return {name: t.detach().numpy().copy() for name, t in model.state_dict().items()}


def load(model: nn.Module, weights: Weights) -> None:
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})


def bytes_of(weights: Weights) -> int:
    return sum(value.nbytes for value in weights.values())


def describe(workers: list[Worker], n_classes: int) -> list[dict[str, Any]]:
    """Who holds what, for the report."""
    return [
        {
            "worker": w.number, "samples": len(w.samples), "steps_a_round": w.steps,
            "speakers": sorted(set(w.samples.groups) - {""}),
            "labels": torch.bincount(w.samples.labels, minlength=n_classes).tolist(),
        }
        for w in workers
    ]  # fmt: skip
