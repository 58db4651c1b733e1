"""Attention, einsum, norms, embeddings and learned time constants through the engines: what autograd gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.accel.export.program import export
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import ParametricLIF
from spikeloom.accel.spiking.surrogate import ATan, Rectangular
from spikeloom.accel.trainer.engines.arithmetic import FP16, FP32
from spikeloom.accel.trainer.engines.program import Engines
from tests.accel.trainer.engines.networks import cosine, distance


class Attends(nn.Module):
    """x [B, N, 16] -> embedding of positions, attention with or without a mask, GELU, norms."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.positions, self.qkv, self.out = nn.Embedding(9, 16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm, self.bias = nn.LayerNorm(16), nn.Parameter(torch.zeros(9, 9))

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(x + self.positions(torch.arange(x.shape[1]))))
        q, k, v = (t.unflatten(2, (2, 8)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        mask = {"bool": torch.ones(9, 9, dtype=torch.bool).tril(1), "added": self.bias.detach()}.get(self.way)
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=self.way == "causal")
        return self.out(y.transpose(1, 2).flatten(2))


class Contracts(nn.Module):
    """Products by einsum and addmm, of activations and with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(4, 16, 6) / 4), nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("bnd,hde->bhne", x, self.w)
        z = torch.einsum("bhne,bhme->bhnm", y, y)
        return torch.addmm(self.b, torch.einsum("bhnm,bhme->bhne", z, y).flatten(0, 2), self.w[0, :6])


class Writes(nn.Module):
    """A buffer that is filled step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for t in range(x.shape[1]):
            out[:, t] = self.a(x[:, t]).tanh()
        return self.b(out)


class Learned(nn.Module):
    """A population whose time constant is learned."""

    def __init__(self, decay_input: bool) -> None:
        super().__init__()
        self.a = nn.Linear(16, 24)
        self.lif = ParametricLIF(LIFParameters(threshold=0.4, decay_input=decay_input, surrogate=ATan(2.0)))

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.a(x))[0]


MODELS = {
    **{way: (lambda w=way: Attends(w)) for way in ("plain", "bool", "added", "causal")},
    "einsum": Contracts, "written": Writes, "plif": lambda: Learned(True), "plif undecayed": lambda: Learned(False),
}  # fmt: skip


def gradients(name: str, arithmetic: object) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Outputs and gradients of autograd, and of the engines."""
    torch.manual_seed(0)
    model, x = MODELS[name](), torch.randn(6, 9, 16)
    direction = None
    program = export(model, [x], name="n", source={}, axes="TBN" if "plif" in name else "BNC", strict=False).program
    out = model.train()(x)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * direction).sum().backward()
    engines = Engines(program, forward=arithmetic)  # type: ignore[arg-type]
    found_out = engines.forward(x)
    found = engines.backward(direction)
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return out.detach(), found_out, expected, found


@pytest.mark.parametrize("name", MODELS)
def test_in_fp32_the_gradients_are_those_of_autograd(name: str) -> None:
    out, found_out, expected, found = gradients(name, FP32)
    assert torch.equal(out, found_out)
    assert expected and expected.keys() <= found.keys()
    for parameter, gradient in expected.items():
        assert distance(found[parameter], gradient) <= 3e-5, parameter


@pytest.mark.parametrize("name", [n for n in MODELS if "plif" not in n])
def test_in_fp16_they_point_the_same_way(name: str) -> None:
    _, _, expected, found = gradients(name, FP16)
    assert cosine(expected, {k: v for k, v in found.items() if k in expected}) > 0.999


def test_a_window_stands_in_for_any_surrogate_of_a_learned_population() -> None:
    torch.manual_seed(0)
    model = Learned(True)
    program = export(model, [torch.rand(6, 9, 16)], name="n", source={}, axes="TBN").program
    engines = Engines(program, forward=FP32, window=0.5)
    engines.forward(torch.rand(6, 9, 16))
    assert isinstance(Rectangular(0.5).half_width, float) and engines.remembered["lif"].mask is not None
