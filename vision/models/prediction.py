"""How a batch becomes class probabilities, what a training step minimises, and what the neurons did meanwhile."""

import torch
from torch import Tensor, nn

from spikeloom.accel.analysis.spike_driven import firing_rates, unique_names
from spikeloom.accel.common.batches import BatchIndex
from spikeloom.accel.spiking.events import SpikeConv2d
from spikeloom.vision.datamodule import FrameSet, VisionBatch

PREDICTION_BATCH = 64


def vision_log_probabilities(model: nn.Module, batch: VisionBatch) -> Tensor:
    """Pictures or frames -> log-probabilities [B, classes], in float32 whatever the products were."""
    logits: Tensor = model(batch.frames)
    return logits.float().log_softmax(1)


def skipping_zeros(model: nn.Module) -> nn.Module:
    """The model in the layout in which its convolutions of spikes skip zeros, where they can: on the CPU."""
    if any(isinstance(m, SpikeConv2d) and m.weight.device.type == "cpu" for m in model.modules()):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def predict(model: nn.Module, frames: FrameSet) -> Tensor:
    """Log-probabilities of every sample of a set, in its order, in evaluation mode: [n, classes], on the CPU."""
    device = next(model.parameters()).device
    was_training = model.training
    skipping_zeros(model.eval())
    parts = []
    with torch.inference_mode():
        for ids in torch.arange(len(frames)).split(PREDICTION_BATCH):
            batch = frames[BatchIndex(0, ids)]
            parts.append(vision_log_probabilities(model, batch._replace(frames=batch.frames.to(device))).cpu())
    model.train(was_training)
    frames.times_scored += 1
    return torch.cat(parts)


def spike_rates(model: nn.Module, frames: FrameSet, n_samples: int = 64) -> dict[str, float]:
    """Fraction of neurons that fire in a step, by layer, over the first samples of a set, in the order of use."""
    was_training = model.training
    model.eval()
    with torch.inference_mode(), firing_rates(model) as rates:
        for ids in torch.arange(min(n_samples, len(frames))).split(PREDICTION_BATCH):
            model(frames[BatchIndex(0, ids)].frames)
    model.train(was_training)
    names = unique_names(layer_name, rates)
    return {names[path]: rate for path, rate in rates.items()}


def layer_name(path: str) -> str:
    """A path of the model as text: stages.0.blocks.1.attn.q.conv -> stage 1, block 2, attention q."""
    if path == "head":
        return "classifier"
    parts, words = path.removesuffix(".conv").split("."), list[str]()
    for part, after in zip(parts, [*parts[1:], ""], strict=True):
        if part in ("stages", "blocks", "units") and after.isdigit():
            words.append(f"{part[:-1]} {int(after) + 1},")
        elif not part.isdigit():
            words.append(part.removesuffix("_lif").removesuffix("lif").replace("_", " "))
        elif words and not words[-1].endswith(","):
            words.append(str(int(part) + 1))
    text = " ".join(" ".join(words).split()).rstrip(",") or path
    for private, plain in (
        ("attn mix", "attention product"),
        ("attn attn", "attention product"),
        ("attn", "attention"),
    ):
        text = text.replace(private, plain)
    return text.removeprefix("layers ")
