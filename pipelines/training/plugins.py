"""Loggers and callbacks of Lightning, or of the user's own, made from the groups `logger` and `callbacks`.

    logger=[csv,tensorboard]   callbacks=early_stopping callbacks.early_stopping.patience=5
    +logger.mine._target_=my_package.MyLogger +logger.mine.url=http://…

Each choice names its class by `_target_`; the other keys are the arguments of the class. A class is made for the
command that names it, never for the configuration of a run directory that may come from elsewhere.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from spikeloom.accel.common.files import brief

LOGS = "logs"  # folder of a run for what its loggers write
PACKAGES = {  # class -> packages that it is made of, any of them
    "TensorBoardLogger": "tensorboard or tensorboardX", "WandbLogger": "wandb", "MLFlowLogger": "mlflow",
    "DeviceStatsMonitor": "psutil", "CometLogger": "comet-ml", "NeptuneLogger": "neptune", "LitLogger": "litlogger",
}  # fmt: skip
NEED_LOGGERS = ("LearningRateMonitor", "DeviceStatsMonitor")


def make_loggers(chosen: Mapping[str, Any], run: Path) -> list[Logger]:
    """The loggers of a training into `run`.

    Args:
        chosen: name -> `_target_` and arguments. A logger that takes a `save_dir` and is given none writes below
            RUN/logs.
        run: the run directory.

    Raises:
        ValueError: a package is not installed, or a class or an argument is not there; names the choice.
    """
    made = []
    for name, values in chosen.items():
        takes = inspect.signature(_class_of("logger", name, values)).parameters
        folder = {"save_dir": str(run / LOGS)} if "save_dir" in takes and values.get("save_dir") is None else {}
        made.append(_made("logger", name, {**values, **folder}, Logger))
    return made


def make_callbacks(chosen: Mapping[str, Any], *, logs: bool) -> list[Callback]:
    """The callbacks of a training, in the order of their choice.

    Args:
        chosen: name -> `_target_` and arguments.
        logs: whether the training has a logger, which some callbacks need.

    Raises:
        ValueError: as for loggers, and for a callback that logs where there is no logger.
    """
    for name, values in chosen.items():
        cls = _class_of("callbacks", name, values)
        if cls.__name__ in NEED_LOGGERS and not logs:
            raise ValueError(f"callbacks={name} writes to a logger, and there is none; add logger=csv")
    return [_made("callbacks", name, values, Callback) for name, values in chosen.items()]


def _class_of(group: str, name: str, values: Any) -> type:
    """The class that a choice names."""
    target = values.get("_target_") if isinstance(values, Mapping) else None
    if not isinstance(target, str):
        raise ValueError(f"{group}.{name} names no class; give {group}.{name}._target_=package.Class")
    try:
        return get_class(target)
    except Exception as error:  # whatever the import of a foreign module raises
        raise ValueError(
            f"{group}.{name}._target_={target} is not a class, or cannot be imported ({brief(error)})"
        ) from error


def _made(group: str, name: str, values: Mapping[str, Any], kind: type) -> Any:
    """The object of a choice."""
    cls = _class_of(group, name, values)
    if not issubclass(cls, kind):
        raise ValueError(
            f"{group}.{name}._target_={values['_target_']} is no {kind.__name__} of Lightning; choose another class"
        )
    try:
        return instantiate(dict(values))
    except (InstantiationException, MisconfigurationException) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, ImportError) and cls.__name__ in PACKAGES:
            raise ValueError(
                f"{group}={name} needs the package {PACKAGES[cls.__name__]}, which is not installed; "
                f"`pip install {PACKAGES[cls.__name__].split()[0]}`, or leave it out"
            ) from error
        raise ValueError(f"{group}.{name}: {cls.__name__} refuses its arguments ({brief(cause)})") from error
