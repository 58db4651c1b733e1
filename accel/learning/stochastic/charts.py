"""Report sections of a binary-stochastic training: loss, inference, pulses, devices, energy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spikeloom.accel.common.report import Section, Table, new_figure, palette
from spikeloom.accel.learning.stochastic.arrays import MemristorSynapses
from spikeloom.accel.learning.stochastic.energy import EnergyConstants, ratios
from spikeloom.accel.learning.stochastic.synapses import IntegerSynapses, Synapses

KINDS = {"hp": "deterministic", "binary": "thresholded at 1/2"}


def learning(history: Sequence[Mapping[str, Any]]) -> Section:
    """Cross-entropy of the deterministic softmax and pulses per synapse, by epoch."""
    epochs = [row["epoch"] for row in history]
    pulses = [row["pulses_per_synapse"] for row in history]
    figure = new_figure(9.4, 2.9)
    panels = figure.subplots(1, 2 if any(pulses) else 1, squeeze=False)[0]
    panels[0].plot(epochs, [row["train_loss"] for row in history], marker="o", markersize=3, color=palette[0])
    panels[0].set_ylabel("cross-entropy")
    panels[0].set_title("Training loss", loc="left")
    if any(pulses):
        panels[1].plot(epochs, pulses, marker="o", markersize=3, color=palette[1])
        panels[1].set(ylabel="pulses per synapse", title="Programming pulses", ylim=(0, None))
    for panel in panels:
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
    caption = (
        "Cross-entropy of the training labels, from the probabilities before sampling; it is monitored, not minimised "
        "directly."
    )
    if any(pulses):
        caption += (
            " Right: programming pulses per weight in an epoch; they decrease as errors cancel, which spares the "
            "endurance of real devices."
        )
    return Section("Learning", caption, figure)


def inference(accuracies: Mapping[str, float], n_samples: int) -> Section:
    """Test accuracy by kind of inference."""
    names = [KINDS.get(name, name.replace("stochastic_", "Bernoulli samples: ")) for name in accuracies]
    values = [100 * value for value in accuracies.values()]
    figure = new_figure(9.4, 0.5 + 0.36 * len(names))
    axes = figure.subplots()
    bars = axes.barh(names, values, color=[palette[0] if n in KINDS else palette[2] for n in accuracies], height=0.65)
    axes.bar_label(bars, [f"{v:.2f} %" for v in values], padding=4, fontsize=10)
    axes.set(xlim=(0, 112), xticks=range(0, 101, 20), xlabel="test accuracy, %")  # room for the number behind 100 %
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    return Section(
        "Inference",
        f"{n_samples:,} test samples after the last epoch. Deterministic inference propagates probabilities; "
        "thresholded inference propagates one fixed bit per signal; with n Bernoulli samples, the outputs of n passes "
        "of sampled bits are summed.",
        figure,
    )


def devices(synapses: Sequence[Synapses]) -> Section | None:
    """Final conductances of each layer and the pulses applied; None without memristors."""
    arrays = [s for s in synapses if isinstance(s, MemristorSynapses)]
    if not arrays:
        return None
    figure = new_figure(9.4, 2.9)
    left, right = figure.subplots(1, 2)
    for index, array in enumerate(arrays):
        window, low = array.device.window_siemens, array.device.g_min_siemens
        share = ((array.state.g_siemens.double() - low) / window).flatten().numpy()
        left.hist(share, bins=np.linspace(0, 1, 61), density=True, histtype="step", label=f"layer {index + 1}")
        pulses = array.state.pulse_count.flatten().numpy()
        right.hist(pulses, bins=np.linspace(0, max(pulses.max(), 1), 41), histtype="step", log=True)
    left.set(xlabel="conductance, 0 = G_min, 1 = G_max", ylabel="density of devices", title="Conductances")
    left.legend(frameon=False, fontsize=9)
    right.set(xlabel="pulses a device received", ylabel="devices", title="Endurance")
    rows: list[list[str | int | float]] = [
        [i + 1, a.state.g_siemens.numel(), f"{100 * a.saturated():.1f} %", int(a.state.pulse_count.sum()),
         int(a.state.pulse_count.max())]
        for i, a in enumerate(arrays)
    ]  # fmt: skip
    return Section(
        f"Devices ({arrays[0].device.name})",
        f"Fit of {arrays[0].device.source}. A device at one of its bounds can only be changed in the other "
        "direction; a pair of one-way devices that are both at a bound can no longer change.",
        figure, Table(["layer", "devices", "at a bound", "pulses", "most on one"], rows),
    )  # fmt: skip


def levels(synapses: Sequence[Synapses]) -> Section | None:
    """Number of weights on each integer level; None for other weights."""
    layers = [s for s in synapses if isinstance(s, IntegerSynapses)]
    if not layers:
        return None
    figure = new_figure(9.4, 2.6)
    axes = figure.subplots()
    for index, layer in enumerate(layers):
        values, counts = np.unique(layer.weight.numpy(), return_counts=True)
        axes.plot(values, counts / counts.sum(), marker=".", drawstyle="steps-mid", label=f"layer {index + 1}")
    axes.set(xlabel="weight, integer level", ylabel="fraction of weights", yscale="log")
    axes.legend(frameon=False, fontsize=9)
    return Section(f"Weights ({layers[0].width})", "Fraction of the weights of each layer on every level.", figure)


def energy(
    inference_pj: Mapping[str, Mapping[str, float]], training_pj: Mapping[str, Mapping[str, float]], repeats: int,
    constants: EnergyConstants,
) -> list[Section]:  # fmt: skip
    """Three systems side by side: one inference, and one training sample; then every constant with its source."""
    figure = new_figure(9.4, 3.4)
    sections = []
    for axes, (title, systems) in zip(
        figure.subplots(1, 2), (("One inference", inference_pj), ("One training sample", training_pj)), strict=True
    ):
        bottoms = np.zeros(len(systems))
        items = list(dict.fromkeys(item for parts in systems.values() for item in parts if item != "total"))
        for index, item in enumerate(items):
            heights = np.array([parts.get(item, 0.0) for parts in systems.values()]) / 1e3
            colour = _COLOURS[index % len(_COLOURS)]
            axes.bar(list(systems), heights, bottom=bottoms, label=item, color=colour, width=0.6)
            bottoms += heights
        axes.set_ylabel("nJ")
        axes.set_title(title, loc="left")
        axes.legend(frameon=False, fontsize=9)
    rows = [
        [item, kind, *(f"{parts[item] / 1e3:,.3g}" if item in parts else "–" for parts in systems.values())]
        for kind, systems in (("inference", inference_pj), ("training", training_pj))
        for item in sorted({i: None for parts in systems.values() for i in parts}, key=lambda name: name == "total")
    ]  # fmt: skip
    columns = ["item", "of one", *(f"{system}, nJ" for system in inference_pj)]
    shares = [f"{name}: {value:.3g} an inference" for name, value in ratios(inference_pj).items()]
    shares += [f"{name}: {value:.3g} a training sample" for name, value in ratios(training_pj).items()]
    sections.append(Section(
        "Energy by count",
        f"Counts of this network times the constants below. The stochastic inference takes {repeats} Bernoulli "
        "samples, the others run once. Random numbers, softmax, accumulators and programming pulses are included.",
        figure, Table(columns, rows),
        text="Ratios with these constants, which are not a measurement: " + "; ".join(shares) + ".",
    ))  # fmt: skip
    sections.append(Section(
        "Constants",
        "Source of each price. Replace the assumed ones first.",
        table=Table(["constant", "pJ", "node nm", "tier", "source"],
                    [[c.path, f"{c.value:g}", f"{c.node_nm:g}", c.tier, c.source] for c in constants.constants]),
    ))  # fmt: skip
    return sections


_COLOURS = (*palette, "#BBBB77", "#774411", "#114477")
