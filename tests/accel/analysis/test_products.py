"""Matrix products that no layer makes are counted where they are called; none is missed, none is counted twice."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.accel.analysis.energy import FLOAT16, Convention, Operations, per_inference
from spikeloom.accel.analysis.operations import OperationCounter
from spikeloom.accel.analysis.report import facts, sections
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF


class Attention(nn.Module):
    """x [B, T, 8] -> softmax attention of two heads, as torch has it or written out."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.qkv, self.out = how, nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (z.unflatten(2, (2, 4)).transpose(1, 2) for z in self.qkv(x).chunk(3, 2))
        if self.how == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.how == "matmul":
            y = (q @ k.mT).softmax(-1).matmul(v)
        elif self.how == "einsum":
            y = torch.einsum("bhts,bhsd->bhtd", torch.einsum("bhtd,bhsd->bhts", q, k).softmax(-1), v)
        else:
            b, h, t, d = q.shape
            scores = torch.bmm(q.reshape(-1, t, d), k.reshape(-1, t, d).mT)
            y = torch.baddbmm(torch.zeros(b * h, t, d), scores.softmax(-1), v.reshape(-1, t, d)).view(b, h, t, d)
        return self.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("how", ["fused", "matmul", "einsum", "bmm"])
def test_attention_costs_the_same_however_it_is_written(how: str) -> None:
    model = Attention(how)
    with torch.no_grad(), OperationCounter(model) as counter:
        model(torch.randn(3, 5, 8))
    assert sum(product.mac for product in counter.products.values()) == 3 * 2 * 5 * 5 * (4 + 4)
    assert sum(product.ac for product in counter.products.values()) == 0
    assert {path: layer.dense for path, layer in counter.connections.items()} == {"qkv": 3 * 5 * 192, "out": 3 * 5 * 64}


def test_a_product_of_spikes_adds_where_both_fire_and_one_fraction_makes_it_multiply() -> None:
    class Gram(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a @ b

    a, b = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0], [2.0, 0.0]])
    with OperationCounter(Gram()) as counter:
        counter._model(a, b)
    (found,) = counter.products.values()
    assert (found.ac, found.mac, found.dense, found.binary) == (4, 0, 6, False)
    with OperationCounter(Gram()) as counter:
        counter._model(a, b)
        counter._model(a, 0.5 * b)
    (found,) = counter.products.values()
    assert (found.ac, found.mac, found.dense) == (0, 12, 12)


def test_products_outside_the_model_and_those_of_the_counter_itself_are_no_operations() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    with OperationCounter(model) as counter:
        model(torch.ones(4, 3) @ torch.ones(3, 3))
    assert counter.products == {}


def test_a_product_that_no_rule_counts_is_an_error() -> None:
    class Three(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("ab,bc,cd->ad", x, x, x)

    with pytest.raises(ValueError, match="no rule counts einsum 'ab,bc,cd->ad'"), OperationCounter(Three()) as counter:
        counter._model(torch.ones(2, 2))


class Spiking(nn.Module):
    """x [T, B, 3] -> linear -> LIF -> linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.neurons, self.second = (
            nn.Linear(3, 4, bias=False),
            LIF(LIFParameters(tau=2.0)),
            nn.Linear(4, 2),
        )
        nn.init.ones_(self.first.weight)

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.neurons(self.first(x))[0]
        return self.second(spikes)


def counted(x: Tensor, **how: object) -> Operations:
    model = Spiking()
    with torch.no_grad(), OperationCounter(model) as counter:
        model(x)
    return per_inference(counter, samples=x.shape[1], steps=len(x), what="clip", convention=Convention(), **how)  # type: ignore[arg-type]


def test_membrane_updates_are_counted_priced_beside_and_stated() -> None:
    found = counted(torch.full((5, 2, 3), 0.7))
    assert found.membrane_updates == 5 * 4
    assert found.membrane_energy_pj == 4.6 * 20
    assert found.energy_pj == pytest.approx(4.6 * 5 * 12 + 0.9 * found.ac)  # membranes are not in it
    assert "with membrane updates" in facts(found)
    page = " ".join(f"{s.text} {s.table and s.table.rows}" for s in sections(found))
    assert "memory is left out" in page and "membrane updates" in page


def test_prices_are_those_asked_for_and_name_their_source() -> None:
    found = counted(torch.full((5, 2, 3), 0.7), constants=FLOAT16)
    assert found.energy_pj == pytest.approx(0.4 * found.ac + 1.5 * found.mac)
    written = found.as_dict()
    assert (written["ac_pj"], written["mac_pj"]) == (0.4, 1.5) and "Horowitz" in written["prices"]


def test_the_first_and_the_last_layer_may_receive_real_values() -> None:
    found = counted(torch.full((5, 2, 3), 0.7)).spike_driven
    assert found.verdict == "spike-driven" and found.exceptions == ("first",)
    assert counted(torch.zeros(5, 2, 3)).spike_driven.verdict == "inconclusive"


def test_a_network_without_neurons_is_not_spike_driven_whatever_it_is_given() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad(), OperationCounter(model) as counter:
        model(torch.ones(1, 2))
    found = per_inference(counter, samples=1, steps=1, what="picture", convention=Convention(), network="this network")
    assert found.spike_driven.verdict == "not spike-driven"
    assert "this network has no spiking neurons" in found.spike_driven.sentence()
