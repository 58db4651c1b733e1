"""Checkpoint files that training scripts left behind, as tensors by name: which weights they hold, without wrappers.

Unwraps `model`, `state_dict`, `net`, `params` and the like, and the prefixes that torch.compile (`_orig_mod.`),
parallel training (`module.`) and wrapping modules put in front of every key; drops the counts that THOP leaves. Where a
file holds averaged weights (`state_dict_ema`, `model_ema`, `params_ema` …) beside plain ones, these are taken unless
`weights="plain"`. No pickled code is run.
"""

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spikeloom.accel.common.files import brief, first_few

ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how files of torch.save begin, today's and those before version 1.6
EMA = ("state_dict_ema", "model_ema", "params_ema", "ema_state_dict", "ema_model", "ema", "model_state_dict_ema")
PLAIN = ("state_dict", "model", "model_state_dict", "net", "params", "network", "weights")
INSIDE = ("shadow", "module", "state_dict", "model", "params")  # what averaged weights may be wrapped in once more
PREFIXES = ("_orig_mod.", "module.", "model.", "net.", "network.", "backbone.", "ema.")
THOP = ("total_ops", "total_params")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """state: tensors by name, without wrappers; described: the model as the file's metadata describe it, or {}.

    weights: "ema" or "plain"; both: whether the file held either. notes: a line for each thing that was left out.
    """

    state: dict[str, Tensor]
    described: dict[str, Any]
    weights: str
    both: bool
    notes: tuple[str, ...]


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(state under released keys, description of the model that a safetensors file carries or {})."""
    found = open_checkpoint(path)
    return found.state, found.described


def open_checkpoint(path: Path, weights: str | None = None) -> Checkpoint:
    """The tensors of a file. Raises ValueError naming the file.

    Args:
        weights: "ema" or "plain"; None takes averaged weights where there are some.
    """
    if weights not in (None, "ema", "plain"):
        raise ValueError(f"weights={weights} is unknown; use ema or plain")
    held, metadata = _read(path)
    held, kind, both = _chosen(path, held, weights)
    if not isinstance(held, dict) or not held:
        raise ValueError(f"checkpoint={path} holds no state_dict; give a file of tensors by name")
    left = [str(k) for k in held if str(k).rpartition(".")[2] in THOP or str(k) == "n_averaged"]
    held = {str(k): v for k, v in held.items() if str(k) not in left}
    if not held or not all(isinstance(v, Tensor) for v in held.values()):
        raise ValueError(f"checkpoint={path} holds no state_dict; give a file of tensors by name")
    state, stripped = _without_prefixes(path, held)
    if broken := [k for k, v in state.items() if not torch.isfinite(v).all()]:
        raise ValueError(f"checkpoint={path} holds NaN or infinity in {first_few(broken)}; give another checkpoint")
    notes = []
    if stripped:
        notes.append(f"prefix {' and '.join(stripped)} left out")
    if left:
        notes.append(f"{len(left)} counts that are no weights left out ({first_few(left)})")
    return Checkpoint(state=state, described=_description(path, metadata), weights=kind, both=both, notes=tuple(notes))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of a conversion as one ValueError with the file; sizes in foreign tensors may be of no model at all."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"checkpoint={path}: {error}") from error
    except (RuntimeError, LookupError, ArithmeticError, TypeError, AttributeError) as error:
        raise ValueError(
            f"checkpoint={path}: its tensors are of no model that can be built ({brief(error)}); give released weights "
            "as they are"
        ) from error


def _chosen(path: Path, held: Any, weights: str | None) -> tuple[Any, str, bool]:
    """(the mapping of tensors, "ema" or "plain", whether the file holds both)."""
    averaged = plain = None
    inner = held
    for _ in range(3):  # a wrapper in a wrapper
        if not isinstance(inner, dict) or (inner and all(isinstance(v, Tensor) for v in inner.values())):
            break
        averaged = averaged or next((inner[k] for k in EMA if isinstance(inner.get(k), dict) and inner[k]), None)
        found = next((inner[k] for k in PLAIN if isinstance(inner.get(k), dict) and inner[k]), None)
        if found is None:
            inner = None if averaged is not None else inner
            break
        inner = found
    plain = inner
    while isinstance(averaged, dict) and not all(isinstance(v, Tensor) for v in averaged.values()):
        inside = next((averaged[k] for k in INSIDE if isinstance(averaged.get(k), dict)), None)
        if inside is None:
            break
        averaged = inside
    both = averaged is not None and plain is not None
    if weights == "ema" and averaged is None:
        raise ValueError(f"checkpoint={path} holds no averaged weights ({', '.join(EMA[:3])} …); use weights=plain")
    if weights == "plain" and plain is None:
        raise ValueError(f"checkpoint={path} holds averaged weights alone; use weights=ema")
    if averaged is not None and weights != "plain":
        return averaged, "ema", both
    return plain, "plain", both


def _without_prefixes(path: Path, held: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Keys without `PREFIXES`, as long as every key begins with one; which they were."""
    state, found = dict(held), []
    while prefix := next((p for p in PREFIXES if state and all(k.startswith(p) for k in state)), None):
        state = {k.removeprefix(prefix): v for k, v in state.items()}
        found.append(prefix)
    # torch.compile and parallel training may have wrapped parts of a model only.
    inside = {key: re.sub(r"(^|\.)(_orig_mod|module)\.(?=[^\d])", r"\1", key) for key in state}
    if any(key.startswith(("_orig_mod.", "module.")) or "._orig_mod." in key for key in state):
        shorter = {inside[key]: value for key, value in state.items()}
        if len(shorter) < len(state):
            raise ValueError(f"checkpoint={path} holds tensors twice, with and without a prefix; save one state_dict")
        state = shorter
        found.append("_orig_mod. or module.")
    return state, found


def _read(path: Path) -> tuple[Any, dict[str, str]]:
    """(what the file holds, its metadata)."""
    if not path.is_file():
        raise ValueError(f"checkpoint={path} is not a file; give a .safetensors, .pth or .tar file")
    with path.open("rb") as file:
        start = file.read(9)
    metadata: dict[str, str] = {}
    try:
        if path.suffix == ".safetensors" or start[8:] == b"{":  # the length of a header, then the header in JSON
            with safe_open(path, "pt") as f:
                keys = list(f.keys())
                wanted = [k for k in keys if k.startswith("state/")] or keys
                held: Any = {k.removeprefix("state/"): f.get_tensor(k) for k in wanted}
                metadata = f.metadata() or {}
        elif not start.startswith((ZIP, PICKLE)):
            raise ValueError("no checkpoint of PyTorch")
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # training scripts store their options
                held = torch.load(path, weights_only=True, map_location="cpu")
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ValueError(f"checkpoint={path} cannot be read ({reason}); download it again") from error
    except Exception as error:  # the unpickler's own class cannot be named without importing pickle
        found = re.search(r"GLOBAL ([\w.]+)", str(error))  # the rest advises to run whatever code the file holds
        what = f" ({found[1]})" if found else ""
        raise ValueError(f"checkpoint={path} holds more than tensors{what}; save its state_dict alone") from error
    return held, metadata


def _description(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The model as `config` beside the weights describes it, or {}. Raises ValueError where that is no JSON object."""
    if "config" not in metadata:
        return {}
    try:
        found = json.loads(metadata["config"])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"checkpoint={path}: config in its metadata is no JSON object; save the tensors without it")
    return {**found, "model": metadata.get("model", "")}
