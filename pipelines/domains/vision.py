"""Vision, as the verbs see it: pictures or event recordings of one thing each, classified."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeloom.accel.analysis.energy import Operations
from spikeloom.accel.common import charts
from spikeloom.accel.common.batches import BatchIndex, evenly_spread
from spikeloom.accel.common.datamodule import DataSpec
from spikeloom.accel.common.report import Section
from spikeloom.accel.common.statistics import confusion_matrix
from spikeloom.accel.common.units import energy_text
from spikeloom.accel.interop.neurobench import neurobench_metrics
from spikeloom.pipelines.config.audit import AuditConfig
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.domains import data_at
from spikeloom.pipelines.reports import training as story
from spikeloom.pipelines.reports.seeds import print_seeds
from spikeloom.pipelines.training.classification import report as report
from spikeloom.pipelines.training.classification import train as train
from spikeloom.pipelines.training.evaluation import evaluate as evaluate
from spikeloom.pipelines.training.run_dir import TrainedModel, load_model
from spikeloom.vision import charts as figures
from spikeloom.vision.datamodule import FrameSet, VisionDataModule
from spikeloom.vision.datasets.samples import Samples
from spikeloom.vision.datasets.sources import load_pictures
from spikeloom.vision.energy import count_operations
from spikeloom.vision.models.config import ConvNetConfig, ResNetConfig, SpikingNetConfig
from spikeloom.vision.models.maps import shown_layers, spike_maps
from spikeloom.vision.models.prediction import predict as predict
from spikeloom.vision.models.prediction import spike_rates, vision_log_probabilities
from spikeloom.vision.transforms.frames import PixelsConfig

log_probabilities, print_table = vision_log_probabilities, print_seeds
SAMPLES = "samples"
COUNTED = 64  # samples on which operations are counted
SHOWN_MAPS, SHOWN_LAYERS = 4, 7  # samples and layers of the maps of a report


def data_module(config: TrainConfig) -> VisionDataModule:
    return VisionDataModule(
        config.data, config.features, config.augmentation, batch_size=config.trainer.batch_size, seed=config.seed,
        num_workers=config.trainer.num_workers, cache_mb=config.trainer.cache_mb,
        smoothing=config.optimizer.label_smoothing,
    )  # fmt: skip


def build_model(config: TrainConfig, data: DataSpec) -> nn.Module:
    pictures_only = isinstance(config.model, ResNetConfig | ConvNetConfig | SpikingNetConfig)
    if pictures_only and data.events:
        kind = "small spiking network" if isinstance(config.model, SpikingNetConfig) else "network without spikes"
        raise ValueError(
            f"a {kind} classifies pictures, not recordings of events; choose a spiking transformer or a SEW-ResNet"
        )
    size = {"size": config.features.size} if isinstance(config.model, SpikingNetConfig) else {}
    model: nn.Module = config.model.build(data.n_inputs, data.n_classes, **size)
    least = model.feature_info[-1]["reduction"] if hasattr(model, "feature_info") else 1  # type: ignore[index]
    if isinstance(config.features, PixelsConfig) and config.features.size < least:
        raise ValueError(f"features.size={config.features.size} is too small for {config.name}; use at least {least}")
    return model


def load_weights(folder: Path) -> nn.Module:
    """Any of the networks of this domain; their configurations have other keys."""
    from spikeloom.vision.models.load import load_model as load

    model: nn.Module = load(folder)
    return model


def origins(data: VisionDataModule) -> dict[str, Any]:
    """How many samples each set has, what splits they are, and how often the test set was scored."""
    splits = data.splits
    return {
        "train_samples": len(splits.train),
        "valid_samples": len(splits.valid),
        "split_sha256": {name: samples.digest() for name, samples in splits._asdict().items()},
        "test_evaluations": data.test_set.times_scored,
    }


def tested_on(result: dict[str, Any]) -> str:
    return "the test set"


def spiking(model: Any) -> bool:
    """Whether it is a spiking network rather than a ResNet."""
    return hasattr(model, "T")


def named(model: Any) -> str:
    """What the model is, for people."""
    if hasattr(model, "tokenizer"):
        family = {
            "spikingformer": "Spikingformer", "cml": "Spikingformer-CML", "speds": "QKFormer", "max": "Max-Former",
        }[model.tokenizer]  # fmt: skip
        return f"MS-{family}" if family == "QKFormer" and model.residual == "ms" else family
    if hasattr(model, "form"):
        return "SEW-ResNet" if model.form == "sew" else "spiking ResNet"
    return type(model.layers).__name__ if spiking(model) else type(model).__name__


def page(
    run: Path, trained: TrainedModel, data: VisionDataModule, result: dict[str, Any], log_p: Tensor
) -> tuple[str, str, Sequence[Section]]:
    shown, samples = data.test_set, data.splits.test
    return (
        f"{result['name']}: {named(trained.model)} with {result['parameters']:,} parameters",
        f"Trained on {result['train_samples']:,} samples of {data.n_classes} classes. Another "
        f"{result['valid_samples']:,}, taken from the published training set, chose the epoch; the test set of "
        f"{len(samples):,} was scored once, afterwards.",
        [
            pictures(trained, shown, log_p) if isinstance(trained.features, PixelsConfig) else recording(shown, log_p),
            story.learning(run, result["best_epoch"], "samples"),
            charts.confusion(confusion(log_p, samples), samples.class_names),
            *([charts.spike_rates(spike_rates(trained.model, data.valid_set))] if spiking(trained.model) else []),
            *places(trained, shown),
            story.provenance({k: v for k, v in result.items() if k != "split_sha256"} | splits_of(result)),
        ],
    )


def splits_of(result: dict[str, Any]) -> dict[str, str]:
    return {f"split {name}, sha256": digest[:16] for name, digest in result["split_sha256"].items()}


def confusion(log_p: Tensor, samples: Samples) -> Any:
    return confusion_matrix(log_p, torch.from_numpy(samples.labels), len(samples.class_names)).numpy()


def pictures(trained: TrainedModel, shown: FrameSet, log_p: Tensor) -> Section:
    """Some test pictures with its predictions: the most confident mistakes, and as many others, evenly spread."""
    said = log_p.argmax(1)
    wrong = (said != shown.labels).nonzero().flatten()
    surest = wrong[log_p[wrong].max(1).values.argsort(descending=True)][: figures.GALLERY // 2]
    right = (said == shown.labels).nonzero().flatten()
    n = figures.GALLERY - len(surest)
    some = right[torch.linspace(0, max(0, len(right) - 1), min(n, len(right))).long()] if len(right) else right
    chosen = torch.cat([some, surest])
    frames = shown[BatchIndex(0, chosen)].frames
    names = shown.samples.class_names
    return figures.gallery(
        [trained.features.shown(f) for f in frames],
        [names[int(shown.labels[i])] for i in chosen], [names[int(said[i])] for i in chosen],
    )  # fmt: skip


def places(trained: TrainedModel, shown: FrameSet) -> list[Section]:
    """Where the neurons fire for a few test samples; nothing for a model whose layers have no places."""
    ids = evenly_spread(len(shown), SHOWN_MAPS)
    frames = shown[BatchIndex(0, ids)].frames
    found = shown_layers(spike_maps(trained.model, frames), SHOWN_LAYERS)
    if not found:
        return []
    if isinstance(trained.features, PixelsConfig):
        inputs = [trained.features.shown(picture) for picture in frames]
    else:  # all events of a recording
        counts = frames.sum((0, 2))
        inputs = list((counts / counts.amax((1, 2), keepdim=True).clamp(min=1)).numpy())
    names = shown.samples.class_names
    return [figures.spike_maps(inputs, [names[int(shown.labels[i])] for i in ids], found)]


def recording(shown: FrameSet, log_p: Tensor) -> Section:
    """The frames of one recording that was recognised, or of the first."""
    right = (log_p.argmax(1) == shown.labels).nonzero().flatten()
    chosen = right[:1] if len(right) else torch.tensor([0])
    name = shown.samples.class_names[int(shown.labels[chosen])]
    return figures.event_frames(shown[BatchIndex(0, chosen)].frames[:, 0].numpy(), name)


def model_card(result: dict[str, Any], data: VisionDataModule) -> str:
    """README.md of a model folder: what it is, what it was trained on, how well it does, where it stops."""
    what = "event recordings" if data.splits.train.sensor else "pictures"
    return f"""---
library_name: spikeloom
tags: [spiking, vision, image-classification]
---
# {result["name"]}, {result["parameters"]:,} parameters

Classifies {what} into {data.n_classes} classes ({", ".join(data.class_names[:20])}\
{", …" if data.n_classes > 20 else ""}).

| | accuracy and origin |
|---|---|
| data | {result["name"]}, {result["train_samples"]:,} training samples |
| validation | {100 * result["valid_accuracy"]:.1f} % ({result["valid_samples"]:,} of the published training set) |
| test | {100 * result["test_accuracy"]:.1f} % ({result["test_samples"]:,} samples) |
| seed | {result["seed"]}, one run |

The test set was scored once, at the best validation epoch ({result["best_epoch"]}). Load with
`spikeloom.vision.models.load.load_model(FOLDER)`; `preprocessor_config.json`
holds sizes and normalisation. Limits: one seed, the views and recording conditions of its data, one thing a sample.
"""


# --- evaluate and export --------------------------------------------------------------------------------------------


def choose(trained_with: TrainConfig, split: str, root: str | None) -> Samples:
    if root is not None and isinstance(trained_with.features, PixelsConfig):
        return load_pictures(Path(root))
    source = data_at(trained_with.data, root)
    if split == "all":
        everything: Samples = source.load()
        return everything
    chosen: Samples = getattr(source.build(), split)
    return chosen


def prepare(trained: TrainedModel, samples: Samples) -> FrameSet:
    return FrameSet(samples, trained.features)


def measure(trained: TrainedModel, samples: Samples, prepared: FrameSet) -> dict[str, Any]:
    """NeuroBench's metrics, operations and energy of an inference, over the first samples."""
    n = min(COUNTED, len(prepared))
    batch = prepared[BatchIndex(0, torch.linspace(0, len(prepared) - 1, n).long())].frames
    counts = count_operations(trained.model, [batch])
    return {"neurobench": neurobench_metrics(trained.model, counts.counter, n), "energy": counts.as_dict()}


def print_summary(scores: dict[str, Any]) -> None:
    """What an inference spends, and what is not spike-driven in it."""
    metrics, energy = scores["neurobench"], scores["energy"]
    print(
        f"Footprint            {metrics['Footprint']:,} bytes, {metrics['ParameterCount']:,} parameters\n"
        f"SynapticOperations   {energy['ac']:,.0f} ACs, {energy['mac']:,.0f} MACs a sample\n"
        f"energy               {energy_text(energy['energy_pj'])} a sample, membrane updates "
        f"{energy_text(energy['membrane_energy_pj'])} beside it; memory is left out"
    )


def example_batches(
    trained: TrainedModel, config: TrainConfig, n_batches: int, batch_size: int
) -> tuple[list[Tensor], str]:
    if n_batches < 1 or batch_size < 2:
        raise ValueError(f"got batches={n_batches} of batch_size={batch_size}; use at least 1 of 2")
    if not spiking(trained.model):
        raise ValueError("a network without spikes has no steps to export; give a run of a spiking network")
    prepared = FrameSet(config.data.build().valid, trained.features)
    batches = spread_batches(prepared, trained.model.T, n_batches, batch_size)
    n, size = len(batches), batches[0].shape[1]
    return batches, f"{n} batches of {size} validation samples"


def spread_batches(prepared: FrameSet, T: int, n_batches: int, batch_size: int) -> list[Tensor]:
    """Up to `n_batches` [T, B, C, H, W], evenly spread over a set, which may lie sorted by class."""
    size = min(batch_size, len(prepared))
    n = min(n_batches, len(prepared) // size)
    order = torch.linspace(0, len(prepared) - 1, n * size).long()
    batches = [prepared[BatchIndex(0, order[i::n])].frames for i in range(n)]
    if batches[0].dim() == 4:  # an exported program takes time first: a picture is shown T times
        batches = [batch.expand(T, *batch.shape).contiguous() for batch in batches]
    return batches


def audit(trained_with: TrainConfig, config: AuditConfig) -> tuple[Operations, str]:
    """Validation samples, spread over a set that may lie sorted by class."""
    trained = load_model(Path(config.run) / "model")
    samples = prepare(trained, trained_with.data.build().valid)
    rows = evenly_spread(len(samples), config.batches * config.batch_size)
    batches = (still(samples[BatchIndex(0, ids)].frames) for ids in rows.split(config.batch_size))
    found = count_operations(trained.model, batches, count_encoder_once=config.count_encoder_once)
    return found, f"{found.samples} validation samples"


def still(frames: Tensor) -> Tensor:
    """A picture [B, C, H, W] where frames [T, B, C, H, W] show the same one at every step, else the frames."""
    return frames[0] if frames.dim() == 5 and bool((frames == frames[:1]).all()) else frames
