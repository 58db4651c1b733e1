"""Keys of `spikeloom federate`."""

from dataclasses import dataclass
from typing import Any


@dataclass
class FederateConfig:
    task: str = "digits"  # digits (embedded), mnist, fsdd, synthetic or trials (synthetic EEG, one reader a worker)
    # also model=…: cnn (default), mlp, spikingformer, cml, qkformer, … for pictures; spikescr…; cet_mae, e2t_ptr
    network: str = ""
    root: str | None = None  # folder of the data; default: below $SPIKELOOM_DATA
    workers: int = 5  # devices that train
    rounds: int = 10  # of averaging
    local_epochs: int = 1  # of a worker, in a round
    batch_size: int = 32  # 0: all samples of the worker at once
    local_optimizer: str = "adam"  # also optimizer=…: adam or sgd; its moments stay with the worker
    lr: float = 2e-3  # learning rate of the workers
    split: str = "iid"  # iid, dirichlet, shards (two a worker) or speakers
    alpha: float = 0.5  # of dirichlet: small, few classes a worker
    strategy: str = "fedavg"  # fedavg or fedprox
    mu: float = 0.01  # of fedprox: pull to the server's weights
    engine: str = "plain"  # plain, or flower (pip install 'spikeloom[federated]')
    dies: Any = None  # worker -> round from which it does not answer, as {3:2}
    slow: Any = None  # worker -> how many times slower, as {1:4.0}
    deadline_s: float | None = None  # the server does not wait longer; null: for everyone
    compare_iid: bool = True  # train an uneven split once more as iid
    chip: str = "fl5"  # of every worker
    link_bits_per_s: float = 1e9  # assumed
    link_pj_per_bit: float = 0.0  # price of a bit on the link; no figure is published
    seed: int = 0  # of weights, split and order
    limit: int = 0  # training samples, drawn by the seed; 0: all
    threads: int = 1  # of PyTorch
    out: str | None = None  # folder; default: runs/federate/TASK_MODEL_SPLIT/seedSEED
