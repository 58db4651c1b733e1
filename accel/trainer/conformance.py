"""How far this simulator agrees with published models: layer energies, systolic cycles, whole networks, DRAM bytes,
operation counts, and the partition over 20 cores.

Agreement here is with the authors' cost model (NeuroMC), with SCALE-Sim's closed forms, ZigZag's compulsory words and
SATA's counts, not with silicon.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from spikeloom.accel.common.files import brief, read_csv
from spikeloom.accel.trainer.chip.chip import Chip, Dataflow
from spikeloom.accel.trainer.cost.closed_forms import (
    ConvLoops,
    Energy,
    backward_energy,
    forward_energy,
    gradient_unit_energy,
    soma_energy,
    systolic_cycles,
    weight_gradient_energy,
)
from spikeloom.accel.trainer.cost.layer_cost import layer_phases
from spikeloom.accel.trainer.networks import spiking_resnet18
from spikeloom.accel.trainer.references import SataCounts, compulsory_words
from spikeloom.accel.trainer.schedule.partition import balance, fill
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Layer, Neuron

ENERGY_TOLERANCE = 1e-6
SIZES = ("C", "K", "OY", "OX", "FY", "FX")  # columns of a file of layer energies
LARGEST_SIZE, MOST_PJ = 2**20, 1e18
NETWORK_TOLERANCE = 1e-3
PUBLISHED_TFLOPS_PER_W = 1.05
# A trainer of spiking transformers of another laboratory, of which only the abstract is public.
NOT_COMPARABLE = (
    "E2ATST (arXiv 2508.00475), FP16, whole training of spiking transformers: 2.36 TFLOPS/W in its abstract; not "
    "comparable, since its arrays, node, memories, networks and what counts as an operation are not public"
)

# (m, k, n) of two convolutions, and cycles for os, ws and is on square arrays: 18x18x64 and 10x10x256 inputs, 3x3.
DATAFLOWS: tuple[Dataflow, ...] = ("os", "ws", "is")
SYSTOLIC_CASES = {
    ((256, 576, 128), 16): (77_567, 86_975, 100_223),
    ((64, 2304, 256), 16): (149_375, 253_439, 173_951),
    ((256, 576, 128), 32): (20_415, 25_199, 31_967),
    ((64, 2304, 256), 32): (37_855, 91_007, 50_399),
}


@dataclass(frozen=True, kw_only=True)
class ConformanceRow:
    """One comparison; a `tolerance` of None marks a figure that is shown but has no pass or fail."""

    name: str
    measured: float
    expected: float
    unit: str
    tolerance: float | None

    @property
    def relative_error(self) -> float:
        return abs(self.measured - self.expected) / abs(self.expected)

    @property
    def passed(self) -> bool:
        return self.tolerance is None or self.relative_error <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class AnchorConv:
    """A square 3x3 convolution of an anchor network; `size` is the side of its output, `stride` that of its step."""

    in_channels: int
    out_channels: int
    size: int
    stride: int = 1


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """Reference totals of a network, which are sums of the authors' layer energies: mJ and loop MACs of FP, BP and WG
    for one image and time step."""

    convs: tuple[AnchorConv, ...]
    energy_mj: tuple[float, float, float]
    looped_macs: tuple[float, float, float]
    tflops_per_w_looped: float
    tflops_per_w_true: float


def _resnet18() -> Iterator[AnchorConv]:
    """The 19 convolutions of S-ResNet18 for 224x224 images; shortcuts count as 3x3, the first layer is absent."""
    for _ in range(4):
        yield AnchorConv(in_channels=64, out_channels=64, size=56)
    for width, size in ((128, 28), (256, 14), (512, 7)):
        for stride in (2, 1, 2, 1, 1):  # the third one is the shortcut
            yield AnchorConv(in_channels=width // stride, out_channels=width, size=size, stride=stride)


def _vgg16() -> Iterator[AnchorConv]:
    """The 12 convolutions of S-VGG16 for 224x224 images; the first layer is absent."""
    shapes = ((64, 64, 224, 1), (64, 128, 112, 1), (128, 128, 112, 1), (128, 256, 56, 1), (256, 256, 56, 2),
              (256, 512, 28, 1), (512, 512, 28, 2), (512, 512, 14, 3))  # fmt: skip
    for inputs, outputs, size, times in shapes:
        for _ in range(times):
            yield AnchorConv(in_channels=inputs, out_channels=outputs, size=size)


ANCHORS = {
    "S-ResNet18": Anchor(
        convs=tuple(_resnet18()),
        energy_mj=(2.810, 7.777, 3.361),
        looped_macs=(1849.69e6, 2890.14e6, 2890.14e6),
        tflops_per_w_looped=1.0941,
        tflops_per_w_true=0.7957,
    ),
    "S-VGG16": Anchor(
        convs=tuple(_vgg16()),
        energy_mj=(22.629, 40.745, 17.472),
        looped_macs=(15_259.93e6, 15_259.93e6, 15_259.93e6),
        tflops_per_w_looped=1.1325,
        tflops_per_w_true=1.1325,
    ),
}


def conformance(oracle_files: Iterable[Path], chip: Chip) -> list[ConformanceRow]:
    """All comparisons: the rows of `oracle_files`, systolic cycles, and the anchor networks. `chip` is the preset
    `neuromc` (another chip gives rows that do not pass, since the expectations are the authors').

    Raises:
        ValueError: for an oracle file without rows or with an unknown phase.
    """
    rows: list[ConformanceRow] = []
    for path in oracle_files:
        rows += oracle_rows(path, chip)
    rows += systolic_rows() + count_rows() + traffic_rows(chip) + partition_rows() + anchor_rows(chip)
    return rows + whole_network_rows(chip)


def oracle_rows(path: Path, chip: Chip) -> list[ConformanceRow]:
    """Compare with a CSV of the authors' layer energies (columns phase FE/BE/WE, C, K, OY, OX, FY, FX, and in pJ
    author_compute_pj with neurons, author_conv_memory_pj without them, author_total_pj): three rows for each line."""
    rows, remedy = [], "use a CSV of layer energies with a header and at least one line"
    for number, line in enumerate(read_csv(Path(path), remedy), 1):
        try:
            compute_pj, memory_pj, total_pj = layer_columns(line, chip)
            name = " ".join(line[key] for key in ("phase", *SIZES))
            for column, measured in (("compute", compute_pj), ("conv_memory", memory_pj), ("total", total_pj)):
                expected = float(line[f"author_{column}_pj"])
                if not 0 < expected < MOST_PJ:
                    raise ValueError(f"author_{column}_pj is {expected}")
                rows.append(_row(f"{name} {column}", measured, expected, "pJ", ENERGY_TOLERANCE))
        except (KeyError, ValueError) as error:
            what = f"no column {error}" if isinstance(error, KeyError) else brief(error)
            raise ValueError(f"{path}, row {number}: {what}; {remedy}") from error
    if not rows:
        raise ValueError(f"{path} got no rows; {remedy}")
    return rows


def layer_columns(line: dict[str, str], chip: Chip) -> tuple[float, float, float]:
    """Compute with neurons, memory of the convolution without them, and total, in pJ, for one line of the CSV."""
    c, k, oy, ox, fy, fx = sizes = [int(line[key]) for key in SIZES]
    if min(sizes) < 1 or max(sizes) > LARGEST_SIZE:
        raise ValueError(f"sizes {sizes} must be from 1 to {LARGEST_SIZE:,}")
    if line["phase"] == "WE":
        # The authors' weight-gradient rows name the kernel as output and the map of du as kernel.
        oy, ox, fy, fx = fy, fx, oy, ox
    loops = ConvLoops(in_channels=c, out_channels=k, positions=oy * ox, taps=fy * fx)
    if line["phase"] == "FE":
        conv, neurons = forward_energy(loops, chip), soma_energy(k * oy * ox, chip)
    elif line["phase"] == "BE":
        conv, neurons = backward_energy(loops, chip), gradient_unit_energy(c * oy * ox, chip)
    elif line["phase"] == "WE":
        conv, neurons = weight_gradient_energy(loops, chip), Energy()
    else:
        raise ValueError(f"phase got {line['phase']!r}; use FE, BE or WE")
    return conv.compute_pj + neurons.compute_pj, conv.register_pj + conv.sram_pj, (conv + neurons).total_pj


def systolic_rows() -> list[ConformanceRow]:
    """SCALE-Sim's cycles of two dense convolutions on two arrays and three dataflows, to the cycle."""
    return [
        _row(f"{m}x{k}x{n} on {side}x{side} {flow}", systolic_cycles(m, k, n, side, side, flow), cycles, "cycles", 0.0)
        for ((m, k, n), side), expected in SYSTOLIC_CASES.items()
        for flow, cycles in zip(DATAFLOWS, expected, strict=True)
    ]


def example_layer(time_steps: int = 1, batch_size: int = 1) -> Layer:
    """The convolution that several published models count: 64 to 128 channels, 3x3, on 16x16 maps."""
    macs = 64 * 128 * 9 * 256 * time_steps * batch_size
    return Layer(
        path="conv2", op="aten.conv2d.default", kind="gemm_weight", in_channels=64, out_channels=128, in_height=16,
        in_width=16, out_height=16, out_width=16, kernel=(3, 3), padding=(1, 1), time_steps=time_steps,
        batch_size=batch_size, macs_forward=macs, macs_backward=macs, macs_weight_gradient=macs, input_kind="binary",
        input_bits=1, parameters=64 * 128 * 9, outputs=("lif",),
    )  # fmt: skip


def count_rows() -> list[ConformanceRow]:
    """ZigZag's compulsory words and SATA's MACs and DRAM words of the example, to the word; and how SATA's counts grow
    with time steps and shrink with sparsity."""
    words = compulsory_words(example_layer())
    rows = [
        _row(f"ZigZag DRAM {name}", words[key], expected, "words", 0.0)
        for key, name, expected in (("W", "weights", 73_728), ("I", "inputs", 20_736), ("O", "outputs", 32_768))
    ]
    dense, long = SataCounts.of(example_layer()), SataCounts.of(example_layer(8), spike_sparsity=0.9, du_sparsity=0.7)
    for name, macs, words_here, expected in (
        ("forward", dense.forward_macs, dense.forward_dram_words, 107_520),
        ("backward", dense.backward_macs, dense.backward_dram_words, 33_792),
        ("update", dense.update_macs, dense.update_dram_words, 147_456),
    ):
        rows.append(_row(f"SATA {name} MACs", macs, 18_874_368, "MAC", 0.0))
        rows.append(_row(f"SATA {name} DRAM", words_here, expected, "words", 0.0))
    eight = "8 steps, sparsity .9/.7 against 1 dense:"
    rows.append(_row(f"SATA {eight} forward", long.forward_macs / dense.forward_macs, 8 * 0.1, "", 1e-12))
    rows.append(_row(f"SATA {eight} backward", long.backward_macs / dense.backward_macs, 8 * 0.3, "", 1e-12))
    grown = long.forward_dram_words - dense.forward_dram_words
    rows.append(_row(f"SATA {eight} DRAM growth", grown, 7 * 33_792, "words", 0.0))
    return rows


def traffic_rows(chip: Chip) -> list[ConformanceRow]:
    """DRAM bytes of a training step of the example with its neurons (batch 16, 4 steps), by hand: 10,141,696."""
    layer = example_layer(4, 16)
    neuron = Neuron(
        decay=0.5, input_gain=1.0, threshold=1.0, v_reset=0.0, reset="hard", detach_reset=True,
        surrogate="rectangular", half_width=0.5,
    )  # fmt: skip
    lif = Layer(
        path="lif", op="spikeloom.lif.default", kind="neuron", in_channels=128, out_channels=128, in_height=16,
        in_width=16, out_height=16, out_width=16, time_steps=4, batch_size=16, neuron=neuron, inputs=("conv2",),
    )  # fmt: skip
    phases = [p for part in (layer, lif) for p in layer_phases(part, chip, True) if p.engine != "optimizer"]
    compulsory, moved = sum(p.compulsory_bytes for p in phases), sum(p.dram_bytes for p in phases)
    return [
        _row("training step of the example, compulsory", compulsory, 10_141_696, "bytes", 0.0),
        _row("training step of the example, as moved", moved, 10_141_696, "bytes", 0.0),
    ]


def partition_rows() -> list[ConformanceRow]:
    """The forward pass of S-ResNet18 cut into contiguous runs of 16 channels for 20 cores, and the published greedy
    cut, whose first 12 groups are full."""
    loads = [16 * conv.in_channels * 9 * conv.size**2 for conv in _resnet18() for _ in range(conv.out_channels // 16)]
    capacity, _ = balance(loads, 20)
    ends = fill(loads, 86_704_128)
    full = [sum(loads[a:b]) == 86_704_128 for a, b in zip([0, *ends], ends, strict=False)]
    return [
        _row("S-ResNet18 on 20 cores, fullest core", capacity, 101_154_816, "MAC", 0.0),
        _row("S-ResNet18 greedy cut, groups", len(ends), 22, "", 0.0),
        _row("S-ResNet18 greedy cut, full among the first 12", sum(full[:12]), 12, "", 0.0),
    ]


def anchor_rows(chip: Chip) -> list[ConformanceRow]:
    """Energy and loop MACs per phase and TFLOPS/W of whole networks, also against the published 1.05 TFLOPS/W."""
    rows = []
    for name, anchor in ANCHORS.items():
        phases = [anchor_phases(conv, chip) for conv in anchor.convs]
        energies_pj = [sum(phase[index][0] for phase in phases) for index in range(3)]
        macs = [sum(phase[index][1] for phase in phases) for index in range(3)]
        for index, engine in enumerate(("FP", "BP", "WG")):
            expected_pj = anchor.energy_mj[index] * 1e9
            rows.append(_row(f"{name} {engine} energy", energies_pj[index], expected_pj, "pJ", NETWORK_TOLERANCE))
            expected_macs = anchor.looped_macs[index]
            rows.append(_row(f"{name} {engine} loop MACs", macs[index], expected_macs, "MAC", NETWORK_TOLERANCE))
        total_pj = sum(energies_pj)
        rows.append(_row(f"{name} energy", total_pj, sum(anchor.energy_mj) * 1e9, "pJ", NETWORK_TOLERANCE))
        # Every phase has the true count of FP; the loops of BP and WG also run over inserted zeros.
        looped, true = 2 * sum(macs) / total_pj, 2 * 3 * macs[0] / total_pj
        for kind, value, expected in (
            ("looped", looped, anchor.tflops_per_w_looped),
            ("true", true, anchor.tflops_per_w_true),
        ):
            rows.append(_row(f"{name} {kind}", value, expected, "TFLOPS/W", NETWORK_TOLERANCE))
        rows.append(_row(f"{name} looped against the paper", looped, PUBLISHED_TFLOPS_PER_W, "TFLOPS/W", None))
    return rows


def whole_network_rows(chip: Chip) -> list[ConformanceRow]:
    """What S-ResNet18 gives as a whole, with first layer, norms, shortcuts of 1 x 1, optimizer and classifier, by the
    MACs that the mathematics needs: without DRAM, which the published efficiency leaves out, and with it at the chip's
    price."""
    rows = []
    workload = spiking_resnet18()
    for name, dram in (("without DRAM", False), ("with DRAM", True)):
        priced = replace(chip, energy=replace(chip.energy, include_dram=dram))
        value = simulate(workload, priced).tflops_per_w_true
        rows.append(_row(f"S-ResNet18 whole, true, {name}", value, PUBLISHED_TFLOPS_PER_W, "TFLOPS/W", None))
    return rows


def anchor_phases(conv: AnchorConv, chip: Chip) -> tuple[tuple[float, int], ...]:
    """(energy in pJ with neurons, loop MACs) of FP, BP and WG, with zero-inserted gradients where the step is > 1."""
    shape = {"in_channels": conv.in_channels, "out_channels": conv.out_channels, "taps": 9}
    out = ConvLoops(**shape, positions=conv.size**2)
    inserted = ConvLoops(**shape, positions=(conv.size * conv.stride) ** 2)
    forward = forward_energy(out, chip) + soma_energy(conv.out_channels * out.positions, chip)
    backward = backward_energy(inserted, chip) + gradient_unit_energy(conv.in_channels * inserted.positions, chip)
    gradient = weight_gradient_energy(inserted, chip)
    return (forward.total_pj, out.macs), (backward.total_pj, inserted.macs), (gradient.total_pj, inserted.macs)


def _row(name: str, measured: float, expected: float, unit: str, tolerance: float | None) -> ConformanceRow:
    return ConformanceRow(name=name, measured=measured, expected=expected, unit=unit, tolerance=tolerance)
