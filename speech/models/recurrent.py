"""Networks with a memory of their own: gated recurrent units, and layers of LIF neurons with or without recurrence.

    GRU     r, z = sigmoid(W_rz x + U_rz h);  n = tanh(W_n x + r * (U_n h + b));  h' = (1 - z) n + z h      (Cho, 2014)
    LIF     I[t] = BN(W x[t]) + U s[t-1];  s = LIF(I), one learned time constant a layer        (Cramer 2022; Fang 2021)

Both are what the literature on SHD and keyword spotting compares with. Maps are `nn.Linear`, so that they are counted
and costed like any other layer; of the products of gates, three a unit and step, `speech.energy` has the rule. Layers
run step by step where they recur and over the whole sequence where they do not. All are causal; padded steps never
change a valid one.
"""

from dataclasses import asdict, dataclass, field

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from spikeloom.accel.spiking.dropout import Dropout
from spikeloom.accel.spiking.functional import LIFParameters, LIFState
from spikeloom.accel.spiking.neuron import ParametricLIF
from spikeloom.accel.spiking.norm import LinearNorm, mask_steps
from spikeloom.accel.spiking.surrogate import ATan
from spikeloom.speech.models.readout import check_readout, padding_mask


@dataclass
class GRUConfig:
    """Sizes of a network of gated recurrent units."""

    kind: str = "gated_recurrent"
    hidden: list[int] = field(default_factory=lambda: [144, 144])  # units of the layers
    dropout: float = 0.1  # after every layer
    readout: str = "mean_logit"  # or mean_probability

    def build(self, n_inputs: int, n_classes: int) -> "GRUNetwork":
        return GRUNetwork(
            n_inputs=n_inputs, n_classes=n_classes, hidden=list(self.hidden), dropout=self.dropout, readout=self.readout
        )


class GRULayer(nn.Module):
    """One layer of gated recurrent units: [T, B, N] -> [T, B, H]."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(n_in, 3 * n_out)
        self.recurrent = nn.Linear(n_out, 3 * n_out)
        for layer in (self.inputs, self.recurrent):  # as PyTorch initialises its own
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -(n_out**-0.5), n_out**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[1], self.recurrent.in_features)
        states: list[Tensor] = []  # of every step
        for step in self.inputs(x).unbind(0):
            x_r, x_z, x_n = step.chunk(3, dim=1)
            h_r, h_z, h_n = self.recurrent(h).chunk(3, dim=1)
            n = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
            h = torch.lerp(n, h, torch.sigmoid(x_z + h_z))
            states.append(h)
        return torch.stack(states)


class GRUNetwork(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["keyword-spotting"]):
    """x [T, B, n_inputs], lengths [B] -> logits [T, B, n_classes]; sizes as in GRUConfig."""

    def __init__(
        self, *, n_inputs: int, n_classes: int, hidden: list[int], dropout: float = 0.1, readout: str = "mean_logit"
    ) -> None:
        super().__init__()
        check_readout(readout)
        self.config = GRUConfig(hidden=hidden, dropout=dropout, readout=readout)
        self.n_inputs, self.n_classes, self.readout = n_inputs, n_classes, readout
        self.title = "GRU"
        widths = [n_inputs, *hidden]
        self.layers = nn.ModuleList(GRULayer(widths[i], widths[i + 1]) for i in range(len(hidden)))
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        _check_frames(x, self.n_inputs)
        x = mask_steps(x, padding_mask(lengths, x.shape[0]))
        for layer in self.layers:
            x = self.dropout(layer(x))
        return self.head(x)


@dataclass
class LIFNetworkConfig:
    """Sizes of a network of LIF layers."""

    kind: str = "lif_network"
    hidden: list[int] = field(default_factory=lambda: [256, 256])  # neurons of the layers
    recurrent: bool = False  # every neuron hears the spikes of its layer one step later
    tau: float = 4.0  # time constant before training, in steps; one is learned for each layer
    surrogate_alpha: float = 2.0  # steepness of the surrogate gradient
    dropout: float = 0.1  # after every layer
    readout: str = "mean_logit"  # or mean_probability

    def build(self, n_inputs: int, n_classes: int) -> "LIFNetwork":
        values = {name: value for name, value in asdict(self).items() if name != "kind"}
        return LIFNetwork(n_inputs=n_inputs, n_classes=n_classes, **values)


class LIFLayer(nn.Module):
    """[T, B, N] -> spikes [T, B, H]."""

    def __init__(self, n_in: int, n_out: int, config: LIFNetworkConfig) -> None:
        super().__init__()
        self.inputs = LinearNorm(n_in, n_out, bias=False)
        self.neurons = ParametricLIF(
            LIFParameters(
                tau=config.tau, decay_input=False, threshold=1.0, v_reset=0.0, surrogate=ATan(config.surrogate_alpha)
            )
        )
        self.recurrent = nn.Linear(n_out, n_out, bias=False) if config.recurrent else None
        if self.recurrent is not None:
            nn.init.orthogonal_(self.recurrent.weight, gain=0.5)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        currents = self.inputs(x, mask)
        if self.recurrent is None:
            spikes: Tensor = self.neurons(currents)[0]
            return spikes
        state: LIFState | None = None
        s = torch.zeros_like(currents[0])
        fired: list[Tensor] = []  # spikes of every step
        for current in currents.unbind(0):
            one_step, state = self.neurons((current + self.recurrent(s))[None], state)
            s = one_step[0]
            fired.append(s)
        return torch.stack(fired)


class LIFNetwork(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["spiking", "keyword-spotting"]):
    """x [T, B, n_inputs], lengths [B] -> logits [T, B, n_classes]; sizes as in LIFNetworkConfig."""

    def __init__(
        self, *, n_inputs: int, n_classes: int, hidden: list[int], recurrent: bool = False, tau: float = 4.0,
        surrogate_alpha: float = 2.0, dropout: float = 0.1, readout: str = "mean_logit",
    ) -> None:  # fmt: skip
        super().__init__()
        check_readout(readout)
        config = LIFNetworkConfig(
            hidden=hidden, recurrent=recurrent, tau=tau, surrogate_alpha=surrogate_alpha, dropout=dropout,
            readout=readout,
        )  # fmt: skip
        self.n_inputs, self.n_classes, self.config, self.readout = n_inputs, n_classes, config, readout
        self.title = "recurrent LIF network" if recurrent else "feed-forward LIF network"
        widths = [n_inputs, *hidden]
        self.layers = nn.ModuleList(LIFLayer(widths[i], widths[i + 1], config) for i in range(len(hidden)))
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        _check_frames(x, self.n_inputs)
        mask = padding_mask(lengths, x.shape[0])
        x = mask_steps(x, mask)
        for layer in self.layers:
            x = self.dropout(layer(x, mask))
        return self.head(x)


def _check_frames(x: Tensor, n_inputs: int) -> None:
    if x.dim() != 3 or x.shape[2] != n_inputs:
        raise ValueError(f"expected frames [T, B, {n_inputs}], got {tuple(x.shape)}; check the front end")
