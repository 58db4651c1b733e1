"""Chips and GPUs by name: presets of `conf`, or YAML files by path."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from spikeloom.accel.trainer.baseline.gpu import Gpu
from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.chip.override import ChipConfig, variant


def load_chip(chip: str | ChipConfig) -> Chip:
    """A preset by name, or a YAML file by path, with the changes that a configuration names."""
    config = ChipConfig(name=chip) if isinstance(chip, str) else chip
    with described("chip", config.name) as path, resources.as_file(_folder("chip")) as presets:
        return variant(path, config, presets)


def load_gpu(name: str) -> Gpu:
    """A preset by name, or a YAML file by path."""
    with described("gpu", name) as path:
        return Gpu.from_yaml(path)


def names(key: str) -> list[str]:
    """The presets of a kind."""
    return sorted(f.name.removesuffix(".yaml") for f in _folder(key).iterdir() if f.name.endswith(".yaml"))


def presets() -> dict[str, str]:
    """The preset chips: name -> what they are."""
    return {name: load_chip(name).summary for name in names("chip")}


@contextmanager
def described(key: str, name: str) -> Iterator[Path]:
    """The file of a preset, or of a path."""
    with resources.as_file(_folder(key)) as folder:
        preset = folder / f"{name}.yaml"
        if preset.is_file():
            yield preset
            return
    if not Path(name).is_file():
        known = ", ".join(names(key))
        raise ValueError(f"{key}={name} is neither a preset ({known}) nor a file; give one of these")
    yield Path(name)


def _folder(key: str) -> Traversable:
    return resources.files("spikeloom.conf") / f"{key}s"
