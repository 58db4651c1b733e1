"""Residual networks of convolutions over time: plain, depthwise-separable or dilated, with ReLU or spiking neurons.

    stem     a0 = f(BN(conv k0, stride s0 of the frames))
    block    y = f(BN(conv_k(a)));  y = BN(conv_k(y))                       the first conv has the stride
    ReLU     a = relu(y + short)            short = a, or BN(conv1x1(a)) where the shape changes
    LIF      a = LIF(y) + short             short = a, or LIF(BN(conv1x1(a))): whole numbers (SEW-ResNet, Fang 2021)
    head     linear, per step; read out as the mean logit

With shortcut=currents the stem and the blocks hand on currents u, and neurons stand before the convolutions (Hu et al.,
TNNLS 36:2353): every convolution of a block reads spikes, and gradients pass the shortcut without a surrogate.

    stem     u = BN(conv(frames))
    block    s = LIF(u);  u = BN(conv_k(LIF(BN(conv_k(s))))) + short        short = u, or BN(conv1x1(s))
    head     linear of the currents u, or of LIF(u) with spiking_head

The mel bands are channels, so a convolution costs no more than a vector product a step (TC-ResNet, Choi et al.,
Interspeech 2019). With neuron=relu it is the network a spiking one has to be compared with: same maps, same counts.
With strides of 2 the output is shorter than the input (`output_lengths`). Padded steps never change a valid one.
"""

from dataclasses import asdict, dataclass, field

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from spikeloom.accel.spiking.dropout import Dropout
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF, ParametricLIF
from spikeloom.accel.spiking.norm import SequenceBatchNorm, mask_steps
from spikeloom.accel.spiking.surrogate import ATan
from spikeloom.speech.models.readout import check_readout, padding_mask


@dataclass
class TemporalConvConfig:
    """Sizes of a residual network of convolutions over time; one entry of the lists for each block."""

    kind: str = "temporal_conv"
    channels: list[int] = field(default_factory=lambda: [48, 64, 88])  # of the blocks; the stem has the first
    strides: list[int] = field(default_factory=lambda: [2, 2, 2])  # of the blocks, in time
    dilations: list[int] = field(default_factory=lambda: [1, 1, 1])  # of the blocks
    kernel: int = 9  # steps of a convolution
    stem_kernel: int = 3  # steps of the first convolution
    stem_stride: int = 1  # of the first convolution
    separable: bool = False  # each convolution as a depthwise and a pointwise one
    causal: bool = False  # the present and the past only
    neuron: str = "relu"  # or lif
    shortcut: str = "spikes"  # what is added past a block (neuron=lif): spikes or currents
    spiking_head: bool = False  # neurons before the head (shortcut=currents)
    tau: float = 2.0  # time constant of the neurons in steps, before training where it is learned (neuron=lif)
    surrogate_alpha: float = 2.0  # steepness of the surrogate gradient (neuron=lif)
    learned_tau: bool = False  # time constant of every population learned (neuron=lif)
    dropout: float = 0.0  # before the head
    readout: str = "mean_logit"  # or mean_probability

    def build(self, n_inputs: int, n_classes: int) -> "TemporalConvNet":
        values = {name: value for name, value in asdict(self).items() if name != "kind"}
        return TemporalConvNet(n_inputs=n_inputs, n_classes=n_classes, **values)


class Activation(nn.Module):
    """ReLU, or LIF (no input decay, threshold 1, hard reset): [T, B, C] -> [T, B, C]."""

    def __init__(self, config: TemporalConvConfig) -> None:
        super().__init__()
        self.spiking = config.neuron == "lif"
        surrogate = ATan(config.surrogate_alpha)
        parameters = LIFParameters(tau=config.tau, decay_input=False, threshold=1.0, v_reset=0.0, surrogate=surrogate)
        kind = ParametricLIF if config.learned_tau else LIF
        self.neuron = kind(parameters) if self.spiking else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.neuron(x)
        return out[0] if self.spiking else out


class ConvNorm(nn.Module):
    """BN(convolution over time) of [T, B, C_in] -> [ceil(T / stride), B, C_out]; padded steps count as zeros."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int, config: TemporalConvConfig, *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        reach = (kernel - 1) * dilation
        self.past = reach if config.causal else 0  # zeros before the first step
        padding = 0 if config.causal else reach // 2
        separable = config.separable and kernel > 1
        depthwise = nn.Conv1d(n_in, n_in, kernel, stride, padding, dilation, groups=n_in, bias=False)
        full = nn.Conv1d(n_in, n_out, kernel, stride, padding, dilation, bias=False)
        self.maps = (
            nn.Sequential(depthwise, nn.Conv1d(n_in, n_out, 1, bias=False)) if separable else nn.Sequential(full)
        )
        self.norm = SequenceBatchNorm(n_out)
        self.stride = stride

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x_BCT = mask_steps(x, mask).permute(1, 2, 0)
        if self.past:
            x_BCT = nn.functional.pad(x_BCT, (self.past, 0))
        return self.norm(self.maps(x_BCT).permute(2, 0, 1), strided(mask, self.stride))


def strided(mask: Tensor | None, stride: int) -> Tensor | None:
    """Mask [T, B] of every `stride`-th step."""
    return mask if mask is None or stride == 1 else mask[::stride]


class ResidualBlock(nn.Module):
    """Two convolutions and a way past them (equations above)."""

    def __init__(self, n_in: int, n_out: int, stride: int, dilation: int, config: TemporalConvConfig) -> None:
        super().__init__()
        self.spiking, self.stride = config.neuron == "lif", stride
        self.adds_currents = self.spiking and config.shortcut == "currents"
        self.first = ConvNorm(n_in, n_out, config.kernel, config, stride=stride, dilation=dilation)
        self.first_neurons = Activation(config)
        self.second = ConvNorm(n_out, n_out, config.kernel, config, dilation=dilation)
        self.second_neurons = Activation(config)
        self.changes = stride > 1 or n_in != n_out
        if self.changes:
            self.short = ConvNorm(n_in, n_out, 1, config, stride=stride)
            if self.spiking and not self.adds_currents:
                self.short_neurons = Activation(config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        after = strided(mask, self.stride)
        if self.adds_currents:
            spikes = self.first_neurons(x)
            y = self.second(self.second_neurons(self.first(spikes, mask)), after)
            return y + (self.short(spikes, mask) if self.changes else x)
        y = self.second(self.first_neurons(self.first(x, mask)), after)
        short = self.short(x, mask) if self.changes else x
        if not self.spiking:
            return self.second_neurons(y + short)
        return self.second_neurons(y) + (self.short_neurons(short) if self.changes else short)


class TemporalConvNet(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["keyword-spotting"]):
    """x [T, B, n_inputs], lengths [B] -> logits [T', B, n_classes]; sizes as in TemporalConvConfig.

    T' is T divided by every stride, rounded up. `save_pretrained` and `from_pretrained` write and read a folder.
    """

    def __init__(
        self, *, n_inputs: int, n_classes: int, channels: list[int], strides: list[int], dilations: list[int],
        kernel: int = 9, stem_kernel: int = 3, stem_stride: int = 1, separable: bool = False, causal: bool = False,
        neuron: str = "relu", shortcut: str = "spikes", spiking_head: bool = False, tau: float = 2.0,
        surrogate_alpha: float = 2.0, learned_tau: bool = False, dropout: float = 0.0, readout: str = "mean_logit",
    ) -> None:  # fmt: skip
        super().__init__()
        check_readout(readout)
        if not channels or len({len(channels), len(strides), len(dilations)}) != 1:
            raise ValueError(
                f"model.channels, strides and dilations have {len(channels)}, {len(strides)} and {len(dilations)} "
                "entries; give one of each for every block"
            )
        if neuron not in ("relu", "lif"):
            raise ValueError(f"model.neuron={neuron} is unknown; use relu or lif")
        if shortcut not in ("spikes", "currents") or (neuron == "relu" and shortcut != "spikes"):
            raise ValueError(f"model.shortcut={shortcut} with neuron={neuron}; use spikes, or currents with neuron=lif")
        if spiking_head and shortcut != "currents":
            raise ValueError("model.spiking_head=true needs shortcut=currents; the other heads read spikes already")
        if kernel % 2 == 0 or stem_kernel % 2 == 0 or min(kernel, stem_kernel, stem_stride, *strides, *dilations) < 1:
            raise ValueError(f"model.kernel={kernel} and stem_kernel={stem_kernel} must be odd, strides at least 1")
        config = TemporalConvConfig(
            channels=channels, strides=strides, dilations=dilations, kernel=kernel, stem_kernel=stem_kernel,
            stem_stride=stem_stride, separable=separable, causal=causal, neuron=neuron, shortcut=shortcut,
            spiking_head=spiking_head, tau=tau, dropout=dropout, surrogate_alpha=surrogate_alpha,
            learned_tau=learned_tau, readout=readout,
        )  # fmt: skip
        self.n_inputs, self.n_classes, self.config, self.readout = n_inputs, n_classes, config, readout
        self.title = "spiking temporal-convolution ResNet" if neuron == "lif" else "temporal-convolution ResNet"
        self.stem = ConvNorm(n_inputs, channels[0], stem_kernel, config, stride=stem_stride)
        if shortcut == "spikes":
            self.stem_neurons = Activation(config)
        widths = [channels[0], *channels]
        self.blocks = nn.ModuleList(
            ResidualBlock(widths[i], widths[i + 1], strides[i], dilations[i], config) for i in range(len(channels))
        )
        if spiking_head:
            self.head_neurons = Activation(config)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(channels[-1], n_classes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        if x.dim() != 3 or x.shape[2] != self.n_inputs:
            raise ValueError(f"expected frames [T, B, {self.n_inputs}], got {tuple(x.shape)}; check the front end")
        mask = padding_mask(lengths, x.shape[0])
        x, mask = self.stem(x, mask), strided(mask, self.config.stem_stride)
        if self.config.shortcut == "spikes":
            x = self.stem_neurons(x)
        for block, stride in zip(self.blocks, self.config.strides, strict=True):
            x, mask = block(x, mask), strided(mask, stride)
        if self.config.spiking_head:
            x = self.head_neurons(x)
        return self.head(self.dropout(x))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Valid steps [B] of the logits."""
        for stride in (self.config.stem_stride, *self.config.strides):
            lengths = torch.div(lengths + stride - 1, stride, rounding_mode="floor")
        return lengths
