"""How a speech batch becomes class probabilities, and what the neurons did meanwhile."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeloom.accel.common.batches import BatchIndex
from spikeloom.accel.spiking.neuron import LIF, ParametricLIF
from spikeloom.speech.batches import FeatureSet, SpeechBatch
from spikeloom.speech.models.readout import output_lengths, read_out

PREDICTION_BATCH = 64


def speech_log_probabilities(model: nn.Module, batch: SpeechBatch) -> Tensor:
    """log of the class probabilities of a batch [B, T, N] by the readout of the model -> [B, classes]."""
    return read_out(model, model(batch.features.transpose(0, 1), batch.lengths), batch.lengths)


def predict(
    model: nn.Module, features: FeatureSet, readout: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Tensor:
    """The answer of a model to every clip of a set, in its order, in evaluation mode: [n, classes].

    readout: of (logits, valid steps of them); None: log-probabilities by the model's own readout. Runs where the model
    is; the answer is on the CPU.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        parts = []
        for ids in torch.arange(len(features)).split(PREDICTION_BATCH):
            batch = features[BatchIndex(0, ids)]
            lengths = batch.lengths.to(device)
            logits = model(batch.features.to(device).transpose(0, 1), lengths)
            if readout is None:
                parts.append(read_out(model, logits, lengths).cpu())
            else:
                valid = output_lengths(model, lengths)
                assert valid is not None
                parts.append(readout(logits, valid).cpu())
    model.train(was_training)
    return torch.cat(parts)


def record_spikes(model: nn.Module, features: Tensor) -> dict[str, np.ndarray]:
    """What every neuron did during one clip: features [T, N] -> layer name -> spikes [T, channels], in order of use."""
    spikes: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[..., None]:
        def store(module: nn.Module, args: Any, out: tuple[Tensor, Any]) -> None:
            fired = out[0].flatten(1).numpy()
            spikes[name] = np.concatenate((spikes[name], fired)) if name in spikes else fired  # recurrent: step by step

        return store

    hooks = [
        module.register_forward_hook(keep(layer_name(path)))
        for path, module in model.named_modules()
        if isinstance(module, LIF | ParametricLIF)
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
    """`blocks.0.attention.qkv_neurons.lif` as a person reads it: `block 1, attention: qkv`."""
    parts = path.removesuffix(".lif").removesuffix(".neuron").removesuffix("neurons").rstrip("_.").split(".")
    place, names = parts[0].removesuffix("_neurons"), [part.replace("_", " ") for part in parts[1:]]
    if parts[0] in ("blocks", "layers") and len(parts) > 1:
        place, names = f"{parts[0].removesuffix('s')} {int(parts[1]) + 1}", names[1:]
    if names == ["conv", "conv"]:  # the one map of an embedding
        return place
    if len(names) < 2:
        return f"{place}: {names[0]}" if names else place
    return f"{place}, {names[0]}: {' '.join(names[1:])}"


def spike_rates(model: nn.Module, features: FeatureSet, clips: int = 64) -> dict[str, float]:
    """Share of neurons that fire in a step, by layer, over the valid steps of the first `clips` clips."""
    counts: dict[str, tuple[float, int]] = {}
    for clip in torch.arange(min(clips, len(features))).split(1):
        for name, spikes in record_spikes(model, features[BatchIndex(0, clip)].features[0]).items():
            fired, places = counts.get(name, (0.0, 0))
            counts[name] = (fired + float(spikes.sum()), places + spikes.size)
    return {name: fired / places for name, (fired, places) in counts.items()}
