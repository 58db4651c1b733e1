"""Speech, as the verbs see it: words spoken one a clip, recognised by a SpikeSCR or a network beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeloom.accel.analysis.energy import Operations
from spikeloom.accel.common.batches import BatchIndex
from spikeloom.accel.common.changes import changes
from spikeloom.accel.common.datamodule import DataSpec
from spikeloom.accel.common.report import Section
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
from spikeloom.pipelines.training.run_dir import TrainedModel
from spikeloom.pipelines.training.run_dir import load_model as trained_in
from spikeloom.speech.batches import FeatureSet, featurise
from spikeloom.speech.datamodule import SpeechDataModule
from spikeloom.speech.datasets.clips import Clips
from spikeloom.speech.datasets.folders import has_audio, is_audio, word_folders
from spikeloom.speech.energy import count_operations
from spikeloom.speech.models.loading import load_model
from spikeloom.speech.models.prediction import predict as predict
from spikeloom.speech.models.prediction import speech_log_probabilities

log_probabilities, print_table = speech_log_probabilities, print_seeds
SAMPLES = "clips"
DIGITS, WORDS, SPIKES = "files named DIGIT_SPEAKER_INDEX", "a folder of recordings for each word", "spikes in HDF5"
LAYOUT_OF = {"fsdd": DIGITS, "gsc": WORDS, "words": WORDS, "shd": SPIKES, "ssc": SPIKES, "spikes": SPIKES}
LOOKED_AT = 8  # clips for each one on which densities are measured


def data_module(config: TrainConfig) -> SpeechDataModule:
    return SpeechDataModule(
        config.data, config.features, config.augmentation, batch_size=config.trainer.batch_size, seed=config.seed,
        num_workers=config.trainer.num_workers, cache_mb=config.trainer.cache_mb,
    )  # fmt: skip


def build_model(config: TrainConfig, data: DataSpec) -> nn.Module:
    model: nn.Module = config.model.build(data.n_inputs, data.n_classes)
    return model


def load_weights(folder: Path) -> nn.Module:
    return load_model(folder)


def origins(data: SpeechDataModule) -> dict[str, Any]:
    return {
        "test_speakers": data.splits.test.speaker_names(),
        "valid_speakers": data.splits.valid.speaker_names(),
        "train_speakers": data.splits.train.speaker_names(),
    }


def tested_on(result: dict[str, Any]) -> str:
    return story.people(result["test_speakers"])


def page(
    run: Path, trained: TrainedModel, data: SpeechDataModule, result: dict[str, Any], log_p: Tensor
) -> tuple[str, str, Sequence[Section]]:
    return (
        f"{result['name']}: {title(trained.model)} with {result['parameters']:,} parameters",
        f"Trained on {story.people(result['train_speakers'])}; the epoch was chosen on "
        f"{story.people(result['valid_speakers'])}; "
        f"tested once on {story.people(result['test_speakers'])}, {heard_before(result)}.",
        [
            *story.hearing(trained, data.splits.test, data.test_set),
            story.learning(run, result["best_epoch"]),
            *story.recognising(trained, data.test_set),
            story.provenance(result),
        ],
    )


def title(model: Any) -> str:
    """What a model is, for people."""
    return str(getattr(model, "title", type(model).__name__))


def model_card(result: dict[str, Any], data: SpeechDataModule) -> str:
    """README.md of a model folder: what it is, what it was trained on, how well it does, where it stops."""
    heard = set(result["valid_speakers"]) & set(result["train_speakers"])
    validation = "The validation clips are of voices that also train." if heard else ""
    return f"""---
library_name: spikeloom
tags: [keyword-spotting]
---
# {result["name"]}, {result["parameters"]:,} parameters

Recognises {data.n_classes} words ({", ".join(data.class_names)}), one a clip.

| | accuracy and origin |
|---|---|
| data | {result["name"]}, {len(data.splits.train)} training clips of {len(result["train_speakers"])} speakers |
| validation | {100 * result["valid_accuracy"]:.1f} % ({story.people(result["valid_speakers"])}) |
| test | {100 * result["test_accuracy"]:.1f} % ({story.people(result["test_speakers"])}, {result["test_clips"]} clips) |
| seed | {result["seed"]}, one run |

The test clips were scored once, at the best validation epoch: {story.people(result["test_speakers"])}, \
{heard_before(result)}. {validation}
Load with `spikeloom.load(RUN)` or `spikeloom.speech.models.loading.load_model(FOLDER)`; `preprocessor_config.json`
holds the front end.
Limits: one seed, the recording conditions of its data, a single word in each clip.
"""


def heard_before(result: dict[str, Any]) -> str:
    """Whether the test speakers are in the training set, as the end of a sentence about them."""
    heard = set(result["test_speakers"]) & set(result["train_speakers"])
    if not heard:
        return "not in the training set"
    return f"of whom {len(heard)} (a published split) also train"


def choose(trained_with: TrainConfig, split: str, root: str | None) -> Clips[Any]:
    source = data_at(trained_with.data, root)
    if split == "all":
        return load_all(source)
    chosen: Clips[Any] = getattr(source.build(), split)
    return chosen


def load_all(source: Any) -> Clips[Any]:
    """Every clip of a source. Raises ValueError where its folder is laid out for a source of another kind."""
    try:
        everything: Clips[Any] = source.load()
    except (ValueError, OSError) as error:
        found, needed = layout(Path(source.root)) if hasattr(source, "root") else None, LAYOUT_OF.get(source.source)
        if found is None or found == needed:
            raise
        raise ValueError(
            f"data.root={source.root} holds {found}, but a model of {source.source} data is scored on {needed}; "
            f"give such a folder, or run= of a model trained on {found}"
        ) from error
    return everything


def layout(root: Path) -> str | None:
    """What kind of recordings lie at `root`, judged by names alone; None when there are none we know."""
    if root.suffix == ".h5" or any(root.glob("*.h5")):
        return SPIKES
    if not root.is_dir():
        return None
    for folder in (root, root / "recordings"):
        if folder.is_dir() and any(is_audio(file) for file in folder.glob("[0-9]_*_*")):
            return DIGITS
    return WORDS if any(has_audio(folder) for folder in word_folders(root)) else None


def prepare(trained: TrainedModel, clips: Clips[Any]) -> FeatureSet:
    return featurise(clips, trained.features.build())


def measure(trained: TrainedModel, clips: Clips[Any], features: FeatureSet) -> dict[str, Any]:
    """Speakers, NeuroBench's metrics, operations and energy."""
    counts = count_operations(trained.model, features)
    return {
        "speakers": clips.speaker_names(),
        "changes": changes.summary(),
        "neurobench": neurobench_metrics(trained.model, counts.counter, counts.samples),
        "energy": counts.as_dict(),
    }


def print_summary(scores: dict[str, Any]) -> None:
    """NeuroBench's metrics under their names, and what one inference spends with everything counted."""
    for line in scores["changes"]:
        print(line)
    metrics, energy = scores["neurobench"], scores["energy"]
    synapses, activity = metrics["SynapticOperations"], metrics["ActivationSparsity"]
    print(
        f"Footprint            {metrics['Footprint']:,} bytes, {metrics['ParameterCount']:,} parameters\n"
        f"ConnectionSparsity   {metrics['ConnectionSparsity']:.4f}\n"
        + (f"ActivationSparsity   {activity:.4f}\n" if activity is not None else "")
        + f"SynapticOperations   {synapses['Effective_ACs']:,.0f} ACs, {synapses['Effective_MACs']:,.0f} MACs "
        f"of {synapses['Dense']:,.0f} dense, a clip of {energy['steps']:.0f} steps\n"
        f"energy               {energy_text(energy['energy_pj'])} a clip: {energy['ac']:,.0f} AC * "
        f"{energy['ac_pj']} pJ + {energy['mac']:,.0f} MAC * {energy['mac_pj']} pJ; "
        f"{counted_products(energy)}membrane updates "
        f"{energy_text(energy['membrane_energy_pj'])} beside it; memory is left out"
    )


def counted_products(energy: dict[str, Any]) -> str:
    """What was counted beside the layers, as the beginning of a clause; nothing for networks of layers alone."""
    form = energy.get("attention_form")
    return f"rotation, gates and attention ({form.replace('_', ' ')}) included; " if form else ""


def example_batches(
    trained: TrainedModel, config: TrainConfig, n_batches: int, batch_size: int
) -> tuple[list[Tensor], str]:
    features = featurise(config.data.build().valid, trained.features.build())
    batches = unpadded_batches(features, n_batches, batch_size)
    return batches, f"{len(batches)} batches of validation clips, {batches[0].shape[0]} steps, no padding"


def unpadded_batches(features: FeatureSet, n: int, batch_size: int) -> list[Tensor]:
    """Up to `n` batches [T, B, N] of speech without padding: T is the median length, longer clips are cropped to it.

    Of a large set only some clips are looked at, evenly spread.
    """
    if n < 1 or batch_size < 2:
        raise ValueError(f"got batches={n} of batch_size={batch_size}; use at least 1 of 2")
    n_looked_at = min(len(features), LOOKED_AT * n * batch_size)
    looked_at = torch.arange(n_looked_at) * len(features) // n_looked_at
    _, lengths, _, ids = features[BatchIndex(0, looked_at)]
    steps = int(lengths.median())
    whole_clips = ids[lengths >= steps]
    size = min(batch_size, len(whole_clips))
    if size < 2:
        raise ValueError(f"got {len(features)} clips, {size} of median length or longer; use a set of at least 3")
    groups = whole_clips[: n * size // size * size].split(size)
    batches = [features[BatchIndex(0, group)].features[:, :steps] for group in groups if len(group) == size]
    return [batch.transpose(0, 1).contiguous() for batch in batches[:n]]


def audit(trained_with: TrainConfig, config: AuditConfig) -> tuple[Operations, str]:
    """Validation clips, each run alone."""
    config.refuse_still_pictures()
    trained = trained_in(Path(config.run) / "model")
    clips = prepare(trained, trained_with.data.build().valid)
    found = count_operations(trained.model, clips, config.batches * config.batch_size)
    return found, f"{found.samples} validation clips"
