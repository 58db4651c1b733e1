"""Modules that lie beside the package in a checkout and are no part of an installed one: benchmarks and examples."""

from importlib import import_module
from typing import Any


def beside_the_package(name: str) -> Any:
    """The module `spikeloom.{name}`, of `benchmarks` or `examples`. Raises ValueError where the package is installed
    without them."""
    folder = name.partition(".")[0]
    try:
        return import_module(f"spikeloom.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"spikeloom.{folder}":
            raise
        raise ValueError(
            f"{folder}/ is not part of an installed spikeloom; clone the repository and run `pip install -e .` there"
        ) from error
