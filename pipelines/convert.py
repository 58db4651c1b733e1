"""`spikeloom convert checkpoint=FILE out=DIR`: released weights -> a run that evaluate, audit and export take.

model/             config.json, model.safetensors, preprocessor_config.json, README.md
config.yaml        the published data and front end of the variant, for the other verbs
conversion.json    where the weights came from, what was read from them, and which keys nothing uses
"""

import hashlib
import logging
import os
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accel.files import first_few, write_json
from pipelines.evaluate import numbered
from pipelines.process import set_up
from pipelines.runs import TrainedModel, save_config, save_model
from pipelines.schema import ConvertConfig, TrainConfig
from vision.augmentation import EventAugmentationConfig, ImageAugmentationConfig
from vision.convert import Converted, convert, read_checkpoint
from vision.event_sets import GESTURES, Cifar10DvsConfig, EventFilesConfig, GestureConfig
from vision.frames import EventFramesConfig, PixelsConfig
from vision.images import CIFAR10_NAMES
from vision.models import SpikingTransformerConfig
from vision.sources import CifarConfig, ImageFoldersConfig
from vision.variants import CIFAR10, IMAGENET, INPUT

log = logging.getLogger("spikeloom")
OF_THE_LAST = ("evaluation.json", "audit", "export", "sim")  # what other verbs found of the model that is replaced


def run(config: ConvertConfig) -> None:
    set_up()
    path, out = Path(config.checkpoint), Path(config.out)
    if out.exists() and not (out / "conversion.json").is_file() and any(out.iterdir()):
        raise ValueError(f"out={out} is there and holds no earlier conversion; give a new folder")
    state, described = read_checkpoint(path)
    found = convert(state, described, name=config.network, heads=config.heads, tau=config.tau, T=config.T)
    shown = described.get("img_size", INPUT[found.model.layout][1])
    size = int(shown if isinstance(shown, int) else shown[0])
    features = front_end(found, size)
    if isinstance(features, PixelsConfig):  # released CIFAR-100 weights were trained with the numbers of CIFAR-10
        found.model.pretrained_cfg |= {"mean": features.mean, "std": features.std}
    found.model.pretrained_cfg["input_size"] = [found.sizes.in_chans, size, size]
    name = config.network or described.get("model") or found.sizes.scheme
    data = data_of(name, found)
    names = class_names(found, data, config.classes)
    for left in OF_THE_LAST:
        shutil.rmtree(out / left) if (out / left).is_dir() else (out / left).unlink(missing_ok=True)
    save_model(out / "model", TrainedModel(model=found.model, features=features, class_names=names), card(name, found))
    save_config(out, as_trained(name, out, found, features, data))
    write_json(
        out / "conversion.json",
        {
            "checkpoint": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "model": name,
            **asdict(found.sizes), "heads": heads(found), "tau": tau(found), "T": found.model.T,
            "parameters": sum(p.numel() for p in found.model.parameters()), "dropped": list(found.dropped),
        },
    )  # fmt: skip
    print(
        f"{name}: {found.sizes.scheme} of widths {found.sizes.widths}, depths {found.sizes.depths}, "
        f"heads {heads(found)}, tau {tau(found)}, T {found.model.T}, {found.sizes.num_classes} classes\n"
        f"{len(state) - len(found.dropped)} of {len(state)} tensors taken"
        + (f"; {len(found.dropped)} of layer norms that nothing uses dropped" if found.dropped else "")
    )
    log.info("-> %s", out / "model")


def front_end(found: Converted, size: int) -> PixelsConfig | EventFramesConfig:
    """How the released training showed its data."""
    if found.model.layout == "dvs":
        return EventFramesConfig(n_frames=found.model.T)
    numbers: dict[str, Any] = IMAGENET if found.model.layout == "imagenet" else CIFAR10
    crop = 0.875 if found.sizes.scheme == "qkformer_imagenet" else 1.0
    channels = found.sizes.in_chans
    return PixelsConfig(
        channels=channels, size=size, crop_pct=crop, mean=list(numbers["mean"][:channels]),
        std=list(numbers["std"][:channels]),
    )  # fmt: skip


def data_of(name: str, found: Converted) -> Any:
    """The published data a checkpoint was trained on, as far as its layout, its classes and its variant tell."""
    n, root = found.sizes.num_classes, os.environ.get("SPIKELOOM_DATA", "data")
    if found.model.layout == "dvs":
        if n == len(GESTURES) or (n == len(GESTURES) - 1 and name.endswith("dvs128")):  # with "other", or without
            return GestureConfig(root=f"{root}/dvs128")
        if n == len(CIFAR10_NAMES):
            return Cifar10DvsConfig(root=f"{root}/cifar10dvs")
        return EventFilesConfig(root=f"{root}/events")
    if found.model.layout == "cifar" and n in (10, 100):
        return CifarConfig(root=f"{root}/cifar{n}", classes=n)
    return ImageFoldersConfig(root=f"{root}/imagenet")


def class_names(found: Converted, data: Any, path: str | None) -> tuple[str, ...]:
    """Names of the outputs: those of a file, those that `data` is known to have, else numbers.

    Raises ValueError for a file that does not give every output a name of its own.
    """
    n = found.sizes.num_classes
    if path is None and isinstance(data, GestureConfig):
        return GESTURES[:n]
    if path is None:
        of_cifar10 = isinstance(data, CifarConfig | Cifar10DvsConfig) and n == len(CIFAR10_NAMES)
        return CIFAR10_NAMES if of_cifar10 else numbered(n)
    if not Path(path).is_file():
        raise ValueError(f"classes={path} is no file; give a text file with a class a line")
    try:
        names = tuple(line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"classes={path} is no UTF-8 text ({error.reason}); give one with a class a line") from error
    if len(names) != n:
        raise ValueError(f"classes={path} has {len(names)} lines, the checkpoint {n} classes; give one a line")
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"classes={path} names {first_few(twice)} more than once; give every class a name of its own")
    return names


def as_trained(
    name: str, out: Path, found: Converted, features: PixelsConfig | EventFramesConfig, data: Any
) -> TrainConfig:
    """The configuration of a run with these weights; nothing was trained here, so optimiser and length mean nothing."""
    sizes, events = found.sizes, isinstance(features, EventFramesConfig)
    return TrainConfig(
        name=name, run=str(out), data=data, features=features,
        augmentation=EventAugmentationConfig() if events else ImageAugmentationConfig(),
        model=SpikingTransformerConfig(
            name=name, T=found.model.T, widths=list(sizes.widths), depths=list(sizes.depths), mlp_ratio=sizes.mlp_ratio
        ),
    )  # fmt: skip


def heads(found: Converted) -> list[int]:
    stages: Any = found.model.stages
    return [stage.blocks[0].attn.mix.heads for stage in stages]


def tau(found: Converted) -> float:
    stages: Any = found.model.stages
    return float(stages[0].blocks[0].attn.attn_lif.parameters_.tau)


def card(name: str, found: Converted) -> str:
    """README.md of the model folder."""
    return f"""---
library_name: spikeloom
tags: [spiking, vision, image-classification]
---
# {name}, {sum(p.numel() for p in found.model.parameters()):,} parameters

Converted from released weights ({found.sizes.scheme}); heads {heads(found)}, tau {tau(found)}, T {found.model.T} are
not in them. {len(found.dropped)} tensors that nothing uses are left out. QKFormer's accuracies were taken while
neurons ran over the whole batch; a result here never depends on the batch: published figures do not carry over.
Nothing was trained or scored in the conversion: `spikeloom evaluate run=FOLDER data.root=PICTURES split=all` scores it.
"""
