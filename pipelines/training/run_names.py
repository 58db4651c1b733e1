"""Names of trained runs: a directory, a model shipped with the package, or a model on the Hugging Face Hub.

    runs/digits            a run directory, or the folder `model` of one
    builtin:digits         trained by us and part of the installation
    hf://org/name@v1       a repository that `spikeloom push` wrote; @REVISION may be left out

Only a name that begins with hf:// is looked up on the Hub, and only the files of a model are fetched, none of which
is code or a pickle.
"""

import errno
import os
import re
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import whole
from spikeloom.accel.spiking.kernels.compiler import cache_dir

__all__ = ["BUILTIN", "HUB", "builtin_names", "find_run", "name_runs", "run_to_write"]

BUILTIN, HUB = "builtin:", "hf://"
MODEL_FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "README.md", "tokenizer.json")
RUN_FILES = ("config.yaml", "result.json")  # beside the model in a repository, above it in a run directory
READS_A_RUN = ("audit", "evaluate", "export", "listen", "push", "report", "serve")
REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def builtin_names() -> list[str]:
    """The models that are part of the installation."""
    folder = resources.files("spikeloom.pipelines") / "builtin"
    return sorted(f.name for f in folder.iterdir() if (f / "config.yaml").is_file()) if folder.is_dir() else []


def find_run(name: str | Path) -> Path:
    """The directory of a named run, to read from; fetched first where it is on the Hub.

    Raises:
        ValueError: for a built-in model or a repository there is not, or where the Hub cannot be reached.
    """
    text = str(name)
    if text.startswith(BUILTIN):
        wanted = text.removeprefix(BUILTIN)
        if wanted not in builtin_names():
            raise ValueError(f"no built-in model is called {wanted!r}; use {BUILTIN} and {', '.join(builtin_names())}")
        return Path(str(resources.files("spikeloom.pipelines") / "builtin" / wanted))
    if text.startswith(HUB):
        return _from_hub(text)
    return Path(name)


def run_to_write(name: str | Path) -> Path:
    """`find_run` for what writes beside the model: a model that is not in a run directory is copied below runs/."""
    source, text = find_run(name), str(name)
    if text.startswith(BUILTIN):
        target = Path("runs") / "builtin" / source.name
    elif text.startswith(HUB):
        target = Path("runs") / "hub" / source.parent.name / source.name
    else:
        return source
    if not (target / "model").is_dir():
        with whole(target) as partial:
            shutil.copytree(source, partial)
            if text.startswith(BUILTIN):
                _find_data(partial / "config.yaml")
    return target


def _find_data(config: Path) -> None:
    """Put the folder of this machine's data sets in place of `data`, which the configurations that we ship name."""
    from omegaconf import OmegaConf

    values = OmegaConf.load(config)
    if "root" in values.data:
        values.data.root = root_here(values.data.root)
        OmegaConf.save(values, config)


def root_here(root: str) -> str:
    """The folder on this machine of a data set that a built-in model names below `data`."""
    return str(Path(os.environ.get("SPIKELOOM_DATA", "data")) / Path(root).name)


def is_builtin(run: Path) -> bool:
    """Whether a directory is that of a model of the installation."""
    return run.parent == Path(str(resources.files("spikeloom.pipelines") / "builtin"))


def name_runs(verb: str, config: Any) -> None:
    """Put the directories in place of the names in the keys of a verb that name trained runs.

    Raises:
        ValueError: as `find_run`, and for such a name where a verb writes a new run.
    """
    for key in ("run", "pretrained"):
        given = getattr(config, key, None)
        if not isinstance(given, str) or not given.startswith((BUILTIN, HUB)):
            continue
        if key == "run" and verb not in READS_A_RUN:
            raise ValueError(f"run={given} is a trained model; give a new folder for `spikeloom {verb}` to write")
        reads_only = key == "pretrained" or verb in ("listen", "push", "serve")
        setattr(config, key, str((find_run if reads_only else run_to_write)(given)))


def _from_hub(name: str) -> Path:
    """The files of a repository as a run directory in the cache, a folder for each commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError

    match = REPOSITORY.fullmatch(name.removeprefix(HUB))
    if match is None:
        raise ValueError(f"{name} names no repository; use hf://ORGANISATION/NAME or hf://ORGANISATION/NAME@REVISION")
    try:
        fetched = snapshot_download(
            match["repo"], revision=match["revision"], allow_patterns=[*MODEL_FILES, *RUN_FILES]
        )
    except (HTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC):
            raise ValueError(
                f"{name} cannot be kept in {error.filename} ({error.strerror}); set HF_HOME to a folder that can be "
                "written"
            ) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{name} cannot be fetched ({reason}); check the name, the revision and the connection, and log in with "
            "`hf auth login` where it is private"
        ) from error
    snapshot = Path(fetched)
    if missing := [file for file in MODEL_FILES[:3] if not (snapshot / file).is_file()]:
        raise ValueError(f"{name} is not a model of spikeloom (no {missing[0]}); give one that `spikeloom push` wrote")
    target = cache_dir() / "hub" / match["repo"].replace("/", "--") / snapshot.name[:12]
    if not target.is_dir():
        try:
            with whole(target) as partial:
                (partial / "model").mkdir(parents=True)
                for file in (*MODEL_FILES, *RUN_FILES):
                    if (snapshot / file).is_file():
                        shutil.copyfile(snapshot / file, partial / ("model" if file in MODEL_FILES else "") / file)
        except OSError as error:
            raise ValueError(
                f"{name}: {target} cannot be written ({error.strerror or error}); set SPIKELOOM_CACHE to a folder that "
                "can"
            ) from error
    return target
