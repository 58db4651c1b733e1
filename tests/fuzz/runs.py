"""What trainings leave and others read: run directories, model folders, checkpoints, results, cards of the Hub."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from spikeloom.pipelines.api.hub import model_card
from spikeloom.pipelines.api.runs import load
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.eeg.evaluate import read_decodings
from spikeloom.pipelines.reports.distillation import AVERAGED, read_curriculum
from spikeloom.pipelines.reports.pruning import pruning_sections
from spikeloom.pipelines.reports.seeds import print_seed_table
from spikeloom.pipelines.training.checkpoints import read_checkpoint
from spikeloom.pipelines.training.claim import is_ours
from spikeloom.pipelines.training.distillation import Stage, digest, file_digest, require_unchanged
from spikeloom.pipelines.training.inherit import weights_of
from spikeloom.pipelines.training.run_dir import history, load_config
from spikeloom.pipelines.training.stochastic import print_variants
from spikeloom.vision.models.variants import _load
from tests import public_runs
from tests.fuzz.parser import OneFile, Parser, files, of_one_file

RUNS: dict[str, Callable[[Path], Path]] = {
    name: getattr(public_runs, name) for name in ("digits", "events", "words", "spikes", "decoder", "stochastic")
}


def run_of(*names: str, model: bool = True) -> Callable[[Path], None]:
    """Runs, one a case; without their model where only the settings are read."""

    def write(folder: Path) -> None:
        for name in names:
            run = RUNS[name](folder)
            if not model:
                shutil.rmtree(run / "model")

    return write


def read_settings(folder: Path) -> Any:
    is_ours(folder)
    return load_config(folder)


def read_model(folder: Path) -> Any:
    return load(folder).model


def is_model(result: Any) -> None:
    if isinstance(result, torch.nn.Module):
        assert all(torch.isfinite(p).all() for p in result.parameters())


def model_cards(folder: Path) -> None:
    run_of("digits")(folder)
    run = folder / "digits"
    (run / "result.json").write_text(json.dumps({"name": "digits", "test_accuracy": 0.9, "seed": 1}), "utf-8")
    (run / "evaluation.json").write_text(json.dumps({"energy": {"energy_pj": 3e6, "ac": 10, "mac": 5}}), "utf-8")
    (run / "model" / "README.md").write_text("---\ntags: [a]\n---\n# a model\n", "utf-8")


def card_of(folder: Path) -> str:
    return model_card(folder, "apache-2.0", "someone/digits")


def seeds(folder: Path) -> None:
    with TemporaryDirectory() as other:
        settings = (public_runs.words(Path(other)) / "config.yaml").read_bytes()
    for case, kind in (("0", "result.json"), ("1", "speakers.json")):
        for seed in (0, 1):
            run = folder / case / f"seed{seed}"
            places = [run] if kind == "result.json" else [run, run / "ann"]
            for place in places:
                place.mkdir(parents=True)
                (place / "config.yaml").write_bytes(settings)
            result: dict[str, Any] = {
                "name": "x",
                "seed": seed,
                "test_accuracy": 0.5 + seed / 10,
                "test_speakers": ["ann"],
            }
            (run / kind).write_text(json.dumps(result if case == "0" else {"seed": seed, "results": [result]}), "utf-8")


def read_seeds(folder: Path) -> None:
    kind = "speakers.json" if any(folder.rglob("speakers.json")) else "result.json"
    print_seed_table(folder / "seed0", kind)


METRICS = b"epoch,train_loss,valid_loss,valid_accuracy\n1,2.5,2.4,0.3\n2,1.5,1.4,0.5\n"


def is_table(result: list[dict[str, float]]) -> None:
    assert result and all(isinstance(v, float) for row in result for v in row.values())


def checkpoints(folder: Path) -> None:
    (folder / "0").mkdir()
    state = {f"model.{k}": v for k, v in torch.nn.Linear(2, 3).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1, "callbacks": {"a": {"best": 0.5}}}, folder / "0" / "last.ckpt")


def weights(folder: Path) -> None:
    from safetensors.torch import save_file

    checkpoints(folder)
    (folder / "1").mkdir()
    save_file(torch.nn.Linear(2, 3).state_dict(), folder / "1" / "model.safetensors")


def variants(folder: Path) -> None:
    for seed in (0, 1):
        run = folder / "0" / f"seed{seed}"
        run.mkdir(parents=True)
        result = {
            "name": "bs", "network": "mlp", "weights": "real", "policy": "BBB", "activation": "x", "slope": 1.0,
            "epochs": 2, "seed": seed, "hp": 0.5, "binary": 0.4, "stochastic_3": 0.3,
        }  # fmt: skip
        (run / "result.json").write_text(json.dumps(result), "utf-8")


def stage_of(folder: Path) -> Stage:
    return Stage(name="stage0_10ms", config=TrainConfig(run=str(folder)))


TOLD = {"seed": 0, "model.width": 16}


def stages(folder: Path) -> None:
    (folder / "0" / "checkpoints").mkdir(parents=True)
    best = folder / "0" / "checkpoints" / "best.ckpt"
    best.write_bytes(b"weights")
    record = {
        "stage": "stage0_10ms", "status": "finished", "settings_sha256": digest(TOLD), "settings": TOLD,
        "checkpoint_sha256": file_digest(best), "row": {"stage": "stage0_10ms"},
    }  # fmt: skip
    (folder / "0" / "stage.json").write_text(json.dumps(record), "utf-8")


def curricula(folder: Path) -> None:
    (folder / "0").mkdir()
    row = {"stage": "stage0_10ms", "resolution_ms": 10.0, **dict.fromkeys(AVERAGED, 0.5)}
    found = {"name": "x", "seed": 0, "settings_sha256": "0" * 64, "stages": [row]}
    (folder / "0" / "curriculum.json").write_text(json.dumps(found), "utf-8")


def controls(folder: Path) -> None:
    (folder / "0").mkdir()
    columns = {
        "outputs": ["a", "b"],
        "references": ["c", "d"],
        "subjects": ["Z", "Z"],
        "tasks": ["SR", "SR"],
        "seeds": [0, 0],
    }
    (folder / "0" / "test.json").write_text(json.dumps(columns), "utf-8")


PRUNED = b"epoch,sparsity_of_pruned_layers,threshold\n1,0.1,0.01\n2,0.4,0.02\n"
KEPT = {"pruning": {"method": "lats", "sparsity": 0.4, "l1_mean": None, "report": {"layers": []}}}


def own_weights(folder: Path) -> None:
    from safetensors.torch import save_file

    (folder / "0").mkdir()
    save_file(torch.nn.Linear(2, 3).state_dict(), folder / "0" / "a.safetensors")


def read_own_weights(folder: Path) -> torch.nn.Module:
    model: Any = torch.nn.Linear(2, 3)
    _load(model, {"file": "a.safetensors"}, str(folder))
    return model


ONE_FILE: tuple[OneFile, ...] = (
    ("checkpoint", checkpoints, lambda path: read_checkpoint(path, "train again"), None,
     ("pipelines/training/checkpoints.py:read_checkpoint",)),
    ("inherited_weights", weights, weights_of, None, ("pipelines/training/inherit.py:weights_of",)),
    ("curriculum_json", curricula, read_curriculum, None,
     ("accel/common/files.py:read_object", "accel/common/files.py:read_json",
      "pipelines/reports/distillation.py:read_curriculum")),
    ("control_json", controls, read_decodings, None, ("pipelines/eeg/evaluate.py:read_decodings",)),
)  # fmt: skip
# Name, runs, promise, endings of the files that are mutated beside .json and .safetensors, functions.
FOLDERS: tuple[tuple[str, tuple[str, ...], bool, tuple[str, ...], tuple[str, ...]], ...] = (
    ("model_folder", ("digits",), True, (),
     ("accel/common/sizes.py:check_sizes", "accel/common/sizes.py:load_pretrained", "vision/models/load.py:load_model",
      "pipelines/training/run_dir.py:load_model", "pipelines/domains/vision.py:load_weights")),
    ("model_folder_events", ("events",), True, (), ("pipelines/domains/vision.py:load_weights",)),
    ("model_folder_speech", ("words", "spikes"), True, (), ("speech/models/loading.py:load_model",)),
    ("model_folder_eeg", ("decoder",), True, (), ("pipelines/domains/bci.py:load_weights",)),
    ("model_folder_bs", ("stochastic",), False, (".yaml",), ("accel/learning/stochastic/files.py:load_network",)),
)  # fmt: skip
PARSERS = [
    *of_one_file(ONE_FILE),
    *(
        Parser(
            name=name,
            write=run_of(*runs),
            read=read_model,
            promise=is_model if finite else lambda result: None,
            mutates=(".json", ".safetensors", *also),
            covers=covers,
        )
        for name, runs, finite, also, covers in FOLDERS
    ),
    Parser(
        name="run_config",
        write=run_of("digits", "words", "spikes", "decoder", "stochastic", "events", model=False),
        read=read_settings,
        mutates=("config.yaml",),
        covers=(
            "pipelines/training/run_dir.py:load_config",
            "pipelines/training/claim.py:is_ours",
            "pipelines/training/run_dir.py:read_yaml",
        ),
    ),
    Parser(
        name="hub_card",
        write=model_cards,
        read=card_of,
        mutates=("result.json", "evaluation.json", ".md"),
        covers=("pipelines/api/hub.py:model_card", "pipelines/api/hub.py:_split", "pipelines/api/hub.py:_energy"),
    ),
    Parser(
        name="seed_results",
        write=seeds,
        read=read_seeds,
        mutates=(".json",),
        covers=("pipelines/reports/seeds.py:finished",),
    ),
    Parser(
        name="metrics_csv",
        write=files("metrics.csv", lambda: [METRICS]),
        read=history,
        promise=is_table,
        covers=(
            "accel/common/files.py:read_csv",
            "accel/common/files.py:read_numbers",
            "accel/common/files.py:read_text",
            "pipelines/training/run_dir.py:history",
        ),
    ),
    Parser(
        name="stage_record",
        write=stages,
        read=lambda f: require_unchanged(stage_of(f), TOLD),
        mutates=("stage.json",),
        covers=(
            "pipelines/training/distillation.py:require_unchanged",
            "pipelines/training/distillation.py:file_digest",
        ),
    ),
    Parser(
        name="pruning_csv",
        write=files("pruning.csv", lambda: [PRUNED]),
        read=lambda f: pruning_sections(f, KEPT),
        covers=("pipelines/reports/pruning.py:pruning_sections",),
    ),
    Parser(
        name="pretrained_file",
        write=own_weights,
        read=read_own_weights,
        promise=is_model,
        covers=("vision/models/variants.py:_load",),
    ),
    Parser(
        name="bs_results",
        write=variants,
        read=lambda f: print_variants(f, "bs"),
        covers=("pipelines/training/stochastic.py:print_variants",),
    ),
]
