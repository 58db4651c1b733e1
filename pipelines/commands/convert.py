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

from spikeloom.accel.common.files import first_few, write_json
from spikeloom.bci.models.released import describe_left, is_released_eeg
from spikeloom.pipelines.config.convert import ConvertConfig
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training.run_dir import TrainedModel, save_config, save_model
from spikeloom.pipelines.training.runtime import set_up
from spikeloom.pipelines.training.scoring import numbered
from spikeloom.speech.models.released import is_spikcommander
from spikeloom.vision.checkpoints import Checkpoint, naming, open_checkpoint
from spikeloom.vision.convert import Converted, convert
from spikeloom.vision.convert_resnet import ResNetSizes, convert_resnet, is_resnet
from spikeloom.vision.datasets.event_sets import GESTURES, Cifar10DvsConfig, EventFilesConfig, GestureConfig
from spikeloom.vision.datasets.images import CIFAR10_NAMES
from spikeloom.vision.datasets.sources import CifarConfig, ImageFoldersConfig
from spikeloom.vision.models.config import SpikingResNetConfig, SpikingTransformerConfig
from spikeloom.vision.models.spiking_resnet import SpikingResNet
from spikeloom.vision.models.spiking_transformer import SpikingTransformer
from spikeloom.vision.models.variants import CIFAR10, IMAGENET, INPUT
from spikeloom.vision.transforms.augmentation import EventAugmentationConfig, ImageAugmentationConfig
from spikeloom.vision.transforms.frames import EventFramesConfig, PixelsConfig

log = logging.getLogger("spikeloom")
OF_THE_LAST = ("evaluation.json", "audit", "export", "sim")  # what other verbs found of the model that is replaced


def run(config: ConvertConfig) -> None:
    set_up()
    path, out = Path(config.checkpoint), Path(config.out)
    if out.exists() and not (out / "conversion.json").is_file() and any(out.iterdir()):
        raise ValueError(f"out={out} is there and holds no earlier conversion; give a new folder")
    held = open_checkpoint(path, config.weights)
    log.info("convert: %s, %d tensors -> %s", path, len(held.state), out)
    if is_spikcommander(held.state):
        from spikeloom.pipelines.domains import spikcommander

        names = spikcommander.write(out, path, held.state, lambda n: class_names(n, None, config.classes))
        log.info("SpikCommander of %d classes -> %s", len(names), out / "model")
        return
    if is_released_eeg(held.state):
        from spikeloom.pipelines.domains import released_eeg

        made = released_eeg.write(out, path, held.state, config.tokenizer, config.pretrained)
        taken = len(held.state) - sum(map(len, made.left.values()))
        print(f"{made.name}: {taken} of {len(held.state)} tensors taken", *describe_left(made.left), sep="\n  ")
        log.info("-> %s", out / "model")
        return
    if is_resnet(held.state):
        with naming(path):
            resnet, sizes = convert_resnet(held.state, T=config.T, connect=config.connect)
        write(config, held, resnet, sizes, config.network or sizes.scheme, {})
        return
    with naming(path):
        found = convert(held.state, held.described, name=config.network, heads=config.heads, tau=config.tau, T=config.T)
    name = config.network or held.described.get("model") or found.sizes.scheme
    write(config, held, found.model, found.sizes, name, {
        "heads": heads(found), "tau": tau(found), "dropped": list(found.dropped),
    })  # fmt: skip


def write(config: ConvertConfig, held: Checkpoint, model: Any, sizes: Any, name: str, told: dict[str, Any]) -> None:
    """The run folder of a converted model, and a line or two about it. told: what is not in `sizes`."""
    path, out = Path(config.checkpoint), Path(config.out)
    layout = sizes.scheme.rsplit("_", 1)[1] if isinstance(model, SpikingTransformer) else "imagenet"
    if isinstance(model, SpikingResNet) and sizes.stem == "small":
        layout = "cifar"
    shown = held.described.get("img_size", INPUT[layout][1])
    with naming(path):
        size = int(shown if isinstance(shown, int) else shown[0])
        features = front_end(layout, sizes, model.T, size)
    if isinstance(features, PixelsConfig):  # released CIFAR-100 weights were trained with the numbers of CIFAR-10
        model.pretrained_cfg |= {"mean": features.mean, "std": features.std}
    model.pretrained_cfg["input_size"] = [sizes.in_chans, size, size]
    data = data_of(name, layout, sizes.num_classes)
    names = class_names(sizes.num_classes, data, config.classes)
    for left in OF_THE_LAST:
        shutil.rmtree(out / left) if (out / left).is_dir() else (out / left).unlink(missing_ok=True)
    dropped = told.get("dropped", [])
    text = card(name, sizes, told, model, held)
    save_model(out / "model", TrainedModel(model=model, features=features, class_names=names), text)
    save_config(out, as_trained(name, out, sizes, model, features, data))
    write_json(
        out / "conversion.json",
        {
            "checkpoint": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "model": name,
            "weights": held.weights, "notes": list(held.notes), **asdict(sizes), **told, "T": model.T,
            "parameters": sum(p.numel() for p in model.parameters()),
        },
    )  # fmt: skip
    depths = getattr(sizes, "depths", None) or sizes.blocks
    facts = "".join(f"{key} {told[key]}, " for key in ("heads", "tau") if key in told)
    which = {"ema": "averaged weights (EMA) taken", "plain": "plain weights taken"}[held.weights]
    other = " and averaged ones left; weights=ema takes them" if held.weights == "plain" else ", not the plain ones"
    print(
        f"{name}: {sizes.scheme} of widths {sizes.widths}, depths {depths}, {facts}T {model.T}, "
        f"{sizes.num_classes} classes\n"
        + f"{which}{other if held.both else ''}\n"
        + "".join(f"{note}\n" for note in held.notes)
        + f"{len(held.state) - len(dropped)} of {len(held.state)} tensors taken"
        + (f"; {len(dropped)} of layer norms that nothing uses dropped" if dropped else "")
    )
    log.info("-> %s", out / "model")


def front_end(layout: str, sizes: Any, T: int, size: int) -> PixelsConfig | EventFramesConfig:
    """How the released training showed its data."""
    if layout == "dvs":
        return EventFramesConfig(n_frames=T)
    numbers: dict[str, Any] = IMAGENET if layout == "imagenet" else CIFAR10
    whole = layout != "imagenet" or sizes.scheme == "spikingformer_imagenet"
    channels = sizes.in_chans
    return PixelsConfig(
        channels=channels, size=size, crop_pct=1.0 if whole else 0.875, mean=list(numbers["mean"][:channels]),
        std=list(numbers["std"][:channels]),
    )  # fmt: skip


def data_of(name: str, layout: str, n: int) -> Any:
    """The published data a checkpoint was trained on, as far as its layout, its classes and its variant tell."""
    root = os.environ.get("SPIKELOOM_DATA", "data")
    if layout == "dvs":
        if n == len(GESTURES) or (n == len(GESTURES) - 1 and name.endswith("dvs128")):  # with "other", or without
            return GestureConfig(root=f"{root}/dvs128")
        if n == len(CIFAR10_NAMES):
            return Cifar10DvsConfig(root=f"{root}/cifar10dvs")
        return EventFilesConfig(root=f"{root}/events")
    if layout == "cifar" and n in (10, 100):
        return CifarConfig(root=f"{root}/cifar{n}", classes=n)
    return ImageFoldersConfig(root=f"{root}/imagenet")


def class_names(n: int, data: Any, path: str | None) -> tuple[str, ...]:
    """Names of the outputs: those of a file, those that `data` is known to have, else numbers.

    Raises ValueError for a file that does not give every output a name of its own.
    """
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
    name: str, out: Path, sizes: Any, model: Any, features: PixelsConfig | EventFramesConfig, data: Any
) -> TrainConfig:
    """The configuration of a run with these weights; nothing was trained here, so optimiser and length mean nothing."""
    events = isinstance(features, EventFramesConfig)
    described: Any
    if isinstance(sizes, ResNetSizes):
        described = SpikingResNetConfig(
            name=f"{sizes.form}_resnet{50 if sizes.bottleneck else 18}", T=model.T, widths=list(sizes.widths),
            blocks=list(sizes.blocks), stem=sizes.stem,
        )  # fmt: skip
    else:
        described = SpikingTransformerConfig(
            name=name, T=model.T, widths=list(sizes.widths), depths=list(sizes.depths), mlp_ratio=sizes.mlp_ratio
        )
    return TrainConfig(
        name=name, run=str(out), data=data, features=features,
        augmentation=EventAugmentationConfig() if events else ImageAugmentationConfig(), model=described,
    )  # fmt: skip


def heads(found: Converted) -> list[int | None]:
    """Of each stage; None where it has no attention."""
    stages: Any = found.model.stages
    return [stage.blocks[0].attn and stage.blocks[0].attn.mix.heads for stage in stages]


def tau(found: Converted) -> float:
    stages: Any = found.model.stages
    return float(stages[0].blocks[0].mlp.up.lif.parameters_.tau)


def card(name: str, sizes: Any, told: dict[str, Any], model: Any, held: Checkpoint) -> str:
    """README.md of the model folder."""
    missing = ", ".join(f"{key} {told[key]}" for key in ("heads", "tau") if key in told)
    what = f"{missing}, T {model.T}" if missing else f"T {model.T} and how blocks are connected"
    of_batches = (
        " QKFormer's accuracies were taken while\nneurons ran over the whole batch; a result here never depends on the "
        "batch: published figures do not carry over."
        if sizes.scheme.startswith("qkformer")
        else ""
    )
    return f"""---
library_name: spikeloom
tags: [spiking, vision, image-classification]
---
# {name}, {sum(p.numel() for p in model.parameters()):,} parameters

Converted from released weights ({sizes.scheme}, {held.weights} weights); {what} are not in them.
{len(told.get("dropped", []))} tensors that nothing uses are left out.{of_batches}
Nothing was trained or scored in the conversion: `spikeloom evaluate run=FOLDER data.root=PICTURES split=all` scores it.
"""
