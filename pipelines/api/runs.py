"""Trained models from run directories, model folders and the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spikeloom.pipelines.training.run_dir import TrainedModel

__all__ = ["load", "model_folder"]


def load(run: str | Path) -> TrainedModel:
    """A trained model with its front end and the names of its classes.

    Args:
        run: run directory that `spikeloom train`, `pretrain`, `distill` or `convert` wrote, or its folder ``model``;
            ``"builtin:NAME"``, a model that is part of the installation; or ``"hf://ORGANISATION/NAME@REVISION"``, a
            repository that `push` wrote, which is fetched.

    Returns:
        `TrainedModel`: ``model``, a torch.nn.Module in evaluation mode on the CPU; ``features``, the configuration of
        the front end that the model was trained with, whose ``build()`` makes it; ``class_names``, in the order of
        the outputs, empty for EEG-to-text models.

    Raises:
        ValueError: where there is no such run, or a file of it is missing or damaged; the message names the file.

    Examples:
        >>> import spikeloom
        >>> trained = spikeloom.load("runs/digits")
        >>> trained.class_names
        ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """
    from spikeloom.pipelines.training.run_dir import load_model

    folder = model_folder(run)
    if not (folder / "preprocessor_config.json").is_file() and (folder.parent / "config.yaml").is_file():
        return _with_config(folder)
    return load_model(folder)


def _with_config(folder: Path) -> TrainedModel:
    """A model whose folder has no front end, loaded by the adapter of its run."""
    from spikeloom.pipelines.domains import LoadsOwnFolder, adapter_of
    from spikeloom.pipelines.training.run_dir import load_config, load_model

    config = load_config(folder.parent)
    domain = adapter_of(config)
    if not isinstance(domain, LoadsOwnFolder):
        return load_model(folder)  # names the file that is missing
    trained: TrainedModel = domain.load_trained(folder, config)
    return trained


def model_folder(run: str | Path) -> Path:
    """The folder with config.json and model.safetensors of a run, however `load` accepts its name.

    Args:
        run: as for `load`.

    Returns:
        The folder ``model`` of a run directory, or the model folder itself.

    Raises:
        ValueError: where there is none.
    """
    from spikeloom.pipelines.training.run_names import find_run

    folder = find_run(run)
    if not folder.is_dir():
        raise ValueError(f"no such run directory: {run}; give a directory that `spikeloom train` wrote")
    if (folder / "model").is_dir():
        return folder / "model"
    if (folder / "config.json").is_file():
        return folder
    raise ValueError(
        f"{run} holds no trained model (neither model/ nor config.json); give the run directory of a training that "
        "has finished"
    )
