"""Released weights of every model that `convert` takes: a whole file of tensors that may be of no such model."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from spikeloom.bci.data.tokenizer import train_tokenizer
from spikeloom.bci.zuco.corpus import write_sentences
from spikeloom.pipelines.commands import convert
from spikeloom.pipelines.config.convert import ConvertConfig
from spikeloom.pipelines.training.run_dir import load_model
from spikeloom.speech.models.released import released_tensors
from spikeloom.speech.models.spikcommander import SpikCommanderConfig
from spikeloom.vision import convert_resnet
from spikeloom.vision.convert import to_released
from spikeloom.vision.models.spiking_resnet import SpikingResNet
from tests.bci.test_released_eeg import released
from tests.fuzz.parser import Parser
from tests.vision.small import SMALL, create_model

TOKENIZER = "tokenizer"
VISION = ("spikingformer_cifar", "qkformer_dvs", "maxformer_cifar")
SHORT = SpikCommanderConfig(width=8, heads=2)


def save(folder: Path, state: Mapping[str, Tensor], **described: str) -> None:
    folder.mkdir()
    save_file({key: value.detach().contiguous().clone() for key, value in state.items()}, folder / "a.safetensors",
              described)  # fmt: skip


def transformers(folder: Path) -> None:
    for name in VISION:
        published, sizes = SMALL[name]
        sizes = {key: (1,) * len(value) if key == "depths" else value for key, value in sizes.items()}  # type: ignore
        model = create_model(published, **{**sizes, "num_classes": 3})
        heads = [
            1 if block.attn is None else block.attn.mix.heads for block in (stage.blocks[0] for stage in model.stages)
        ]
        config = {"num_heads": heads, "tau": 2.0, "T": 2}
        save(folder / name, to_released(model), config=json.dumps(config), model=name)


def resnets(folder: Path) -> None:
    for form in ("sew", "spiking"):
        model = SpikingResNet(in_chans=3, num_classes=3, widths=(4, 8), blocks=(1, 1), form=form, stem="small", T=2)  # type: ignore
        sizes = convert_resnet.ResNetSizes(
            form=form, in_chans=3, num_classes=3, widths=(4, 8), blocks=(1, 1), bottleneck=False, stem="small",
            module=True,
        )  # fmt: skip
        save(folder / form, convert_resnet.to_released(model, sizes))


def spikcommander(folder: Path) -> None:
    model = SHORT.build(140, 3)
    save(folder / "0", released_tensors(model.state_dict(), model))


def eeg(folder: Path) -> None:
    text = train_tokenizer(write_sentences(40, 0), 300)
    for name in ("cet_mae", "e2t_ptr"):
        save(folder / name, released(name == "e2t_ptr", text.vocab_size)[1])
        text.save(folder / name / TOKENIZER)


def read(folder: Path) -> torch.nn.Module:
    tokenizer = str(folder / TOKENIZER) if (folder / TOKENIZER).exists() else None
    out = folder / "run"
    convert.run(ConvertConfig(checkpoint=str(folder / "a.safetensors"), out=str(out), tokenizer=tokenizer))
    found: torch.nn.Module = load_model(out / "model").model
    return found


def is_finite(result: torch.nn.Module) -> None:
    assert all(torch.isfinite(tensor).all() for tensor in result.state_dict().values())


PARSERS = [
    Parser(name=name, write=write, read=read, promise=is_finite, mutates=("a.safetensors",), covers=covers)
    for name, write, covers in (
        ("released_transformers", transformers, ("vision/convert.py:convert", "vision/convert.py:to_ours")),
        ("released_resnets", resnets, ("vision/convert_resnet.py:convert_resnet",)),
        ("released_spikcommander", spikcommander, ("speech/models/released.py:convert",)),
        ("released_eeg", eeg, ("bci/models/released.py:convert",)),
    )
]
