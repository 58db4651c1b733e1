"""What users of timm ask a model for when they make it: its maps instead of its logits, another size of picture."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def timm_options(options: dict[str, Any]) -> tuple[Any, bool, Sequence[int] | None]:
    """Take `img_size`, `features_only` with `out_indices`, and `global_pool` out of `options`.

    Returns (the size, whether maps are wanted, of which stages). Raises ValueError for a pooling that is not offered.
    """
    pool = options.pop("global_pool", None)
    if pool not in (None, "avg"):
        raise ValueError(f"global_pool={pool!r} is not offered; use 'avg', or forward_features() for maps")
    indices = options.pop("out_indices", None)
    return options.pop("img_size", None), bool(options.pop("features_only", False)), indices


class FeatureMaps(nn.Module):
    """A model whose result is the list of its stages' maps [B, D_i, H_i, W_i], mean over time.

    Args:
        model: one with `forward_intermediates` and `feature_info`.
        out_indices: which stages, in this order; None: all.
    """

    def __init__(self, model: Any, out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        n = len(model.feature_info)
        self.indices = list(range(n)) if out_indices is None else list(out_indices)
        if wrong := [i for i in self.indices if not -n <= i < n]:
            raise ValueError(f"out_indices names {wrong[0]}, the model has stages 0 to {n - 1}; name one of these")
        self.model = model
        self.feature_info = FeatureInfo([model.feature_info[i] for i in self.indices])

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model.forward_intermediates(x, self.indices, intermediates_only=True)
        return maps


class FeatureInfo(list[dict[str, Any]]):
    """`num_chs`, `reduction` and `module` of each map, and the first two as timm's users ask for them."""

    def channels(self) -> list[int]:
        return [info["num_chs"] for info in self]

    def reduction(self) -> list[int]:
        return [info["reduction"] for info in self]
