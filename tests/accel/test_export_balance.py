"""Export of models nobody here wrote: nothing is lost in silence, and the caller's model stays as it was."""

import copy

import pytest
import torch
from torch import Tensor, nn

from spikeloom.accel.export.program import BalanceError, TraceError, UnsupportedOpError, export
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF
from spikeloom.accel.trainer.workload import Workload


def exported(model: nn.Module, *inputs: Tensor, **options: object) -> Workload:
    return export(model, [inputs], name="n", source={}, **options).workload  # type: ignore[arg-type]


def trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class Buffered(nn.Module):
    """Spikes of a time loop written into a tensor made before, by one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.a, self.b = way, nn.Linear(24, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch = x.shape[:2]
        out, v = torch.zeros(steps, batch, 16), torch.zeros(batch, 16)
        rows = out.view(steps, -1)
        for t in range(steps):
            v = 0.9 * v + self.a(x[t])
            spikes = (v >= 1).float()
            v = v * (1 - spikes)
            if self.way == "item":
                out[t] = spikes
            elif self.way == "slice":
                out[t : t + 1].copy_(spikes[None])
            elif self.way == "view":
                rows[t] = spikes.flatten()
            elif self.way == "add":
                out[t].add_(spikes)
            elif self.way == "index":
                out.index_put_((torch.tensor(t),), spikes)
        return self.b(out)


@pytest.mark.parametrize("way", ["item", "slice", "view", "add", "index"])
def test_what_is_written_into_a_buffer_reaches_the_layers_behind_it(way: str) -> None:
    model = Buffered(way)
    workload = exported(model, (torch.rand(5, 4, 24) < 0.3).float())
    assert sum(layer.macs_forward for layer in workload.layers) == 20 * (24 * 16 + 16 * 5)
    assert sum(layer.parameters for layer in workload.layers) == trained(model)
    assert (workload.time_steps, workload.batch_size, workload.unsupported) == (5, 4, ())
    readout = next(layer for layer in workload.layers if layer.path == "b")
    assert readout.macs_backward == readout.macs_forward
    assert "time loop written by hand" in workload.source["balance"]


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p, self.e, self.l = nn.Embedding(10, 32), nn.Embedding(50, 32), nn.Linear(32, 32)

    def forward(self, ids: Tensor) -> Tensor:
        return self.l(self.e(ids) + self.p(torch.arange(ids.shape[1])))


class Token(nn.Module):
    """A class token, positions and a LayerScale, as vision transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.q = nn.Parameter(torch.zeros(1, 1, 32)), nn.Parameter(torch.zeros(1, 11, 32))
        self.g, self.l = nn.Parameter(torch.ones(32)), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.l((torch.cat([self.c.expand(x.shape[0], -1, -1), x], 1) + self.q) * self.g)


class Weighted(nn.Module):
    """A weight that enters by a product: of heads, of experts, by einsum, or as the first factor."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.w = way, nn.Parameter(torch.randn(4, 32, 16))

    def forward(self, x: Tensor) -> Tensor:  # x [B, N, 32]
        heads = x[:, None].expand(-1, 4, -1, -1)
        return {
            "matmul": lambda: torch.matmul(x[:, None], self.w),
            "grouped": lambda: torch.matmul(heads, self.w),
            "first": lambda: torch.matmul(self.w.mT, x[:, None].mT),
            "einsum": lambda: torch.einsum("bnd,hde->bhne", x, self.w),
            "einsum groups": lambda: torch.einsum("bhnd,hde->bhne", heads, self.w),
            "einsum swapped": lambda: torch.einsum("hde,b...d->b...he", self.w, x),
            "baddbmm": lambda: torch.baddbmm(torch.zeros(4, 10, 16), x, self.w),
        }[self.way]()


class LowRank(nn.Module):
    """LoRA: a frozen weight, and the product of two small trained ones."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(32, 32).requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(32, 4)), nn.Parameter(torch.zeros(4, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ (self.a @ self.b)


class Cells(nn.Module):
    """A recurrent network stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.GRUCell(32, 16), nn.LSTMCell(16, 8), nn.Bilinear(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 16)
        state = (x.new_zeros(len(x), 8), x.new_zeros(len(x), 8))
        for t in range(2):
            h = self.first(x[:, t], h)
            state = self.second(h, state)
        return self.out(*state)


X = torch.randn(4, 10, 32)
OWNERS = {
    "positions": (Positions(), torch.randint(0, 50, (4, 10))),
    "class token, LayerScale": (Token(), X),
    "PReLU": (nn.Sequential(nn.Linear(32, 32), nn.PReLU(32)), X[:, 0]),
    "weight_norm": (nn.utils.parametrizations.weight_norm(nn.Linear(32, 32)), X[:, 0]),
    "LoRA": (LowRank(), X),
    "GRU": (nn.GRU(32, 16, num_layers=2, bidirectional=True, batch_first=True), X),
    "LSTM": (nn.LSTM(32, 16, batch_first=True), X),
    "cells": (Cells(), X),
    **{way: (Weighted(way), X) for way in ("matmul", "grouped", "first", "einsum", "einsum groups",
                                            "einsum swapped", "baddbmm")},
}  # fmt: skip


@pytest.mark.parametrize("name", OWNERS)
def test_every_trained_parameter_has_an_owner(name: str) -> None:
    model, x = OWNERS[name]
    result = export(model, [x], name="n", source={}, axes="B" + "XY"[: x.dim() - 1])
    assert sum(layer.parameters for layer in result.workload.layers) == trained(model)
    assert result.balance.holds, str(result.balance)
    assert f"{trained(model):,} of {trained(model):,} parameters owned" in str(result.balance)


@pytest.mark.parametrize("name", ["matmul", "grouped", "first", "einsum", "einsum groups", "einsum swapped", "baddbmm"])
def test_products_with_a_weight_have_the_macs_of_their_loops(name: str) -> None:
    model, x = OWNERS[name]
    heads = 1 if name == "baddbmm" else 4
    gemm = [layer for layer in exported(model, x, axes="BND").layers if layer.kind == "gemm_weight"]
    assert [layer.macs_forward for layer in gemm] == [4 * 10 * 32 * 16 * heads]
    assert gemm[0].macs_weight_gradient == gemm[0].macs_forward and gemm[0].macs_backward == 0


def test_recurrent_layers_have_a_product_with_the_input_and_one_with_the_state() -> None:
    gemm = {layer.path: layer for layer in exported(*OWNERS["LSTM"], axes="BTC").layers if layer.kind == "gemm_weight"}
    assert sorted(layer.macs_forward for layer in gemm.values()) == [40 * 16 * 64, 40 * 32 * 64]


SHAPES = {
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9), 2 * 9 * 4 * 6 * 3),
    "conv3d": (nn.Conv3d(4, 6, 3, padding=1), (2, 4, 3, 5, 5), 2 * 75 * 4 * 6 * 27),
    "conv3d same": (nn.Conv3d(4, 4, (1, 3, 5), padding="same", groups=2), (2, 4, 3, 5, 5), 2 * 75 * 2 * 4 * 15),
    "transposed": (nn.ConvTranspose2d(4, 6, 4, 2, 1), (2, 4, 5, 5), 2 * 25 * 4 * 6 * 16),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 4, groups=2), (2, 4, 5), 2 * 5 * 4 * 3 * 4),
    "shuffles": (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16, 4, 1)), (2, 4, 6, 6), 2 * 9 * 16 * 4),
    "bicubic": (nn.Sequential(nn.Upsample(None, 2, "bicubic"), nn.Conv2d(4, 4, 1)), (2, 4, 3, 3), 2 * 36 * 16),
    "unfold": (nn.Sequential(nn.Unfold(3, padding=1), nn.Conv1d(36, 5, 1)), (2, 4, 6, 6), 2 * 36 * 36 * 5),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_convolutions_of_every_kind_have_the_macs_of_their_loops(name: str) -> None:
    model, shape, macs = SHAPES[name]
    workload = exported(model, torch.randn(shape), axes="B...")
    assert sum(layer.macs_forward for layer in workload.layers) == macs
    assert sum(layer.parameters for layer in workload.layers) == trained(model)
    assert workload.unsupported == ()


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.erfcx(x)


def test_an_operation_without_a_rule_hands_on_the_backward_work_behind_it() -> None:
    model = nn.Sequential(nn.Linear(8, 16), Unknown(), nn.Linear(16, 4))
    result = export(model, [torch.randn(2, 8)], name="n", source={}, strict=False, axes="BC")
    last = result.workload.layers[-1]
    assert last.macs_backward == last.macs_forward > 0
    assert not result.balance.holds and "without a price: " in str(result.balance)
    with pytest.raises(UnsupportedOpError, match=r"erfcx.*at 1"):
        export(model, [torch.randn(2, 8)], name="n", source={}, axes="BC")


def test_only_operands_that_learn_have_backward_macs() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.q(x) @ x.mT

    product = exported(Scores(), torch.randn(2, 5, 8), axes="BNC").layers[-1]
    assert product.kind == "gemm_activation" and product.macs_backward == product.macs_forward


class Lost(nn.Module):
    """A layer behind detach, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).detach())


def test_parameters_that_the_loss_does_not_reach_are_named() -> None:
    with pytest.raises(BalanceError, match=r"in no layer: c\.weight, c\.bias.*out of reach of the loss: a\.weight"):
        exported(Lost(), torch.randn(2, 8), axes="BC")
    balance = export(Lost(), [torch.randn(2, 8)], name="n", source={}, strict=False, axes="BC").balance
    assert balance.not_owned == ["c.weight", "c.bias"]
    assert balance.not_reached == ["a.weight", "a.bias", "c.weight", "c.bias"]


@pytest.mark.parametrize(
    ("model", "shape", "axes", "expected"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), (16, 3, 8, 8), None, (1, 16)),
        (nn.Linear(64, 8), (4, 64), None, (1, 4)),
        (nn.Linear(8, 8), (6, 4, 8), "TBN", (6, 4)),
        (nn.Linear(8, 8), (6, 4, 8), "BTC", (4, 6)),
        (nn.Linear(8, 8), (6, 4, 8), "BNC", (1, 6)),
        (nn.Linear(8, 8), (6, 4, 8), "TB...", (6, 4)),
    ],
)
def test_the_axes_are_given_or_inferred_and_never_assumed(
    model: nn.Module, shape: tuple[int, ...], axes: str | None, expected: tuple[int, int]
) -> None:
    workload = exported(model, torch.randn(shape), axes=axes)
    assert (workload.time_steps, workload.batch_size) == expected
    assert ("inferred" in workload.source["axes"]) == (axes is None)


def test_neurons_show_where_time_lies() -> None:
    class Net(nn.Module):
        def __init__(self, repeat: bool) -> None:
            super().__init__()
            self.repeat, self.l, self.n = repeat, nn.Linear(8, 8), LIF(LIFParameters())

        def forward(self, x: Tensor) -> Tensor:
            return self.n(self.l(x.expand(7, *x.shape) if self.repeat else x))[0]

    first = exported(Net(False), torch.randn(6, 4, 8))
    assert (first.time_steps, first.batch_size) == (6, 4)
    inner = exported(Net(True), torch.randn(4, 8))
    assert (inner.time_steps, inner.batch_size) == (7, 4)


@pytest.mark.parametrize("axes", ["TBX", "CHW", "BB", "B1", ""])
def test_axes_that_do_not_fit_are_refused(axes: str) -> None:
    with pytest.raises(ValueError, match="axes got"):
        exported(nn.Linear(4, 4), torch.randn(2, 4) if axes != "CHW" else torch.randn(2, 3, 4), axes=axes)


class Stateful(nn.Module):
    """Keeps its membrane as a plain attribute and counts in a buffer, as peers' neurons do."""

    def __init__(self) -> None:
        super().__init__()
        self.l, self.v = nn.Linear(4, 4), torch.zeros(4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.v = 0.5 * self.v + self.l(x.relu_()).sum(0)
        return self.l(x) + self.v


class Undecided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) if x.sum() > 0 else -x


def test_the_callers_model_and_data_stay_as_they_were_also_after_a_failure() -> None:
    frozen = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    frozen[1].eval()
    for model, fails in ((frozen, False), (Stateful().train(), False), (Undecided().train(), True)):
        before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
        v, x, state = getattr(model, "v", None), torch.randn(3, 4), torch.get_rng_state()
        kept = x.clone()
        if fails:
            with pytest.raises(TraceError, match=r"cannot trace Undecided.*use torch.where"):
                exported(model, x, axes="BC")
        else:
            exported(model, x, axes="BC", strict=False)
        assert [m.training for m in model.modules()] == modes
        assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
        assert getattr(model, "v", None) is v and torch.equal(x, kept)
        assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((2, 4), float("nan")), "NaN or infinite"),
        (torch.tensor([[1.0, 2, 3, float("inf")]]), "1 values that are NaN"),
        (torch.zeros(0, 4), "is empty"),
        (torch.zeros(3, 0, 4), "is empty"),
    ],
)
def test_batches_without_numbers_are_refused(x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exported(nn.Linear(4, 4), x)


def test_a_trained_bias_beside_a_frozen_weight_is_counted() -> None:
    model = nn.Linear(8, 4)
    model.weight.requires_grad_(False)
    layer = exported(model, torch.randn(2, 8), axes="BC").layers[0]
    assert (layer.parameters, layer.macs_weight_gradient) == (4, 0)


def test_cells_have_the_products_of_their_layers_and_bilinear_layers_two() -> None:
    layers = [layer for layer in exported(*OWNERS["cells"], axes="BTC").layers if layer.macs_forward]
    step = [4 * 48 * 32, 4 * 48 * 16, 4 * 32 * 16, 4 * 32 * 8]  # GRU and LSTM: input, state
    assert [layer.macs_forward for layer in layers] == [*step, *step, 4 * 8 * 3 * 8, 4 * 8 * 3]
    # The first state is no result of the network, and neither is the first input.
    assert [layer.macs_backward for layer in layers] == [0, 0, step[2], 0, 0, *step[1:], 4 * 8 * 3 * 8, 2 * 4 * 8 * 3]


class Chosen(nn.Module):
    """Of every row, its largest entries where they are positive; what is compared passes no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        mask = torch.zeros_like(h).scatter(-1, h.topk(4)[1], 1.0)
        h = torch.where(h > 0, h, 0.1 * h)
        return self.b(torch.where(mask > 0, h, h.new_zeros(())).masked_fill(h < -1, 0.0))


def test_a_comparison_that_only_chooses_is_no_spike() -> None:
    assert "spikes" not in str(export(Chosen(), [X], name="n", source={}, axes="BTC").balance)


def test_inputs_that_an_operation_refuses_are_one_line() -> None:
    with pytest.raises(ValueError, match="complex"):
        export(nn.Linear(32, 4), [X.to(torch.complex64)], name="n", source={}, axes="BTC")
    with pytest.raises(ValueError, match=r"example= or input=|torch.export cannot trace"):
        export(nn.Linear(32, 4), [X.double()], name="n", source={}, axes="BTC")
