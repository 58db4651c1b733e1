"""Which network a training builds: a published spiking transformer or ResNet by name, smaller or larger where asked, a
small feed-forward spiking network, or a network without spikes.

`kind` tells them apart in a file. Values left null are those of the published variant.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class SpikingTransformerConfig:
    """name: one of `vision.models.variants.list_models()`. T: steps a picture is shown (events bring their own).

    For training alone: compact and checkpointing keep less for the backward pass and compute some of it again, with
    equal gradients; channels_last is the layout of the maps in which convolutions skip zeros
    (`spikeloom.accel.spiking.events.SpikeConv2d`), false for channels first.
    """

    kind: str = "spiking_transformer"
    name: str = "spikingformer_4_384"
    T: int = 4
    widths: list[int] | None = None  # channels of each stage; null: as published
    depths: list[int] | None = None  # blocks of each stage; null: as published
    heads: int | None = None  # of the attention; null: as published
    mlp_ratio: float | None = None  # hidden width of the MLPs, in widths; null: as published
    attention: list[str] | None = None  # of each stage: ssa, qkta, qkca, dwc3, dwc5, dwc7, identity; null: as published
    readout: str | None = None  # mean, mean_lif or lif_mean; null: as published
    neuron: str = "lif"  # lif, if or plif (a learned time constant)
    shortcut: bool = True  # false: patch embeddings of QKFormer and Max-Former without their shortcut
    drop_path_rate: float = 0.0  # stochastic depth of the last block; earlier ones less
    compact: bool = False  # keep less for the backward pass and recompute it
    checkpointing: bool = False  # recompute whole blocks in the backward pass
    channels_last: bool = True  # layout of the maps in which convolutions skip zeros

    def build(self, n_inputs: int, n_classes: int) -> Any:
        """The network. Raises ValueError for a name or sizes it cannot have."""
        import torch

        from spikeloom.vision.models.variants import create_model

        given = {key: getattr(self, key) for key in ("widths", "depths", "heads", "mlp_ratio", "attention", "readout")}
        changed = {key: value for key, value in given.items() if value is not None}
        model = create_model(
            self.name, num_classes=n_classes, in_chans=n_inputs, T=self.T, drop_path_rate=self.drop_path_rate,
            neuron_kind=self.neuron, shortcut=self.shortcut, **changed,
        )  # fmt: skip
        model.set_compact(self.compact)
        model.set_grad_checkpointing(self.checkpointing)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model


@dataclass(kw_only=True)
class ResNetConfig:
    """A residual network without spikes, to compare with; one entry of widths and blocks per resolution."""

    kind: str = "resnet"
    widths: list[int] | None = None  # channels of each stage; null: 64, 128, 256
    blocks: list[int] | None = None  # residual blocks of each stage; null: 2 each

    def build(self, n_inputs: int, n_classes: int) -> Any:
        from spikeloom.vision.models.resnet import ResNet

        widths, blocks = self.widths or [64, 128, 256], self.blocks or [2, 2, 2]
        return ResNet(in_chans=n_inputs, num_classes=n_classes, widths=widths, blocks=blocks)


@dataclass(kw_only=True)
class SpikingResNetConfig:
    """name: sew_resnet18, 34, 50, 101, 152 or spiking_resnet18 … 152. T: steps a picture is shown (events bring their
    own). connect: add, and or iand, of a SEW-ResNet. stem: imagenet, or small for pictures of 32 x 32 and below.

    compact and channels_last as in `SpikingTransformerConfig`.
    """

    kind: str = "spiking_resnet"
    name: str = "sew_resnet18"  # a published depth and form
    T: int = 4  # steps a picture is shown
    widths: list[int] | None = None  # channels of each stage; null: as published
    blocks: list[int] | None = None  # residual blocks of each stage; null: as published
    connect: str = "add"  # how a SEW block joins its branch: add, and, iand
    stem: str = "imagenet"  # imagenet (7 x 7 and pooling) or small (3 x 3)
    compact: bool = False  # keep less for the backward pass and recompute it
    channels_last: bool = True  # layout of the maps in which convolutions skip zeros

    def build(self, n_inputs: int, n_classes: int) -> Any:
        """The network. Raises ValueError for a name or sizes it cannot have."""
        import torch

        from spikeloom.vision.models.resnets import RESNETS

        known = [name for name in RESNETS if name.startswith(("sew_", "spiking_"))]
        if self.name not in known:
            raise ValueError(f"model.name={self.name} is no spiking ResNet; use one of {', '.join(known)}")
        model: Any = RESNETS[self.name](
            num_classes=n_classes, in_chans=n_inputs, T=self.T, widths=self.widths, blocks=self.blocks,
            connect=self.connect, stem=self.stem,
        )  # fmt: skip
        model.set_compact(self.compact)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model


@dataclass(kw_only=True)
class ConvNetConfig:
    """A published network without spikes, as LATS and STR trained it. name: resnet18, resnet50 or mobilenet_v1."""

    kind: str = "conv_net"
    name: str = "resnet50"  # resnet18, resnet50 or mobilenet_v1

    def build(self, n_inputs: int, n_classes: int) -> Any:
        """The network. Raises ValueError for another name."""
        from spikeloom.vision.models.resnets import RESNETS

        known = ("resnet18", "resnet50", "mobilenet_v1")
        if self.name not in known:
            raise ValueError(f"model.name={self.name} has spikes or is unknown; use one of {', '.join(known)}")
        return RESNETS[self.name](num_classes=n_classes, in_chans=n_inputs)


@dataclass(kw_only=True)
class SpikingNetConfig:
    """A small feed-forward spiking network without attention. net: cnn or mlp. T: steps a picture is shown."""

    kind: str = "spiking_net"
    net: str = "cnn"
    T: int = 4

    def build(self, n_inputs: int, n_classes: int, size: int) -> Any:
        """The network for pictures of `size` x `size`. Raises ValueError for another `net`."""
        from spikeloom.vision.models.small_nets import SpikingNet

        return SpikingNet(net=self.net, size=size, in_chans=n_inputs, num_classes=n_classes, T=self.T)  # type: ignore[arg-type]
