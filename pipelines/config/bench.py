"""What `spikeloom bench` can be told."""

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class GateBenchConfig:
    """Trainings of CET-MAE on planted data; variants: correct, shuffled_pairs, frozen_text, position_of_batch, or
    wordllama or minilm, whose vectors EEG is then matched with."""

    strengths: list[float] = field(default_factory=lambda: [1.0, 0.0])  # of the planted signal; 0: none
    seeds: list[int] = field(default_factory=lambda: [3])  # one training for each
    variants: list[str] = field(default_factory=lambda: ["correct"])
    steps: int | None = None  # null: those of the gate


@dataclass
class CalibrationBenchConfig:
    """Simulated experiments: without a signal, of each strength of the power curve, of each null world."""

    null_runs: int = 200  # experiments without a signal
    power_runs: int = 20  # experiments at each strength and each fraction of planted words; 0: none
    world_runs: int = 100  # experiments in each null world, at every level
    confound_runs: int = 100  # experiments in which the EEG holds gaze or drift in place of words; 0: none
    encoder: str | None = None  # of the semantic level: a folder, minilm or wordllama; null: left out
    tasks: list[str] = field(default_factory=list)  # task lists that are read and written; empty: all five
    materials: str = MISSING  # folder of ZuCo's task materials, whose sentences the null worlds read and write


@dataclass
class DecodersBenchConfig:
    """Trainings of decoders on synthetic trials: the simple ones of `evaluate`, and E2T-PTR after CET-MAE."""

    strengths: list[float] = field(default_factory=lambda: [0.5, 1.0, 3.0])  # of the planted signal
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])  # one set of trials and one training for each
    # decoders: simple ones of evaluate, e2t_ptr, e2t_ptr_wordllama, e2t_ptr_minilm; empty: the simple ones and e2t_ptr
    names: list[str] = field(default_factory=list)
    subjects: int = 3  # synthetic readers
    sentences: int = 300  # a tenth validates, 15 % are tested
    steps: int = 400  # gradient steps of each network; of e2t_ptr as many before for CET-MAE
    lr: float = 2e-3  # learning rate after the warm-up
    batch_size: int = 32  # trials of a gradient step
    permutations: int = 999  # of the test


@dataclass
class PruningBenchConfig:
    """Trainings of each pruning rule at each sparsity, of each seed."""

    task: str = "spoken_digits"  # or written_digits
    folder: str = MISSING  # holds fsdd and mnist
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])  # one training for each
    epochs: int | None = None  # null: 12 of spoken digits, 8 of written ones


@dataclass
class PlanBenchConfig:
    """Whole trainings on several devices, computed from steps that are measured on this machine."""

    experiments: list[str] = field(default_factory=list)  # recipes; empty: one of speech, of pictures and of EEG
    devices: list[int] = field(default_factory=lambda: [1, 8, 64])  # which share the recipe's batch
    speed: float = 1.0  # of a device, as a multiple of this machine's
    link_gb_s: float = 10.0  # rate at which a device exchanges gradients, GB/s


@dataclass
class RanksBenchConfig:
    """Trainings by several processes of one thread beside one process, at the same joint batch."""

    experiments: list[str] = field(default_factory=list)  # recipes; empty: one of speech, of pictures and of EEG
    settings: list[str] = field(default_factory=list)  # further keys of these trainings, as for `spikeloom train`
    devices: int = 2  # processes
    batch: int = 32  # samples of a step, of all processes together
    steps: int = 10  # of a turn


@dataclass
class BenchConfig:
    what: str = "ops"  # which measurement; a wrong name is answered with all there are
    repeats: int = 20  # timed calls of each function; the median is reported
    threads: int = 0  # 0: all cores, or $OMP_NUM_THREADS
    processor_time: bool = False  # instead of the clock's, for a busy machine; needs threads=1
    steps: int = 0  # bench step: only the networks of so many time steps; 0: all
    batch: int = 0  # vision: images in a step; 0: 4 of Spikingformer, 2 of QKFormer
    processes: int = 2  # bench processes: how many are compared with one
    rows: int = 22000  # zuco: sentences in the set of files
    gate: GateBenchConfig = field(default_factory=GateBenchConfig)
    calibration: CalibrationBenchConfig = field(default_factory=CalibrationBenchConfig)
    decoders: DecodersBenchConfig = field(default_factory=DecodersBenchConfig)
    pruning: PruningBenchConfig = field(default_factory=PruningBenchConfig)
    plan: PlanBenchConfig = field(default_factory=PlanBenchConfig)
    ranks: RanksBenchConfig = field(default_factory=RanksBenchConfig)
    out: str | None = None  # gate, decoders, calibration: FILE.json (calibration also FILE.html); pruning: folder
