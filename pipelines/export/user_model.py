"""A model and its inputs from a user's own files: FILE.py:build, FILE.pt2, FILE.npz, or shapes on the command line."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeloom.accel.common.files import require_regular

_SHAPE = re.compile(r"(\d+(?:x\d+)*)(?::(int|float|spikes)([\d.]*))?")
SPIKES = 0.2  # density of inputs of the kind `spikes` without one of their own


def load_module(spec: str) -> nn.Module:
    """The module that `FILE.py:NAME` makes: NAME is a function without arguments, a class, or a module.

    The file is the user's own and runs as Python does; its folder comes first on the import path meanwhile.

    Raises:
        ValueError: naming the file, for one that cannot run, and for a NAME that is not there or makes no module.
    """
    file, colon, name = spec.rpartition(":")
    if not colon or not file or not name.isidentifier():
        raise ValueError(f"model={spec}: name a file and what builds the model, model=FILE.py:build")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; write model=FILE.py:build")
    made = importlib.util.spec_from_file_location(f"user_model_{path.stem}", path)
    if made is None or made.loader is None:
        raise ValueError(f"{path}: not a Python file; write model=FILE.py:build")
    module = importlib.util.module_from_spec(made)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        made.loader.exec_module(module)
        found = getattr(module, name, None)
        if found is None:
            names = [k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == made.name]
            raise ValueError(f"{path}: holds no {name}; it defines {', '.join(names) or 'nothing that can be called'}")
        model = found if isinstance(found, nn.Module) else found()
    except ValueError:
        raise
    except Exception as error:  # the user's own code: anything
        raise ValueError(f"{path}: {name} raised {type(error).__name__}: {_line(error)}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    if not isinstance(model, nn.Module):
        raise ValueError(f"{path}: {name} made a {type(model).__name__}; return a torch.nn.Module")
    return model


def read_inputs(example: str | None, shapes: str | None, seed: int = 0) -> tuple[Tensor, ...] | None:
    """The inputs of one call: arrays of an .npz or .npy file in their order, or random ones of given shapes.

    A shape is written 4x3x32x32; `:int50` behind it draws whole numbers below 50, `:spikes0.1` spikes of that density.
    Several inputs are joined by `+`. None without either.

    Raises:
        ValueError: for both at once, an unreadable file, or a shape that cannot be read.
    """
    if example is not None and shapes is not None:
        raise ValueError("got example= and input=; give the inputs once")
    if example is not None:
        return _read_arrays(Path(example))
    if shapes is None:
        return None
    torch.manual_seed(seed)
    return tuple(_drawn(text.strip(), shapes) for text in shapes.split("+"))


def _drawn(text: str, whole: str) -> Tensor:
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"input={whole}: {text!r} is no shape; write 4x3x32x32, 4x10:int50 or 8x4x64:spikes0.1")
    shape = tuple(int(n) for n in match[1].split("x"))
    if min(shape) < 1 or np.prod([float(n) for n in shape]) > 2**31:
        raise ValueError(f"input={whole}: {match[1]} is empty or has more than 2**31 entries; use a smaller batch")
    if match[2] == "int":
        return torch.randint(0, max(2, int(match[3] or 2)), shape)
    if match[2] == "spikes":
        return (torch.rand(shape) < float(match[3] or SPIKES)).float()
    return torch.randn(shape)


def _read_arrays(path: Path) -> tuple[Tensor, ...]:
    require_regular(path, "write it with numpy.savez(FILE, x)")
    try:
        loaded: Any = np.load(path, allow_pickle=False)
        arrays = [loaded[k] for k in loaded.files] if hasattr(loaded, "files") else [loaded]
        tensors = tuple(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; write the inputs with numpy.savez(FILE, x)") from error
    except Exception as error:  # zip, header, pickle or dtype: numpy raises whatever a damaged file leads it to
        raise ValueError(f"{path}: not a readable .npz ({_line(error)}); write it with numpy.savez(FILE, x)") from error
    if not tensors:
        raise ValueError(f"{path}: holds no array; write the inputs with numpy.savez(FILE, x)")
    return tuple(t.float() if t.dtype == torch.float64 else t for t in tensors)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
