"""CET-MAE: a contrastive masked autoencoder of EEG and text (Wang et al., arXiv 2402.17433; ACL 2024, long.393).

    e = Linear(EEG kept)                         e_branch: h = dropout(e + pe[t]), post-norm Transformer
    a = GELU(fc_eeg(e)),  t = BART(masked text)  both as wide as the text encoder
    joint = unify([a; t]),  eeg = unify(a),  text = unify(t)     one attention, norms and feed-forward of each stream
    EEG'  = decoder(joint's EEG half at its own times, a mask token elsewhere);  text' = Linear(joint's text half)

Masked tokens never enter the encoder: kept ones are gathered, with the positions of the times they had. What is masked,
and what the outputs are judged by, is `bci.training`.

Shapes: L time steps of EEG (words, then the sentence), K of them kept, S text ids, B samples, D the width of the text
encoder, V ids. Masks are bool and True where valid.

Departures from the released code, each because it broke a result: the position indexes time, not the sample, and is
added once; the text output has no GELU; BART is attached after our own initialisation and never touched by it; kept
tokens return to their own times.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from accel.spiking.dropout import Dropout
from bci.bart import BartSizes, bart_of_config, pretrained_bart, random_bart
from bci.tokenizer import PAD
from bci.zuco.records import N_FEATURES

STREAMS = ("joint", "eeg", "text")


@dataclass
class CETMAEConfig:
    """Sizes of CET-MAE and of the E2T-PTR that inherits its EEG side; the defaults are the published ones.

    width: of the EEG encoder; other than 840, one linear map leads in and one out. bart: folder or name of pretrained
    weights, whose sizes then count; null: a randomly initialised BART of the text_* sizes. freeze_text: null freezes
    the text encoder only where it is pretrained. bart_config: written into the config.json of a trained model whose
    BART was pretrained, so that the folder is read back without the weights it began with.
    """

    width: int = N_FEATURES
    encoder_layers: int = 6
    decoder_layers: int = 1
    heads: int = 8
    ffn: int = 2048
    unify_heads: int = 16
    unify_ffn: int = 4096
    dropout: float = 0.1
    bart: str | None = None
    text_width: int = 1024
    text_layers: int = 12
    text_heads: int = 16
    text_ffn: int = 4096
    text_positions: int = 1024
    freeze_text: bool | None = None
    bart_config: dict[str, Any] | None = None

    @classmethod
    def small(cls) -> "CETMAEConfig":
        """Trains offline on a CPU."""
        return cls(
            encoder_layers=2, unify_heads=4, unify_ffn=256,
            text_width=128, text_layers=2, text_heads=4, text_ffn=256, text_positions=128,
        )  # fmt: skip

    @classmethod
    def planted(cls) -> "CETMAEConfig":
        """Small enough to show within two minutes that every term learns; 407,321 parameters at 656 ids."""
        return cls(
            width=64, encoder_layers=1, heads=4, ffn=128, unify_heads=4, unify_ffn=128,
            text_width=64, text_layers=2, text_heads=4, text_ffn=128, text_positions=64,
        )  # fmt: skip

    @property
    def bart_sizes(self) -> BartSizes:
        return BartSizes(
            width=self.text_width, layers=self.text_layers, heads=self.text_heads, ffn=self.text_ffn,
            max_positions=self.text_positions, dropout=self.dropout,
        )  # fmt: skip

    def build(self, vocab_size: int) -> "CETMAE":
        return CETMAE(vocab_size=vocab_size, **asdict(self))


def build_bart(config: CETMAEConfig, vocab_size: int, init_std: float = 0.02) -> Any:
    """The BART of a configuration: pretrained, as it once was, or random with weights N(0, init_std)."""
    if config.bart:
        return pretrained_bart(config.bart, vocab_size)
    if config.bart_config:
        return bart_of_config(config.bart_config)
    return random_bart(config.bart_sizes, vocab_size, init_std)


# --- layers shared by every Transformer here ------------------------------------------------------------------------


class Position(nn.Module):
    """dropout(x + pe) of [L, B, C], pe[t, 2i] = sin(t w_i), pe[t, 2i+1] = cos(t w_i), w_i = 10000^(-2i/C)."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        steps, width = x.shape[0], x.shape[2]
        frequency = 10_000.0 ** (-torch.arange(0, width, 2, device=x.device, dtype=x.dtype) / width)
        angle = torch.arange(steps, device=x.device, dtype=x.dtype)[:, None] * frequency
        pe = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)
        return self.dropout(x + pe[:, None])


class BatchPosition(Position):
    """The released mistake, kept to show what finds it: the position indexes the sample, [L, B, C] by B."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1)).transpose(0, 1)


class SelfAttention(nn.Module):
    """Softmax attention of [L, B, C] over the tokens that `mask` [L, B] calls valid."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads} heads; use 840 and 8")
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q_BHLD, k_BHLD, v_BHLD = (
            linear(x).unflatten(2, (self.heads, -1)).permute(1, 2, 0, 3)
            for linear in (self.query, self.key, self.value)
        )
        o_BHLD = F.scaled_dot_product_attention(
            q_BHLD, k_BHLD, v_BHLD,
            attn_mask=None if mask is None else mask.T[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        return self.out(o_BHLD.permute(2, 0, 1, 3).flatten(2))


class FeedForward(nn.Module):
    """C -> hidden -> C with ReLU."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.expand, self.contract = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.dropout(self.expand(x).relu()))


class Layer(nn.Module):
    """Post-norm Transformer layer on [L, B, C]: x = LN(x + attention(x)), x = LN(x + FFN(x))."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout)
        self.feed_forward = FeedForward(width, hidden, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.norm1(x + self.dropout(self.attention(x, mask)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class MultiStreamLayer(nn.Module):
    """One layer for several streams: attention is shared, norms and feed-forward belong to a stream."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, streams: tuple[str, ...]) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout)
        self.norm1, self.norm2, self.final_norm = (
            nn.ModuleDict({stream: nn.LayerNorm(width) for stream in streams}) for _ in range(3)
        )
        self.feed_forward = nn.ModuleDict({stream: FeedForward(width, hidden, dropout) for stream in streams})
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, stream: str) -> Tensor:
        x = self.norm1[stream](x + self.dropout(self.attention(x, mask)))
        x = self.norm2[stream](x + self.dropout(self.feed_forward[stream](x)))
        return self.final_norm[stream](x)


def initialise(module: nn.Module) -> None:
    """Linear: xavier uniform, bias 0; LayerNorm: 1 and 0. For modules of ours, never for a BART."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            part.reset_parameters()


# --- the EEG side ---------------------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """Where the tokens that enter the encoder came from: index [K, B] the steps they stood at, rising; mask [K, B]."""

    time: Tensor
    mask: Tensor


def keep(valid: Tensor, masked: Tensor) -> Kept:
    """The tokens that are valid and not masked, packed to the front. Raises ValueError where a sample keeps none."""
    kept = valid & ~masked
    counts = kept.sum(0)
    if not bool(counts.all()):
        raise ValueError(f"{int((counts == 0).sum())} samples keep no EEG token; mask less, or drop empty samples")
    index = (~kept).to(torch.int8).argsort(dim=0, stable=True)[: int(counts.max())]
    return Kept(index, kept.gather(0, index))


def rows_at(index: Tensor, width: int) -> Tensor:
    return index[..., None].expand(-1, -1, width)


class EEGEncoder(nn.Module):
    """EEG [L, B, 840] -> [L, B, width], or [K, B, width] of the tokens `kept`; mask [L, B] where none is left out."""

    def __init__(self, config: CETMAEConfig) -> None:
        super().__init__()
        width = config.width
        self.project = nn.Identity() if width == N_FEATURES else nn.Linear(N_FEATURES, width)
        self.position = Position(config.dropout)
        self.layers = nn.ModuleList(
            Layer(width, config.heads, config.ffn, config.dropout) for _ in range(config.encoder_layers)
        )

    def forward(self, eeg: Tensor, mask: Tensor | None = None, kept: Kept | None = None) -> Tensor:
        if eeg.dim() != 3 or eeg.shape[2] != N_FEATURES:
            raise ValueError(f"expected EEG [L, B, {N_FEATURES}], got {tuple(eeg.shape)}; use collate of bci.zuco")
        x = self.position(self.project(eeg))
        if kept is not None:
            x, mask = x.gather(0, rows_at(kept.time, x.shape[2])), kept.mask
        for layer in self.layers:
            x = layer(x, mask)
        return x


class EEGFront(nn.Module):
    """EEG encoder, projection and multi-stream layer: what CET-MAE learns and E2T-PTR inherits."""

    def __init__(self, config: CETMAEConfig, text_width: int, streams: tuple[str, ...]) -> None:
        super().__init__()
        self.e_branch = EEGEncoder(config)
        self.fc_eeg = nn.Linear(config.width, text_width)
        self.unify_branch = MultiStreamLayer(text_width, config.unify_heads, config.unify_ffn, config.dropout, streams)
        initialise(self)

    def project(self, eeg: Tensor, mask: Tensor | None, kept: Kept | None = None) -> Tensor:
        """GELU(fc_eeg(e_branch)): [L or K, B, D], not yet through the multi-stream layer."""
        return F.gelu(self.fc_eeg(self.e_branch(eeg, mask, kept)))

    def forward(self, eeg: Tensor, mask: Tensor | None = None) -> Tensor:
        """The EEG stream of unmasked EEG: [L, B, 840] -> [L, B, D]."""
        return self.unify_branch(self.project(eeg, mask), mask, "eeg")


class EEGDecoder(nn.Module):
    """Joint EEG tokens [K, B, D] -> EEG [L, B, 840]: mask tokens where none came from, position, layers, LayerNorm."""

    def __init__(self, config: CETMAEConfig, text_width: int) -> None:
        super().__init__()
        width = config.width
        self.narrow = nn.Linear(text_width, width)
        self.mask_token = nn.Parameter(torch.empty(width).normal_(0, 0.02))
        self.position = Position(config.dropout)
        self.layers = nn.ModuleList(
            Layer(width, config.heads, config.ffn, config.dropout) for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.project = nn.Identity() if width == N_FEATURES else nn.Linear(width, N_FEATURES)
        initialise(self)

    def forward(self, joint: Tensor, kept: Kept, mask: Tensor) -> Tensor:
        steps, batch = mask.shape
        tokens = torch.where(kept.mask[..., None], F.gelu(self.narrow(joint)), self.mask_token)
        x = self.mask_token.expand(steps, batch, -1).scatter(0, rows_at(kept.time, tokens.shape[2]), tokens)
        x = self.position(x)
        for layer in self.layers:
            x = layer(x, mask)
        return self.project(self.norm(x))


# --- the model ------------------------------------------------------------------------------------------------------


class CETMAEOutput(NamedTuple):
    """eeg: reconstruction [L, B, 840]; text: joint text states [S, B, D], for `text_decoder`; eeg_vector, text_vector:
    [B, D], means of each modality's own stream over what was not masked, of unit length."""

    eeg: Tensor
    text: Tensor
    eeg_vector: Tensor
    text_vector: Tensor


class CETMAE(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["eeg", "masked-autoencoder"]):
    """EEG and text, each partly masked -> both restored, and two vectors that should agree. Sizes: CETMAEConfig.

    `save_pretrained` and `from_pretrained` write and read a folder of config.json and model.safetensors.
    """

    def __init__(self, *, vocab_size: int, **sizes: object) -> None:
        super().__init__()
        config = CETMAEConfig(**sizes)  # type: ignore[arg-type]
        self.config, self.vocab_size = config, vocab_size
        bart = build_bart(config, vocab_size)
        width = bart.config.d_model
        self.front = EEGFront(config, width, STREAMS)
        self.eeg_decoder = EEGDecoder(config, width)
        self.text_decoder = nn.Linear(width, vocab_size)
        initialise(self.text_decoder)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.text_encoder = bart.get_encoder()  # last: no initialisation of ours reaches it
        self.text_frozen = bool(config.bart) if config.freeze_text is None else config.freeze_text
        if config.bart:
            portable = {"bart": None, "bart_config": bart.config.to_diff_dict(), "freeze_text": self.text_frozen}
            self._hub_mixin_config = {"vocab_size": vocab_size, **sizes, **portable}
        self.text_encoder.requires_grad_(not self.text_frozen)

    @property
    def scale(self) -> Tensor:
        """exp(logit_scale), at most 100."""
        return self.logit_scale.clamp(max=math.log(100)).exp()

    def train(self, mode: bool = True) -> "CETMAE":
        """A frozen text encoder is a fixed function: it stays in evaluation mode."""
        super().train(mode)
        if self.text_frozen:
            self.text_encoder.eval()
        return self

    def forward(self, eeg: Tensor, mask: Tensor, masked: Tensor, ids: Tensor, ids_masked: Tensor) -> CETMAEOutput:
        """eeg [L, B, 840] with mask [L, B], of which `masked` [L, B] is hidden; ids [S, B], with `<mask>` at
        `ids_masked` [S, B]. Raises ValueError where a sample keeps no EEG token."""
        kept, text_mask = keep(mask, masked), ids != PAD
        a, t = self.front.project(eeg, None, kept), self.encode_text(ids, text_mask)
        unify = self.front.unify_branch
        joint = unify(torch.cat((a, t)), torch.cat((kept.mask, text_mask)), "joint")
        return CETMAEOutput(
            eeg=self.eeg_decoder(joint[: len(a)], kept, mask),
            text=joint[len(a) :],
            eeg_vector=mean_direction(unify(a, kept.mask, "eeg"), kept.mask),
            text_vector=mean_direction(unify(t, text_mask, "text"), text_mask & ~ids_masked),
        )

    def encode_text(self, ids: Tensor, text_mask: Tensor) -> Tensor:
        """Last states of the text encoder: ids [S, B] -> [S, B, D]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.text_frozen):
            states = self.text_encoder(input_ids=ids.T, attention_mask=text_mask.T).last_hidden_state
        return states.transpose(0, 1)

    def eeg_vector(self, eeg: Tensor, mask: Tensor) -> Tensor:
        """Unmasked EEG [L, B, 840] -> unit vectors [B, D], to compare with `text_vector`."""
        return mean_direction(self.front(eeg, mask), mask)

    def text_vector(self, ids: Tensor) -> Tensor:
        """Unmasked text, ids [S, B] -> unit vectors [B, D]."""
        text_mask = ids != PAD
        return mean_direction(self.front.unify_branch(self.encode_text(ids, text_mask), text_mask, "text"), text_mask)


def mean_direction(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of [L, B, D] over the tokens in mask [L, B], scaled to length 1: [B, D]; zeros where there is no token."""
    mean = (x * mask[..., None]).sum(0) / mask.sum(0).clamp(min=1)[:, None]
    return F.normalize(mean, dim=1)
