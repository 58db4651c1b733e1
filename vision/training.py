"""How a batch becomes class probabilities, what a training step minimises, and what the neurons did meanwhile."""

from typing import Any

import torch
from torch import Tensor, nn

from accel.spiking.neuron import LIF
from vision.datamodule import Draw, FrameSet, VisionBatch

PREDICTION_BATCH = 64


def vision_log_probabilities(model: nn.Module, batch: VisionBatch) -> Tensor:
    """Pictures or frames -> log-probabilities [B, classes], in float32 whatever the products were."""
    logits: Tensor = model(batch.frames)
    return logits.float().log_softmax(1)


def soft_cross_entropy(log_p: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of -sum of targets [B, classes] times log_p."""
    return -(targets * log_p).sum(1).mean()


def predict(model: nn.Module, frames: FrameSet) -> Tensor:
    """Log-probabilities of every sample of a set, in its order, in evaluation mode: [n, classes], on the CPU."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = []
    with torch.inference_mode():
        for ids in torch.arange(len(frames)).split(PREDICTION_BATCH):
            batch = frames[Draw(0, ids)]
            parts.append(vision_log_probabilities(model, batch._replace(frames=batch.frames.to(device))).cpu())
    model.train(was_training)
    frames.times_scored += 1
    return torch.cat(parts)


def spike_rates(model: nn.Module, frames: FrameSet, n_samples: int = 64) -> dict[str, float]:
    """Share of neurons that fire in a step, by path of the layer, over the first samples of a set, in order of use."""
    counts: dict[str, tuple[float, int]] = {}

    def count(name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: tuple[Tensor, Any]) -> None:
            fired, places = counts.get(name, (0.0, 0))
            counts[name] = (fired + float(out[0].sum()), places + out[0].numel())

        return hook

    hooks = [m.register_forward_hook(count(path)) for path, m in model.named_modules() if isinstance(m, LIF)]
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for ids in torch.arange(min(n_samples, len(frames))).split(PREDICTION_BATCH):
            model(frames[Draw(0, ids)].frames)
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return {name: fired / places for name, (fired, places) in counts.items()}
