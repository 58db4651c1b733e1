"""Builds C++ kernels on first use, caches the libraries, and says which backend runs.

Needs a C++ compiler (`$CXX`, g++ or clang++). Without one the operators run the plain loops; that is said once, as a
warning, and `backend()` tells it to whoever asks. `$SPIKELOOM_BACKEND` = compiled | torch makes the choice explicit:
`compiled` turns a failed build into an error, `torch` never builds. `$SPIKELOOM_CACHE` moves the cache.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("lif.cpp")
_HEADERS = tuple(Path(__file__).with_name(name) for name in ("clones.h", "numbers.h"))  # read before every source
FLAGS = (
    "-O3",
    "-std=c++17",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-fopenmp",
    "-fPIC",
    "-shared",
)
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


class BuildError(RuntimeError):
    """The kernel could not be compiled or loaded; the message holds the compiler's own words."""


def compiler() -> str | None:
    """Path of the C++ compiler in use, or None."""
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++", "clang++"]
    return next((path for path in map(shutil.which, candidates) if path), None)


def cache_dir() -> Path:
    """Folder of compiled kernels; safe to delete."""
    home = os.environ.get("SPIKELOOM_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "spikeloom")
    return Path(home).expanduser()


def _share_openmp() -> None:
    """Make torch's OpenMP runtime global, so that the kernel binds to it: two pools of threads would compete."""
    with contextlib.suppress(OSError):
        for path in sorted(set(re.findall(r"/\S*lib[gi]?omp\S*\.so\S*", Path("/proc/self/maps").read_text()))):
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


@cache
def build(source: Path, name: str, *options: str) -> ctypes.CDLL:
    """The loaded library of one C++ file, compiled with FLAGS and then `options`; `name` begins its cached file.

    Raises BuildError with the reason.
    """
    cxx = compiler()
    if cxx is None:
        raise BuildError("no C++ compiler found; install g++ or set $CXX")
    command = [cxx, *FLAGS, *options]
    told = repr([command, platform.machine()]).encode()
    read = b"".join(path.read_bytes() for path in (source, *_HEADERS))
    key = hashlib.sha256(read + told).hexdigest()[:16]
    target = cache_dir() / f"{name}-{key}.so"
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                built = Path(scratch) / "kernel.so"
                included = [part for header in _HEADERS for part in ("-include", str(header))]
                whole = [*command, *included, str(source), "-o", str(built)]
                done = subprocess.run(whole, capture_output=True, text=True)
                if done.returncode:
                    raise BuildError(f"{cxx} could not compile {source.name}: {done.stderr.strip()[-400:]}")
                os.replace(built, target)  # two processes may build at once; each leaves a whole file
        except OSError as error:
            raise BuildError(f"cannot write the kernel cache {target.parent}: {error}; set $SPIKELOOM_CACHE") from error
    _share_openmp()
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise BuildError(f"cannot load {target}: {error}; delete it to rebuild") from error


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
    """Run the operators on `compiled` or `torch` inside a with-block."""
    token = _forced.set(_checked(name))
    try:
        yield
    finally:
        _forced.reset(token)


def _checked(name: str) -> str:
    if name not in ("compiled", "torch"):
        raise ValueError(f"unknown backend {name!r}; use 'compiled' or 'torch'")
    return name


@cache
def _default_backend() -> str:
    wanted = os.environ.get("SPIKELOOM_BACKEND")
    if wanted and _checked(wanted) == "torch":
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
    return _forced.get() or _default_backend()
