"""`spikeloom bench simulator`: how long the simulation of a training step takes, and how that grows.

The chip is `neuromc`; the networks are built beforehand from published shapes, so what is timed is cost alone: from a
loaded workload and chip to the whole report with its timeline. A piece is what one core does of one product and of what
follows it: a network of L products on N cores has L to L + N - 1 pieces in a pipeline, and up to L N with each layer
over all cores.
"""

from dataclasses import replace

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.chip.override import ChipConfig
from spikeloom.accel.trainer.networks import PUBLISHED, spikingformer
from spikeloom.accel.trainer.schedule.partition import Mapping, Style
from spikeloom.accel.trainer.schedule.simulator import Simulation, simulate
from spikeloom.benchmarks.measure import clock, median_ms, now_s
from spikeloom.pipelines.config.chips import load_chip

GROWTH: tuple[tuple[Style, tuple[int, ...], tuple[int, ...]], ...] = (
    ("pipeline", (4, 16), (16, 64, 256, 1024)),
    ("channels", (2, 4), (4, 16, 64)),
)  # style, depths of the network, cores
BLOCKS, CORES, CHIPS, DEEP = 500, 1024, 1000, 100  # of the largest network and chip, of prices, of an exported network


def print_simulator(repeats: int) -> None:
    """Published networks on 20 cores, then a network that grows on chips that grow."""
    print(f"one training step on neuromc, from a loaded workload to the report with its timeline, {clock()}, median")
    print(f"{'network':22s} {'layers':>6s} {'batch':>6s} {'cores':>6s} {'pieces':>6s} {'tasks':>7s} {'ms':>8s}")
    chip = load_chip("neuromc")
    for name, build in PUBLISHED.items():
        workload = build(4, 16)
        report = simulate(workload, chip)
        ms = median_ms(lambda w=workload: simulate(w, chip), repeats)  # type: ignore[misc]
        print(
            f"{name:22s} {len(report.layers):6d} {16:6d} {report.cores_used:6d} {len(report.partition):6d} "
            f"{len(report.timeline):7d} {ms:8.1f}"
        )
    print("growth, Spikingformer of width 768, batch 2, 2 micro-batches")
    print(f"{'mapping':10s} {'layers':>6s} {'cores':>6s} {'used':>6s} {'pieces':>7s} {'ms':>8s} {'ms a piece':>11s}")
    for style, depths, sizes in GROWTH:
        placing = Mapping(style=style, micro_batches=2)
        for depth in depths:
            workload = spikingformer(4, 2, depth=depth)
            for cores in sizes:
                larger = load_chip(ChipConfig(name="neuromc", cores=cores))
                report = simulate(workload, larger, placing)
                ms = median_ms(lambda w=workload, c=larger, p=placing: simulate(w, c, p), max(1, repeats // 10))  # type: ignore[misc]
                pieces = len(report.partition)
                print(
                    f"{style:10s} {len(report.layers):6d} {cores:6d} {report.cores_used:6d} {pieces:7d} {ms:8.0f} "
                    f"{ms / pieces:11.2f}"
                )
    print_limits(chip)


def print_limits(chip: Chip) -> None:
    """A large network on a large chip, one run priced for many chips, and the export of a deep network."""
    large = spikingformer(1, 2, depth=BLOCKS, width=64)
    start = now_s()
    report = simulate(large, load_chip(ChipConfig(name="neuromc", cores=CORES)), Mapping(micro_batches=2))
    print(
        f"{len(report.layers):,} layers on {CORES:,} cores: {now_s() - start:.1f} s, {len(report.partition):,} pieces"
    )
    start = now_s()
    simulation = Simulation(PUBLISHED["s_resnet18"](4, 16), chip)
    simulation.time_ms()
    for n in range(CHIPS):
        simulation.energy_pj(replace(chip, ops=replace(chip.ops, add_pj=chip.ops.add_pj * (1 + n / CHIPS))))
    print(f"S-ResNet18 on {CHIPS:,} chips that differ in prices: {CHIPS / (now_s() - start):.0f} chips a second")
    print(f"export of a network of {DEEP} layers: {export_s(DEEP):.1f} s beyond its forward pass")


def export_s(depth: int) -> float:
    """Seconds that the export of `depth` convolutions with norms and neurons takes beyond a forward pass."""
    import torch
    from torch import nn

    from spikeloom.accel.export.program import export
    from spikeloom.accel.spiking.functional import LIFParameters
    from spikeloom.accel.spiking.neuron import LIF
    from spikeloom.accel.spiking.surrogate import Rectangular

    neuron = LIFParameters(
        tau=2.0, decay_input=False, threshold=1.0, v_reset=0.0, detach_reset=True, surrogate=Rectangular(0.5)
    )

    class Steps(nn.Module):
        """A convolution and a batch norm of every picture of [T, B, ...], then neurons."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.neuron = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), LIF(neuron)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])
            spikes: torch.Tensor = self.neuron(y)[0]
            return spikes

    torch.manual_seed(0)
    model, x = nn.Sequential(*(Steps() for _ in range(depth))), torch.rand(2, 2, 16, 8, 8)
    model.eval()(x)
    start = now_s()
    with torch.no_grad():
        model(x)
    forward, start = now_s() - start, now_s()
    export(model, [x], name="deep", source={}, axes="TBCHW")
    return now_s() - start - forward
