"""Vision, as the verbs see it: pictures or event recordings of one thing each, classified."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from accel.files import read_json
from accel.interop.neurobench import neurobench_metrics
from accel.report import Section
from accel.spiking.operations import OperationCounter
from pipelines import story
from pipelines.domains import data_at
from pipelines.runs import TrainedModel
from pipelines.schema import TrainConfig
from pipelines.scores import confusion_matrix
from pipelines.tasks import ClassificationTask
from vision import figures
from vision.datamodule import Draw, FrameSet, VisionBatch, VisionDataModule
from vision.frames import PixelsConfig
from vision.models import ResNetConfig, SpikingNetConfig
from vision.samples import Samples
from vision.sources import load_pictures
from vision.training import predict as predict
from vision.training import soft_cross_entropy, spike_rates, vision_log_probabilities

SAMPLES = "samples"
COUNTED = 64  # samples on which operations are counted
AC_PJ, MAC_PJ = 0.9, 4.6  # 32-bit float, 45 nm (Horowitz, ISSCC 2014)


class VisionTask(ClassificationTask):
    """Negative log-likelihood of labels, or of the shares of classes where labels are smoothed or mixed."""

    def training_loss(self, batch: VisionBatch) -> Tensor:
        log_p = self.log_probabilities(self.model, batch)
        if batch.targets is None:
            return self.cross_entropy(log_p, batch.labels)
        return soft_cross_entropy(log_p, batch.targets)


def data_module(config: TrainConfig) -> VisionDataModule:
    return VisionDataModule(
        config.data, config.features, config.augmentation, batch_size=config.trainer.batch_size, seed=config.seed,
        num_workers=config.trainer.num_workers, cache_mb=config.trainer.cache_mb,
        smoothing=config.optimizer.label_smoothing,
    )  # fmt: skip


def build_model(config: TrainConfig, data: VisionDataModule) -> nn.Module:
    if isinstance(config.model, ResNetConfig | SpikingNetConfig) and data.splits.train.sensor is not None:
        kind = "ResNet" if isinstance(config.model, ResNetConfig) else "small spiking network"
        raise ValueError(f"a {kind} classifies pictures, not recordings of events; choose a spiking transformer")
    size = {"size": config.features.size} if isinstance(config.model, SpikingNetConfig) else {}
    model: nn.Module = config.model.build(data.n_inputs, data.n_classes, **size)
    least = model.feature_info[-1]["reduction"] if hasattr(model, "feature_info") else 1  # type: ignore[index]
    if isinstance(config.features, PixelsConfig) and config.features.size < least:
        raise ValueError(f"features.size={config.features.size} is too small for {config.name}; use at least {least}")
    return model


def task(config: TrainConfig, data: VisionDataModule, model: nn.Module) -> VisionTask:
    return VisionTask(model, data.n_classes, config.optimizer, vision_log_probabilities)


def load_weights(folder: Path) -> nn.Module:
    """A spiking transformer, a small spiking network or a ResNet; their configurations have other keys."""
    keys = read_json(folder / "config.json", "train again")
    if "blocks" in keys:
        from vision.resnet import ResNet

        return ResNet.from_pretrained(folder, strict=True)
    if "net" in keys:
        from vision.small_nets import SpikingNet

        return SpikingNet.from_pretrained(folder, strict=True)
    from vision.spiking_transformer import SpikingTransformer

    return SpikingTransformer.from_pretrained(folder, strict=True)


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
    if not spiking(model):
        return "ResNet"
    if not hasattr(model, "tokenizer"):
        return type(model.layers).__name__
    family = {"spikingformer": "Spikingformer", "cml": "Spikingformer-CML", "speds": "QKFormer"}[model.tokenizer]
    return f"MS-{family}" if family == "QKFormer" and model.residual == "ms" else family


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
            figures.confusion(confusion(log_p, samples), samples.class_names),
            *([figures.spike_rates(spike_rates(trained.model, data.valid_set))] if spiking(trained.model) else []),
            story.provenance({k: v for k, v in result.items() if k != "split_sha256"} | splits_of(result)),
        ],
    )


def splits_of(result: dict[str, Any]) -> dict[str, str]:
    return {f"split {name}, sha256": digest[:16] for name, digest in result["split_sha256"].items()}


def confusion(log_p: Tensor, samples: Samples) -> Any:
    return confusion_matrix(log_p, torch.from_numpy(samples.labels), len(samples.class_names)).numpy()


def pictures(trained: TrainedModel, shown: FrameSet, log_p: Tensor) -> Section:
    """Some test pictures with what the network said: the surest mistakes, and as many others, evenly spread."""
    said = log_p.argmax(1)
    wrong = (said != shown.labels).nonzero().flatten()
    surest = wrong[log_p[wrong].max(1).values.argsort(descending=True)][: figures.GALLERY // 2]
    right = (said == shown.labels).nonzero().flatten()
    n = figures.GALLERY - len(surest)
    some = right[torch.linspace(0, max(0, len(right) - 1), min(n, len(right))).long()] if len(right) else right
    chosen = torch.cat([some, surest])
    frames = shown[Draw(0, chosen)].frames
    names = shown.samples.class_names
    return figures.gallery(
        [trained.features.shown(f) for f in frames],
        [names[int(shown.labels[i])] for i in chosen], [names[int(said[i])] for i in chosen],
    )  # fmt: skip


def recording(shown: FrameSet, log_p: Tensor) -> Section:
    """The frames of one recording that was recognised, or of the first."""
    right = (log_p.argmax(1) == shown.labels).nonzero().flatten()
    chosen = right[:1] if len(right) else torch.tensor([0])
    name = shown.samples.class_names[int(shown.labels[chosen])]
    return figures.event_frames(shown[Draw(0, chosen)].frames[:, 0].numpy(), name)


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

The test set was scored once, at the best validation epoch ({result["best_epoch"]}). Load with `from_pretrained(FOLDER)`
of `vision.spiking_transformer.SpikingTransformer` (`vision.resnet.ResNet` for a ResNet, `vision.small_nets.SpikingNet`
for a small spiking network); `preprocessor_config.json`
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
    batch = prepared[Draw(0, torch.linspace(0, len(prepared) - 1, n).long())].frames
    trained.model.eval()
    with torch.inference_mode(), OperationCounter(trained.model) as counter:
        trained.model(batch)
    scores = {"neurobench": neurobench_metrics(trained.model, counter, n)}
    if not spiking(trained.model):
        macs = sum(layer.dense for layer in counter.connections.values()) / n
        return {**scores, "energy": {"ac": 0.0, "mac": macs, "energy_pj": MAC_PJ * macs, "mac_pj": MAC_PJ}}
    if not hasattr(trained.model, "tokenizer"):
        layers = counter.connections.values()
        ac, mac = sum(layer.ac for layer in layers) / n, sum(layer.mac for layer in layers) / n
        prices = {"ac_pj": AC_PJ, "mac_pj": MAC_PJ}
        return {**scores, "energy": {"ac": ac, "mac": mac, "energy_pj": AC_PJ * ac + MAC_PJ * mac, **prices}}
    from vision.energy import count_operations

    counted = count_operations(trained.model, [batch]).as_dict()
    exact, formula = counted.pop("exact"), counted.pop("formula")
    return {**scores, "energy": {**counted, **exact, "formula": formula}}


def tell(scores: dict[str, Any]) -> None:
    """What an inference spends, and what is not spike-driven in it."""
    metrics, energy = scores["neurobench"], scores["energy"]
    print(
        f"Footprint            {metrics['Footprint']:,} bytes, {metrics['ParameterCount']:,} parameters\n"
        f"SynapticOperations   {energy['ac']:,.0f} ACs, {energy['mac']:,.0f} MACs a sample\n"
        f"energy               {energy['energy_pj'] * 1e-9:.4f} mJ a sample"
    )


def example_batches(
    trained: TrainedModel, config: TrainConfig, n_batches: int, batch_size: int
) -> tuple[list[Tensor], str]:
    if n_batches < 1 or batch_size < 2:
        raise ValueError(f"got batches={n_batches} of batch_size={batch_size}; use at least 1 of 2")
    if not spiking(trained.model):
        raise ValueError("a ResNet has no spikes and no steps to export; give a run of a spiking network")
    prepared = FrameSet(config.data.build().valid, trained.features)
    batches = spread_batches(prepared, trained.model.T, n_batches, batch_size)
    n, size = len(batches), batches[0].shape[1]
    return batches, f"{n} batches of {size} validation samples"


def spread_batches(prepared: FrameSet, T: int, n_batches: int, batch_size: int) -> list[Tensor]:
    """Up to `n_batches` [T, B, C, H, W], evenly spread over a set, which may lie sorted by class."""
    size = min(batch_size, len(prepared))
    n = min(n_batches, len(prepared) // size)
    order = torch.linspace(0, len(prepared) - 1, n * size).long()
    batches = [prepared[Draw(0, order[i::n])].frames for i in range(n)]
    if batches[0].dim() == 4:  # an exported program takes time first: a picture is shown T times
        batches = [batch.expand(T, *batch.shape).contiguous() for batch in batches]
    return batches
