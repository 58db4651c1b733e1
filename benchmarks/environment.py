"""What this machine runs the operators on, as far as it can be said without importing torch."""

import os
import platform
from importlib.metadata import version

from spikeloom.accel.spiking.kernels import compiler
from spikeloom.pipelines.training.runtime import cores


def print_environment(threads: int = 0) -> None:
    """Five lines; `threads` as a training takes them, 0: $OMP_NUM_THREADS or all cores."""
    wished = os.environ.get("OMP_NUM_THREADS", "")
    used = threads or (int(wished) if wished.isdecimal() else 0) or cores()
    units = compiler.simd_name() or "any processor"
    print(f"backend    {backend()} (compiler {compiler.compiler()}, for {units}, cache {compiler.cache_dir()})")
    print(f"threads    {used} of {os.cpu_count()} processors")
    print(f"torch      {version('torch')}, CUDA {'available' if has_cuda() else 'not available'}")
    print(f"python     {platform.python_version()} on {platform.platform()}")
    print(f"spikeloom  {version('spikeloom')}")


def backend() -> str:
    """`compiled` or `torch`: what the operators run on. Builds the float32 kernel where it is not in the cache."""
    if os.environ.get("SPIKELOOM_BACKEND") == "torch":
        return "torch"
    try:
        compiler.build(compiler.SOURCE, "lif-float", "-DSPIKELOOM_IO=float", "-DSPIKELOOM_COMPUTE=float")
    except compiler.BuildError as error:
        return f"torch ({error})"
    return "compiled"


def has_cuda() -> bool:
    """A build of torch for CPUs says so in its version; any other is asked."""
    if version("torch").endswith("+cpu"):
        return False
    import torch

    return torch.cuda.is_available()
