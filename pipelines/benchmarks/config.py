"""What `spikeloom bench` can be told."""

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class GateBenchConfig:
    """Trainings of CET-MAE on planted data; variants: correct, shuffled_pairs, frozen_text or position_of_batch."""

    strengths: list[float] = field(default_factory=lambda: [1.0, 0.0])
    seeds: list[int] = field(default_factory=lambda: [3])
    variants: list[str] = field(default_factory=lambda: ["correct"])
    steps: int | None = None  # null: those of the gate


@dataclass
class CalibrationBenchConfig:
    """Simulated experiments: without a signal, of each strength of the power curve, of each null world."""

    null_runs: int = 200
    power_runs: int = 20
    world_runs: int = 100
    materials: str = MISSING  # folder of ZuCo's task materials, whose sentences the null worlds read and write


@dataclass
class PruningBenchConfig:
    """Trainings of each pruning rule at each sparsity, of each seed."""

    task: str = "spoken_digits"  # or written_digits
    folder: str = MISSING  # holds fsdd and mnist
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    epochs: int | None = None  # null: 12 of spoken digits, 8 of written ones


@dataclass
class BenchConfig:
    what: str = "ops"  # which measurement; a wrong name is answered with all there are
    repeats: int = 20
    threads: int = 0  # 0: all cores, or $OMP_NUM_THREADS
    processor_time: bool = False  # instead of the clock's, for a busy machine; needs threads=1
    steps: int = 0  # bench step: only the networks of so many time steps; 0: all
    batch: int = 0  # vision: images in a step; 0: 4 of Spikingformer, 2 of QKFormer
    rows: int = 22000  # zuco: sentences in the set of files
    gate: GateBenchConfig = field(default_factory=GateBenchConfig)
    calibration: CalibrationBenchConfig = field(default_factory=CalibrationBenchConfig)
    pruning: PruningBenchConfig = field(default_factory=PruningBenchConfig)
    out: str | None = None  # gate, calibration: FILE.json (calibration also FILE.html); pruning: folder
