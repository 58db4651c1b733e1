"""Pictures and recordings through every verb: a run leaves what speech leaves, and any folder of pictures is scored."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikeloom.pipelines import cli
from spikeloom.pipelines.commands import evaluate, export, train
from spikeloom.pipelines.config.data import DataConfig
from spikeloom.pipelines.config.evaluate import EvaluateConfig, OtherFolder
from spikeloom.pipelines.config.export import ExportConfig
from spikeloom.pipelines.config.register import register
from spikeloom.pipelines.datasets.vision import check
from spikeloom.pipelines.training import classification
from spikeloom.pipelines.training.run_dir import load_config, load_model
from spikeloom.vision.datasets.event_sets import EventFilesConfig
from spikeloom.vision.datasets.images import read_digits
from spikeloom.vision.datasets.sources import ScannedDigitsConfig
from tests.conftest import data_folder
from tests.pipelines.test_vision_recipes import composed
from tests.vision.event_files import write_gestures, write_nmnist

TINY = ("model.widths=[16]", "model.depths=[1]", "model.heads=1", "model.T=2", "trainer.threads=1")
SPIKING = "experiment=spikingformer_digits"
PLAIN = ("data=digits", "features=digits", "augmentation=pictures", "name=plain")  # no model yet


@pytest.fixture(scope="module", autouse=True)
def fewer_digits():
    """A quarter of the training digits: these runs are looked at, not judged."""
    build = ScannedDigitsConfig.build

    def some(source: ScannedDigitsConfig):
        splits = build(source)
        return splits._replace(train=splits.train.select(np.arange(0, len(splits.train), 4)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScannedDigitsConfig, "build", some)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs with mixtures, gradients of two batches added up, and averaged weights."""
    folder = tmp_path_factory.mktemp("runs") / "seed0"
    train.run(composed(
        SPIKING, f"run={folder}", *TINY, "trainer.epochs=2", "trainer.batch_size=32", "trainer.accumulate=2",
        "trainer.ema_decay=0.9", "augmentation.mixup=0.5", "augmentation.mix_until_epoch=1",
    ))  # fmt: skip
    return folder


def test_a_run_leaves_what_a_reader_needs(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert (result["train_samples"], result["valid_samples"], result["test_samples"]) == (315, 180, 360)
    assert set(result["split_sha256"]) == {"train", "valid", "test"}
    assert result["test_evaluations"] == 1
    assert (run / "report.html").read_text().count("<svg") >= 2
    page = (run / "report.html").read_text()
    assert all(title in page for title in ("Predictions on test pictures", "Firing rates"))
    assert "scored once" in (run / "model/README.md").read_text()
    trained = load_model(run / "model")
    assert trained.features == load_config(run).features
    assert trained.class_names == tuple("0123456789")
    assert len(list(csv.DictReader((run / "metrics.csv").open()))) == 2


def test_the_test_set_is_scored_once_after_the_best_epoch_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spikeloom.pipelines.domains import vision

    scored = []
    predict = vision.predict

    def watched(model, samples):
        scored.append((len(samples), (tmp_path / "run/checkpoints/best.ckpt").exists()))
        return predict(model, samples)

    monkeypatch.setattr(vision, "predict", watched)
    train.run(composed(SPIKING, f"run={tmp_path}/run", *TINY, "trainer.epochs=1"))
    assert scored == [(360, True)]


def test_kept_weights_are_the_average_of_those_trained(run: Path) -> None:
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    averaged, trained = last["state_dict"], last["current_model_state"]
    moved = [k for k in averaged if averaged[k].is_floating_point() and not torch.equal(averaged[k], trained[k])]
    assert len(moved) > 10
    assert last["global_step"] == 2 * 5  # ten batches an epoch, two a step


def test_a_resumed_run_ends_in_the_same_weights(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spikeloom.pipelines.training import callbacks, classification

    class Killed(Exception):
        pass

    def die(self, trainer, module):
        if trainer.current_epoch == 1:
            raise Killed

    config = load_config(run)
    config.run = str(tmp_path / "again")
    monkeypatch.setattr(classification, "write_report", lambda *given: None)
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.History, "on_train_epoch_start", die, raising=False)
        with pytest.raises(Killed):
            classification.train(config)
    config.resume = True
    classification.train(config)
    a, b = (torch.load(r / "checkpoints/last.ckpt", weights_only=True) for r in (run, tmp_path / "again"))
    for kind in ("state_dict", "current_model_state"):
        assert [k for k in a[kind] if not torch.equal(a[kind][k], b[kind][k])] == []


def test_keeping_less_and_another_layout_train_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "write_report", lambda *given: None)
    rows = {}
    for name, options in (
        ("plain", ()), ("less", ("model.compact=true", "model.checkpointing=true")),
        ("all", ("model.compact=true", "model.checkpointing=true", "model.channels_last=true")),
    ):  # fmt: skip
        classification.train(composed(SPIKING, f"run={tmp_path}/{name}", *TINY, "trainer.epochs=1", *options))
        rows[name] = list(csv.DictReader((tmp_path / name / "metrics.csv").open()))
    losses = {name: [float(row["train_loss"]) for row in found] for name, found in rows.items()}
    assert losses["less"] == losses["plain"]
    assert losses["all"] == pytest.approx(losses["plain"], rel=1e-3)
    model = load_model(tmp_path / "all/model").model
    assert not model.compact and not model.grad_checkpointing  # for training alone


def evaluated(run: Path, out: Path, **changes: object) -> dict:
    evaluate.run(EvaluateConfig(run=str(run), out=str(out), **changes))
    return json.loads(out.read_text())


def test_a_run_is_scored_on_its_splits_and_on_any_folder_of_pictures(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    result = json.loads((run / "result.json").read_text())
    scores = evaluated(run, out)
    assert scores["accuracy"] == result["test_accuracy"]
    assert scores["samples"] == 360 == sum(map(sum, scores["confusion_matrix"]))
    assert scores["energy"]["energy_pj"] > 0
    digits = read_digits()
    for i in range(60):  # the same pictures as files, white 255 instead of 16
        path = tmp_path / "pictures" / str(digits.labels[i]) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.content[i] * (255 / 16)).round().astype(np.uint8)).save(path)
    scores = evaluated(run, out, split="all", data=OtherFolder(root=str(tmp_path / "pictures")))
    assert scores["samples"] == 60
    assert scores["root"] == str(tmp_path / "pictures")
    assert scores["per_class"]["3"]["samples"] == int((digits.labels[:60] == 3).sum())
    (tmp_path / "pictures" / "cat").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "pictures" / "cat" / "0.jpg")
    with pytest.raises(ValueError, match=r"the model knows 0, 1, .*, not cat; remove those samples"):
        evaluated(run, out, split="all", data=OtherFolder(root=str(tmp_path / "pictures")))
    with pytest.raises(ValueError, match="add split=all"):
        evaluated(run, out, data=OtherFolder(root=str(tmp_path / "pictures")))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluated(run, out, split="all", data=OtherFolder(root=str(tmp_path / "nowhere")))


def test_a_run_is_exported_with_measured_densities(run: Path) -> None:
    export.run(ExportConfig(run=str(run), batches=2, batch_size=4))
    assert json.loads((run / "export/unsupported_ops.json").read_text()) == []
    workload = json.loads((run / "export/workload.json").read_text())
    assert (workload["time_steps"], workload["batch_size"]) == (2, 4)
    assert any(layer["kind"].startswith("gemm") and layer["input_kind"] == "binary" for layer in workload["layers"])
    with pytest.raises(ValueError, match=r"digits data, which has no folder; leave data\.root out"):
        export.run(ExportConfig(run=str(run), data=OtherFolder(root="x")))


def test_a_resnet_is_trained_the_same_way(tmp_path: Path) -> None:
    folder = tmp_path / "resnet"
    train.run(composed(
        *PLAIN, "model=small_resnet", f"run={folder}", "model.widths=[8]", "model.blocks=[1]", "trainer.epochs=1",
        "trainer.threads=1",
    ))  # fmt: skip
    scores = evaluated(folder, tmp_path / "scores.json", split="valid")
    assert scores["energy"]["ac"] == 0
    assert scores["energy"]["mac"] > 0
    with pytest.raises(ValueError, match="has no steps to export"):
        export.run(ExportConfig(run=str(folder)))


@pytest.mark.slow  # the exits themselves: tests/accel/interop
@pytest.mark.parametrize("net", ["cnn", "mlp"])
def test_a_feed_forward_run_leaves_in_both_formats_with_equal_spikes(
    net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nir")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(classification, "write_report", lambda *given: None)
    folder = tmp_path / net
    train.run(composed(
        "experiment=spiking_cnn_digits", f"model=spiking_{net}", f"name={net}", f"run={folder}", "trainer.epochs=2",
        "trainer.threads=1", "features.size=8",
    ))  # fmt: skip
    scores = evaluated(folder, tmp_path / "scores.json", split="valid")
    assert scores["energy"]["ac"] > 0
    capsys.readouterr()
    export.run(ExportConfig(run=str(folder), batches=2, nir=True, onnx=True))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("model.")]
    assert [line.split(":")[0] for line in told] == ["model.nir", "model.onnx"]
    assert all("2 populations" in line and "every one equal" in line and "silent" not in line for line in told)
    assert {f.name for f in (folder / "export").iterdir()} >= {"model.nir", "model.onnx", "program.pt2"}


@pytest.mark.parametrize("data", ["nmnist", pytest.param("dvs128", marks=pytest.mark.slow)])
def test_recordings_of_events_are_trained_on_and_scored(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if data == "nmnist":
        write_nmnist(tmp_path / data, 5, 2)
        chosen = ["data=nmnist", "features=frames", "augmentation=recordings", "model=spiking_vision", "name=nmnist"]
    else:
        monkeypatch.setattr(classification, "write_report", lambda *given: None)  # one such page is enough
        write_gestures(tmp_path / data, train=(1, 21), test=(24,))
        chosen = ["experiment=spikingformer_dvs128"]
    folder = tmp_path / "run"
    config = composed(
        *chosen, f"run={folder}", f"data.root={tmp_path / data}", "model.name=spikingformer_2_256_dvs",
        "model.widths=[16]", "model.depths=[1]", "model.heads=1", "features.n_frames=2", "trainer.epochs=1",
        "trainer.threads=1", "trainer.batch_size=8",
    )  # fmt: skip
    train.run(config)
    scores = evaluated(folder, tmp_path / "scores.json", split="all", data=OtherFolder(root=str(tmp_path / data)))
    assert scores["samples"] == (70 if data == "nmnist" else 33)
    assert len(scores["class_names"]) == (10 if data == "nmnist" else 11)


def test_mixed_rooms_are_one_clear_error(tmp_path: Path) -> None:
    for overrides, words in (
        (PLAIN, "model spikescr is for speech, and digits data are vision"),
        (("data=digits", "name=plain"), r"features log_mel is for speech.*experiment=NAME"),
        ((SPIKING, "features=frames"), "augmentation of images needs features of pixels"),
        ((SPIKING, "model.name=spikingformr_4_384"), "did you mean spikingformer_4_384"),
    ):
        with pytest.raises(ValueError, match=words):
            train.run(composed(*overrides, f"run={tmp_path}/run", "overwrite=true"))


@pytest.mark.parametrize(("bad", "words"), [
    ("trainer.epochs=0", "must be >= 1"), ("trainer.accumulate=0", "must be >= 1"),
    ("trainer.ema_decay=2", r"in \[0, 1\)"), ("optimizer.label_smoothing=2", r"in \[0, 1\)"),
    ("augmentation.flip=2", r"in \[0, 1\]"), ("features.size=1", "use at least 4"),
    ("model.heads=7", "does not divide into 7 heads"), ("augmentation.rand_magnitude=9", "use rand_magnitude=0"),
])  # fmt: skip
def test_a_refused_training_leaves_no_folder(bad: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        train.run(composed(SPIKING, f"run={tmp_path}/run", *TINY, bad))
    key = bad.partition("=")[0]
    assert key in str(refused.value) or key in ("model.heads", "augmentation.rand_magnitude")
    assert not (tmp_path / "run").exists()


# --- data verbs -----------------------------------------------------------------------------------------------------


def test_recordings_at_hand_are_checked_and_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = data_folder("dvs")
    register()
    check("events", EventFilesConfig(root=str(root)))
    said = capsys.readouterr().out
    assert "no problem found" in said
    for words in ("130,114", "55,123", "111,954", "320 x 240", "4,325", "113476330..119657829 µs"):
        assert words in said
    cli_data(DataConfig(what="describe", dataset="events", root=str(root), out=str(tmp_path / "page.html")))
    assert (tmp_path / "page.html").read_text().count("<svg") >= 3


def cli_data(config: DataConfig) -> None:
    from spikeloom.pipelines.commands import data

    register()
    data.run(config)


def test_a_broken_recording_and_picture_are_problems_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.aedat").write_bytes(b"#!AER-DAT2.0\r\n")
    with pytest.raises(SystemExit) as stop:
        cli_data(DataConfig(what="check", dataset="events", root=str(tmp_path / "bad.aedat")))
    assert stop.value.code == 1
    assert re.search(r"problem: .*bad\.aedat, byte 14: no event", capsys.readouterr().out)
    for split in ("train", "val"):
        for name in ("a", "b"):
            for i in range(4):
                path = tmp_path / "p" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (20, 20), (60 * i, 0, 0)).save(path)
    cli_data(DataConfig(what="check", dataset="imagenet", root=str(tmp_path / "p")))
    cli_data(DataConfig(what="describe", dataset="imagenet", root=str(tmp_path / "p"), out=str(tmp_path / "page.html")))
    assert "16 samples of 2 classes" in (tmp_path / "page.html").read_text()
    (tmp_path / "p/train/a/0.png").write_bytes(b"torn")
    with pytest.raises(SystemExit):
        cli_data(DataConfig(what="check", dataset="imagenet", root=str(tmp_path / "p")))
    assert re.search(r"problem: .*train/a/0\.png: not a whole picture", capsys.readouterr().out)


def test_a_missing_data_set_says_where_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mnist", "cifar10", "cifar100", "imagenet", "cifar10dvs", "dvs128", "nmnist"):
        with pytest.raises(SystemExit):
            cli_data(DataConfig(what="check", dataset=name, root=str(tmp_path / "none")))
        assert re.search(r"problem: no folder .*none; .*data\.root=FOLDER", capsys.readouterr().out)
    assert cli.groups()["data"].count("nmnist") == 1
