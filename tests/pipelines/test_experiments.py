"""Every recipe trains, loads, scores and exports; a model is scored on any folder of its layout and on no other."""

import functools
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spikeloom.pipelines.commands import evaluate, export, train
from spikeloom.pipelines.config.evaluate import EvaluateConfig, OtherFolder
from spikeloom.pipelines.config.export import ExportConfig
from spikeloom.pipelines.config.register import register
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.domains import speech
from spikeloom.pipelines.training import classification
from spikeloom.pipelines.training.run_dir import load_config, load_model
from tests.pipelines.small_data import (
    write_digits,
    write_speech,
    write_spikes,
    write_twelve_classes,
    write_word,
)

TINY = ["model.width=16", "model.heads=1", "model.mlp_ratio=1", "trainer.epochs=1", "trainer.threads=1"]
SMALL = {
    "spikescr_shd": (20, "event_bins"),
    "spikescr_ssc": (35, "event_bins"),
    "spikescr_gsc35": (35, "log_mel"),
    "spikescr_gsc12": (12, "log_mel"),
    "spikescr_fsdd_spikes": (4, "event_bins"),
    "spikescr_speech_commands": (12, "log_mel"),
}  # experiment -> classes, kind of features
QUICK = ("spikescr_speech_commands", "spikescr_shd", "spikescr_fsdd_spikes", "spikescr_gsc35")  # one of a layout
REPORTED = ("spikescr_speech_commands", "spikescr_shd")  # one of a kind: figures take longer than these trainings


def composed(*overrides: str) -> TrainConfig:
    """The configuration the command line would hand to the verb."""
    register()
    with initialize_config_module("spikeloom.conf", version_base="1.3"):
        config = OmegaConf.to_object(compose("train", overrides=list(overrides)))
    assert isinstance(config, TrainConfig)
    return config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_speech(root)
    return root


class Runs(dict[str, Path]):
    """Experiment -> its run folder, trained for an epoch when it is asked for."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder

    def __missing__(self, name: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPIKELOOM_DATA", str(self.data))
            if name not in REPORTED:
                patch.setattr(classification, "write_report", lambda *given: None)
            folder = self.folder / name / "seed0"
            depth = [] if name == "spikescr_ssc" else ["model.depth=1"]  # two blocks in one of them are enough
            train.run(composed(f"experiment={name}", f"run={folder}", "trainer.batch_size=16", *TINY, *depth))
        self[name] = folder / "0" if name == "spikescr_fsdd_spikes" else folder  # one run for each speaker
        return self[name]


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return Runs(data, tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True)
def few_clips_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations are counted elsewhere; here two clips of each folder are enough."""
    monkeypatch.setattr(speech, "count_operations", functools.partial(speech.count_operations, n_clips=2))


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
)
def test_every_experiment_trains_loads_scores_and_exports(name: str, runs: dict[str, Path], tmp_path: Path) -> None:
    run, (n_classes, kind) = runs[name], SMALL[name]
    trained, result = load_model(run / "model"), json.loads((run / "result.json").read_text())
    assert (len(trained.class_names), trained.features.kind, trained.model.n_inputs) == (n_classes, kind, 140)
    assert load_config(run).features == trained.features
    assert name not in REPORTED or (run / "report.html").read_text().count("<svg") >= 3
    if name not in ("spikescr_fsdd_spikes", "spikescr_ssc"):  # a share of clips; made-up files with the same speakers
        assert not set(result["valid_speakers"]) & set(result["train_speakers"])

    evaluate.run(EvaluateConfig(run=str(run), out=str(tmp_path / "scores.json")))
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["accuracy"] == result["test_accuracy"]
    assert sum(map(sum, scores["confusion_matrix"])) == scores["clips"] == result["test_clips"]

    if name not in REPORTED:  # exports of one kind differ in their number of classes
        return
    export.run(ExportConfig(run=str(run), batches=1, batch_size=4))
    assert json.loads((run / "export/unsupported_ops.json").read_text()) == []
    layers = json.loads((run / "export/workload.json").read_text())["layers"]
    first = next(layer for layer in layers if layer["kind"].startswith("gemm"))
    assert 0 < first["density_input"]["mean"] <= 1
    assert (first["density_input"]["mean"] < 0.5) == (kind == "event_bins")  # 250 spikes in thirty steps are sparse


def score(run: Path, root: Path, out: Path) -> dict:
    evaluate.run(EvaluateConfig(run=str(run), split="all", data=OtherFolder(root=str(root)), out=str(out)))
    return json.loads(out.read_text())


def test_a_model_is_scored_on_any_folder_of_its_layout(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    write_twelve_classes(tmp_path / "some", ("yes", "_silence_", "_unknown_"), n_speakers=3)
    scores = score(runs["spikescr_speech_commands"], tmp_path / "some", out)
    assert scores["clips"] == 9
    assert {name for name, row in scores["per_class"].items() if row["clips"]} == {"yes", "_silence_", "_unknown_"}
    assert score(runs["spikescr_gsc35"], data / "gsc", out)["clips"] == 140
    for name in ("spikescr_shd", "spikescr_fsdd_spikes"):
        check_other_spikes(runs, name, tmp_path)


def check_other_spikes(runs: dict[str, Path], name: str, folder: Path) -> None:
    write_spikes(folder / "other.h5", 2 * SMALL[name][0], SMALL[name][0], 2, seed=9)
    found = score(runs[name], folder / "other.h5", folder / "scores.json")
    assert found["clips"] == 2 * SMALL[name][0]


@pytest.mark.slow
def test_a_model_is_scored_on_the_folders_of_other_experiments(
    runs: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.json"
    assert score(runs["spikescr_gsc12"], data / "speech_commands", out)["clips"] == 144
    check_other_spikes(runs, "spikescr_ssc", tmp_path)


def test_a_digit_model_is_scored_on_another_folder_with_some_of_the_digits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIKELOOM_DATA", str(data))
    monkeypatch.setattr(classification, "write_report", lambda *given: None)
    run = tmp_path / "run"
    train.run(composed("experiment=spikescr_fsdd", "leave_one_speaker_out=false", f"run={run}", "seed=1", *TINY))
    write_digits(tmp_path / "more" / "recordings", ("zoe",), takes=3)
    for file in (tmp_path / "more" / "recordings").glob("0_*"):
        file.unlink()
    scores = score(run, tmp_path / "more", tmp_path / "scores.json")
    assert scores["clips"] == sum(map(sum, scores["confusion_matrix"])) == 6
    assert [sum(row) for row in scores["confusion_matrix"]] == [0, 3, 3]
    assert scores["accuracy"] == sum(scores["confusion_matrix"][i][i] for i in range(3)) / 6


def test_a_folder_of_another_kind_is_refused_by_name(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    with pytest.raises(
        ValueError, match=r"fsdd holds files named DIGIT_SPEAKER_INDEX.* on a folder of recordings for each"
    ):
        score(runs["spikescr_speech_commands"], data / "fsdd", out)
    with pytest.raises(ValueError, match=r"gsc holds a folder of recordings for each word.* on spikes in HDF5"):
        score(runs["spikescr_shd"], data / "gsc", out)
    with pytest.raises(ValueError, match=r"shd holds spikes in HDF5.* on a folder of recordings for each word"):
        score(runs["spikescr_gsc35"], data / "shd", out)
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        score(runs["spikescr_gsc35"], tmp_path / "nowhere", out)
    with pytest.raises(ValueError, match=r"the model knows .*, not cat, house, tree"):
        score(runs["spikescr_fsdd_spikes"], _file_of_other_words(tmp_path), out)
    write_word(tmp_path / "words" / "banana" / "3f2a11aa_nohash_0.wav", 300)
    with pytest.raises(ValueError, match=r"banana"):
        score(runs["spikescr_gsc12"], tmp_path / "words", out)
    assert not out.exists()


def _file_of_other_words(folder: Path) -> Path:
    import h5py

    write_spikes(folder / "more.h5", 6, 3, 2)
    with h5py.File(folder / "more.h5", "a") as file:
        del file["extra/keys"]
        file["extra/keys"] = [b"tree", b"house", b"cat"]
    return folder / "more.h5"


def test_a_run_from_before_there_were_kinds_still_loads(runs: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    old = tmp_path / "old"
    shutil.copytree(runs["spikescr_gsc35"], old)
    document = json.loads((old / "model/preprocessor_config.json").read_text())
    assert document["features"].pop("kind") == "log_mel"
    (old / "model/preprocessor_config.json").write_text(json.dumps(document))
    values = OmegaConf.load(old / "config.yaml")
    del values.features.kind, values.augmentation.kind, values.augmentation.tilt, values.report_test_selected
    OmegaConf.save(values, old / "config.yaml")
    assert load_config(old) == load_config(runs["spikescr_gsc35"])
    assert load_model(old / "model").features == load_model(runs["spikescr_gsc35"] / "model").features


def test_unknown_keys_and_kinds_are_refused(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    import shutil

    for key in ("features.hop_ms=5", "features.colour=red", "augmentation.frequency_mask_bands=3"):
        with pytest.raises(
            OmegaConfBaseException if "=" not in key else Exception, match=key.split("=")[0].split(".")[1]
        ):
            composed("experiment=spikescr_shd", f"run={tmp_path}/x", key)
    config = composed("experiment=spikescr_shd", f"run={tmp_path}/x", "features.kind=log_mel")
    with pytest.raises(ValueError, match=r"features\.kind=log_mel does not fit.*choose another features=NAME"):
        classification.train(config)
    copy = tmp_path / "copy"
    shutil.copytree(runs["spikescr_gsc35"] / "model", copy)
    document = json.loads((copy / "preprocessor_config.json").read_text())
    for change in ({"kind": "gammatone"}, {"colour": "red"}):
        (copy / "preprocessor_config.json").write_text(
            json.dumps({**document, "features": {**document["features"], **change}})
        )
        with pytest.raises(ValueError, match="|".join([*change, *change.values()])):
            load_model(copy)


def test_a_wrong_pair_of_source_and_features_is_one_clear_error(data: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPIKELOOM_DATA", str(data))
        for overrides, remedy in (
            (["data=shd", "features=gsc"], "use features=events"),
            (["data=gsc35", "features=events", "augmentation=shd"], "use features=gsc"),
            (["data=shd", "features=events"], "use augmentation=shd"),
            (["data=gsc35", "leave_one_speaker_out=true"], "leave_one_speaker_out is not defined for gsc"),
        ):
            with pytest.raises(ValueError, match=remedy):
                train.run(composed(*overrides, "name=pair", f"run={tmp_path}/run", "overwrite=true", *TINY))
