"""Fine-tuning: a classifier that starts from trained weights, all of them but a classifier for other classes.

pretrained=RUN | MODEL_FOLDER | FILE.safetensors | FILE.ckpt
"""

import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from spikeloom.accel.common.files import brief, first_few
from spikeloom.pipelines.training.checkpoints import read_checkpoint

log = logging.getLogger("spikeloom")
HEADS = ("head.", "layers.out.")  # the classifier of our models, which belongs to the classes


def inherit(model: nn.Module, source: str) -> None:
    """Copy trained weights into a model; reports what was not copied.

    Args:
        model: receives the weights, in place.
        source: a run directory, a model folder, a .safetensors file or a checkpoint.

    Raises:
        ValueError: there are no weights at `source`, or they are of another model: a tensor that is not the classifier
            is missing, unknown or of another shape. The model is untouched then.
    """
    stored, wanted = weights_of(Path(source)), model.state_dict()
    differing = [
        name for name, value in wanted.items() if name not in stored or stored[name].shape != value.shape
    ]  # fmt: skip
    unknown = [name for name in stored if name not in wanted]
    if wrong := [name for name in (*differing, *unknown) if not name.startswith(HEADS)]:
        named = first_few([_versus(name, stored, wanted) for name in wrong])
        raise ValueError(
            f"pretrained={source} holds weights of another model: {named}; "
            "give the same model with the same sizes, or leave pretrained out"
        )
    model.load_state_dict({**wanted, **{name: stored[name] for name in wanted if name not in differing}})
    kept = f"; {first_few(differing)} start anew, for these classes" if differing else ""
    log.info("%d of %d tensors inherited from %s%s", len(wanted) - len(differing), len(wanted), source, kept)


def weights_of(source: Path) -> dict[str, Tensor]:
    """The tensors of a model at `source`, by name."""
    remedy = "give pretrained=RUN of a finished training, a model folder, or a .safetensors or .ckpt file"
    if source.is_dir():
        found = [path for path in (source / "model/model.safetensors", source / "model.safetensors") if path.is_file()]
        if not found:
            raise ValueError(f"pretrained={source} holds no model.safetensors; {remedy}")
        source = found[0]
    if not source.is_file():
        raise ValueError(f"pretrained={source} does not exist; {remedy}")
    if source.suffix == ".safetensors":
        try:
            return dict(load_file(source))
        except SafetensorError as error:
            raise ValueError(f"{source} is damaged ({brief(error)}); {remedy}") from error
    stored: dict[str, Any] = read_checkpoint(source, remedy)
    if "state_dict" not in stored:
        raise ValueError(f"{source} is not a checkpoint of a training (no state_dict); {remedy}")
    return {k.removeprefix("model."): v for k, v in stored["state_dict"].items() if k.startswith("model.")}


def _versus(name: str, stored: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    if name not in stored:
        return f"{name} is missing"
    if name not in wanted:
        return f"{name} is not in the model"
    return f"{name} has shape {list(stored[name].shape)}, the model {list(wanted[name].shape)}"
