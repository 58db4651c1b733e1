"""CET-MAE: a contrastive masked autoencoder of EEG and text (Wang et al., arXiv 2402.17433; ACL 2024, long.393).

    e = Linear(EEG kept)                         e_branch: h = dropout(e + pe[t]), post-norm Transformer
    a = GELU(fc_eeg(e)),  t = BART(masked text)  both as wide as the text encoder
    joint = unify([a; t]),  eeg = unify(a),  text = unify(t)     one attention, norms and feed-forward of each stream
    EEG'  = decoder(joint's EEG half at its own times, a mask token elsewhere);  text' = Linear(joint's text half)

Masked tokens never enter the encoder: kept ones are gathered, with the positions of the times they had. What is masked,
and what the outputs are evaluated by, is `spikeloom.bci.models.pretraining`.

Shapes: L time steps of EEG (words, then the sentence), K of them kept, S text ids, B samples, D the width of the text
encoder, V ids. Masks are bool and True where valid.

Departures from the released code, each because it broke a result: the position indexes time, not the sample, and is
added once; the text output has no GELU; BART is attached after our own initialisation and never touched by it; kept
tokens return to their own times.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from spikeloom.bci.data.tokenizer import PAD
from spikeloom.bci.evaluation.embeddings import vector_width
from spikeloom.bci.models.bart import BartSizes, bart_of_config, pretrained_bart, random_bart
from spikeloom.bci.models.layers import Layer, MultiStreamLayer, Position, initialise
from spikeloom.bci.zuco.records import N_FEATURES

STREAMS = ("joint", "eeg", "text")
TARGET_RANK, TARGET_SHRINKAGE = 1e-4, 1e-2  # of the largest variance: what counts as a direction, what is added to it


@dataclass
class CETMAEConfig:
    """Sizes of CET-MAE and of the E2T-PTR that inherits its EEG side; the defaults are the published ones.

    width: of the EEG encoder; other than 840, one linear map leads in and one out. bart: folder or name of pretrained
    weights, whose sizes then count; null: a randomly initialised BART of the text_* sizes. freeze_text: null freezes
    the text encoder only where it is pretrained. bart_config: written into the config.json of a trained model whose
    BART was pretrained, so that the folder is read back without the weights it began with. text_target: a sentence
    encoder, as `bci.evaluation.embeddings` names them, whose fixed vectors EEG is matched with in place of the text
    stream; text_target_width: of its vectors, found by the encoder.
    """

    width: int = N_FEATURES
    encoder_layers: int = 6  # transformer layers of the EEG encoder
    decoder_layers: int = 1  # transformer layers that reconstruct the EEG
    heads: int = 8  # of the EEG encoder and decoder
    ffn: int = 2048  # hidden width of their feed-forward layers
    unify_heads: int = 16  # of the layer that both modalities share
    unify_ffn: int = 4096  # its hidden width
    dropout: float = 0.1  # of the EEG side and the shared layer
    bart: str | None = None
    text_width: int = 1024  # of the text encoder
    text_layers: int = 12  # of the text encoder
    text_heads: int = 16  # of the text encoder
    text_ffn: int = 4096  # hidden width of its feed-forward layers
    text_positions: int = 1024  # longest text, in tokens
    freeze_text: bool | None = None
    bart_config: dict[str, Any] | None = None
    text_target: str | None = (
        None  # sentence encoder that EEG is matched with: wordllama, minilm or a folder; null: BART
    )
    text_target_width: int | None = None  # values of its vectors; null: found

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


# --- the EEG side ---------------------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """Where the tokens that enter the encoder came from: index [K, B] the steps they stood at, rising; mask [K, B]."""

    time: Tensor
    mask: Tensor


def keep(valid: Tensor, masked: Tensor) -> Kept:
    """The tokens that are valid and not masked, packed to the front. Raises ValueError where a sample keeps none.

    A batch without samples is refused, too. Under torch.compile, whose graphs know no data, nothing is refused, and
    K = L with the rest masked.
    """
    if not valid.numel():
        raise ValueError(f"a batch needs at least one sample and one token, got a mask of shape {tuple(valid.shape)}")
    kept = valid & ~masked
    index = (~kept).to(torch.int8).argsort(dim=0, stable=True)
    if not torch.compiler.is_dynamo_compiling():
        counts = kept.sum(0)
        if not bool(counts.all()):
            raise ValueError(f"{int((counts == 0).sum())} samples keep no EEG token; mask less, or drop empty samples")
        index = index[: int(counts.max())]
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
        if eeg.dim() != 3 or eeg.shape[2] != N_FEATURES or eeg.shape[0] == 0 or eeg.shape[1] == 0:
            raise ValueError(
                f"expected EEG of shape [L, B, {N_FEATURES}], L and B at least 1, got {tuple(eeg.shape)}; use "
                "collate of spikeloom.bci.zuco"
            )
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
        self.stream = "eeg" if "eeg" in streams else streams[0]
        initialise(self)

    def project(self, eeg: Tensor, mask: Tensor | None, kept: Kept | None = None) -> Tensor:
        """GELU(fc_eeg(e_branch)): [L or K, B, D], not yet through the multi-stream layer."""
        return F.gelu(self.fc_eeg(self.e_branch(eeg, mask, kept)))

    def forward(self, eeg: Tensor, mask: Tensor | None = None) -> Tensor:
        """The EEG stream, or the only one there is, of unmasked EEG: [L, B, 840] -> [L, B, D]."""
        return self.unify_branch(self.project(eeg, mask), mask, self.stream)


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
        self.target: nn.Linear | None = None
        if config.text_target is not None:
            if config.text_target_width is None:
                sizes["text_target_width"] = vector_width(config.text_target)
            self.target = nn.Linear(cast(int, sizes["text_target_width"]), width)
            initialise(self.target)
            self._hub_mixin_config = {"vocab_size": vocab_size, **sizes}
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

    def forward(
        self, eeg: Tensor, mask: Tensor, masked: Tensor, ids: Tensor, ids_masked: Tensor, target: Tensor | None = None
    ) -> CETMAEOutput:
        """eeg [L, B, 840] with mask [L, B], of which `masked` [L, B] is hidden; ids [S, B], with `<mask>` at
        `ids_masked` [S, B]; target [B, W]: vectors of `config.text_target`. Raises ValueError where a sample keeps no
        EEG token, or vectors are lacking."""
        kept, text_mask = keep(mask, masked), ids != PAD
        a, t = self.front.project(eeg, None, kept), self.encode_text(ids, text_mask)
        unify = self.front.unify_branch
        joint = unify(torch.cat((a, t)), torch.cat((kept.mask, text_mask)), "joint")
        return CETMAEOutput(
            eeg=self.eeg_decoder(joint[: len(a)], kept, mask),
            text=joint[len(a) :],
            eeg_vector=mean_direction(unify(a, kept.mask, "eeg"), kept.mask),
            text_vector=mean_direction(unify(t, text_mask, "text"), text_mask & ~ids_masked)
            if self.target is None
            else self._target_vector(target),
        )

    def encode_text(self, ids: Tensor, text_mask: Tensor) -> Tensor:
        """Last states of the text encoder: ids [S, B] -> [S, B, D]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.text_frozen):
            states = self.text_encoder(input_ids=ids.T, attention_mask=text_mask.T).last_hidden_state
        return states.transpose(0, 1)

    def eeg_vector(self, eeg: Tensor, mask: Tensor) -> Tensor:
        """Unmasked EEG [L, B, 840] -> unit vectors [B, D], to compare with `text_vector`."""
        return mean_direction(self.front(eeg, mask), mask)

    def text_vector(self, ids: Tensor, target: Tensor | None = None) -> Tensor:
        """Unmasked text, ids [S, B], or the vectors [B, W] of `config.text_target` -> unit vectors [B, D]."""
        if self.target is not None:
            return self._target_vector(target)
        text_mask = ids != PAD
        return mean_direction(self.front.unify_branch(self.encode_text(ids, text_mask), text_mask, "text"), text_mask)

    @torch.no_grad()
    def start_target(self, vectors: Tensor) -> None:
        """Begin the map of the text target as a whitening of training sentences [n, W], mixed at random into D values,
        so that rare words count as much as frequent ones from the first step. Without a text target nothing happens."""
        if self.target is None:
            return
        distinct = vectors.unique(dim=0).double()
        mean = distinct.mean(0)
        values, directions = torch.linalg.eigh((distinct - mean).T @ (distinct - mean) / len(distinct))
        kept = values > TARGET_RANK * values.max()
        whitening = directions[:, kept] / (values[kept] + TARGET_SHRINKAGE * values.max()).sqrt()
        mixing = torch.randn(int(kept.sum()), self.target.out_features, dtype=torch.double) / int(kept.sum()) ** 0.5
        weight = (whitening @ mixing).T
        self.target.weight.copy_(weight)
        self.target.bias.copy_(-weight @ mean)

    def _target_vector(self, target: Tensor | None) -> Tensor:
        if self.target is None or target is None:
            raise ValueError(
                f"this CET-MAE matches EEG with vectors of {self.config.text_target}; give target [B, W], which "
                "EncodedTrials(…, text_target=…) holds"
            )
        return F.normalize(self.target(target), dim=1)


def mean_direction(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of [L, B, D] over the tokens in mask [L, B], scaled to length 1: [B, D]; zeros where there is no token."""
    mean = (x * mask[..., None]).sum(0) / mask.sum(0).clamp(min=1)[:, None]
    return F.normalize(mean, dim=1)
