"""`spikeloom bench WHAT`: the measurements of `pipelines.benchmarks`, one after the name of its file."""

from pathlib import Path

from pipelines.benchmarks.config import BenchConfig
from pipelines.benchmarks.measure import prepare


def run(config: BenchConfig) -> None:
    prepare(config.threads, config.processor_time)
    if config.what == "env":
        from pipelines.benchmarks.environment import print_environment

        print_environment()
    elif config.what == "ops":
        from pipelines.benchmarks.operators import print_ops

        print_ops(config.repeats)
    elif config.what == "step":
        from pipelines.benchmarks.steps import print_steps

        print_steps(config.repeats, config.steps)
    elif config.what == "loader":
        from pipelines.benchmarks.loader import print_loader

        print_loader(config.repeats)
    elif config.what == "cochlea":
        from pipelines.benchmarks.cochlea import print_cochlea

        print_cochlea(config.repeats)
    elif config.what == "pretrain":
        from pipelines.benchmarks.pretraining import print_pretraining

        print_pretraining(config.repeats)
    elif config.what == "zuco":
        from pipelines.benchmarks.zuco import print_zuco

        print_zuco(config.rows)
    elif config.what == "gate":
        from pipelines.benchmarks.gate import print_gate

        print_gate(config.gate, config.out)
    elif config.what == "calibration":
        from pipelines.benchmarks.calibration import print_calibration

        print_calibration(config.calibration, config.out)
    elif config.what == "pruning":
        from pipelines.benchmarks.pruning import bench_pruning

        bench_pruning(config.pruning, Path(config.out or f"runs/pruning/{config.pruning.task}"))
    elif config.what == "vision":
        from pipelines.benchmarks.vision import print_vision

        print_vision(config.repeats, config.batch)
    elif config.what == "stochastic":
        from pipelines.benchmarks.stochastic import print_stochastic

        print_stochastic(config.repeats)
    elif config.what == "simulator":
        from pipelines.benchmarks.simulator import print_simulator

        print_simulator(config.repeats)
    else:
        known = "ops, step, loader, cochlea, pretrain, vision, simulator, stochastic, gate, calibration, zuco, pruning"
        raise ValueError(f"bench {config.what} is unknown; use {known} or env")
