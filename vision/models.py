"""Which network a training builds: a published spiking transformer by name, smaller or larger where asked, a small
feed-forward spiking network, or a ResNet.

`kind` tells them apart in a file. Values left null are those of the published variant.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class SpikingTransformerConfig:
    """name: one of `vision.variants.list_models()`. T: steps a picture is shown (events bring their own).

    For training alone: compact and checkpointing keep less for the backward pass and compute some of it again, with
    equal gradients; channels_last is the layout of the maps in which convolutions skip zeros
    (`accel.spiking.events.SpikeConv2d`), false for channels first.
    """

    kind: str = "spiking_transformer"
    name: str = "spikingformer_4_384"
    T: int = 4
    widths: list[int] | None = None
    depths: list[int] | None = None
    heads: int | None = None
    mlp_ratio: float | None = None
    drop_path_rate: float = 0.0
    compact: bool = False
    checkpointing: bool = False
    channels_last: bool = True

    def build(self, n_inputs: int, n_classes: int) -> Any:
        """The network. Raises ValueError for a name or sizes it cannot have."""
        import torch

        from vision.variants import create_model

        given = {key: getattr(self, key) for key in ("widths", "depths", "heads", "mlp_ratio")}
        changed = {key: value for key, value in given.items() if value is not None}
        model = create_model(
            self.name, num_classes=n_classes, in_chans=n_inputs, T=self.T, drop_path_rate=self.drop_path_rate, **changed
        )  # fmt: skip
        model.set_compact(self.compact)
        model.set_grad_checkpointing(self.checkpointing)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model  # type: ignore[call-overload]


@dataclass(kw_only=True)
class ResNetConfig:
    """A residual network without spikes, to compare with; one entry of widths and blocks per resolution."""

    kind: str = "resnet"
    widths: list[int] | None = None
    blocks: list[int] | None = None

    def build(self, n_inputs: int, n_classes: int) -> Any:
        from vision.resnet import ResNet

        widths, blocks = self.widths or [64, 128, 256], self.blocks or [2, 2, 2]
        return ResNet(in_chans=n_inputs, num_classes=n_classes, widths=widths, blocks=blocks)


@dataclass(kw_only=True)
class SpikingNetConfig:
    """A small feed-forward spiking network without attention. net: cnn or mlp. T: steps a picture is shown."""

    kind: str = "spiking_net"
    net: str = "cnn"
    T: int = 4

    def build(self, n_inputs: int, n_classes: int, size: int) -> Any:
        """The network for pictures of `size` x `size`. Raises ValueError for another `net`."""
        from vision.small_nets import SpikingNet

        return SpikingNet(net=self.net, size=size, in_chans=n_inputs, num_classes=n_classes, T=self.T)  # type: ignore[arg-type]
