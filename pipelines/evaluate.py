"""`spikeloom evaluate`: score a trained model on one of its splits, or on a folder it has never seen; writes JSON."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from accel.files import write_json
from accel.interop.neurobench import neurobench_metrics
from pipelines.process import set_up
from pipelines.runs import TrainedModel, load_config, load_model
from pipelines.schema import EvaluateConfig, TrainConfig
from pipelines.scores import accuracy, confusion_matrix
from speech.clips import Clips
from speech.datamodule import featurise
from speech.energy import count_operations
from speech.training import predict

log = logging.getLogger("spikeloom")
SPLITS = ("train", "valid", "test", "all")
DIGITS, WORDS, SPIKES = "wavs named DIGIT_SPEAKER_INDEX.wav", "a folder of wavs for each word", "spikes in HDF5"
LAYOUT_OF = {"fsdd": DIGITS, "gsc": WORDS, "shd": SPIKES, "ssc": SPIKES, "spikes": SPIKES}


def run(config: EvaluateConfig) -> None:
    set_up()
    folder = Path(config.run)
    trained, trained_with = load_model(folder / "model"), load_config(folder)
    clips = by_model_class(choose(trained_with, config), trained.class_names)
    scores = score(trained, clips)
    out = Path(config.out) if config.out else folder / "evaluation.json"
    write_json(out, {"run": str(folder), "split": config.split, "root": config.data.root, **scores})
    log.info("accuracy %.1f %% on %d clips (%s) -> %s", 100 * scores["accuracy"], len(clips), config.split, out)
    tell_cost(scores["neurobench"], scores["energy"])


def choose(trained_with: TrainConfig, config: EvaluateConfig) -> Clips[Any]:
    """The clips to score."""
    if config.split not in SPLITS:
        raise ValueError(f"split={config.split} is unknown; use one of {', '.join(SPLITS)}")
    source = trained_with.data
    if config.data.root is not None:
        if not hasattr(source, "root"):
            raise ValueError(f"this run was trained on {source.source} data, which has no folder; leave data.root out")
        if config.split != "all":
            raise ValueError(f"split={config.split} of another folder is not defined; add split=all to score all of it")
        source = replace(source, root=config.data.root)
    if config.split == "all":
        return load_all(source)
    chosen: Clips[Any] = getattr(source.build(), config.split)
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


def by_model_class(clips: Clips[Any], class_names: tuple[str, ...]) -> Clips[Any]:
    """The clips with labels counted as the model counts. Raises ValueError for a class the model does not know."""
    unknown = sorted(set(clips.class_names) - set(class_names))
    if unknown:
        raise ValueError(f"the model knows {', '.join(class_names)}, not {', '.join(unknown)}; remove those clips")
    index = np.array([class_names.index(name) for name in clips.class_names], dtype=np.int64)
    return replace(clips, labels=index[clips.labels], class_names=class_names)


def score(trained: TrainedModel, clips: Clips[Any]) -> dict[str, Any]:
    """Accuracy (correct / total), confusion matrix, per-class figures, NeuroBench's metrics, operations and energy."""
    features = featurise(clips, trained.features.build())
    log_p = predict(trained.model, features)
    matrix = confusion_matrix(log_p, features.labels, len(trained.class_names)).numpy()
    spoken, recognised, right = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    per_class = {
        name: {
            "clips": int(spoken[i]),
            "recall": float(right[i] / spoken[i]) if spoken[i] else None,
            "precision": float(right[i] / recognised[i]) if recognised[i] else None,
        }
        for i, name in enumerate(trained.class_names)
    }
    counts = count_operations(trained.model, features)
    return {
        "accuracy": accuracy(log_p, features.labels), "clips": len(clips), "speakers": clips.speaker_names(),
        "class_names": list(trained.class_names), "confusion_matrix": matrix.tolist(), "per_class": per_class,
        "neurobench": neurobench_metrics(trained.model, counts.counter, counts.n_clips), "energy": counts.as_dict(),
    }  # fmt: skip


def tell_cost(metrics: dict[str, Any], energy: dict[str, Any]) -> None:
    """NeuroBench's metrics under their names, and what one inference spends with everything counted."""
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
