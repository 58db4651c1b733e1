"""Keys of `spikeloom export`."""

from dataclasses import dataclass, field

from spikeloom.pipelines.config.evaluate import OtherFolder


@dataclass
class ExportConfig:
    run: str | None = None  # run directory of a trained model; or one of the next two
    module: str | None = None  # also model=FILE.py:NAME: a function, class or module of your own
    program: str | None = None  # FILE.pt2 that torch.export.save wrote
    example: str | None = None  # FILE.npz with the inputs of one call of that model, in order
    input: str | None = (
        None  # or their shapes, 4x3x32x32; 4x10:int50 draws ids, 8x4x64:spikes0.1 spikes, + joins several
    )
    axes: str | None = None  # a letter for each axis of the first input, T time and B batch: TBN, BCHW; null: inferred
    seed: int = 0  # of random inputs
    out: str | None = None  # folder; default: export/ of the run, runs/NAME/export of another model
    batches: int = 4  # real batches on which densities are measured
    batch_size: int = 16  # samples in each of these batches; also the batch of the workload
    strict: bool = True  # an operator without a price is an error, not an entry in unsupported_ops.json
    data: OtherFolder = field(default_factory=OtherFolder)  # root: a folder to read instead of the run's own data
    gradients: bool = True  # run a backward pass on the same batches, for the densities of gradients
    nir: bool = False  # model.nir as well: feed-forward networks (pip install 'spikeloom[nir]')
    nir_dt_s: float = 1e-3  # seconds that a time step stands for in model.nir
    onnx: bool = False  # model.onnx as well, for onnxruntime (pip install 'spikeloom[onnx]')
