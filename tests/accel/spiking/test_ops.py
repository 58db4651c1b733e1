"""The neuron operators: the same numbers from every backend and layout, in one piece or many, exported or not."""

import io
import math
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spikeloom.accel.spiking.functional import LIFParameters, LIFState, lif_loop
from spikeloom.accel.spiking.kernels import loader
from spikeloom.accel.spiking.neuron import LIF, ParametricLIF, integrate_and_fire
from spikeloom.accel.spiking.ops import lif, state_dtype
from spikeloom.accel.spiking.surrogate import SURROGATES, ATan, Sigmoid

needs_compiler = pytest.mark.skipif(loader.compiler() is None, reason="no C++ compiler for the compiled backend")
BACKENDS = [pytest.param("compiled", marks=needs_compiler), "torch"]

# Views of one [T, B, N] sequence that a caller may pass: name -> how to make it from a contiguous x.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "permuted": lambda x: x.permute(0, 2, 1).contiguous().permute(0, 2, 1),
    "transposed [B,T,N]": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "transposed [B,N,T]": lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "transposed [N,T,B]": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "sliced": lambda x: torch.cat((x, x + 1), dim=2)[:, :, ::2],
    "sliced in time": lambda x: torch.stack((x, x + 1), dim=1).flatten(0, 1)[1::2],
    "expanded": lambda x: x[:, :1].expand_as(x),
    "expanded in time": lambda x: x[:1].expand_as(x),
    "flipped 4d": lambda x: x.unsqueeze(1).flip(0),
    "channels last": lambda x: x[:, :, :, None, None].contiguous().movedim(2, 4).contiguous().movedim(4, 2),
    "time between": lambda x: torch.stack((x, x + 0.3), 3).permute(1, 2, 0, 3).contiguous().permute(2, 0, 1, 3),
    "one lane": lambda x: x[:, 0, 0],
}
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-13, torch.bfloat16: 1e-2, torch.float16: 1e-3}

parameters = st.builds(
    LIFParameters,
    tau=st.sampled_from([1.0, 1.5, 2.0, 7.3]),
    decay_input=st.booleans(),
    threshold=st.sampled_from([1.0, 0.7]),
    v_reset=st.sampled_from([0.0, None, -0.4, 0.25]),
    detach_reset=st.booleans(),
    surrogate=st.sampled_from([cls() for cls in SURROGATES] + [ATan(5.0)]),
) | st.builds(
    LIFParameters,
    tau=st.just(math.inf),
    decay_input=st.just(False),
    v_reset=st.sampled_from([0.0, None]),
    detach_reset=st.booleans(),
)
sizes = st.tuples(st.integers(1, 12), st.integers(1, 4), st.sampled_from([1, 2, 15, 16, 17, 65, 130]))


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_near(a: Tensor, b: Tensor, tolerance: float) -> None:
    assert a.dtype == b.dtype
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def check_against_loop(x: Tensor, p: LIFParameters, tau: float | None = None) -> None:
    """Operator on the current backend against autograd of the plain loop: spikes, membrane, every gradient."""
    dtype = state_dtype(x.dtype)
    v0 = randn(*x.shape[1:], seed=1, dtype=dtype) / 2
    gs, gv = randn(*x.shape, seed=2, dtype=x.dtype), randn(*x.shape[1:], seed=3, dtype=dtype)
    results = []
    for run in (lif, lambda x, state, *rest: lif_loop(x.to(dtype), state, *rest)):
        leaves = [x.detach().requires_grad_(), v0.clone().requires_grad_()]  # detach keeps the layout
        leaves += [] if tau is None else [torch.tensor(tau, dtype=dtype, requires_grad=True)]
        spikes, state = run(leaves[0], LIFState(leaves[1]), p, *leaves[2:])
        grads = torch.autograd.grad((spikes, state.v), leaves, (gs.to(spikes.dtype), gv))
        results.append((spikes, state.v, grads))
    (spikes, v, grads), (spikes0, v0_final, grads0) = results
    assert spikes.dtype == x.dtype
    assert v.dtype == dtype
    assert torch.equal(spikes.to(dtype), spikes0)
    assert torch.equal(v, v0_final)
    for ours, theirs in zip(grads, grads0, strict=True):
        assert_near(ours, theirs, TOLERANCE[x.dtype])


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    p=parameters,
    size=sizes,
    layout=st.sampled_from(sorted(LAYOUTS)),
    dtype=st.sampled_from(list(TOLERANCE)),
    seed=st.integers(0, 99),
)
def test_operator_equals_loop(backend, p, size, layout, dtype, seed):
    with loader.use_backend(backend):
        check_against_loop(LAYOUTS[layout](randn(*size, seed=seed, dtype=dtype) * 1.5), p)


@needs_compiler
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiled_equals_loop_on_every_layout_and_dtype(layout, dtype):
    with loader.use_backend("compiled"):
        for reset in (0.0, None):
            p = LIFParameters(v_reset=reset, detach_reset=False, surrogate=Sigmoid(4.0))
            check_against_loop(LAYOUTS[layout](randn(9, 3, 40, dtype=dtype) * 1.5), p)


@needs_compiler
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("lanes", [1024, 1027])  # whole lines of memory, and rows that begin anywhere
def test_compiled_equals_loop_where_results_are_written_past_the_caches(lanes, dtype):
    x = randn(60, 9, lanes, dtype=dtype) * 1.5
    assert x.numel() * x.element_size() > 1 << 20
    with loader.use_backend("compiled"):
        check_against_loop(x, LIFParameters(detach_reset=False))


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_compiled_reads_and_writes_every_half_like_torch(dtype):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    every = every[every.float().isfinite()]
    p = LIFParameters(tau=math.inf, decay_input=False, threshold=3.4e38, v_reset=None)
    with loader.use_backend("compiled"):
        x = every[None].clone().requires_grad_()
        assert torch.equal(lif(x, None, p)[1].v, every.float())
        v = randn(every.numel()) * 10 ** (randn(every.numel(), seed=1) * 3)
        out = torch.autograd.grad(lif(x, None, p)[1].v, x, v)[0]  # dL/dx = dL/dv, rounded to half
    assert torch.equal(out[0], v.to(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("chunk", [1, 3])
def test_a_sequence_in_pieces_gives_the_whole_bit_for_bit(backend, dtype, chunk):
    x = randn(20, 2, 33, dtype=dtype) * 3
    with loader.use_backend(backend):
        for p in (LIFParameters(tau=3.0), LIFParameters(decay_input=False, v_reset=None), LIFParameters(v_reset=-0.3)):
            whole, last = lif(x, None, p)
            state, pieces = None, []
            for t in range(0, 20, chunk):
                s, state = lif(x[t : t + chunk], state, p)
                pieces.append(s)
            assert 0.05 < whole.float().mean() < 0.95
            assert torch.equal(torch.cat(pieces), whole)
            assert torch.equal(state.v, last.v)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["contiguous", "transposed [B,N,T]"])
@pytest.mark.parametrize("learned", [False, True])
def test_one_membrane_for_all_equals_as_many_equal_ones(backend, layout, learned):
    x, up = LAYOUTS[layout](randn(7, 3, 70)), randn(7, 3, 70, seed=1)
    p = LIFParameters(tau=2.0, decay_input=True)
    found = []
    for form in (lambda v: v.expand(3, 70), lambda v: v.expand(3, 70).contiguous()):
        v, inputs = torch.tensor(0.3, requires_grad=True), x.clone().requires_grad_()
        tau = torch.tensor(2.0, requires_grad=True)
        with loader.use_backend(backend):
            spikes, state = lif(inputs, LIFState(form(v)), p, tau if learned else None)
            wanted = (inputs, v, *([tau] if learned else []))
            alone = torch.autograd.grad(spikes, wanted, up, retain_graph=True)  # nothing comes back to the membrane
            both = torch.autograd.grad((spikes, state.v), wanted, (up, torch.full_like(state.v, 0.5)))
            of_membrane = torch.autograd.grad(lif(inputs, LIFState(form(v)), p)[1].v.sum(), (inputs, v))
        found.append((spikes, state.v, *alone, *both, *of_membrane))
    assert found[0][0].any() and found[0][3].abs() > 0
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("p", "x", "spikes", "v"),
    [
        (LIFParameters(tau=2.0), [1, 1, 2, 0.5, 3], [0, 0, 1, 0, 1], [0.5, 0.75, 0, 0.25, 0]),
        (
            LIFParameters(tau=4.0, decay_input=False, v_reset=None),
            [0.5, 0.75, 0.5, 0, 2],
            [0, 1, 0, 0, 1],
            [0.5, 0.125, 0.59375, 0.4453125, 1.333984375],
        ),
        (
            LIFParameters(tau=2.0, decay_input=False, v_reset=-1.0),
            [1, 0.5, 2, 0, 2],
            [0, 0, 1, 0, 1],
            [0, 0, -1, -1, -1],
        ),
        (
            integrate_and_fire(v_reset=None).parameters_,
            [0.5, 0.5, 0.25, -1, 3],
            [0, 1, 0, 0, 1],
            [0.5, 0, 0.25, -0.75, 1.25],
        ),
    ],
    ids=["decay, hard", "no decay, soft", "reset to -1", "integrate and fire"],
)  # fmt: skip
def test_five_steps_by_hand(backend, p, x, spikes, v):
    with loader.use_backend(backend):
        state = None
        for t in range(5):
            s, state = lif(torch.tensor([[float(x[t])]]), state, p)
            assert (s.item(), state.v.item()) == (spikes[t], v[t]), t
        assert lif(torch.tensor(x)[:, None], None, p)[0].flatten().tolist() == spikes


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_inputs_leave_spikes_and_gradients_finite(backend):
    x = torch.tensor([-1e30, 1e30, 0.0, 1e-38, 1e10, -1e10]).repeat(6, 1).requires_grad_()
    with loader.use_backend(backend):
        for cls in SURROGATES:
            spikes, state = lif(x, None, LIFParameters(surrogate=cls()))
            (gx,) = torch.autograd.grad(spikes.sum(), x)
            assert spikes.isfinite().all()
            assert state.v.isfinite().all()
            assert gx.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["lif", "plif"])
def test_operator_keeps_the_contract_of_torch_library(backend, name):
    x = randn(4, 2, 3).requires_grad_()
    v = torch.zeros(2, 3, requires_grad=True)
    tau = 2.0 if name == "lif" else torch.tensor(2.0, requires_grad=True)
    args = (True, 1.0, 0.0, True, ATan.code, 2.0)
    with loader.use_backend(backend):
        torch.library.opcheck(getattr(torch.ops.spikeloom, name), (x, v, tau, *args))
        turned = x.detach().permute(1, 0, 2).contiguous().permute(1, 0, 2).requires_grad_()
        torch.library.opcheck(getattr(torch.ops.spikeloom, name), (turned, v, tau, *args), test_utils="test_faketensor")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("v_reset", [0.0, None, -0.4])
@pytest.mark.parametrize("detach_reset", [True, False])
def test_gradient_of_a_learned_tau_equals_autograd_of_the_loop(backend, decay_input, v_reset, detach_reset):
    p = LIFParameters(decay_input=decay_input, v_reset=v_reset, detach_reset=detach_reset, surrogate=Sigmoid(4.0))
    with loader.use_backend(backend):
        check_against_loop(randn(12, 3, 70, dtype=torch.float64) * 1.5, p, tau=2.7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_a_silent_membrane_equals_finite_differences(backend):
    """Below threshold the membrane is smooth in x, v and tau; a surrogate too narrow to reach leaves only that path."""
    p = LIFParameters(threshold=50.0)
    x, v = randn(5, 3, dtype=torch.float64).requires_grad_(), randn(3, seed=1, dtype=torch.float64).requires_grad_()
    tau = torch.tensor(2.3, dtype=torch.float64, requires_grad=True)
    with loader.use_backend(backend):
        assert torch.autograd.gradcheck(lambda *a: lif(a[0], LIFState(a[1]), p, a[2])[1].v, (x, v, tau))


@pytest.mark.parametrize("tau", [1.5, 2.0, 10.0])
def test_parametric_neuron_starts_as_the_lif_of_its_tau_and_learns_it(tau):
    p = LIFParameters(tau=tau)
    neuron, x = ParametricLIF(p), randn(8, 2, 5) * 2
    assert neuron.tau.item() == pytest.approx(tau, rel=1e-6)
    assert [name for name, _ in neuron.named_parameters()] == ["w"]
    assert torch.equal(neuron(x)[0], LIF(p)(x)[0])
    neuron(x)[0].sum().backward()
    w = neuron.w.detach().clone().requires_grad_()
    lif_loop(x, None, p, 1 / torch.sigmoid(w))[0].sum().backward()
    assert w.grad != 0
    torch.testing.assert_close(neuron.w.grad, w.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tau", [1.0, math.inf])
def test_learned_tau_outside_its_range_is_an_error(tau):
    with pytest.raises(ValueError, match=rf"got {tau}"):
        ParametricLIF(LIFParameters(tau=tau, decay_input=False))


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.lif = LIF(LIFParameters(tau=3.0, surrogate=Sigmoid(2.0)))

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.linear(x))[0]


def test_exported_neuron_is_one_node_for_any_number_of_steps():
    torch.manual_seed(0)
    model, x = Tiny(), randn(7, 2, 4) * 3
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: torch.export.Dim("T", min=2, max=1000)}})
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    program = torch.export.load(file)
    calls = [str(n.target) for n in program.graph.nodes if n.op == "call_function" and "spikeloom" in str(n.target)]
    assert calls == ["spikeloom.lif.default"]
    for steps in (7, 2, 31):
        x = randn(steps, 2, 4, seed=steps) * 5
        assert torch.equal(program.module()(x), model(x))
        assert model(x).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_tensor_is_an_error_that_says_what_is_right(backend):
    x, p = torch.zeros(5, 2, 3), LIFParameters()
    with loader.use_backend(backend):
        with pytest.raises(ValueError, match=r"\(2, 3\), got \(3, 2\)"):
            lif(x, LIFState(torch.zeros(3, 2)), p)
        with pytest.raises(ValueError, match=r"float32.*got torch.float64"):
            lif(x, LIFState(torch.zeros(2, 3, dtype=torch.float64)), p)
        with pytest.raises(ValueError, match=r"float32.*got torch.bfloat16"):
            lif(x.bfloat16(), LIFState(torch.zeros(2, 3, dtype=torch.bfloat16)), p)
        with pytest.raises(ValueError, match=r"got torch.int64"):
            lif(x.long(), None, p)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tau": 0.5}, "tau.*>= 1"),
        ({"tau": math.nan}, "tau.*>= 1"),
        ({"tau": math.inf}, "tau.*decay_input"),
        ({"threshold": math.inf}, "threshold.*inf"),
        ({"v_reset": 1.0}, "v_reset.*got 1.0"),
        ({"v_reset": math.nan}, "v_reset.*got nan"),
    ],
)
def test_wrong_constants_are_an_error(options, named):
    with pytest.raises(ValueError, match=named):
        LIFParameters(**options)


def test_unknown_backend_is_an_error():
    with pytest.raises(ValueError, match="cuda"), loader.use_backend("cuda"):
        pass


def run_python(code: str, **environment: str) -> list[str]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith("SPIKELOOM_") and k != "CXX"}
    done = subprocess.run([sys.executable, "-c", code], env=keep | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


RUN = """
import warnings, torch
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.kernels import loader
from spikeloom.accel.spiking.ops import lif
x = torch.tensor([[1.0], [2.0], [3.0]])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        spikes = lif(x, None, LIFParameters())[0].flatten().tolist()
told = [w for w in caught if "no C++ compiler found" in str(w.message) and "slow" in str(w.message)]
print(loader.backend(), len(told), *spikes)
"""


def test_without_a_compiler_the_loop_runs_and_says_so_once(tmp_path):
    out = run_python(RUN, CXX="/nonexistent", PATH="", SPIKELOOM_CACHE=str(tmp_path))
    assert out == ["torch", "1", "0.0", "1.0", "1.0"]


def test_environment_chooses_the_torch_backend_and_nothing_is_built(tmp_path):
    out = run_python(RUN, SPIKELOOM_BACKEND="torch", SPIKELOOM_CACHE=str(tmp_path))
    assert out == ["torch", "0", "0.0", "1.0", "1.0"]
    assert not list(tmp_path.iterdir())


def test_an_overflowing_input_is_reset_on_every_backend():
    x = torch.tensor([[torch.inf], [1.0]])
    for name in ("compiled", "torch"):
        if name == "compiled" and loader.compiler() is None:
            continue
        with loader.use_backend(name):
            spikes, state = lif(x, None, LIFParameters(tau=2.0))
        assert spikes.flatten().tolist() == [1.0, 0.0]
        assert state.v.item() == 0.5
