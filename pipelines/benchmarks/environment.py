"""What this machine runs the operators on."""

import os
import platform
from importlib.metadata import version

import torch

from accel.spiking.kernels import loader


def print_environment() -> None:
    print(f"backend    {loader.backend()} (compiler {loader.compiler()}, cache {loader.cache_dir()})")
    print(f"threads    {torch.get_num_threads()} of {os.cpu_count()} processors")
    print(f"torch      {torch.__version__}, CUDA {'available' if torch.cuda.is_available() else 'not available'}")
    print(f"python     {platform.python_version()} on {platform.platform()}")
    print(f"spikeloom  {version('spikeloom')}")
