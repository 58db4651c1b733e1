"""Transformer layers of the EEG models, written out so that export and cost see every operation.

Shapes: L time steps, B samples, C channels; time first, [L, B, C]. Masks are bool and True where valid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.accel.spiking.dropout import Dropout


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
    """Post-norm Transformer layer on [L, B, C]: x = LN(x + attention(x)), x = LN(x + FFN(x)).

    It computes what nn.TransformerEncoderLayer computes. That one keeps attention to itself, which `MultiStreamLayer`
    shares between streams, and evaluates as one fused operation, which an exported graph could not price by part.
    """

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
