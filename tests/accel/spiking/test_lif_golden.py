"""The neuron against the golden LIF cases: the loop, and both backends of the operator."""

from typing import Any

import pytest
import torch
from torch import Tensor

from spikeloom.accel.spiking.functional import LIFParameters, LIFState, charge, lif_loop, reset
from spikeloom.accel.spiking.kernels import loader
from spikeloom.accel.spiking.ops import lif
from spikeloom.accel.spiking.surrogate import ATan, Sigmoid
from tests.golden import golden_files

SURROGATES = {"sigmoid": Sigmoid, "atan": ATan}
TIE = {
    "key": "tie", "tau": 2.0, "decay_input": True, "v_threshold": 1.0, "v_reset": 0.0, "detach_reset": True,
    "surrogate": "sigmoid", "alpha": 4.0,
}  # fmt: skip

pytestmark = pytest.mark.golden
needs_compiler = pytest.mark.skipif(loader.compiler() is None, reason="no C++ compiler for the compiled backend")
BACKENDS = [pytest.param("compiled", marks=needs_compiler), "torch"]


def parameters(case: dict[str, Any]) -> LIFParameters:
    return LIFParameters(
        tau=case["tau"], decay_input=case["decay_input"], threshold=case["v_threshold"], v_reset=case["v_reset"],
        detach_reset=case["detach_reset"], surrogate=SURROGATES[case["surrogate"]](case["alpha"]),
    )  # fmt: skip


def cases() -> list[tuple[str, LIFParameters, dict[str, Tensor]]]:
    found = []
    for golden in golden_files("lif_cases*.safetensors"):
        ties = [TIE] if golden.under("tie") else []
        found += [(c["key"], parameters(c), golden.under(c["key"])) for c in golden.json("cases") + ties]
    assert any(key == "tie" for key, _, _ in found)
    return found


def assert_close(a: Tensor, b: Tensor, what: str) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0, msg=lambda m: f"{what}: {m}")


def check_gradient(key: str, tensors: dict[str, Tensor], run) -> None:
    x = tensors["x"].clone().requires_grad_()
    spikes, state = run(x)
    assert torch.equal(spikes, tensors["spikes"]), key
    assert_close(state.v, tensors["v"][-1], f"{key} final v")
    (dx,) = torch.autograd.grad(spikes, x, tensors["upstream"])
    assert_close(dx, tensors["dx"], f"{key} dx")


def test_loop_gives_golden_spikes_membranes_and_gradients():
    for key, p, tensors in cases():
        v = torch.full_like(tensors["x"][0], p.rest)
        for t, x_t in enumerate(tensors["x"]):
            h = charge(x_t, v, p)
            s = (h >= p.threshold).to(h.dtype)
            v = reset(h, s, p)
            assert torch.equal(s, tensors["spikes"][t]), (key, t)
            assert_close(h, tensors["h"][t], f"{key} h[{t}]")
            assert_close(v, tensors["v"][t], f"{key} v[{t}]")
        check_gradient(key, tensors, lambda x, p=p: lif_loop(x, None, p))


@pytest.mark.parametrize("backend", BACKENDS)
def test_operator_gives_golden_spikes_membranes_and_gradients(backend):
    with loader.use_backend(backend):
        for key, p, tensors in cases():
            check_gradient(key, tensors, lambda x, p=p: lif(x, None, p))
            state: LIFState | None = None
            for t in range(len(tensors["x"])):
                s, state = lif(tensors["x"][t : t + 1], state, p)
                assert torch.equal(s[0], tensors["spikes"][t]), (key, t)
                assert_close(state.v, tensors["v"][t], f"{key} v[{t}]")
