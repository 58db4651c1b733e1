"""A run folder: what training leaves there, and how other verbs read it back.

config.yaml      resolved configuration          metrics.csv    one row an epoch
checkpoints/     best.ckpt, last.ckpt            result.json    best epoch, test accuracy, seconds
model/           config.json, model.safetensors, preprocessor_config.json, README.md
report.html      the whole story on one page
"""

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError

from accel.files import read_json, whole, write_json
from pipelines.domains import domain_of
from pipelines.schema import AUGMENTATIONS, FEATURES, MODELS, PRUNINGS, SOURCES, TrainConfig, open_train_config

# Settings that change where and how fast a training runs, not what comes out of it.
CIRCUMSTANCES = ("name", "run", "resume", "overwrite", "trainer.threads", "trainer.cache_mb", "trainer.num_workers")
RETRAIN = "train again with `spikeloom train … overwrite=true`"


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model with what it needs to be used: the front end and the names of its classes."""

    model: Any
    features: Any  # one of FEATURES; its room is the model's domain
    class_names: tuple[str, ...]


def save_model(
    folder: Path, trained: TrainedModel, card: str, also: Callable[[Path], None] = lambda folder: None
) -> None:
    """Write the model folder, whole or not at all. `card` is the README.md people read first; `also` may add files."""
    with whole(folder) as partial:
        partial.mkdir(parents=True)
        (partial / "README.md").write_text(card, encoding="utf-8")
        trained.model.save_pretrained(partial)
        write_json(
            partial / "preprocessor_config.json",
            {"class_names": list(trained.class_names), "features": asdict(trained.features)},
        )
        also(partial)


def load_model(folder: Path) -> TrainedModel:
    """Read a model folder. Raises ValueError naming the file that is missing or damaged, and the remedy."""
    preprocessor = read_json(folder / "preprocessor_config.json", RETRAIN)
    read_json(folder / "config.json", RETRAIN)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ValueError(f"{weights} is missing; {RETRAIN}")
    try:
        features = _shape(preprocessor["features"], FEATURES, "log_mel")
        with contextlib.redirect_stdout(io.StringIO()):  # the hub client announces local loading
            model = domain_of(features).load_weights(folder)
        return TrainedModel(
            model=model.eval(),
            features=OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(features), preprocessor["features"])),
            class_names=tuple(preprocessor["class_names"]),
        )
    except (SafetensorError, RuntimeError, TypeError, KeyError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{weights} does not hold the model its config.json describes ({reason}); {RETRAIN}"
        ) from error


def save_config(run: Path, config: TrainConfig) -> None:
    with whole(run / "config.yaml") as partial:
        OmegaConf.save(OmegaConf.structured(config), partial)


def load_config(run: Path) -> TrainConfig:
    """The configuration a run was trained with. Raises ValueError naming the file and the remedy."""
    path = run / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{path} is missing: {run} is not a finished run; give run=FOLDER of `spikeloom train`")
    try:
        values = OmegaConf.load(path)
        return _typed(values)
    except (OmegaConfBaseException, OSError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({str(error).splitlines()[0]}); {RETRAIN}") from error


def decisive(config: TrainConfig) -> dict[str, Any]:
    """All that decides what comes out of a training, as flat JSON values by the command line's names (`model.T`)."""
    told = {name: value for name, value in flat(asdict(config)).items() if name not in CIRCUMSTANCES}
    return dict(json.loads(json.dumps(told)))  # tuples become lists, as they will be when read back


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _typed(values: Any) -> TrainConfig:
    """Values of config.yaml under their shapes; `data.source` and the `kind` of the other groups name them."""
    shapes = {
        "data": SOURCES[values.data.source],
        "features": _shape(values.features, FEATURES, "log_mel"),
        "augmentation": _shape(values.augmentation, AUGMENTATIONS, "spectrogram"),
        "model": _shape(values.model, MODELS, "spikescr"),
        "pruning": _shape(values.get("pruning", {}), PRUNINGS, "none"),
    }
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(open_train_config()), shapes, values))
    assert isinstance(config, TrainConfig)
    return config


def _shape(values: Any, shapes: dict[str, Any], unnamed: str) -> Any:
    """The shape that `values.kind` names; runs from before there were kinds have the one called `unnamed`."""
    kind = values.get("kind", unnamed)
    if kind not in shapes:
        raise KeyError(f"kind {kind} is none of {', '.join(shapes)}")
    return shapes[kind]
