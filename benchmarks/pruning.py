"""`spikeloom bench pruning`: accuracy against sparsity of pruning rules, and the savings on the chip.

One network of `pruning_problems` is trained with the same epochs, batches and optimizer for every rule. Each training
writes one file in the folder `out`, so that an interrupted bench continues and several calls fill one table. The
accuracy is that of the last epoch on test samples. Models pruned by LATS are also exported, and one training step of
each is simulated on a chip that saves the work of zero weights.
"""

import logging
import math
import statistics
import time
from pathlib import Path
from typing import Any

import lightning

from spikeloom.accel.common.files import read_json, whole, write_csv, write_json
from spikeloom.accel.common.report import new_figure, palette
from spikeloom.accel.export.program import export
from spikeloom.accel.learning.pruning.lats import LATSConfig, LinearThresholdConfig
from spikeloom.accel.learning.pruning.magnitude import MagnitudeConfig
from spikeloom.accel.learning.pruning.pruner import NoPruningConfig
from spikeloom.accel.trainer.workload import Workload
from spikeloom.benchmarks.pruning_problems import Problem, problem
from spikeloom.pipelines.config.bench import PruningBenchConfig
from spikeloom.pipelines.reports.pruned_cost import mean_cost
from spikeloom.pipelines.training.callbacks import Reseed
from spikeloom.pipelines.training.pruning import Pruning

log = logging.getLogger("spikeloom")

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
RULES: dict[str, Any] = {
    "lats": lambda share: LATSConfig(sparsity=share, until=1.0),  # as published: the threshold grows to the last step
    "lats_held": lambda share: LATSConfig(sparsity=share, until=0.75),  # as gradual magnitude pruning is; the default
    "magnitude": lambda share: MagnitudeConfig(sparsity=share),
    "linear": lambda share: LinearThresholdConfig(sparsity=share),
}
NAMES = {
    "lats": "LATS", "lats_held": "LATS, then held", "magnitude": "gradual magnitude", "linear": "linear threshold",
}  # fmt: skip


def bench_pruning(config: PruningBenchConfig, out: Path) -> None:
    """Train what is not in `out` yet, then print and write the table, the figure and the loop to the chip."""
    posed = problem(config.task, Path(config.folder))
    epochs = config.epochs or posed.epochs
    for seed in config.seeds:
        for method, share in [("none", 0.0), *((m, s) for s in reversed(SPARSITIES) for m in RULES)]:
            path = out / f"{method}_{share:g}_seed{seed}.json"
            if path.exists() and belongs(read_json(path, "delete it"), posed.name, epochs):
                continue
            result = run(posed, method, share, seed, epochs, out)
            write_json(path, result)
            log.info(
                "%-9s sparsity %5.1f %%  seed %d  test %5.1f %%  (%.0f s of processor time)",
                method, 100 * result["sparsity"], seed, 100 * result["test_accuracy"], result["processor_s"],
            )  # fmt: skip
    results = [read_json(path, "delete it and bench again") for path in sorted(out.glob("*_seed*.json"))]
    tell([result for result in results if belongs(result, posed.name, epochs)], posed.tested, out)


def belongs(result: dict[str, Any], task: str, epochs: int) -> bool:
    """Whether a result is of this bench; another one may have left its files in the same folder."""
    return result["task"] == task and result["epochs"] == epochs


def run(posed: Problem, method: str, share: float, seed: int, epochs: int, out: Path) -> dict[str, Any]:
    """One training: last-epoch accuracy and sparsity. LATS and the dense model of each seed leave a workload."""
    started = time.process_time()
    lightning.seed_everything(seed, verbose=False)
    data = posed.data
    data.seed = seed
    task = posed.build()
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
    result = {
        "task": posed.name, "method": method, "target": share, "seed": seed, "epochs": epochs,
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "sparsity": pruning.rows[-1]["sparsity_of_pruned_layers"] if pruning else 0.0,
        "valid_accuracy": float(trainer.callback_metrics["valid_accuracy"]),
        "test_accuracy": posed.test(task.model), "test_samples": posed.n_test,
        "threshold": pruning.rows[-1]["threshold"] if pruning else None,
        "processor_s": time.process_time() - started,
    }  # fmt: skip
    if method in ("none", "lats"):
        exported = export(
            task.model, posed.example_batches(), name=posed.network,
            source={"densities": f"{posed.name}, validation samples"}, axes="TB...",
        )  # fmt: skip
        exported.workload.to_json(out / f"{method}_{share:g}_seed{seed}.workload")
    return result


def tell(results: list[dict[str, Any]], tested: str, out: Path) -> None:
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
    print(f"\n{results[0]['parameters']:,} parameters, {results[0]['epochs']} epochs, last epoch, {tested}")
    for row in rows:
        print(
            f"  {NAMES[str(row['method'])]:18s} {100 * row['sparsity']:5.1f} % zeros  {row['accuracy']:5.1f} "
            f"± {row['sd']:.1f} %  ({row['seeds']} seeds)"
        )
    draw(rows, tested, out / "pruning.svg")
    loop(results, out)


def draw(rows: list[dict[str, Any]], tested: str, path: Path) -> None:
    """Accuracy against the fraction of remaining weights, on a logarithmic axis."""
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
    axes.set_xlabel("sparsity of the weights")
    axes.set_ylabel(f"accuracy on {tested}, %")
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
        for mode in ("gating", "skipping", "compressed"):
            cost = mean_cost(workloads, mode)._asdict()
            row |= {f"{mode}_{name}": value for name, value in cost.items() if mode == "skipping" or "cyc" not in name}
        rows.append(row)
    if rows:
        write_csv(out / "chip.csv", rows)
        print(
            "\nthe pruned models on neuromc, by what it does with zeros: one training step, \u00b5J a sample and cycles"
        )
        for row in rows:
            print("  " + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
