"""Models from folders of others: whether a config.json can describe the weights beside it is asked before anything of
its sizes is made, and what does not fit is one error."""

import contextlib
import io
import math
import re
from pathlib import Path
from typing import Any

from safetensors import safe_open

from spikeloom.accel.common.files import brief, first_few, read_object

MODEL_NUMBER = 1 << 20  # no size of a model is larger, unless one of its tensors is


def check_sizes(config: Any, weights: Path) -> None:
    """Raise ValueError where config.json describes a network far beyond the weights: making it would never end."""
    with safe_open(weights, framework="numpy") as stored:
        shapes = [stored.get_slice(name).get_shape() for name in stored.keys()]  # noqa: SIM118, no mapping
    largest = max(MODEL_NUMBER, *(math.prod(shape) for shape in shapes)) if shapes else MODEL_NUMBER
    for name, value in flat(dict(config)).items():
        for number in value if isinstance(value, list) else [value]:
            most = len(shapes) if re.search(r"depth|layers|blocks|stages", name) else largest
            if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) > most:
                raise ValueError(f"{name}={number} does not fit weights of {len(shapes)} tensors")


def load_pretrained(kind: Any, folder: Path, remedy: str) -> Any:
    """The model of class `kind` that `save_pretrained` wrote into a folder. Raises ValueError naming the weights."""
    weights = folder / "model.safetensors"
    config = read_object(folder / "config.json", remedy)
    if not weights.is_file():
        raise ValueError(f"{weights} is missing; {remedy}")
    try:
        check_sizes(config, weights)
        with contextlib.redirect_stdout(io.StringIO()):  # the hub client announces local loading
            model = kind.from_pretrained(folder, strict=True)
        if lost := [name for name, value in model.state_dict().items() if not value.isfinite().all()]:
            raise ValueError(f"{first_few(lost)} hold NaN or infinity")
    except Exception as error:  # constructors raise whatever sizes of others lead them to
        raise ValueError(
            f"{weights} does not hold the model its config.json describes ({brief(error)}); {remedy}"
        ) from error
    return model


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
