"""How a speech batch becomes class probabilities, and what the neurons did meanwhile."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from speech.batches import Draw, FeatureSet, SpeechBatch
from speech.spikescr import Neurons, SpikeSCR, log_mean_probability

PREDICTION_BATCH = 64


def speech_log_probabilities(model: SpikeSCR, batch: SpeechBatch) -> Tensor:
    """log of the class probabilities averaged over the valid steps: batch [B, T, N] -> [B, classes]."""
    return log_mean_probability(model(batch.features.transpose(0, 1), batch.lengths), batch.lengths)


def predict(
    model: SpikeSCR, features: FeatureSet, readout: Callable[[Tensor, Tensor], Tensor] = log_mean_probability
) -> Tensor:
    """What `readout(logits, lengths)` says of every clip of a set, in its order, in evaluation mode: [n, classes].

    By default log-probabilities. Runs where the model is; the answer is on the CPU.
    """
    device = model.head.weight.device
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        parts = []
        for ids in torch.arange(len(features)).split(PREDICTION_BATCH):
            batch = features[Draw(0, ids)]
            lengths = batch.lengths.to(device)
            logits = model(batch.features.to(device).transpose(0, 1), lengths)
            parts.append(readout(logits, lengths).cpu())
    model.train(was_training)
    return torch.cat(parts)


def record_spikes(model: SpikeSCR, features: Tensor) -> dict[str, np.ndarray]:
    """What every neuron did during one clip: features [T, N] -> layer name -> spikes [T, channels], in order of use."""
    spikes: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, args, out: spikes.__setitem__(name, out[0].flatten(1).numpy())

    hooks = [
        module.register_forward_hook(keep(layer_name(path)))
        for path, module in model.named_modules()
        if isinstance(module, Neurons)
    ]
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        model(features[:, None])
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return spikes


def layer_name(path: str) -> str:
    """`blocks.0.attention.qkv_neurons` as a person reads it: `block 1, attention: qkv`."""
    parts = path.removesuffix("neurons").rstrip("_.").split(".")
    if parts[0] != "blocks":
        return parts[0]
    branch = parts[2].replace("_", " ")
    return f"block {int(parts[1]) + 1}, {branch}: {parts[3].replace('_', ' ')}"


def spike_rates(model: SpikeSCR, features: FeatureSet, clips: int = 64) -> dict[str, float]:
    """Share of neurons that fire in a step, by layer, over the valid steps of the first `clips` clips."""
    counts: dict[str, tuple[float, int]] = {}
    for clip in torch.arange(min(clips, len(features))).split(1):
        for name, spikes in record_spikes(model, features[Draw(0, clip)].features[0]).items():
            fired, places = counts.get(name, (0.0, 0))
            counts[name] = (fired + float(spikes.sum()), places + spikes.size)
    return {name: fired / places for name, (fired, places) in counts.items()}
