"""Convolutions of side 3 in a quarter of the multiplications, for dense maps: Winograd's F(4 × 4, 3 × 3).

    y = Aᵀ [ Σₖ (G wₖ Gᵀ) ⊙ (Bᵀ dₖ B) ] A        for each tile of 4 × 4 outputs; dₖ: its 6 × 6 inputs of channel k

(Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016.) The sum over channels is a matrix product
for each of the 36 points. In float32 y is 2e-6 to 3e-6 off in relative L2, ten times as much as the plain sum: good
enough for a gradient, not for a membrane that is compared with a threshold.
"""

from pathlib import Path

import torch
from torch import Tensor

from spikeloom.accel.spiking.kernels import loader

_SOURCE = Path(__file__).parent / "kernels" / "winograd.cpp"
_OUT, _POINTS, _LANES = 4, 36, 8
_G = torch.tensor(
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
     [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]], dtype=torch.float64,
)  # fmt: skip
# Tiles at a time: few enough for their points to stay in the third-level cache, enough to be worth fetching the kernel.
_PIECE = 192
_FEWEST = 128  # tiles below which preparing the kernel costs more than is saved


def pays(x: Tensor, n_out: int) -> bool:
    """Whether `winograd_conv` of x [B, H, W, K] to n_out channels is possible and faster than a plain convolution."""
    batch, height, width, n_in = x.shape
    tiles = _tiles(batch, height, width)
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and n_in % _LANES == n_out % _LANES == 0
        and tiles >= _FEWEST
        and tiles * _OUT**2 <= 2 * batch * height * width  # maps of 3 × 3, say, would be mostly margin
        and loader.backend() == "compiled"
    )


def winograd_conv(x: Tensor, weight: Tensor) -> Tensor:
    """x [B, H, W, K], weight [N, K, 3, 3] -> [B, H, W, N]: stride 1, zeros beyond the borders.

    float32 on the CPU, K and N multiples of 8.
    """
    x = x.contiguous()
    batch, height, width, n_in = x.shape
    n_out = len(weight)
    kernel = _kernel_points(weight)
    y = x.new_empty(batch, height, width, n_out)
    library = loader.build(_SOURCE, "winograd", "-ffp-contract=fast")
    tiles = _tiles(batch, height, width)
    piece = min(tiles, _PIECE)
    into, out_of = x.new_empty(_POINTS, _plane(piece, n_in)), x.new_empty(_POINTS, _plane(piece, n_out))
    for first in range(0, tiles, piece):
        count = min(piece, tiles - first)
        v = into[:, : count * n_in].view(_POINTS, count, n_in)
        m = out_of[:, : count * n_out].view(_POINTS, count, n_out)
        loader.call(library.winograd_into_tiles, height, width, n_in, first, count, into.shape[1], x, v)
        torch.bmm(v, kernel, out=m)
        loader.call(library.winograd_out_of_tiles, height, width, n_out, first, count, out_of.shape[1], m, y)
    return y


def _kernel_points(weight: Tensor) -> Tensor:
    """G w Gᵀ of every pair of channels: [N, K, 3, 3] -> [36, K, N]."""
    n_out, n_in = weight.shape[:2]
    taps = weight.permute(2, 3, 1, 0).reshape(9, n_in * n_out)
    return (torch.kron(_G, _G).to(weight.dtype) @ taps).view(_POINTS, n_in, n_out)


def _tiles(batch: int, height: int, width: int) -> int:
    return batch * -(-height // _OUT) * -(-width // _OUT)


def _plane(tiles: int, channels: int) -> int:
    """Floats from one point to the next: a line of the cache more than they take, since planes a power of two apart
    would all fall on few sets of the cache."""
    return tiles * channels + 16
