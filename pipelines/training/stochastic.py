"""Training and evaluation of networks that learn binary-stochastically, without a gradient for an optimiser.

    pictures in [0, 1] -> one epoch after the other -> the test set once, after the last -> run folder and report

Nothing is chosen on validation samples, so they train too.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Generator, Tensor

from spikeloom.accel.common.batches import BatchIndex
from spikeloom.accel.common.files import contents, read_object, require_number, whole, write_csv, write_json
from spikeloom.accel.common.report import Section, Table, render, results_come_first
from spikeloom.accel.common.statistics import one_run_a_seed, spread
from spikeloom.accel.learning.stochastic import charts as figures
from spikeloom.accel.learning.stochastic.arrays import MemristorSynapses
from spikeloom.accel.learning.stochastic.devices import Device
from spikeloom.accel.learning.stochastic.energy import EnergyConstants, inference_counts, itemise, training_counts
from spikeloom.accel.learning.stochastic.files import load_checkpoint, load_network, save_checkpoint, save_network
from spikeloom.accel.learning.stochastic.network import StochasticConfig, StochasticNetwork, accuracies, train_epoch
from spikeloom.accel.learning.stochastic.synapses import Changed, RealSynapses, Synapses
from spikeloom.pipelines.config.evaluate import EvaluateConfig
from spikeloom.pipelines.config.train import TrainConfig, TrainerConfig, check_kinds
from spikeloom.pipelines.domains import domain_of
from spikeloom.pipelines.training.claim import claim
from spikeloom.pipelines.training.evaluation import choose
from spikeloom.pipelines.training.run_dir import read_yaml
from spikeloom.pipelines.training.runtime import on_terminal, set_up
from spikeloom.vision.datamodule import FrameSet
from spikeloom.vision.datasets.samples import Samples, joined

log = logging.getLogger("spikeloom")
READ_AT_ONCE = 1000
KEYS_OF_LIGHTNING = (
    "accelerator", "devices", "num_nodes", "strategy", "strategy_args", "num_workers", "accumulate",
    "gradient_clip_val", "ema_decay", "precision", "max_steps", "limit_train_batches", "limit_val_batches",
    "deterministic", "profiler", "val_check_interval", "sync_batchnorm", "compile", "fast_dev_run", "ckpt_path",
    "cache_mb",
)  # fmt: skip


def train(config: TrainConfig) -> dict[str, Any]:
    """Train into `config.run` and return its result.json. Raises ValueError for keys that need a gradient."""
    check_kinds(config)
    refuse(config)
    config = replace(config, model=with_device(config.model))
    set_up(config.trainer.threads)
    with claim(config, may_grow=("trainer.epochs",)) as finished:
        return finished if finished is not None else learn(config)


def refuse(config: TrainConfig) -> None:
    """Raise ValueError, with the key, for what a rule without gradients and Lightning cannot honour."""
    if config.pruning.kind != "none":
        raise ValueError(f"pruning={config.pruning.kind} needs gradients, which this model lacks; use pruning=none")
    plain = TrainerConfig()
    for name in KEYS_OF_LIGHTNING:
        if (given := getattr(config.trainer, name)) != getattr(plain, name):
            raise ValueError(
                f"trainer.{name}={given} is for models that learn by gradients; leave it out for model.kind=stochastic"
            )
    for name in ("logger", "callbacks"):
        if chosen := getattr(config, name):
            raise ValueError(f"{name}={','.join(chosen)} is for models that learn by gradients; leave it out")
    if config.pretrained is not None and config.model.weights != "real":
        raise ValueError(
            f"pretrained={config.pretrained} gives real weights, model.weights={config.model.weights} are none; leave "
            "one of them out"
        )
    if config.optimizer.label_smoothing:
        raise ValueError("optimizer.label_smoothing is for models that learn by gradients; leave it out")


def with_device(model: StochasticConfig) -> StochasticConfig:
    """`model` with the values of the device that weights=FILE.yaml names, so that a run needs the file no more."""
    if not model.weights.endswith((".yaml", ".yml")):
        return model
    path = Path(model.weights)
    values = OmegaConf.to_container(read_yaml(path, "`spikeloom data devices` writes a device"))
    device = Device.from_values(values, str(path))
    return replace(model, weights=device.name, device=asdict(device))


def inherit(pretrained: str, network: StochasticNetwork, synapses: list[Synapses]) -> None:
    """Weights and biases of a trained network of real weights, and of the same layers, in place of the fresh ones."""
    folder = Path(pretrained) / "model" if (Path(pretrained) / "model").is_dir() else Path(pretrained)
    theirs, weights, _ = load_network(folder)
    real = [of_layer for of_layer in weights if isinstance(of_layer, RealSynapses)]
    if theirs.layers != network.layers or len(real) != len(weights):
        raise ValueError(
            f"pretrained={pretrained} has other layers, or weights that are not real; give a run of the same "
            "model.network on the same data with model.weights=real"
        )
    for fresh, of_layer in zip(synapses, real, strict=True):
        for name in ("weight", "bias"):
            fresh.tensors()[name].copy_(of_layer.tensors()[name])
    log.info("%d layers start from %s", len(real), pretrained)


def learn(config: TrainConfig) -> dict[str, Any]:
    """One epoch after the other, then the test set once."""
    run, started = Path(config.run), time.perf_counter()
    constants = load_constants(config.model.energy)
    splits = config.data.build()
    pixels, labels = pictures(joined([splits.train, splits.valid]), config)
    class_names, batch_size = splits.train.class_names, config.trainer.batch_size
    generator = Generator().manual_seed(config.seed)
    network = config.model.build(tuple(pixels.shape[1:]), len(class_names))
    synapses = config.model.synapses(network, batch_size, generator)
    if config.pretrained is not None:
        inherit(config.pretrained, network, synapses)

    last = run / "checkpoints" / "last.safetensors"
    history = load_checkpoint(last, synapses, generator) if config.resume and last.exists() else []
    for epoch in _watched(range(len(history), config.trainer.epochs)):
        done = train_epoch(network, synapses, pixels, labels, batch_size, generator)
        history.append({
            "epoch": epoch + 1, "train_loss": done.loss, "pulses_up": done.changed.pulses_up,
            "pulses_down": done.changed.pulses_down,
            "pulses_per_synapse": (done.changed.pulses_up + done.changed.pulses_down) / network.parameters,
            "samples": done.samples, "steps": done.steps,
        })  # fmt: skip
        save_checkpoint(last, synapses, generator, history)
        write_csv(run / "metrics.csv", history)
        if not on_terminal():
            row = history[-1]
            pulses = row["pulses_per_synapse"]  # of devices; weights that are numbers get none
            print(
                f"epoch {row['epoch']:3d}/{config.trainer.epochs}  train loss {row['train_loss']:.3f}"
                + (f"  {pulses:.3g} pulses a synapse" if pulses else ""), flush=True,
            )  # fmt: skip

    test_pixels, test_labels = pictures(splits.test, config)  # first read here, after the last epoch
    found = accuracies(network, synapses, test_pixels, test_labels, config.model.repeats, generator)
    changed = Changed(sum(r["pulses_up"] for r in history), sum(r["pulses_down"] for r in history))
    seen, steps = sum(r["samples"] for r in history), sum(r["steps"] for r in history)
    result = {
        "name": config.name, "seed": config.seed, "network": config.model.network, "weights": config.model.weights,
        "policy": config.model.policy.name, "activation": config.model.activation.name,
        "slope": config.model.activation.slope, "epochs": len(history), "train_images": len(labels),
        "test_images": len(test_labels), "synapses": network.parameters, "test_accuracy": found["hp"], **found,
        "pulses_up": changed.pulses_up, "pulses_down": changed.pulses_down,
        "pulses_per_synapse_first_epoch": history[0]["pulses_per_synapse"],
        "pulses_per_synapse_last_epoch": history[-1]["pulses_per_synapse"],
        "saturated": saturation(synapses), "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    with whole(run / "model") as partial:
        partial.mkdir(parents=True)
        save_network(partial, config.model, pixels.shape[1:], class_names, batch_size, synapses)
        (partial / "README.md").write_text(model_card(result), encoding="utf-8")
    with results_come_first(run / "report.html"):  # before result.json: a page cannot be drawn from that alone
        tell(run, network, synapses, history, found, result, constants, changed, seen, steps, max(config.model.repeats))
    write_json(run / "result.json", result)
    log.info("test accuracy after epoch %d: %s -> %s", len(history), in_words(found), run)
    return result


def evaluate(config: EvaluateConfig, trained_with: TrainConfig) -> dict[str, Any]:
    """Every kind of inference of a trained network on a split or another folder; writes JSON."""
    network, synapses, class_names = load_network(Path(config.run) / "model")
    samples: Samples = choose(domain_of(trained_with.data), trained_with, config)
    pixels, labels = pictures(samples, trained_with)
    if samples.class_names != class_names:
        raise ValueError(f"the model knows {', '.join(class_names)}, the data hold {', '.join(samples.class_names)}")
    repeats = trained_with.model.repeats
    generator = Generator().manual_seed(trained_with.seed)
    found = accuracies(network, synapses, pixels, labels, repeats, generator)
    constants = load_constants(trained_with.model.energy)
    priced = itemise(inference_counts(network.layers, stochastic=True, repeats=max(repeats)), constants)
    out = Path(config.out) if config.out else Path(config.run) / "evaluation.json"
    written = {
        "run": config.run, "split": config.split, "root": config.data.root,
        "accuracy": found["hp"], "images": len(labels),
        "class_names": list(class_names), "accuracy_by_inference": found, "repeats_priced": max(repeats),
        "energy_pj": priced,
    }  # fmt: skip
    write_json(out, written)
    log.info("%s on %d images (%s) -> %s", in_words(found), len(labels), config.split, out)
    return written


def print_energy(priced: dict[str, dict[str, float]]) -> None:
    """A line for each system, with the energy of an inference and its parts."""
    for system, items in priced.items():
        parts = ", ".join(f"{name} {value / 1e3:.3g}" for name, value in items.items() if name != "total")
        print(f"{system:11s} {items['total'] / 1e3:10.3g} nJ an inference: {parts}")


def pictures(samples: Samples, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Pixels [n, C, H, W] in [0, 1] and labels [n]. Raises ValueError where the features do not leave them there."""
    frames = FrameSet(samples, config.features)
    parts = [frames[BatchIndex(0, ids)].frames for ids in torch.arange(len(frames)).split(READ_AT_ONCE)]
    pixels = torch.cat(parts)
    if pixels.dim() != 4 or pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(
            f"pixels reach from {float(pixels.min()):.2f} to {float(pixels.max()):.2f}; a probability lies in [0, 1]: "
            "use pictures with features.mean=[0] and features.std=[1]"
        )
    return pixels, frames.labels


def load_constants(name: str) -> EnergyConstants:
    """A preset of conf/constants by name, or a file of your own."""
    preset = resources.files("spikeloom.conf") / "constants" / f"{name}.yaml"
    if preset.is_file():
        with resources.as_file(preset) as path:
            return EnergyConstants.from_yaml(path)
    if not Path(name).is_file():
        raise ValueError(f"model.energy={name} is neither a preset (stochastic) nor a file of constants; give either")
    return EnergyConstants.from_yaml(Path(name))


def saturation(synapses: Iterable[Synapses]) -> float | None:
    """Mean over the layers of the share of devices at a bound; None without memristors."""
    shares = [s.saturated() for s in synapses if isinstance(s, MemristorSynapses)]
    return mean(shares) if shares else None


def in_words(found: dict[str, float]) -> str:
    return ", ".join(f"{title_of(kind)} {100 * value:.2f} %" for kind, value in found.items())


def title_of(kind: str) -> str:
    """A way of inference in words."""
    known = {"hp": "deterministic", "binary": "thresholded", "stochastic_1": "1 Bernoulli sample"}
    return known.get(kind) or f"{kind.removeprefix('stochastic_')} Bernoulli samples"


def tell(
    run: Path, network: StochasticNetwork, synapses: list[Synapses], history: list[dict[str, Any]],
    found: dict[str, float], result: dict[str, Any], constants: EnergyConstants, changed: Changed, seen: int,
    steps: int, repeats: int,
) -> None:  # fmt: skip
    """report.html of a run."""
    inference_pj = itemise(inference_counts(network.layers, stochastic=True, repeats=repeats), constants)
    once = itemise(inference_counts(network.layers, stochastic=False), constants)
    inference_pj |= {"digital": once["digital"], "analog": once["analog"]}
    pulses = changed.pulses_up + changed.pulses_down
    whole_run = itemise(training_counts(network.layers, network.policy, seen, pulses, steps), constants)
    training_pj = {system: {k: v / seen for k, v in items.items()} for system, items in whole_run.items()}
    rows = [
        [key.replace("_", " "), "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)]
        for key, value in result.items()
    ]
    parts = [
        figures.learning(history), figures.inference(found, result["test_images"]), figures.devices(synapses),
        figures.levels(synapses), *figures.energy(inference_pj, training_pj, repeats, constants),
        Section("What was run", "Everything needed to run this again.", table=Table(["setting", "value"], rows)),
    ]  # fmt: skip
    render(
        f"{result['name']}: binary-stochastic learning with {result['weights']} weights",
        f"A network of {result['synapses']:,} synapses whose signals, derivatives and errors are {network.policy.name} "
        "(forward, error, derivative; S: single sampled bits, HP: high precision). Scored once, after the last epoch.",
        [part for part in parts if part is not None], run / "report.html",
        {
            f"test accuracy, {title_of(kind)}" if kind == "hp" else title_of(kind): f"{100 * value:.2f} %"
            for kind, value in found.items()
        },
    )  # fmt: skip


def model_card(result: dict[str, Any]) -> str:
    """README.md of the model folder."""
    kinds = [k for k in result if k in ("hp", "binary") or k.startswith("stochastic_")]
    rows = "\n".join(f"| {k.replace('_', ' × ')} | {100 * result[k]:.2f} % |" for k in kinds)
    return f"""---
library_name: spikeloom
tags: [binary-stochastic, memristor]
---
# Binary-stochastic network, {result["synapses"]:,} synapses, {result["weights"]} weights

Policy (forward, error, derivative): {result["policy"]}; {result["epochs"]} epochs on {result["train_images"]:,} images.

| inference | test accuracy, {result["test_images"]:,} images, one seed ({result["seed"]}), last epoch |
|---|---|
{rows}

Load with `accel.learning.stochastic.files.load_network(FOLDER)`. Limits: device models are fits from the literature,
and energies are counts times constants, not measurements.
"""


def print_variants(folder: Path, name: str) -> None:
    """Every finished variant in `folder`, any depth: mean and sd over its seeds."""
    groups: dict[tuple[str, ...], list[tuple[int, str, dict[str, Any]]]] = {}  # variant -> (seed, run, result)
    again = "train this run again"
    for path in sorted(folder.rglob("result.json")):
        result = read_object(path, again)
        if result.get("name") == name and "policy" in result:
            with contents(path, again):
                key = tuple(str(result[k]) for k in ("network", "weights", "policy", "activation", "slope", "epochs"))
                run = (int(result["seed"]), str(path.parent.relative_to(folder)), result)
            for scored in (k for k in result if k in ("hp", "binary") or k.startswith("stochastic_")):
                require_number(path, scored, result[scored], again)
            groups.setdefault(key, []).append(run)
    if sum(map(len, groups.values())) < 2:
        return  # the run has printed its figures
    kinds = list(dict.fromkeys(
        k for runs in groups.values() for *_, r in runs for k in r
        if k in ("hp", "binary") or k.startswith("stochastic_")
    ))  # fmt: skip
    heads = " ".join(f"{k.replace('stochastic_', 'samples '):>14s}" for k in kinds)
    print(f"\n{name}: test accuracy in percent after the last epoch, mean ± sd over seeds")
    print(f"  {'network':8s} {'weights':9s} {'F,E,D':9s} {'curve':15s} {'a':>4s} {'epochs':>6s} {'seeds':>5s} {heads}")
    for key, found in groups.items():
        runs, duplicates = one_run_a_seed(found)
        for note in duplicates:
            print(f"  {note}")
        cells = " ".join(f"{spread([100 * r[k] for r in runs if k in r]):>14s}" for k in kinds)
        network, weights, policy, curve, slope, epochs = key
        print(f"  {network:8s} {weights:9s} {policy:9s} {curve:15s} {slope:>4s} {epochs:>6s} {len(runs):5d} {cells}")


def _watched(epochs: range) -> Iterable[int]:
    if not on_terminal():
        return epochs
    from rich.progress import track

    return track(epochs, description="epochs")
