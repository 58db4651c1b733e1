"""Every kind of page that the product writes, from the smallest commands that write it.

`COMMANDS` run in their order in one folder with $SPIKELOOM_DATA=data, whose sets `write_data` makes. `PAGES` names the
page of every module that writes one, so that a new one is noticed.
"""

from pathlib import Path

import numpy as np

from tests.pipelines.small_data import write_digits
from tests.vision.event_files import write_nmnist

QUICK = ["trainer.epochs=2", "trainer.threads=1", "overwrite=true"]
WORDS = ["data.n_words=3", "data.n_speakers=4", "data.takes=1", "data.n_test_speakers=1", "data.n_valid_speakers=1"]
SPIKESCR = ["model.width=16", "model.heads=1"]
SMALL_VIT = ["model.widths=[16]", "model.depths=[1]", "model.heads=2", "trainer.epochs=1", "trainer.threads=1"]
TRIALS = ["data.n_subjects=2", "data.n_sentences=60", "trainer.limit_train_batches=4", *QUICK]

COMMANDS = (
    ["train", "experiment=spikescr_synthetic", *WORDS, *SPIKESCR, *QUICK, "run=speech"],
    ["train", "experiment=spiking_cnn_digits", *QUICK, "run=pruned", "pruning=lats", "pruning.sparsity=0.9"],
    ["train", "experiment=spikingformer_digits", *SMALL_VIT, "run=vision"],
    ["train", "experiment=qkformer_digits", *QUICK, "trainer.limit_train_batches=4", "run=qkformer"],
    ["train", "experiment=bs_digits", "trainer.epochs=2", "run=stochastic"],
    ["pretrain", "experiment=cet_mae_synthetic", *TRIALS, "run=pretrained"],
    ["train", "experiment=e2t_ptr_synthetic", *TRIALS, "pretrained=pretrained", "run=decoder"],
    ["evaluate", "run=decoder", "controls.names=[noise]", "controls.seeds=2", "controls.power_runs=2",
     "baselines.names=[ridge]", "protocol.n_permutations=99", "protocol.n_draws=99"],
    ["distill", "name=words", "data=synthetic", *WORDS, *SPIKESCR, *QUICK, "resolutions_ms=[20.0,40.0]",
     "undistilled=true", "energy_clips=4", "run=distilled"],
    ["audit", "run=speech"],
    ["audit", "run=vision"],
    ["audit", "run=qkformer"],
    ["compare", "pruned", "vision", "qkformer", "out=comparison.html"],
    ["export", "run=pruned"],
    ["simulate", "workload=pruned/export/workload.json", "out=simulated"],
    ["simulate", "network=s_vgg16", "what=needed", "batch_size=1", "out=needed"],
    ["simulate", "-m", "network=s_vgg16", "batch_size=1", "chip=neuromc,cacti28", "out=sweep"],
    ["engines", "epochs=1", "limit=64", "out=engines"],
    ["federate", "split=shards", "rounds=2", "workers=3", "limit=120", "out=federated"],
    ["data", "describe", "dataset=fsdd", "out=described_words.html"],
    ["data", "describe", "dataset=digits", "out=described_pictures.html"],
    ["data", "describe", "dataset=nmnist", "out=described_events.html"],
    ["data", "describe", "dataset=events", "root=bar.npy", "out=described_recording.html"],
    ["data", "synthesize", "out=data/zuco", "subjects=2", "tasks=[SR1,NR1]", "sentences=30"],
    ["data", "describe", "dataset=zuco", "out=described_zuco.html"],
    ["data", "leakage", "dataset=zuco", "root=MATERIALS", "out=leakage.html"],
    ["listen", "run=builtin:fsdd", "without_keywords=synthetic", "hours=0.01", "keywords=data/fsdd",
     "page=errors.html"],
    ["demo", "chapters=[vision]", "run=demo"],
)  # fmt: skip
# module of spikeloom.pipelines or examples that writes a page -> one of its pages
PAGES = {
    "training/classification.py": "speech/report.html",
    "training/stochastic.py": "stochastic/report.html",
    "eeg/report.py": "pretrained/report.html",
    "eeg/evaluate.py": "decoder/evaluation.html",
    "reports/distillation.py": "distilled/report.html",
    "reports/comparison.py": "comparison.html",
    "reports/sweeps.py": "sweep/sweep.html",
    "reports/detection_error.py": "errors.html",
    "commands/audit.py": "vision/audit/audit.html",
    "commands/simulate.py": "simulated/report.html",
    "commands/engines.py": "engines/report.html",
    "commands/federate.py": "federated/report.html",
    "commands/data.py": "described_words.html",
    "datasets/vision.py": "described_pictures.html",
    "datasets/leakage.py": "leakage.html",
    "datasets/zuco.py": "described_zuco.html",
    "chapter.py": "demo/report.html",
}


def write_data(root: Path) -> None:
    """The data sets that the commands read, below `root`, and a recording of an event camera."""
    write_digits(root / "data/fsdd", takes=3)
    write_nmnist(root / "data/nmnist", 4, 2)
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 100_000, 5000))
    x = np.clip(t * 34 // 100_000 + rng.integers(-2, 3, 5000), 0, 33)
    np.save(root / "bar.npy", np.stack([t, x, rng.integers(0, 34, 5000), rng.integers(0, 2, 5000)], axis=1))
