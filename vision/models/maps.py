"""Where in a picture a spiking network fires: the map of every layer, and the gate of an attention over tokens."""

import numpy as np
import torch
from torch import Tensor, nn

from spikeloom.accel.spiking.neuron import LIF, ParametricLIF
from spikeloom.vision.models.prediction import layer_name


def spike_maps(model: nn.Module, frames: Tensor) -> dict[str, np.ndarray]:
    """Fraction of steps and channels in which the neurons at a place fire.

    Args:
        model: a network whose neurons give spikes [T, B, C, H, W]; of token attention, a gate [T, B, heads, 1, H W].
        frames: pictures [B, C, H, W] or frames [T, B, C, H, W].

    Returns:
        Path of the layer -> [B, H, W] in [0, 1], in the order of use. Layers without places are left out.
    """
    maps: dict[str, np.ndarray] = {}
    places: list[tuple[int, int]] = []  # height and width of the map before, which a gate over tokens belongs to

    def watch(path: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def store(_: nn.Module, args: object, out: tuple[Tensor, object]) -> None:
            spikes = out[0]
            if spikes.dim() != 5 or path in maps:
                return
            if spikes.shape[3] == 1 and places and spikes.shape[4] == places[-1][0] * places[-1][1]:
                maps[path] = spikes.float().mean((0, 2)).reshape(-1, *places[-1]).numpy()
            elif min(spikes.shape[3:]) > 1:
                places.append((spikes.shape[3], spikes.shape[4]))
                maps[path] = spikes.float().mean((0, 2)).numpy()

        return module.register_forward_hook(store)

    hooks = [watch(path, m) for path, m in model.named_modules() if isinstance(m, LIF | ParametricLIF)]
    was_training = model.training
    try:
        with torch.inference_mode():
            model.eval()(frames)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return maps


def shown_layers(maps: dict[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """At most `most` of the maps, by a name that people read: the first, the attentions, then others evenly spread."""
    paths = list(maps)
    attention = [path for path in paths if path.endswith("attn_lif")]
    chosen = list(dict.fromkeys([*paths[:1], *attention]))[:most]
    others = [path for path in paths if path not in chosen]
    spare = min(most - len(chosen), len(others))
    chosen += [others[i] for i in np.linspace(0, len(others) - 1, spare).round().astype(int)] if spare else []
    return {layer_name(path): maps[path] for path in paths if path in chosen}
