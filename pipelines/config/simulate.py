"""Keys of `spikeloom simulate`."""

from dataclasses import dataclass, field

from spikeloom.accel.trainer.chip.override import ChipConfig
from spikeloom.accel.trainer.schedule.search import MappingConfig


@dataclass
class SimulateConfig:
    what: str = "step"  # step: cost a training step; conformance: published figures; needed: other chips
    workload: str | None = None  # workload.json of an export; a step needs this or a network
    # s_resnet18, s_resnet50, s_vgg16, spiking_resnet18, spikingformer_8_768: from published shapes, nothing measured
    network: str | None = None
    module: str | None = None  # also model=FILE.py:NAME: a function, class or module of your own
    program: str | None = None  # FILE.pt2 that torch.export.save wrote
    onnx: str | None = None  # FILE.onnx: its shapes, nothing measured
    nir: str | None = None  # FILE.nir: a feed-forward spiking network
    example: str | None = None  # FILE.npz with the inputs of one call of such a model, in order
    input: str | None = (
        None  # or their shapes, 4x3x32x32; 4x10:int50 draws ids, 8x4x64:spikes0.1 spikes, + joins several
    )
    axes: str | None = None  # a letter for each axis of the first input, T time and B batch: TBN, BCHW; null: inferred
    strict: bool = True  # such a model is refused where an operation has no price or a parameter is lost
    seed: int = 0  # of random inputs
    dt_s: float | None = None  # nir: seconds of a time step, where the file leaves them open
    surrogate: str | None = None  # nir: surrogate of all neurons, where the file leaves it open
    time_steps: int = 4  # of a published network, and of a NIR file that leaves them open
    batch_size: int = 16  # of a published network or a NIR file
    chip: ChipConfig = field(default_factory=ChipConfig)  # chip=NAME or chip=FILE.yaml; chip.KEY changes a number
    mapping: MappingConfig = field(default_factory=MappingConfig)
    out: str | None = None  # folder; default: sim/ beside the workload's folder, runs/simulate/NETWORK
    uncertainty: bool = True  # interval and tornado of the energy, and the share of each constant
    what_if: bool = True  # the same step on every preset
    oracle: str | None = None  # conformance: folder of layer energies in CSV; default: oracle/ of the data folder
    gpu: str | None = "a100_40gb"  # what to stand beside: a preset or a YAML file; null: nothing
    counters: str | None = None  # CSV of Nsight Compute with the DRAM counters of this workload on that GPU
