"""`spikeloom convert checkpoint=FILE out=DIR`: released weights -> a run that evaluate, audit and export take.

model/             config.json, model.safetensors, preprocessor_config.json, README.md
config.yaml        the published data and front end of the variant, for the other verbs
conversion.json    where the weights came from, what was read from them, and which keys nothing uses
"""

import hashlib
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accel.files import write_json
from pipelines.process import set_up
from pipelines.runs import TrainedModel, save_config, save_model
from pipelines.schema import ConvertConfig, TrainConfig
from vision.augmentation import EventAugmentationConfig, ImageAugmentationConfig
from vision.convert import Converted, convert, read_checkpoint
from vision.event_sets import Cifar10DvsConfig, EventFilesConfig, GestureConfig
from vision.frames import EventFramesConfig, PixelsConfig
from vision.images import CIFAR10_NAMES
from vision.models import SpikingTransformerConfig
from vision.sources import CifarConfig, ImageFoldersConfig
from vision.variants import CIFAR10, IMAGENET, INPUT

log = logging.getLogger("spikeloom")


def run(config: ConvertConfig) -> None:
    set_up()
    path, out = Path(config.checkpoint), Path(config.out)
    if out.exists() and not (out / "conversion.json").is_file() and any(out.iterdir()):
        raise ValueError(f"out={out} is there and holds no earlier conversion; give a new folder")
    state, described = read_checkpoint(path)
    found = convert(state, described, name=config.network, heads=config.heads, tau=config.tau, T=config.T)
    size = int(described["img_size"][0]) if "img_size" in described else INPUT[found.model.layout][1]
    features = front_end(found, size)
    if isinstance(features, PixelsConfig):  # released CIFAR-100 weights were trained with the numbers of CIFAR-10
        found.model.pretrained_cfg |= {"mean": features.mean, "std": features.std}
    found.model.pretrained_cfg["input_size"] = [found.sizes.in_chans, size, size]
    names = class_names(found, config.classes)
    name = config.network or described.get("model") or found.sizes.scheme
    save_model(out / "model", TrainedModel(model=found.model, features=features, class_names=names), card(name, found))
    save_config(out, as_trained(name, out, found, features))
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


def class_names(found: Converted, path: str | None) -> tuple[str, ...]:
    """Names of the outputs: those of a file, those of CIFAR-10, else numbers. Raises ValueError for a wrong count."""
    n = found.sizes.num_classes
    if path is not None:
        names = tuple(line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip())
        if len(names) != n:
            raise ValueError(f"classes={path} has {len(names)} lines, the checkpoint {n} classes; give one a line")
        return names
    if found.model.layout == "cifar" and n == 10:
        return CIFAR10_NAMES
    return tuple(f"class {i}" for i in range(n))


def as_trained(name: str, out: Path, found: Converted, features: PixelsConfig | EventFramesConfig) -> TrainConfig:
    """The configuration of a run with these weights; nothing was trained here, so optimiser and length mean nothing."""
    sizes, root = found.sizes, os.environ.get("SPIKELOOM_DATA", "data")
    data: Any
    if found.model.layout == "dvs":
        data = {10: Cifar10DvsConfig, 11: GestureConfig}.get(sizes.num_classes, EventFilesConfig)()
    elif found.model.layout == "cifar" and sizes.num_classes in (10, 100):
        data = CifarConfig(root=f"{root}/cifar{sizes.num_classes}", classes=sizes.num_classes)
    else:
        data = ImageFoldersConfig(root=f"{root}/imagenet")
    events = isinstance(features, EventFramesConfig)
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
