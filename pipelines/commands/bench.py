"""`spikeloom bench WHAT`: the measurements of `spikeloom.benchmarks`, which lie beside the package in a checkout."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spikeloom.pipelines.checkout import beside_the_package
from spikeloom.pipelines.config.bench import BenchConfig

log = logging.getLogger("spikeloom")
# what -> file of benchmarks, its function, and what that is given
MEASUREMENTS: dict[str, tuple[str, str, Callable[[BenchConfig], tuple[Any, ...]]]] = {
    "env": ("environment", "print_environment", lambda c: (c.threads,)),
    "ops": ("operators", "print_ops", lambda c: (c.repeats,)),
    "kernels": ("kernels", "print_kernels", lambda c: (c.repeats,)),
    "step": ("steps", "print_steps", lambda c: (c.repeats, c.steps)),
    "loader": ("loader", "print_loader", lambda c: (c.repeats,)),
    "cochlea": ("cochlea", "print_cochlea", lambda c: (c.repeats,)),
    "pretrain": ("pretraining", "print_pretraining", lambda c: (c.repeats,)),
    "vision": ("vision", "print_vision", lambda c: (c.repeats, c.batch)),
    "simulator": ("simulator", "print_simulator", lambda c: (c.repeats,)),
    "systems": ("systems", "print_systems", lambda c: ()),
    "stochastic": ("stochastic", "print_stochastic", lambda c: (c.repeats,)),
    "gate": ("gate", "print_gate", lambda c: (c.gate, c.out)),
    "decoders": ("decoders", "print_decoders", lambda c: (c.decoders, c.out)),
    "calibration": ("calibration", "print_calibration", lambda c: (c.calibration, c.out)),
    "zuco": ("zuco", "print_zuco", lambda c: (c.rows,)),
    "ranks": ("ranks", "print_ranks", lambda c: (c.ranks, c.repeats)),
    "processes": ("preparation", "print_processes", lambda c: (c.processes, c.repeats)),
    "plan": ("plan", "print_plan", lambda c: (c.plan, c.repeats)),
    "pruning": ("pruning", "bench_pruning",
                lambda c: (c.pruning, Path(c.out or f"runs/pruning/{c.pruning.task}"))),
}  # fmt: skip


def run(config: BenchConfig) -> None:
    """Print one measurement. Raises ValueError for a name that is none, and outside a checkout."""
    if config.what not in MEASUREMENTS:
        raise ValueError(f"bench what={config.what!r} is unknown; use one of {', '.join(MEASUREMENTS)}")
    file, function, given = MEASUREMENTS[config.what]
    if config.what != "env":  # which does without torch
        measure = beside_the_package("benchmarks.measure")
        measure.prepare(config.threads, config.processor_time)
        threads = f"{config.threads} threads" if config.threads else "threads as $OMP_NUM_THREADS, or all cores"
        log.info("bench %s: %s, %s", config.what, threads, measure.clock())
    getattr(beside_the_package(f"benchmarks.{file}"), function)(*given(config))
