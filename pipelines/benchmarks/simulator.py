"""`spikeloom bench simulator`: how long the simulation of a training step takes, and how that grows.

The chip is `neuromc`; the networks are built beforehand from published shapes, so what is timed is cost alone: from a
loaded workload and chip to the whole report with its timeline. A piece is what one core does of one product and of what
follows it: a network of L products on N cores has L to L + N - 1 pieces in a pipeline, and up to L N with each layer
over all cores.
"""

from accel.trainer.networks import PUBLISHED, spikingformer
from accel.trainer.partition import Mapping, Style
from accel.trainer.simulator import simulate
from accel.trainer.variant import ChipConfig
from pipelines.benchmarks.measure import clock, median_ms
from pipelines.chips import load_chip

GROWTH: tuple[tuple[Style, tuple[int, ...], tuple[int, ...]], ...] = (
    ("pipeline", (4, 16), (16, 64, 256, 1024)),
    ("channels", (2, 4), (4, 16, 64)),
)  # style, depths of the network, cores


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
