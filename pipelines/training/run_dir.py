"""A run folder: what training leaves there, and how other verbs read it back.

config.yaml      resolved configuration          metrics.csv    one row an epoch
checkpoints/     best.ckpt, last.ckpt            result.json    best epoch, test accuracy, seconds
model/           config.json, model.safetensors, preprocessor_config.json, README.md
report.html      the whole story on one page
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from yaml.tokens import AliasToken

from spikeloom.accel.common.files import brief, read_numbers, read_object, read_text, require_number, whole, write_json
from spikeloom.accel.common.sizes import flat
from spikeloom.pipelines.config.train import TrainConfig, renamed, shape_of, typed
from spikeloom.pipelines.domains import domain_of

# Settings that change where and how fast a training runs, not what comes out of it.
NON_HPARAMS = (
    "name", "run", "resume", "overwrite", "trainer.threads", "trainer.cache_mb", "trainer.num_workers",
    "trainer.profiler", "trainer.fast_dev_run", "trainer.accelerator", "trainer.devices", "trainer.num_nodes",
    "trainer.strategy", "trainer.strategy_args",
)  # fmt: skip
CONFIG_BYTES = 1 << 20
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # bounds the depth; without it time grows with the square
RETRAIN = "train again with `spikeloom train … overwrite=true`"
UNFINISHED = "finish the training with resume=true"


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
    if not folder.parent.is_dir():
        raise ValueError(f"no such run directory: {folder.parent}; give a directory that `spikeloom train` wrote")
    preprocessor = read_object(folder / "preprocessor_config.json", RETRAIN)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ValueError(f"{weights} is missing; {RETRAIN}")
    try:
        given = renamed(preprocessor["features"])
        features = shape_of("features", given)
        if not all(isinstance(name, str) for name in preprocessor["class_names"]):
            raise ValueError("class_names in preprocessor_config.json are not all text")
        model = domain_of(features).load_weights(folder)
        return TrainedModel(
            model=model.eval(),
            features=OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(features), given)),
            class_names=tuple(preprocessor["class_names"]),
        )
    except (
        SafetensorError, RuntimeError, TypeError, LookupError, ValueError, AttributeError, ArithmeticError,
        OmegaConfBaseException, RecursionError, AssertionError,
    ) as error:  # fmt: skip
        if str(folder) in str(error):
            raise ValueError(str(error)) from error
        reason = brief(error)
        raise ValueError(
            f"{weights} does not hold the model its config.json describes ({reason}); {RETRAIN}"
        ) from error


def save_config(run: Path, config: TrainConfig) -> None:
    with whole(run / "config.yaml") as partial:
        OmegaConf.save(OmegaConf.structured(config), partial)


def load_config(run: Path) -> TrainConfig:
    """The configuration a run was trained with. Raises ValueError naming the file and the remedy."""
    path = run / "config.yaml"
    if not run.is_dir():
        raise ValueError(f"no such run directory: {run}")
    if not path.is_file():
        raise ValueError(f"{run} is not a spikeloom run directory (no config.yaml); give run=FOLDER of a training")
    values = read_yaml(path)
    try:
        return typed(OmegaConf.to_container(values))  # type: ignore[arg-type]
    except (
        OmegaConfBaseException, TypeError, AttributeError, LookupError, ValueError, ArithmeticError, RecursionError,
        AssertionError,
    ) as error:  # fmt: skip
        raise ValueError(f"{path} cannot be read ({brief(error)}); {RETRAIN}") from error


def read_yaml(path: Path, remedy: str = RETRAIN) -> DictConfig:
    """A configuration file of values alone.

    Raises ValueError naming it for one that is larger than a configuration is, uses aliases (which can multiply), asks
    for values of the environment (which a file from elsewhere must not read), or holds no mapping.
    """
    text = read_text(path, remedy, CONFIG_BYTES)
    try:
        if any(isinstance(token, AliasToken) for token in yaml.scan(text, Loader=LOADER)):
            raise ValueError("it uses YAML aliases; write the values out")
        if "${" in text:
            raise ValueError("it holds interpolations (${…}); write the values out")
        values = OmegaConf.create(text)
        if not isinstance(values, DictConfig):
            raise ValueError("it holds no mapping of keys to values")
        return values
    except (
        OmegaConfBaseException, yaml.YAMLError, TypeError, AttributeError, LookupError, ValueError, ArithmeticError,
        RecursionError, AssertionError,
    ) as error:  # fmt: skip
        raise ValueError(f"{path} cannot be read ({brief(error)}); {remedy}") from error


def finished(run: Path, numbers: Sequence[str] = ()) -> dict[str, Any]:
    """result.json of a finished training. Raises ValueError naming it where it is damaged or lacks one of `numbers`."""
    path, again = run / "result.json", UNFINISHED
    result = read_object(path, again)
    for name in numbers:
        require_number(path, name, result.get(name), again)
    return result


def history(run: Path) -> list[dict[str, float]]:
    """Rows of metrics.csv, one an epoch. Raises ValueError naming the file where it is no table of finite numbers."""
    again = "train again with overwrite=true"
    if rows := read_numbers(run / "metrics.csv", again):
        return rows
    raise ValueError(f"{run / 'metrics.csv'} holds no epoch; {again}")


def hyperparameters(config: TrainConfig) -> dict[str, Any]:
    """All that decides what comes out of a training, as flat JSON values by the command line's names (`model.T`).

    trainer.batch_size is that of all devices together: what they learn does not depend on how many share it.
    """
    decides = {
        name: value for name, value in flat(asdict(config)).items()
        if name not in NON_HPARAMS and not name.startswith("logger.")
    }  # fmt: skip
    decides["trainer.batch_size"] *= config.trainer.devices * config.trainer.num_nodes
    return dict(json.loads(json.dumps(decides)))  # tuples become lists, as they will be when read back
