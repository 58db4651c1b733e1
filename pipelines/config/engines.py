"""Keys of `spikeloom engines`."""

from dataclasses import dataclass


@dataclass
class EnginesConfig:
    task: str = "digits"  # digits (embedded), mnist, fsdd, synthetic or trials (synthetic EEG)
    # also model=…: cnn (default), mlp, spikingformer, cml, qkformer, … for pictures; spikescr…; cet_mae, e2t_ptr
    network: str = ""
    root: str | None = None  # folder of the data; default: below $SPIKELOOM_DATA
    epochs: int = 8  # passes over the training samples
    batch_size: int = 32  # samples of one step
    lr: float = 2e-3  # learning rate of AdamW
    anneal: bool = False  # let the learning rate fall to zero along half a cosine
    weight_decay: float = 0.0  # of AdamW
    seed: int = 0  # of weights, order and limit
    limit: int = 0  # training samples, drawn by the seed; 0: all
    unseen: bool = False  # test on the clips of one speaker (fsdd, synthetic), drawn by the seed
    warmup_steps: int = 0  # over which the learning rate rises
    clip_norm: float = 0.0  # largest norm of a step's gradient; 0: any
    precision: str = "fp16"  # of operands and products: fp16, or fp32 to compare
    accumulate: str = "fp32"  # of partial sums: fp32 or fp16
    window: float | None = 0.5  # half-width of a window surrogate for all neurons, one bit; null: the network's own
    control: bool = False  # train again in PyTorch, from weights rounded to FP16 once: how far two trainings part
    loss_scale: float = 1024.0  # power of two that keeps small gradients above the smallest FP16 number
    chip: str = "neuromc"  # prices every epoch
    threads: int = 1  # of PyTorch
    out: str | None = None  # folder; default: runs/engines/TASK_MODEL/seedSEED, in a sweep out/TASK_MODEL_seedSEED
