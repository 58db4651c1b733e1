"""A model of this package from its folder: config.json and model.safetensors."""

from importlib import import_module
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import first_few, read_object
from spikeloom.accel.common.sizes import load_pretrained

# A key that no class before it in this list has in its config.json -> module and class.
CLASSES = (
    ("tokenizer", "spiking_transformer:SpikingTransformer"), ("form", "spiking_resnet:SpikingResNet"),
    ("blocks", "resnet:ResNet"), ("net", "small_nets:SpikingNet"), ("small", "mobilenet:MobileNetV1"),
)  # fmt: skip
AGAIN = "write the model again, with save_pretrained or a training"


def load_model(folder: Path | str) -> Any:
    """The model that `save_pretrained` or a training wrote to `folder`, in evaluation mode.

    Raises:
        ValueError: the folder holds no model of this package, or a damaged one; names the file.
    """
    folder = Path(folder)
    config = read_object(folder / "config.json", AGAIN)
    for key, path in CLASSES:
        if key in config:
            module, _, name = path.partition(":")
            kind = getattr(import_module(f"spikeloom.vision.models.{module}"), name)
            return load_pretrained(kind, folder, AGAIN).eval()
    raise ValueError(
        f"{folder / 'config.json'} with keys {first_few(sorted(config), 8)} is of no model of this package; {AGAIN}"
    )
