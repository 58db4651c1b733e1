"""A binary-stochastic network on disk: config.json and model.safetensors of a trained one, and checkpoints.

Weights are stored as the hardware holds them (floats, whole numbers, or conductances with their reference lines), with
accumulators and pulse counts. A checkpoint adds the state of the random generator and the history, so that a resumed
run is bit-identical to an unbroken one.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor

from spikeloom.accel.common.files import brief, read_object, require_regular, whole, write_json
from spikeloom.accel.learning.stochastic.arrays import ArrayOptions
from spikeloom.accel.learning.stochastic.network import StochasticConfig, StochasticNetwork
from spikeloom.accel.learning.stochastic.policies import BsPolicy
from spikeloom.accel.learning.stochastic.sampling import Activation
from spikeloom.accel.learning.stochastic.synapses import Synapses, UpdateRule

RETRAIN = "train again with overwrite=true"


def save_network(
    folder: Path, config: StochasticConfig, image: Sequence[int], class_names: Sequence[str], batch_size: int,
    synapses: Sequence[Synapses],
) -> None:  # fmt: skip
    """Write config.json and model.safetensors into an existing folder."""
    write_json(
        folder / "config.json",
        {"network": asdict(config), "image": list(image), "class_names": list(class_names), "batch_size": batch_size},
    )
    save_file(_named(synapses), folder / "model.safetensors")


def load_network(folder: Path) -> tuple[StochasticNetwork, list[Synapses], tuple[str, ...]]:
    """Network, weights and class names. Raises ValueError naming the file that is missing or damaged."""
    stored = read_object(folder / "config.json", RETRAIN)
    path = folder / "model.safetensors"
    require_regular(path, RETRAIN)
    try:
        config = config_of(stored["network"])
        network = config.build(tuple(stored["image"]), len(stored["class_names"]))
        synapses = config.synapses(network, stored["batch_size"], Generator())
        with safe_open(path, framework="pt") as file:
            _fill(synapses, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        names = tuple(str(name) for name in stored["class_names"])
    except (
        OSError, SafetensorError, LookupError, TypeError, AttributeError, RuntimeError, ValueError, ArithmeticError
    ) as error:  # fmt: skip
        raise ValueError(f"{path} does not hold the network of its config.json ({brief(error)}); {RETRAIN}") from error
    return network, synapses, names


def config_of(values: dict[str, Any]) -> StochasticConfig:
    """A configuration from the plain values of a file."""
    if not isinstance(values, dict):
        raise TypeError(f"network is {str(values)[:80]!r}, not a mapping of its settings")
    parts = {"policy": BsPolicy, "activation": Activation, "rule": UpdateRule, "array": ArrayOptions}
    return StochasticConfig(**{key: parts[key](**v) if key in parts else v for key, v in values.items()})


def save_checkpoint(
    path: Path, synapses: Sequence[Synapses], generator: Generator, history: Sequence[dict[str, Any]]
) -> None:
    """Write everything a later epoch depends on; an interruption leaves the previous file."""
    with whole(path) as partial:
        tensors = {**_named(synapses), "generator": generator.get_state()}
        save_file(tensors, partial, metadata={"history": json.dumps(list(history))})


def load_checkpoint(path: Path, synapses: Sequence[Synapses], generator: Generator) -> list[dict[str, Any]]:
    """Set `synapses` and `generator` to what the file holds; returns the history. ValueError if it is damaged."""
    require_regular(path, "delete it, or add overwrite=true")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            history: list[dict[str, Any]] = json.loads(file.metadata()["history"])
        generator.set_state(tensors.pop("generator"))
        _fill(synapses, tensors)
        if not isinstance(history, list) or not all(isinstance(row, dict) for row in history):
            raise ValueError("its history is no list of epochs")
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged ({brief(error)}); delete it, or add overwrite=true") from error
    return history


def _named(synapses: Sequence[Synapses]) -> dict[str, Tensor]:
    return {f"{i}.{name}": t.contiguous() for i, s in enumerate(synapses) for name, t in s.tensors().items()}


def _fill(synapses: Sequence[Synapses], tensors: dict[str, Tensor]) -> None:
    """Copy stored tensors over fresh ones of the same names and shapes."""
    own = _named(synapses)
    if odd := set(own) ^ set(tensors):
        raise KeyError(f"{min(odd)} is on one side only")
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape:
            raise KeyError(f"{name} has shape {list(tensor.shape)}, expected {list(own[name].shape)}")
        if tensor.dtype != own[name].dtype or not torch.isfinite(tensor).all():
            raise KeyError(f"{name} is of {tensor.dtype}, expected {own[name].dtype}, or holds NaN or infinity")
    with torch.no_grad():
        for i, s in enumerate(synapses):
            for name, tensor in s.tensors().items():
                tensor.copy_(tensors[f"{i}.{name}"])
