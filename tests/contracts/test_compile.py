"""Every model that learns by gradients is one graph to torch.compile, and says as a graph what it says as Python."""

import pytest
import torch

from tests.contracts.rows import Batch, batch, model, outcome, row_of
from tests.contracts.test_contracts import DISTINCT, close

QUICK = ("lif", "cnn", "spiking_mlp")  # the others take seconds each
GRAPHS = [name for name in DISTINCT if row_of(name).kind in ("speech", "pictures", "frames", "e2t_ptr", "cet_mae")]


def marked(name: str) -> object:
    return name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [marked(name) for name in GRAPHS if not name.startswith("baseline")])
def test_a_compiled_model_is_one_graph_and_says_the_same(name: str) -> None:
    torch._dynamo.reset()
    given: Batch = batch(name).to(torch.float64)
    for mode in (False, True):
        network = model(name).double().train(mode)
        graph = torch.compile(network, backend="eager", fullgraph=True)
        if mode:  # with dropout and statistics of the batch: that it traces, and has gradients
            said = graph(given.x, *given.others)
            parts = [said] if isinstance(said, torch.Tensor) else [part for part in said if torch.is_tensor(part)]
            torch.stack([part.float().sum() for part in parts if part.requires_grad]).sum().backward()
            assert any(p.grad is not None and bool(p.grad.count_nonzero()) for p in network.parameters())
        else:
            with torch.no_grad():
                assert close(outcome(name, network, given), outcome(name, graph, given))
