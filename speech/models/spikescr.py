"""SpikeSCR: a spiking network for speech commands (Wang et al., arXiv 2412.12858; Neural Networks 195:108253).

Spiking embedding, then blocks of rotary spiking attention, feed-forward, separable gated convolution, feed-forward.
Every branch ends in a neuron, so the residual stream holds small integers. One file, one paper; training is elsewhere.

Departures from the released code, each because its results depended on the rest of the batch: q and k keep their true
time order through the second neuron; padded steps are silent everywhere; the readout averages probabilities over the
valid steps and is never put through softmax twice.

The causal model looks back only, so it can run frame by frame. The default model sees the whole utterance in attention
and 1 + 15*depth future steps in convolutions: it cannot stream.
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from spikeloom.accel.spiking.attention import CausalAttentionState, causal_attention, rotate, spiking_attention
from spikeloom.accel.spiking.depthwise import DepthwiseConv1d
from spikeloom.accel.spiking.dropout import Dropout
from spikeloom.accel.spiking.functional import LIFParameters, LIFState
from spikeloom.accel.spiking.neuron import LIF, ParametricLIF
from spikeloom.accel.spiking.norm import LinearNorm, SequenceBatchNorm, mask_steps
from spikeloom.accel.spiking.surrogate import ATan
from spikeloom.speech.models.readout import check_readout, padding_mask
from spikeloom.speech.models.readout import log_mean_probability as log_mean_probability


@dataclass
class SpikeSCRConfig:
    """Sizes of a SpikeSCR. Named forms: 1L-8-128 (depth 1, 8 heads, width 128, mlp_ratio 1), 2L-16-256 (4)."""

    width: int = 128  # channels
    heads: int = 8  # of the attention
    depth: int = 1  # number of blocks
    mlp_ratio: int = 1  # hidden width of the MLP, in widths
    dropout: float = 0.1  # after every neuron
    causal: bool = False  # attention and convolutions see the past only
    attn_window: int | None = None  # steps of the past that causal attention sees; None: all of it
    readout: str = "mean_probability"  # or mean_logit, which learns faster where many steps are silent
    surrogate_alpha: float = 5.0  # steepness of the surrogate gradient; 2.0 reaches more neurons
    tau: float = 2.0  # time constant of the neurons in steps, before training where it is learned
    kernel: int = 31  # steps of the depthwise convolution
    rotary: bool = True  # rotary positions of q and k (ablation)
    global_branch: bool = True  # attention and its feed-forward part (ablation)
    local_branch: bool = True  # gated convolution and its feed-forward part (ablation)
    learned_tau: bool = False  # time constant of every population learned, as in parametric LIF

    def neurons(self, dropout: bool = True) -> "Neurons":
        """One population of the network, with its dropout or without."""
        return Neurons(self.dropout if dropout else 0.0, self.surrogate_alpha, self.learned_tau, self.tau)

    def build(self, n_inputs: int, n_classes: int) -> "SpikeSCR":
        return SpikeSCR(n_inputs=n_inputs, n_classes=n_classes, **asdict(self))


class Neurons(nn.Module):
    """LIF followed by dropout, which end every branch. No input decay, threshold 1, hard reset to 0, ATan."""

    def __init__(self, dropout: float = 0.0, alpha: float = 5.0, learned_tau: bool = False, tau: float = 2.0) -> None:
        super().__init__()
        parameters = LIFParameters(tau=tau, decay_input=False, threshold=1.0, v_reset=0.0, surrogate=ATan(alpha))
        self.lif = ParametricLIF(parameters) if learned_tau else LIF(parameters)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, state: LIFState | None) -> tuple[Tensor, LIFState]:
        spikes, state = self.lif(x, state)
        return self.dropout(spikes), state


class TimeConv(nn.Module):
    """Convolution over time of [T, B, C_in]: centred, or (causal) over the current and the k-1 steps before.

    The state of the causal form is the k-1 last input steps [k-1, B, C_in].
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, *, groups: int = 1, bias: bool, causal: bool) -> None:
        super().__init__()
        kind = DepthwiseConv1d if n_in == n_out == groups else nn.Conv1d
        self.conv = kind(n_in, n_out, kernel, padding=0 if causal else kernel // 2, groups=groups, bias=bias)
        self.kernel, self.causal = kernel, causal

    def forward(self, x_TBC: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor | None]:
        reach = self.kernel - 1
        if self.causal:
            past = x_TBC.new_zeros(reach, *x_TBC.shape[1:]) if past is None else past
            x_TBC = torch.cat((past, x_TBC))
            past = x_TBC[x_TBC.shape[0] - reach :]
        return self.conv(x_TBC.permute(1, 2, 0)).permute(2, 0, 1), past


class EmbeddingState(NamedTuple):
    past: Tensor | None
    lif: LIFState


class SpikingEmbedding(nn.Module):
    """[T, B, N] -> spikes [T, B, C]: convolution of three steps, BN, LIF."""

    def __init__(self, n_inputs: int, config: SpikeSCRConfig) -> None:
        super().__init__()
        self.conv = TimeConv(n_inputs, config.width, 3, bias=True, causal=config.causal)
        self.norm = SequenceBatchNorm(config.width)
        self.neurons = config.neurons()

    def forward(self, x: Tensor, mask: Tensor | None, state: EmbeddingState | None) -> tuple[Tensor, EmbeddingState]:
        x, past = self.conv(mask_steps(x, mask), state and state.past)
        x, lif = self.neurons(self.norm(x, mask), state and state.lif)
        return x, EmbeddingState(past, lif)


class AttentionState(NamedTuple):
    qkv: LIFState
    qk: LIFState
    context: CausalAttentionState | None
    attended: LIFState
    out: LIFState


class SpikingAttention(nn.Module):
    """Rotary spiking self-attention (SSA) on [T, B, C]; q, k and v share one projection, channels in that order."""

    def __init__(self, config: SpikeSCRConfig) -> None:
        super().__init__()
        width = config.width
        if width % (2 * config.heads):
            raise ValueError(
                f"width must be a multiple of 2*heads, got {width} and {config.heads} heads; use 128 and 8"
            )
        self.heads, self.causal, self.window = config.heads, config.causal, config.attn_window
        self.qkv = LinearNorm(width, 3 * width, bias=True)
        self.rotary = config.rotary
        self.qkv_neurons = config.neurons(dropout=False)
        self.rotated_neurons = config.neurons(dropout=False)
        self.attended_neurons = config.neurons()
        self.out = LinearNorm(width, width, bias=True)
        self.out_neurons = config.neurons()

    def forward(
        self, x: Tensor, mask: Tensor | None, position: int, state: AttentionState | None
    ) -> tuple[Tensor, AttentionState]:
        qkv, qkv_state = self.qkv_neurons(self.qkv(x, mask), state and state.qkv)
        qkv_TB3HD = qkv.unflatten(2, (3, self.heads, -1))
        # One membrane lane = one sample, one head, one feature, in true time order.
        qk_TB2HD = rotate(qkv_TB3HD[:, :, :2], position) if self.rotary else qkv_TB3HD[:, :, :2]
        qk_TB2HD, qk_state = self.rotated_neurons(qk_TB2HD, state and state.qk)
        q_TBHD, k_TBHD, v_TBHD = qk_TB2HD[:, :, 0], qk_TB2HD[:, :, 1], qkv_TB3HD[:, :, 2].to(qk_TB2HD.dtype)
        context = None
        if self.causal:
            o_TBHD, context = causal_attention(q_TBHD, k_TBHD, v_TBHD, state and state.context, self.window)
        else:
            o_TBHD = spiking_attention(q_TBHD, k_TBHD, v_TBHD)
        o, attended = self.attended_neurons(o_TBHD.flatten(2), state and state.attended)
        o = o.to(self.out.linear.weight.dtype)  # rotated values are float32 or better, and so were those spikes
        o, out = self.out_neurons(self.out(o, mask), state and state.out)
        return o, AttentionState(qkv_state, qk_state, context, attended, out)


class FeedForwardState(NamedTuple):
    hidden: LIFState
    out: LIFState


class FeedForward(nn.Module):
    """C -> mlp_ratio*C -> C, each a linear map without bias, BN and LIF."""

    def __init__(self, config: SpikeSCRConfig) -> None:
        super().__init__()
        hidden = config.mlp_ratio * config.width
        self.hidden = LinearNorm(config.width, hidden, bias=False)
        self.hidden_neurons = config.neurons()
        self.out = LinearNorm(hidden, config.width, bias=False)
        self.out_neurons = config.neurons()

    def forward(
        self, x: Tensor, mask: Tensor | None, state: FeedForwardState | None
    ) -> tuple[Tensor, FeedForwardState]:
        x, hidden = self.hidden_neurons(self.hidden(x, mask), state and state.hidden)
        x, out = self.out_neurons(self.out(x, mask), state and state.out)
        return x, FeedForwardState(hidden, out)


class GatedConvolutionState(NamedTuple):
    expand: LIFState
    past: Tensor | None
    depthwise: LIFState
    gate_in: LIFState
    gate: LIFState
    out: LIFState


class SeparableGatedConvolution(nn.Module):
    """Pointwise, depthwise over `kernel` steps, pointwise to (value | gate), spiking gate unit (SGC)."""

    def __init__(self, config: SpikeSCRConfig) -> None:
        super().__init__()
        width = config.width
        self.expand = LinearNorm(width, width, bias=True)
        self.expand_neurons = config.neurons()
        self.depthwise = TimeConv(width, width, config.kernel, groups=width, bias=False, causal=config.causal)
        self.depthwise_norm = SequenceBatchNorm(width)
        self.depthwise_neurons = config.neurons()
        self.value_and_gate = LinearNorm(width, 2 * width, bias=True)
        self.gate_in_neurons = config.neurons(dropout=False)
        self.gate = LinearNorm(width, width, bias=True)
        self.gate_neurons = config.neurons(dropout=False)
        self.out_neurons = config.neurons()

    def forward(
        self, x: Tensor, mask: Tensor | None, state: GatedConvolutionState | None
    ) -> tuple[Tensor, GatedConvolutionState]:
        x, expand = self.expand_neurons(self.expand(x, mask), state and state.expand)
        # Padded spikes are 0 already; the mask keeps the surrogate gradient out of them, too.
        x, past = self.depthwise(mask_steps(x, mask), state and state.past)
        x, depthwise = self.depthwise_neurons(self.depthwise_norm(x, mask), state and state.depthwise)
        value, gate = self.value_and_gate(x, mask).chunk(2, dim=2)
        gate, gate_in = self.gate_in_neurons(gate, state and state.gate_in)
        gate, gate_state = self.gate_neurons(self.gate(gate, mask), state and state.gate)
        x, out = self.out_neurons(value * gate, state and state.out)
        return x, GatedConvolutionState(expand, past, depthwise, gate_in, gate_state, out)


class BlockState(NamedTuple):
    """Of the branches there are; None for one that an ablation leaves out."""

    attention: AttentionState | None
    feed_forward1: FeedForwardState | None
    convolution: GatedConvolutionState | None
    feed_forward2: FeedForwardState | None


class Block(nn.Module):
    """x += SSA(x); x += FFN1(x); x += SGC(x); x += FFN2(x): global context, then local."""

    def __init__(self, config: SpikeSCRConfig) -> None:
        super().__init__()
        self.global_branch, self.local_branch = config.global_branch, config.local_branch
        if config.global_branch:
            self.attention = SpikingAttention(config)
            self.feed_forward1 = FeedForward(config)
        if config.local_branch:
            self.convolution = SeparableGatedConvolution(config)
            self.feed_forward2 = FeedForward(config)

    def forward(
        self, x: Tensor, mask: Tensor | None, position: int, state: BlockState | None
    ) -> tuple[Tensor, BlockState]:
        attention = feed_forward1 = convolution = feed_forward2 = None
        if self.global_branch:
            y, attention = self.attention(x, mask, position, state and state.attention)
            x = x + y
            y, feed_forward1 = self.feed_forward1(x, mask, state and state.feed_forward1)
            x = x + y
        if self.local_branch:
            y, convolution = self.convolution(x, mask, state and state.convolution)
            x = x + y
            y, feed_forward2 = self.feed_forward2(x, mask, state and state.feed_forward2)
            x = x + y
        return x, BlockState(attention, feed_forward1, convolution, feed_forward2)


class SpikeSCRState(NamedTuple):
    """Everything a causal SpikeSCR remembers between frames; constant in size but for a window not yet full."""

    embedding: EmbeddingState
    blocks: tuple[BlockState, ...]
    position: int


class SpikeSCR(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["spiking", "keyword-spotting"]):
    """x [T, B, n_inputs], lengths [B] -> per-step logits [T, B, n_classes]; sizes as in SpikeSCRConfig.

    Logits of padded steps mean nothing; `log_mean_probability` reads out the valid ones. `save_pretrained` and
    `from_pretrained` write and read a folder of config.json and model.safetensors.
    """

    def __init__(
        self,
        *,
        n_inputs: int,
        n_classes: int,
        width: int = 128,
        heads: int = 8,
        depth: int = 1,
        mlp_ratio: int = 1,
        dropout: float = 0.1,
        causal: bool = False,
        attn_window: int | None = None,
        readout: str = "mean_probability",
        surrogate_alpha: float = 5.0,
        tau: float = 2.0,
        kernel: int = 31,
        rotary: bool = True,
        global_branch: bool = True,
        local_branch: bool = True,
        learned_tau: bool = False,
    ) -> None:
        super().__init__()
        check_readout(readout)
        if not (global_branch or local_branch):
            raise ValueError("model.global_branch and model.local_branch are both false; leave one of them")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"model.kernel={kernel} must be an odd number of steps; use 31")
        if attn_window is not None and not (causal and attn_window >= 1):
            raise ValueError(f"attn_window={attn_window} needs causal=true and at least 1 step; leave it null")
        config = SpikeSCRConfig(
            width=width, heads=heads, depth=depth, mlp_ratio=mlp_ratio, dropout=dropout, causal=causal,
            attn_window=attn_window, readout=readout, surrogate_alpha=surrogate_alpha, tau=tau, kernel=kernel,
            rotary=rotary, global_branch=global_branch, local_branch=local_branch, learned_tau=learned_tau,
        )  # fmt: skip
        self.readout, self.title = readout, "SpikeSCR"
        self.n_inputs, self.n_classes, self.config = n_inputs, n_classes, config
        self.embedding = SpikingEmbedding(n_inputs, config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(config.width, n_classes, bias=False)
        for parameter in self.parameters():
            if parameter.dim() >= 2:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        mask = padding_mask(lengths, x.shape[0])
        return self._run(x, mask, None)[0]

    def stream(self, x: Tensor, state: SpikeSCRState | None = None) -> tuple[Tensor, SpikeSCRState]:
        """The next frames x [T, B, n_inputs] of every utterance -> (logits [T, B, n_classes], state).

        Causal model only. Chunks of any size give the logits of the whole. Start each utterance with state None:
        rotary positions followed by neurons are not shift invariant.
        """
        if not self.config.causal:
            raise ValueError("this SpikeSCR sees the future and cannot stream; train with model.causal=true")
        return self._run(x, None, state)

    def _run(self, x: Tensor, mask: Tensor | None, state: SpikeSCRState | None) -> tuple[Tensor, SpikeSCRState]:
        if x.dim() != 3 or x.shape[2] != self.n_inputs:
            raise ValueError(f"expected frames [T, B, {self.n_inputs}], got {tuple(x.shape)}; check the front end")
        position = 0 if state is None else state.position
        steps = x.shape[0]
        x, embedding = self.embedding(x, mask, state and state.embedding)
        blocks: list[BlockState] = []  # new state of each block
        for i, block in enumerate(self.blocks):
            x, block_state = block(x, mask, position, state and state.blocks[i])
            blocks.append(block_state)
        return self.head(self.dropout(x)), SpikeSCRState(embedding, tuple(blocks), position + steps)
