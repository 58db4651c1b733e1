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

from accel.files import read_json, whole, write_json
from accel.learning.binary_stochastic import BsPolicy
from accel.learning.memristor_array import ArrayOptions
from accel.learning.sampling import Activation
from accel.learning.stochastic_network import StochasticConfig, StochasticNetwork
from accel.learning.synapses import Synapses, UpdateRule

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
    stored = read_json(folder / "config.json", RETRAIN)
    path = folder / "model.safetensors"
    try:
        config = config_of(stored["network"])
        network = config.build(tuple(stored["image"]), len(stored["class_names"]))
        synapses = config.synapses(network, stored["batch_size"], Generator())
        with safe_open(path, framework="pt") as file:
            _fill(synapses, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} does not hold the network of its config.json ({reason}); {RETRAIN}") from error
    return network, synapses, tuple(stored["class_names"])


def config_of(values: dict[str, Any]) -> StochasticConfig:
    """A configuration from the plain values of a file."""
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
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            history: list[dict[str, Any]] = json.loads(file.metadata()["history"])
        generator.set_state(tensors.pop("generator"))
        _fill(synapses, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is damaged ({reason}); delete it, or add overwrite=true") from error
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
    with torch.no_grad():
        for i, s in enumerate(synapses):
            for name, tensor in s.tensors().items():
                tensor.copy_(tensors[f"{i}.{name}"])
