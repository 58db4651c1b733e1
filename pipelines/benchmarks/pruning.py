"""`spikeloom bench pruning`: accuracy against sparsity of three pruning rules, and what the zeros save.

A small SpikeSCR learns FSDD with one voice held out; every rule has the same epochs, data and optimiser. One file a
training in the folder `out`, so that an interrupted bench goes on, and benches of different seeds share one table. The
accuracy is that of the last epoch on the voice that was never heard. Models pruned by LATS are also exported, and one
training step of each is simulated on a chip that saves the work of zero weights.
"""

import logging
import math
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import lightning

from accel.export import export
from accel.files import read_json, whole, write_csv, write_json
from accel.learning.lats import LATSConfig, LinearThresholdConfig
from accel.learning.magnitude import MagnitudeConfig
from accel.learning.pruning import NoPruningConfig
from accel.report import new_figure, palette
from accel.trainer.workload import Workload
from pipelines.domains.speech import unpadded_batches
from pipelines.optimisation import OptimizerConfig
from pipelines.pruned_cost import mean_cost
from pipelines.pruning import Pruning
from pipelines.scores import accuracy
from pipelines.tasks import ClassificationTask, Reseed
from speech.datamodule import SpeechDataModule
from speech.digits import DigitsConfig
from speech.features import LogMelConfig
from speech.spikescr import SpikeSCR, SpikeSCRConfig
from speech.training import predict, speech_log_probabilities

log = logging.getLogger("spikeloom")

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
MODEL = SpikeSCRConfig(width=32, heads=2)
FEATURES = LogMelConfig.gsc_8k(hop_ms=50.0)
OPTIMIZER = OptimizerConfig(lr=0.012)
BATCH, HELD_OUT = 64, "theo"
RULES: dict[str, Any] = {
    "lats": lambda share: LATSConfig(sparsity=share),
    "magnitude": lambda share: MagnitudeConfig(sparsity=share),
    "linear": lambda share: LinearThresholdConfig(sparsity=share),
}
NAMES = {"lats": "LATS", "magnitude": "gradual magnitude", "linear": "linear threshold"}


def bench_pruning(root: Path, out: Path, seeds: Iterable[int], epochs: int) -> None:
    """Train what is not in `out` yet, then print and write the table, the figure and the loop to the chip."""
    data = SpeechDataModule(
        DigitsConfig(root=str(root), test_speaker=HELD_OUT, valid_fraction=0.1), FEATURES, batch_size=BATCH
    )
    data.setup()
    for seed in seeds:
        for method, share in [("none", 0.0), *((m, s) for s in reversed(SPARSITIES) for m in RULES)]:
            path = out / f"{method}_{share:g}_seed{seed}.json"
            if path.exists() and read_json(path, "delete it")["epochs"] == epochs:
                continue
            result = run(data, method, share, seed, epochs, out)
            write_json(path, result)
            log.info(
                "%-9s sparsity %5.1f %%  seed %d  test %5.1f %%  (%.0f s of processor time)",
                method, 100 * result["sparsity"], seed, 100 * result["test_accuracy"], result["processor_s"],
            )  # fmt: skip
    results = [read_json(path, "delete it and bench again") for path in sorted(out.glob("*_seed*.json"))]
    tell([result for result in results if result["epochs"] == epochs], out)


def run(data: SpeechDataModule, method: str, share: float, seed: int, epochs: int, out: Path) -> dict[str, Any]:
    """One training: last-epoch accuracy and sparsity. LATS and the dense model of each seed leave a workload."""
    started = time.process_time()
    lightning.seed_everything(seed, verbose=False)
    data.seed = seed
    task = ClassificationTask(
        MODEL.build(data.n_inputs, data.n_classes), data.n_classes, OPTIMIZER, speech_log_probabilities
    )
    pruner = (RULES[method](share) if method in RULES else NoPruningConfig()).build(task.model)
    with whole(out / f".{method}_{share:g}_seed{seed}.csv") as rows:
        pruning = None if pruner is None else Pruning(pruner, rows)
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, max_epochs=epochs, logger=False, enable_checkpointing=False,
            enable_model_summary=False, enable_progress_bar=False, num_sanity_val_steps=0,
            check_val_every_n_epoch=epochs,
            callbacks=[Reseed(seed), *([pruning] if pruning else [])],
        )  # fmt: skip
        trainer.fit(task, data.train_dataloader(), data.val_dataloader())
        if pruning is None:
            rows.write_text("")
    if pruning is not None:
        pruning.pruner.bake()
    test = data.test_set
    result = {
        "method": method, "target": share, "seed": seed, "epochs": epochs, "parameters": _size(task),
        "sparsity": pruning.rows[-1]["sparsity_of_pruned_layers"] if pruning else 0.0,
        "valid_accuracy": float(trainer.callback_metrics["valid_accuracy"]),
        "test_accuracy": accuracy(predict(cast(SpikeSCR, task.model), test), test.labels), "test_clips": len(test),
        "threshold": pruning.rows[-1]["threshold"] if pruning else None,
        "processor_s": time.process_time() - started,
    }  # fmt: skip
    if method in ("none", "lats"):
        model: Any = task.model
        batches = unpadded_batches(data.valid_set, 2, 16)
        exported = export(model, batches, name="SpikeSCR", source={"densities": "FSDD, validation clips, no padding"})
        exported.workload.to_json(out / f"{method}_{share:g}_seed{seed}.workload")
    return result


def _size(task: ClassificationTask) -> int:
    return sum(p.numel() for p in task.model.parameters())


def tell(results: list[dict[str, Any]], out: Path) -> None:
    """pruning.csv, pruning.svg and chip.csv, and the same on the console."""
    rows = []
    for method in RULES:
        for share in (0.0, *SPARSITIES):
            found = [r for r in results if r["target"] == share and r["method"] == (method if share else "none")]
            if found:
                percent = [100 * r["test_accuracy"] for r in found]
                rows.append({
                    "method": method, "sparsity": statistics.fmean(r["sparsity"] for r in found),
                    "accuracy": statistics.fmean(percent), "sd": statistics.stdev(percent) if len(percent) > 1 else 0.0,
                    "seeds": len(found),
                })  # fmt: skip
    write_csv(out / "pruning.csv", rows)
    print(f"\n{results[0]['parameters']:,} parameters, {results[0]['epochs']} epochs, last epoch, voice not heard")
    for row in rows:
        print(
            f"  {NAMES[str(row['method'])]:18s} {100 * row['sparsity']:5.1f} % zeros  {row['accuracy']:5.1f} "
            f"± {row['sd']:.1f} %  ({row['seeds']} seeds)"
        )
    draw(rows, out / "pruning.svg")
    loop(results, out)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against the share of weights that are left, which is what gets scarce."""
    figure = new_figure(7.0, 3.6)
    axes = figure.subplots()
    for colour, method in zip(palette, RULES, strict=False):
        mine = [row for row in rows if row["method"] == method]
        x = [math.log10(max(1e-4, 1 - row["sparsity"])) for row in mine]
        axes.errorbar(
            x, [row["accuracy"] for row in mine], yerr=[row["sd"] for row in mine], color=colour, marker="o",
            capsize=3, label=NAMES[method],
        )  # fmt: skip
    ticks = (0.0, *SPARSITIES)
    axes.set_xticks([math.log10(1 - s) for s in ticks], [f"{100 * s:.0f} %" for s in ticks])
    axes.invert_xaxis()
    axes.set_xlabel("share of zeros among the weights")
    axes.set_ylabel("accuracy on an unheard voice, %")
    axes.legend(frameon=False)
    with whole(path) as partial:
        figure.savefig(partial, format="svg")


def loop(results: list[dict[str, Any]], out: Path) -> None:
    """Pruned model, exported, simulated: what one training step costs by sparsity and by what the chip does with zeros.

    Means over the seeds.
    """
    rows = []
    for share in (0.0, *SPARSITIES):
        method = "lats" if share else "none"
        found = [r for r in results if r["method"] == method and r["target"] == share]
        paths = [out / f"{method}_{share:g}_seed{r['seed']}.workload" for r in found]
        if not found:
            continue
        workloads = [Workload.from_json(path) for path in paths]
        row: dict[str, float] = {
            "sparsity": statistics.fmean(r["sparsity"] for r in found),
            "accuracy": 100 * statistics.fmean(r["test_accuracy"] for r in found),
        }
        for mode in ("gating", "skipping"):
            cost = mean_cost(workloads, mode)._asdict()
            row |= {f"{mode}_{name}": value for name, value in cost.items() if mode == "skipping" or "cyc" not in name}
        rows.append(row)
    if rows:
        write_csv(out / "chip.csv", rows)
        print(
            "\nthe pruned models on neuromc, by what it does with zeros: one training step, \u00b5J a clip and cycles"
        )
        for row in rows:
            print("  " + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
