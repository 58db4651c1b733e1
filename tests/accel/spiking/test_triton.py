"""Triton's kernels against the plain loop: in Triton's interpreter on the CPU, and on a CUDA device where there is one.

The interpreter is chosen when a kernel is defined, so each test runs in a Python of its own that sets TRITON_INTERPRET.
"""

import os
import subprocess
import sys

import pytest
import torch

from spikeloom.accel.spiking.kernels import loader

pytest.importorskip("triton", reason="the package triton is not installed; pip install triton")

CHECK = """
import math, sys, torch
from spikeloom.accel.spiking.functional import LIFParameters, LIFState, lif_loop
from spikeloom.accel.spiking.kernels import loader
from spikeloom.accel.spiking.ops import lif, state_dtype
from spikeloom.accel.spiking.surrogate import SURROGATES
from tests.accel.spiking.test_ops import LAYOUTS, TOLERANCE, assert_near, randn

device, seeds = torch.device(sys.argv[1]), range(*map(int, sys.argv[2:4]))
assert loader.neuron_backend(device) == "triton"
exact = device.type == "cpu"  # a GPU's exp and its order of sums are its own
for seed in seeds:
    draw = torch.Generator().manual_seed(seed)
    one = lambda *of: of[int(torch.randint(len(of), (), generator=draw))]
    learned, dtype = one(False, True), one(*TOLERANCE)
    reset, decay = one(0.0, None, -0.4), one(True, False)
    tau = one(1.5, 2.0, 7.3) if learned or decay else one(2.0, math.inf)
    p = LIFParameters(
        tau=tau, decay_input=decay, threshold=one(1.0, 0.7), v_reset=reset, detach_reset=one(True, False),
        surrogate=SURROGATES[seed % len(SURROGATES)](),
    )
    size = one(1, 2, 7, 12), one(1, 3), one(1, 2, 17, 300)
    layout = sorted(LAYOUTS)[seed % len(LAYOUTS)]
    x = LAYOUTS[layout](randn(*size, seed=seed, dtype=dtype).to(device) * 1.5)
    kind = state_dtype(dtype)
    v0 = randn(*x.shape[1:], seed=1, dtype=kind).to(device) / 2
    gs, gv = randn(*x.shape, seed=2, dtype=dtype).to(device), randn(*x.shape[1:], seed=3, dtype=kind).to(device)
    found = []
    for run in (lif, lambda x, state, *rest: lif_loop(x.to(kind), state, *rest)):
        leaves = [x.detach().requires_grad_(), v0.clone().requires_grad_()]
        leaves += [torch.tensor(tau, dtype=kind, device=device, requires_grad=True)] if learned else []
        spikes, state = run(leaves[0], LIFState(leaves[1]), p, *leaves[2:])
        grads = torch.autograd.grad((spikes, state.v), leaves, (gs.to(spikes.dtype), gv))
        found.append((spikes.to(kind), state.v, grads))
    (spikes, v, grads), (spikes0, v_loop, grads0) = found
    where = (seed, layout, dtype, p, size, learned)
    if learned and not decay:  # the loop rounds 1 / tau before 1 - 1 / tau
        torch.testing.assert_close(v, v_loop, rtol=1e-4, atol=1e-5)
        if not torch.equal(spikes, spikes0):
            continue
    else:
        assert torch.equal(spikes, spikes0) and torch.equal(v, v_loop), where
    for ours, theirs in zip(grads, grads0, strict=True):
        assert_near(ours, theirs, TOLERANCE[dtype] * (1 if exact else 10) * (30 if learned else 1))
print("equal", len(seeds))
"""
GRAPH = """
import torch
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.ops import lif

x = torch.randn(20, 4, 64, device="cuda", requires_grad=True)
tau = torch.tensor(2.0, device="cuda", requires_grad=True)
step = lambda: torch.autograd.grad(lif(x, None, LIFParameters(), tau)[0].sum(), (x, tau))
stream = torch.cuda.Stream()
with torch.cuda.stream(stream):
    step()
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    captured = step()
with torch.no_grad():
    x.copy_(torch.randn_like(x))
graph.replay()
assert all(map(torch.equal, captured, step()))
print("captured")
"""


def run_python(code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def interpreted(first: int, last: int) -> str:
    return run_python(CHECK, "cpu", str(first), str(last), TRITON_INTERPRET="1", SPIKELOOM_BACKEND="triton")


def test_kernels_in_the_interpreter_equal_the_loop() -> None:
    assert interpreted(0, 15) == "equal 15\n"


@pytest.mark.slow
def test_kernels_in_the_interpreter_equal_the_loop_over_many_shapes() -> None:
    assert interpreted(15, 600) == "equal 585\n"


def test_triton_on_a_cpu_without_the_interpreter_is_refused() -> None:
    with (
        loader.use_backend("triton"),
        pytest.raises(loader.BuildError, match=r"does not run on cpu.*TRITON_INTERPRET=1"),
    ):
        loader.neuron_backend(torch.device("cpu"))
    assert loader.neuron_backend(torch.device("cpu")) == loader.backend()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernels_on_a_gpu_equal_the_loop_and_can_be_captured() -> None:
    assert run_python(CHECK, "cuda", "0", "400") == "equal 400\n"
    assert run_python(GRAPH) == "captured\n"
