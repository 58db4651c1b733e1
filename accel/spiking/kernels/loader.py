"""The neuron kernel for each element type, and which backend runs.

CPU tensors take the C++ kernels, CUDA tensors those of Triton (neurons alone have any). Without a C++ compiler, or
without the package triton, the operators run the plain loops, and a warning reports it once.
`$SPIKELOOM_BACKEND` = cpp | triton | torch makes the choice explicit: `cpp` (or `compiled`) and `triton` turn what is
missing into an error, `torch` never builds. CPU tensors run on Triton under its interpreter, TRITON_INTERPRET=1.
"""

import contextlib
import ctypes
import os
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor

from spikeloom.accel.spiking.kernels.compiler import SOURCE, BuildError, build, cache_dir, compiler

__all__ = [
    "SOURCE", "TYPES", "BuildError", "Neuron", "Shape", "backend", "build", "cache_dir", "call", "compiler", "library",
    "neuron_backend", "triton_kernels", "use_backend",
]  # fmt: skip

# Element type of a tensor -> the C++ types of memory and of membranes.
TYPES = {
    torch.float32: ("float", "float"),
    torch.float64: ("double", "double"),
    torch.bfloat16: ("bf16", "float"),
    torch.float16: ("f16", "float"),
}


class Shape(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int64) for n in ("time", "outer", "lanes", "time_stride", "outer_stride", "threads")]


class Neuron(ctypes.Structure):
    _fields_ = [(n, ctypes.c_double) for n in ("tau", "threshold", "rest", "surrogate_parameter")] + [
        (n, ctypes.c_int32) for n in ("decay_input", "soft_reset", "detach_reset", "surrogate")
    ]


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL:
    """The neuron kernel for one element type. Raises BuildError with the reason."""
    io, compute = TYPES[dtype]
    return build(SOURCE, f"lif-{io}", f"-DSPIKELOOM_IO={io}", f"-DSPIKELOOM_COMPUTE={compute}")


def call(function: Any, *values: Tensor | int | None) -> Any:
    """A kernel's function given int64 for whole numbers, pointers for tensors, null for None; threads come last."""

    def argument(value: Tensor | int | None) -> Any:
        if isinstance(value, Tensor):
            return ctypes.c_void_p(value.data_ptr())
        return None if value is None else ctypes.c_int64(value)

    return function(*map(argument, values), argument(torch.get_num_threads()))


_forced: ContextVar[str | None] = ContextVar("spikeloom_backend", default=None)


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the operators on `cpp` (also called `compiled`), `triton` or `torch` inside a with-block."""
    token = _forced.set(_checked(name))
    try:
        yield
    finally:
        _forced.reset(token)


def _checked(name: str) -> str:
    if name not in ("cpp", "compiled", "triton", "torch"):
        raise ValueError(f"unknown backend {name!r}; use 'cpp', 'triton' or 'torch'")
    return "compiled" if name == "cpp" else name


def _wanted() -> str | None:
    """The explicit choice, if there is one."""
    given = os.environ.get("SPIKELOOM_BACKEND")
    return _forced.get() or (_checked(given) if given else None)


@cache
def _default_backend(wanted: str | None) -> str:
    if wanted == "torch":
        return "torch"
    try:
        library(torch.float32)
    except BuildError as error:
        if wanted == "compiled":
            raise
        warnings.warn(f"operators run on their plain loops, which are slow: {error}", RuntimeWarning, stacklevel=2)
        return "torch"
    return "compiled"


def backend() -> str:
    """`compiled` or `torch`: what the operators run on, CPU tensors only."""
    forced = _forced.get()
    return forced if forced in ("compiled", "torch") else _default_backend(_wanted())


@cache
def triton_kernels() -> Any:
    """The module of Triton's kernels. Raises BuildError where the package is not installed."""
    try:
        from spikeloom.accel.spiking.kernels import triton_lif
    except ImportError as error:
        raise BuildError(f"the package triton is not installed ({error}); `pip install triton`") from error
    return triton_lif


def neuron_backend(device: torch.device) -> str:
    """`compiled`, `triton` or `torch`: what a neuron on a device runs on.

    Raises:
        BuildError: `triton` is chosen, and it is not installed or has nothing for this device.
    """
    wanted = _wanted()
    if wanted == "triton":
        if not triton_kernels().runs_on(device):
            raise BuildError(
                f"SPIKELOOM_BACKEND=triton does not run on {device.type}; use a CUDA device, or TRITON_INTERPRET=1"
            )
        return "triton"
    if device.type == "cpu":
        return backend()
    return "triton" if wanted is None and device.type == "cuda" and _has_triton() else "torch"


@cache
def _has_triton() -> bool:
    """Whether there are kernels for CUDA; a warning where not."""
    try:
        triton_kernels()
    except BuildError as error:
        warnings.warn(f"neurons on CUDA run as plain loops, which are slow: {error}", RuntimeWarning, stacklevel=2)
        return False
    return True
