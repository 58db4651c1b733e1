"""Surrogate derivatives: values, areas, codes, and the same numbers from the compiled kernel."""

import math

import pytest
import torch

from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.kernels import loader
from spikeloom.accel.spiking.ops import lif
from spikeloom.accel.spiking.surrogate import (
    SURROGATES,
    ATan,
    FastSigmoid,
    PiecewiseLinear,
    Rectangular,
    Sigmoid,
    from_code,
)

needs_compiler = pytest.mark.skipif(loader.compiler() is None, reason="no C++ compiler for the compiled backend")
BACKENDS = [pytest.param("compiled", marks=needs_compiler), "torch"]


@pytest.mark.parametrize("surrogate", [cls() for cls in SURROGATES], ids=repr)
def test_every_surrogate_is_finite_even_and_largest_at_threshold(surrogate):
    u = torch.cat((torch.linspace(-100, 100, 4001), torch.zeros(1)))
    g = surrogate(u)
    assert g.dtype == torch.float32
    assert g.isfinite().all()
    assert (g >= 0).all()
    assert torch.equal(g, surrogate(-u))
    assert float(g.max()) == float(surrogate(torch.zeros(())))


@pytest.mark.parametrize(
    ("surrogate", "u", "expected"),
    [
        (ATan(2.0), 0.0, 1.0),
        (ATan(2.0), 1 / math.pi, 0.5),
        (ATan(5.0), 0.4 / math.pi, 1.25),
        (Sigmoid(4.0), 0.0, 1.0),
        (Sigmoid(2.0), math.log(3.0) / 2, 0.375),  # s = 3/4
        (FastSigmoid(10.0), 0.0, 1.0),
        (FastSigmoid(10.0), -0.1, 0.25),
        (Rectangular(0.5), 0.49, 1.0),
        (Rectangular(0.5), 0.5, 0.0),
        (Rectangular(2.0), -1.0, 0.25),
        (PiecewiseLinear(1.0), 0.25, 0.75),
        (PiecewiseLinear(2.0), -1.0, 0.25),
        (PiecewiseLinear(2.0), 2.5, 0.0),
    ],
    ids=repr,
)
def test_surrogate_has_its_hand_worked_value(surrogate, u, expected):
    assert float(surrogate(torch.tensor(u, dtype=torch.float64))) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("surrogate", "area"),
    # The exact areas over [-50, 50]: a step of height 1, but for SuperSpike's 2/alpha; tails beyond 50 subtracted.
    [
        (ATan(2.0), 2 / math.pi * math.atan(math.pi * 50)),
        (Sigmoid(4.0), 1.0),
        (FastSigmoid(10.0), 2 / 10 * (1 - 1 / 501)),
        (Rectangular(0.5), 1.0),
        (PiecewiseLinear(1.0), 1.0),
    ],
    ids=repr,
)
def test_surrogate_has_its_area(surrogate, area):
    u = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) * 1e-4 - 50
    assert float(surrogate(u).sum() * 1e-4) == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize("cls", SURROGATES)
def test_code_and_parameter_name_a_surrogate(cls):
    surrogate = cls(3.5)
    assert from_code(surrogate.code, surrogate.parameter) == surrogate
    assert len({c.code for c in SURROGATES}) == len(SURROGATES)


def test_unknown_code_is_an_error():
    with pytest.raises(ValueError, match=r"\b99\b"):
        from_code(99, 1.0)


@pytest.mark.parametrize("cls", SURROGATES)
@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_parameter_must_be_a_positive_number(cls, bad):
    with pytest.raises(ValueError, match=rf"{bad}"):
        cls(bad)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cls", SURROGATES)
@pytest.mark.parametrize("parameter", [0.5, 2.0])
def test_operator_gradient_of_one_step_is_the_surrogate(cls, parameter, dtype, backend):
    """tau = inf, threshold 0, soft reset: h = x = u, so that dL/dx = g(u)."""
    surrogate = cls(parameter)
    p = LIFParameters(tau=math.inf, decay_input=False, threshold=0.0, v_reset=None, surrogate=surrogate)
    u = torch.cat((torch.linspace(-30, 30, 2001, dtype=dtype), torch.zeros(1, dtype=dtype)))
    x = u[None].clone().requires_grad_()
    with loader.use_backend(backend):
        lif(x, None, p)[0].sum().backward()
    torch.testing.assert_close(x.grad[0], surrogate(u), rtol=2e-6 if dtype == torch.float32 else 1e-12, atol=1e-30)
