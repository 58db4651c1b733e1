"""SpikCommander: a spiking network for speech commands with gates instead of attention (Wang et al., arXiv 2511.07883).

Spiking embedding, then blocks of multi-view attention (MSTASA) and a separable convolution in an MLP (SCR); C channels,
h heads, d = C / h, w = `window` steps, S = `global_steps`. All neurons start, rest and are reset at 0.5.

    embedding   s = LIF(BN(dwconv7(conv1(x))));  out = LIF(BN(W s)) + s
    MSTASA      q, k, v = LIF(BN(W u)),  u = LIF(x) in the form shd, x in the others
                g_l[t] = LIF(sum of (q + k)[t'], |t' - t| <= w, / sqrt(d (2 w + 1)))         local gate
                g_g    = LIF(sum over all t' of (q + k)[t'] / sqrt(d S)), a single step       global gate
                o = (g_l + g_g) v;   m = LIF(dwconv over (time, d) of pw over heads of v)
                x += LIF(BN(W (LIF(BN(W o)) + m)))
    SCR         p | r = LIF(BN(W LIF(BN(conv1(x)))));  p = LIF(BN(dwconv31(p)));  x += LIF(BN(conv1 LIF(BN(W (r, p)))))
    head        linear without bias, per step, on the integer residual

Departures from the released code, because its results depended on the padding of a batch: padded steps are silent
everywhere; the readout averages over valid steps and is never put through softmax twice. Departure in name: the window
and the global scale are configuration. `causal` (an extension: left windows and kernels, a running global sum) sees no
future; the released form sees the whole clip and cannot stream.
"""

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from spikeloom.accel.spiking.dropout import Dropout
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF
from spikeloom.accel.spiking.norm import LinearNorm, SequenceBatchNorm, mask_steps
from spikeloom.accel.spiking.surrogate import ATan
from spikeloom.speech.models.readout import check_readout, padding_mask
from spikeloom.speech.models.spikescr import TimeConv

VALUE_KERNELS = {"shd": (9, 1), "ssc": (7, 1), "gsc": (9, 3)}  # form -> kernel over (time, features of a head)


@dataclass
class SpikCommanderConfig:
    """Sizes of a SpikCommander. Named forms: SHD 1L-8-128 (mlp_ratio 1), SSC and GSC 1L and 2L-16-256 (mlp_ratio 4)."""

    kind: str = "spikcommander"
    form: str = "shd"  # shd, ssc or gsc: neurons before the attention, kernel of the values
    width: int = 128  # channels
    heads: int = 8  # of the attention
    depth: int = 1  # number of blocks
    mlp_ratio: int = 1  # hidden width of the MLP, in widths
    window: int = 20  # steps before and after a step that its local gate sees
    global_steps: int = 100  # S of the global gate: steps a second (SHD, SSC); released for GSC: 10 at 10 ms
    dropout: float = 0.1  # after every neuron
    causal: bool = False  # extension: the past only
    surrogate_alpha: float = 5.0  # steepness of the surrogate gradient
    readout: str = "mean_probability"  # or mean_logit

    def build(self, n_inputs: int, n_classes: int) -> "SpikCommander":
        values = {name: value for name, value in asdict(self).items() if name != "kind"}
        return SpikCommander(n_inputs=n_inputs, n_classes=n_classes, **values)


class Population(nn.Module):
    """LIF with dropout: tau 2, no input decay, threshold 1; start, rest and hard reset at 0.5."""

    def __init__(self, config: SpikCommanderConfig, dropout: bool = True) -> None:
        super().__init__()
        surrogate = ATan(config.surrogate_alpha)
        parameters = LIFParameters(tau=2.0, decay_input=False, threshold=1.0, v_reset=0.5, surrogate=surrogate)
        self.lif = LIF(parameters)
        self.dropout = Dropout(config.dropout if dropout else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.dropout(self.lif(x)[0])
        return spikes


class SpikingEmbedding(nn.Module):
    """[T, B, N] -> 0, 1, 2 [T, B, C]."""

    def __init__(self, n_inputs: int, config: SpikCommanderConfig) -> None:
        super().__init__()
        width = config.width
        self.pointwise = nn.Linear(n_inputs, width)
        self.depthwise = TimeConv(width, width, 7, groups=width, bias=False, causal=config.causal)
        self.norm = SequenceBatchNorm(width)
        self.first_neurons = Population(config)
        self.linear = LinearNorm(width, width, bias=False)
        self.second_neurons = Population(config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = mask_steps(self.pointwise(mask_steps(x, mask)), mask)  # its bias would reach valid steps otherwise
        s = self.first_neurons(self.norm(self.depthwise(x, None)[0], mask))
        return self.second_neurons(self.linear(s, mask)) + s


class Gates(nn.Module):
    """Local and global gate from the spikes of q and k [T, B, h, d]: their sum, 0, 1 or 2, of the same shape."""

    def __init__(self, config: SpikCommanderConfig) -> None:
        super().__init__()
        d = config.width // config.heads
        self.window, self.causal = config.window, config.causal
        self.local_scale = 1 / math.sqrt(d * ((1 if config.causal else 2) * config.window + 1))
        self.global_scale = 1 / math.sqrt(d * config.global_steps)
        self.local_neurons = Population(config, dropout=False)
        self.global_neurons = Population(config, dropout=False)

    def forward(self, qk_TBHD: Tensor) -> Tensor:
        total = qk_TBHD.cumsum(0)  # whole numbers: exact
        local = self.local_neurons(window_sums(total, self.window, self.causal) * self.local_scale)
        if not self.causal:
            return local + self.global_neurons(total[-1:] * self.global_scale)
        steps = total.flatten(0, 1)[None]  # every step decides alone, as the whole clip does in the released form
        return local + self.global_neurons(steps * self.global_scale)[0].unflatten(0, total.shape[:2])


def window_sums(total: Tensor, window: int, causal: bool) -> Tensor:
    """Sums over t' in t - window … t + window (causal: … t) from running sums [T, ...]; zeros outside the clip."""
    steps = total.shape[0]
    padded = F.pad(total, (0, 0) * (total.dim() - 1) + (1, 0))  # padded[t] = sum before step t
    t = torch.arange(steps, device=total.device)
    last = t if causal else (t + window).clamp(max=steps - 1)
    return padded[last + 1] - padded[(t - window).clamp(min=0)]


class GatedAttention(nn.Module):
    """Multi-view spiking temporal-aware attention (MSTASA) on [T, B, C]."""

    def __init__(self, config: SpikCommanderConfig) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        if width % heads:
            raise ValueError(f"model.width must be a multiple of model.heads, got {width} and {heads}; use 128 and 8")
        self.heads = heads
        self.head_neurons = Population(config) if config.form == "shd" else None
        self.qkv = LinearNorm(width, 3 * width, bias=False)
        self.qkv_neurons = Population(config)
        self.gates = Gates(config)
        kernel = VALUE_KERNELS[config.form]
        time = 0 if config.causal else kernel[0] // 2
        self.past = kernel[0] - 1 if config.causal else 0  # zeros before the first step
        self.mix_heads = nn.Conv2d(heads, heads, 1, bias=False)
        self.value_conv = nn.Conv2d(heads, heads, kernel, padding=(time, kernel[1] // 2), groups=heads, bias=False)
        self.value_neurons = Population(config)
        self.dropout = Dropout(config.dropout)
        self.attended = LinearNorm(width, width, bias=False)
        self.attended_neurons = Population(config)
        self.out = LinearNorm(width, width, bias=False)
        self.out_neurons = Population(config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        u = x if self.head_neurons is None else self.head_neurons(x)
        qkv_TB3HD = self.qkv_neurons(self.qkv(u, mask)).unflatten(2, (3, self.heads, -1))
        q_TBHD, k_TBHD, v_TBHD = qkv_TB3HD.unbind(2)
        o = self.dropout((self.gates(q_TBHD + k_TBHD) * v_TBHD).flatten(2))
        v_BHTD = F.pad(self.mix_heads(v_TBHD.permute(1, 2, 0, 3)), (0, 0, self.past, 0))
        m_TBC = self.value_conv(v_BHTD).permute(2, 0, 1, 3).flatten(2)
        m = self.value_neurons(mask_steps(m_TBC, mask))
        o = self.attended_neurons(self.attended(o, mask)) + m
        return self.out_neurons(self.out(o, mask))


class SeparableMLP(nn.Module):
    """Spiking contextual refinement (SCR): an MLP, half of whose hidden channels pass a convolution over 31 steps."""

    KERNEL = 31

    def __init__(self, config: SpikCommanderConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.mlp_ratio * config.width
        self.first = LinearNorm(width, width, bias=True)
        self.first_neurons = Population(config)
        self.hidden = LinearNorm(width, hidden, bias=False)
        self.hidden_neurons = Population(config)
        half = hidden // 2
        self.depthwise = TimeConv(half, half, self.KERNEL, groups=half, bias=False, causal=config.causal)
        self.depthwise_norm = SequenceBatchNorm(half)
        self.depthwise_neurons = Population(config)
        self.back = LinearNorm(hidden, width, bias=False)
        self.back_neurons = Population(config)
        self.out = LinearNorm(width, width, bias=True)
        self.out_neurons = Population(config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.first_neurons(self.first(x, mask))
        p, r = self.hidden_neurons(self.hidden(x, mask)).chunk(2, dim=2)
        p = self.depthwise(mask_steps(p, mask), None)[0]
        p = self.depthwise_neurons(self.depthwise_norm(p, mask))
        x = self.back_neurons(self.back(torch.cat((r, p), dim=2), mask))
        return self.out_neurons(self.out(x, mask))


class Block(nn.Module):
    """x += MSTASA(x); x += SCR(x)."""

    def __init__(self, config: SpikCommanderConfig) -> None:
        super().__init__()
        self.attention = GatedAttention(config)
        self.mlp = SeparableMLP(config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attention(x, mask)
        return x + self.mlp(x, mask)


class SpikCommander(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["spiking", "keyword-spotting"]):
    """x [T, B, n_inputs], lengths [B] -> per-step logits [T, B, n_classes]; sizes as in SpikCommanderConfig.

    Logits of padded steps mean nothing. `save_pretrained` and `from_pretrained` write and read a folder.
    """

    def __init__(
        self, *, n_inputs: int, n_classes: int, form: str = "shd", width: int = 128, heads: int = 8, depth: int = 1,
        mlp_ratio: int = 1, window: int = 20, global_steps: int = 100, dropout: float = 0.1, causal: bool = False,
        surrogate_alpha: float = 5.0, readout: str = "mean_probability",
    ) -> None:  # fmt: skip
        super().__init__()
        check_readout(readout)
        if form not in VALUE_KERNELS:
            raise ValueError(f"model.form={form} is unknown; use one of {', '.join(VALUE_KERNELS)}")
        if window < 0 or global_steps < 1 or (mlp_ratio * width) % 2:
            raise ValueError(
                f"model.window={window} must be at least 0, model.global_steps={global_steps} at least 1, and "
                f"the hidden width {mlp_ratio * width} even; use 20, 100 and a width of 128"
            )
        config = SpikCommanderConfig(
            form=form, width=width, heads=heads, depth=depth, mlp_ratio=mlp_ratio, window=window, causal=causal,
            global_steps=global_steps, dropout=dropout, surrogate_alpha=surrogate_alpha, readout=readout,
        )  # fmt: skip
        self.n_inputs, self.n_classes, self.config = n_inputs, n_classes, config
        self.readout, self.title = readout, "SpikCommander"
        self.embedding = SpikingEmbedding(n_inputs, config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(depth))
        self.head = nn.Linear(width, n_classes, bias=False)
        for parameter in self.parameters():
            if parameter.dim() >= 2:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        if x.dim() != 3 or x.shape[2] != self.n_inputs:
            raise ValueError(f"expected frames [T, B, {self.n_inputs}], got {tuple(x.shape)}; check the front end")
        mask = padding_mask(lengths, x.shape[0])
        x = self.embedding(x, mask)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(x)
