"""Models on the Hugging Face Hub: files, card and configuration of a run in one commit."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from spikeloom.accel.common.files import parse_yaml, read_object, read_text, require_number
from spikeloom.accel.common.units import energy_text
from spikeloom.pipelines.api.runs import load, model_folder
from spikeloom.pipelines.config.groups import package_of
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training.run_dir import load_config
from spikeloom.pipelines.training.run_names import MODEL_FILES, RUN_FILES, find_run

__all__ = ["model_card", "push"]

# data.source -> the data set's own repository on the Hub
DATASETS = {"gsc": "google/speech_commands", "mnist": "ylecun/mnist"}
TASKS = {  # kind of features -> pipeline tag of the Hub
    "log_mel": "audio-classification", "mfcc": "audio-classification", "event_bins": "audio-classification",
    "pixels": "image-classification", "event_frames": "image-classification",
}  # fmt: skip


def push(
    run: str | Path, repo: str, *, license: str, revision: str | None = None, private: bool = False,
    message: str = "Upload a model trained with spikeloom",
) -> str:  # fmt: skip
    """Upload a trained model so that ``load("hf://" + repo)`` and ``from_pretrained(repo)`` give the same model.

    Args:
        run: run directory of a training that has finished.
        repo: ``ORGANISATION/NAME``; made where it does not exist. Log in with ``hf auth login`` first.
        license: licence of the weights, such as ``"apache-2.0"``; it depends on the data they were trained on.
        revision: branch; None: main.
        private: whether a repository that is made is private.
        message: of the commit.

    Returns:
        The commit's hash, which ``load("hf://" + repo + "@" + commit)`` pins.

    Raises:
        ValueError: for a run without a model or configuration, or where the Hub refuses the upload.

    Examples:
        >>> import spikeloom
        >>> commit = spikeloom.push("runs/digits", "someone/digits", license="apache-2.0")
        >>> spikeloom.load(f"hf://someone/digits@{commit}").class_names[:3]
        ('0', '1', '2')
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalTokenNotFoundError

    source = find_run(run)
    card = model_card(source, license, repo)
    files = [*(model_folder(source) / file for file in MODEL_FILES), *(source / file for file in RUN_FILES)]
    api = HfApi()
    with tempfile.TemporaryDirectory() as name:
        staged = Path(name)
        for file in files:
            if file.is_file() and file.name != "README.md":
                shutil.copyfile(file, staged / file.name)
        (staged / "README.md").write_text(card, encoding="utf-8")
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo, branch=revision, exist_ok=True)
            commit = api.upload_folder(repo_id=repo, folder_path=staged, revision=revision, commit_message=message)
        except (HTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"{repo}: the Hub refused the upload ({reason}); check the name, and log in with `hf auth login`"
            ) from error
    return str(commit.oid)


def model_card(run: Path, license: str, repo: str) -> str:
    """README.md of a repository: metadata (licence, task, data, accuracy), the card of the run, energy and limits.

    Args:
        run: run directory.
        license: licence of the weights, in the identifiers of the Hub.
        repo: ORGANISATION/NAME, for the example.

    Returns:
        Markdown with a YAML header.

    Raises:
        ValueError: for a run without a model or configuration, or a licence that is not an identifier.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise ValueError(f"license is an identifier of the Hub (got {license!r}); use for example apache-2.0")
    trained, config = load(run), load_config(run)
    results = read_object(run / "result.json", "train again") if (run / "result.json").is_file() else {}
    card = model_folder(run) / "README.md"
    header, body = _split(card, read_text(card, "train again"))
    kind = trained.features.kind
    header |= {"license": license, "library_name": "spikeloom", "tags": sorted({*header.get("tags", []), "spikeloom"})}
    header["pipeline_tag"] = TASKS.get(kind) or ("text-generation" if trained.class_names == () else "other")
    if config.data.source in DATASETS:
        header["datasets"] = [DATASETS[config.data.source]]
    if "test_accuracy" in results:
        require_number(run / "result.json", "test_accuracy", results["test_accuracy"], "train again")
        header["metrics"] = ["accuracy"]
        header["model-index"] = [_index(header["pipeline_tag"], config, results)]
    parts = [f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n", body.strip()]
    parts.append(f"## Energy\n\n{_energy(run)}")
    parts.append(f"## Use\n\n{_use(package_of(config.data), repo)}")
    return "\n\n".join(parts) + "\n"


def _split(path: Path, readme: str) -> tuple[dict[str, Any], str]:
    """YAML header and body of a card. Raises ValueError naming its file."""
    match = re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)
    if match is None:
        return {}, readme
    header = parse_yaml(path, match[1], "repair the header of the card, or remove it") or {}
    tags = header.get("tags", []) if isinstance(header, dict) else None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f"{path}: its header is no mapping with a list of tags; repair it, or remove it")
    return header, readme[match.end() :]


def _index(task: str, config: TrainConfig, results: dict[str, Any]) -> dict[str, Any]:
    """The accuracy on the test set as the Hub's leaderboards read it."""
    return {
        "name": config.name,
        "results": [{
            "task": {"type": task},
            "dataset": {"name": config.data.source, "type": DATASETS.get(config.data.source, config.data.source),
                        "split": "test"},
            "metrics": [{"type": "accuracy", "value": round(float(results["test_accuracy"]), 4),
                         "name": f"test accuracy, seed {results.get('seed', config.seed)}"}],
        }],
    }  # fmt: skip


def _energy(run: Path) -> str:
    """What an inference costs, as the last evaluation counted it."""
    file = run / "evaluation.json"
    again = "run `spikeloom evaluate` again"
    energy = read_object(file, again).get("energy", {}) if file.is_file() else {}
    if not isinstance(energy, dict) or "energy_pj" not in energy:
        return "Not counted; `spikeloom evaluate` counts the operations of an inference and their energy."
    for name in ("energy_pj", "ac", "mac"):
        require_number(file, name, energy.get(name), again)
    return (
        f"{energy_text(energy['energy_pj'])} an inference: {energy['ac']:,.0f} accumulations and {energy['mac']:,.0f} "
        "multiplications, counted on real inputs and multiplied with published prices; not measured on hardware."
    )


def _use(package: str, repo: str) -> str:
    given = {"speech": '"word.wav"', "vision": '"picture.png"', "bci": '"recording.edf"'}[package]
    return f"""```python
import spikeloom

model = spikeloom.pipeline("hf://{repo}")
print(model({given}))
```"""
