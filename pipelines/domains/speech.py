"""Speech, as the verbs see it: words spoken one a clip, recognised by a SpikeSCR."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accel.interop.neurobench import neurobench_metrics
from accel.report import Section
from pipelines import story
from pipelines.domains import data_at
from pipelines.runs import TrainedModel
from pipelines.schema import TrainConfig
from pipelines.tasks import ClassificationTask
from speech.batches import Draw, FeatureSet, featurise
from speech.clips import Clips
from speech.datamodule import SpeechDataModule
from speech.energy import count_operations
from speech.spikescr import SpikeSCR
from speech.training import predict as predict
from speech.training import speech_log_probabilities

SAMPLES = "clips"
DIGITS, WORDS, SPIKES = "wavs named DIGIT_SPEAKER_INDEX.wav", "a folder of wavs for each word", "spikes in HDF5"
LAYOUT_OF = {"fsdd": DIGITS, "gsc": WORDS, "shd": SPIKES, "ssc": SPIKES, "spikes": SPIKES}
LOOKED_AT = 8  # clips for each one on which densities are measured


def data_module(config: TrainConfig) -> SpeechDataModule:
    return SpeechDataModule(
        config.data, config.features, config.augmentation, batch_size=config.trainer.batch_size, seed=config.seed,
        num_workers=config.trainer.num_workers, cache_mb=config.trainer.cache_mb,
    )  # fmt: skip


def build_model(config: TrainConfig, data: SpeechDataModule) -> SpikeSCR:
    model: SpikeSCR = config.model.build(data.n_inputs, data.n_classes)
    return model


def task(config: TrainConfig, data: SpeechDataModule, model: SpikeSCR) -> ClassificationTask:
    return ClassificationTask(model, data.n_classes, config.optimizer, speech_log_probabilities)


def load_weights(folder: Path) -> SpikeSCR:
    return SpikeSCR.from_pretrained(folder, strict=True)


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
        f"{result['name']}: SpikeSCR with {result['parameters']:,} parameters",
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


def model_card(result: dict[str, Any], data: SpeechDataModule) -> str:
    """README.md of a model folder: what it is, what it was trained on, how well it does, where it stops."""
    heard = set(result["valid_speakers"]) & set(result["train_speakers"])
    validation = "The validation clips are of voices that also train." if heard else ""
    return f"""---
library_name: spikeloom
tags: [spiking, keyword-spotting]
---
# SpikeSCR, {result["parameters"]:,} parameters

Recognises {data.n_classes} words ({", ".join(data.class_names)}), one a clip.

| | accuracy and origin |
|---|---|
| data | {result["name"]}, {len(data.splits.train)} training clips of {len(result["train_speakers"])} speakers |
| validation | {100 * result["valid_accuracy"]:.1f} % ({story.people(result["valid_speakers"])}) |
| test | {100 * result["test_accuracy"]:.1f} % ({story.people(result["test_speakers"])}, {result["test_clips"]} clips) |
| seed | {result["seed"]}, one run |

The test clips were scored once, at the best validation epoch: {story.people(result["test_speakers"])}, \
{heard_before(result)}. {validation}
Load with `speech.spikescr.SpikeSCR.from_pretrained(FOLDER)`; `preprocessor_config.json` holds the front end.
Limits: one seed, the recording conditions of its data, a single word in each clip.
"""


def heard_before(result: dict[str, Any]) -> str:
    """Whether the test speakers were heard in training, as the end of a sentence about them."""
    heard = set(result["test_speakers"]) & set(result["train_speakers"])
    if not heard:
        return "never heard in training"
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
    if any(any(folder.glob("[0-9]_*_*.wav")) for folder in (root, root / "recordings")):
        return DIGITS
    return WORDS if any(root.glob("*/*.wav")) else None


def prepare(trained: TrainedModel, clips: Clips[Any]) -> FeatureSet:
    return featurise(clips, trained.features.build())


def measure(trained: TrainedModel, clips: Clips[Any], features: FeatureSet) -> dict[str, Any]:
    """Speakers, NeuroBench's metrics, operations and energy."""
    counts = count_operations(trained.model, features)
    return {
        "speakers": clips.speaker_names(),
        "neurobench": neurobench_metrics(trained.model, counts.counter, counts.n_clips),
        "energy": counts.as_dict(),
    }


def tell(scores: dict[str, Any]) -> None:
    """NeuroBench's metrics under their names, and what one inference spends with everything counted."""
    metrics, energy = scores["neurobench"], scores["energy"]
    synapses = metrics["SynapticOperations"]
    print(
        f"Footprint            {metrics['Footprint']:,} bytes, {metrics['ParameterCount']:,} parameters\n"
        f"ConnectionSparsity   {metrics['ConnectionSparsity']:.4f}\n"
        f"ActivationSparsity   {metrics['ActivationSparsity']:.4f}\n"
        f"SynapticOperations   {synapses['Effective_ACs']:,.0f} ACs, {synapses['Effective_MACs']:,.0f} MACs "
        f"of {synapses['Dense']:,.0f} dense, a clip of {energy['steps']:.0f} steps\n"
        f"energy               {energy['energy_pj'] * 1e-9:.4f} mJ a clip: {energy['ac']:,.0f} AC * "
        f"{energy['ac_pj']} pJ + {energy['mac']:,.0f} MAC * {energy['mac_pj']} pJ; rotation, gates and attention "
        f"({energy['attention_form'].replace('_', ' ')}) included"
    )


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
    _, lengths, _, ids = features[Draw(0, looked_at)]
    steps = int(lengths.median())
    whole_clips = ids[lengths >= steps]
    size = min(batch_size, len(whole_clips))
    if size < 2:
        raise ValueError(f"got {len(features)} clips, {size} of median length or longer; use a set of at least 3")
    groups = whole_clips[: n * size // size * size].split(size)
    batches = [features[Draw(0, group)].features[:, :steps] for group in groups if len(group) == size]
    return [batch.transpose(0, 1).contiguous() for batch in batches[:n]]
