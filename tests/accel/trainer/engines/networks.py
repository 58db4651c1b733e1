"""Small spiking networks on real digits, for the tests of the engines."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.accel.export.program import export
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF
from spikeloom.accel.spiking.surrogate import Rectangular
from spikeloom.accel.trainer.engines.program import Engines

STEPS = 4


def neurons(**changes: object) -> LIFParameters:
    return LIFParameters(**{"threshold": 0.5, "decay_input": False, "surrogate": Rectangular(0.5), **changes})  # type: ignore[arg-type]


class Linear(nn.Module):
    """x [T, B, 64] -> 128 neurons -> 10 neurons."""

    def __init__(self, p: LIFParameters) -> None:
        super().__init__()
        self.hidden, self.hidden_lif = nn.Linear(64, 128), LIF(p)
        self.out, self.out_lif = nn.Linear(128, 10), LIF(p)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_lif(self.out(self.hidden_lif(self.hidden(x.flatten(2)))[0]))[0]


class Convolutional(nn.Module):
    """x [T, B, 1, 8, 8] -> conv 16, conv 32 of stride 2, each with norm and neurons, then linear."""

    def __init__(self, p: LIFParameters) -> None:
        super().__init__()
        self.conv1, self.norm1, self.lif1 = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), LIF(p)
        self.conv2, self.norm2, self.lif2 = nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), LIF(p)
        self.head = nn.Linear(32 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch = x.shape[:2]
        y, _ = self.lif1(self.norm1(self.conv1(x.flatten(0, 1))).unflatten(0, (steps, batch)))
        y, _ = self.lif2(self.norm2(self.conv2(y.flatten(0, 1))).unflatten(0, (steps, batch)))
        return self.head(y.flatten(2))


def digits(n: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """The first n of scikit-learn's 8 x 8 digits, shown in every step: x [T, n, 1, 8, 8] in [0, 1], labels [n]."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images[:n] / 16, dtype=dtype).reshape(1, n, 1, 8, 8)
    return x.expand(STEPS, -1, -1, -1, -1).contiguous(), torch.tensor(labels[:n])


def loss(out: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the mean over time."""
    return F.cross_entropy(out.mean(0), labels)


def program(model: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    return export(model, [x], name="test", source={}).program


def by_autograd(model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model.train()
    model.zero_grad()
    out = model(x)
    loss(out, labels).backward()
    return out.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def by_engines(
    engines: Engines, x: Tensor, labels: Tensor, objective: Callable[[Tensor, Tensor], Tensor] = loss
) -> tuple[Tensor, dict[str, Tensor]]:
    out = engines.forward(x).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(out, labels), out)
    return out.detach(), engines.backward(gradient)


def cosine(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Of two whole gradients."""
    flat = [torch.cat([g[name].flatten() for name in sorted(a)]).double() for g in (a, b)]
    return float(F.cosine_similarity(flat[0], flat[1], dim=0))


def distance(a: Tensor, b: Tensor) -> float:
    """Relative L2."""
    return float((a - b).norm() / b.norm())
