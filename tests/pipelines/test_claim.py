"""A run directory has one owner: nothing of others is deleted, nothing is resumed as another run, nothing blocks it."""

import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from spikeloom.pipelines.config.train import TrainConfig, TrainerConfig, typed
from spikeloom.pipelines.training import classification, distillation
from spikeloom.pipelines.training.checkpoints import AtomicCheckpointIO, read_checkpoint
from spikeloom.pipelines.training.claim import claim, locked
from spikeloom.pipelines.training.classification import train
from spikeloom.pipelines.training.module import ClassificationModule
from spikeloom.pipelines.training.optim import OptimizerConfig
from spikeloom.pipelines.training.run_dir import load_config, load_model, save_config
from tests.pipelines.test_distill import config as curriculum
from tests.pipelines.test_lightning import SPEECH
from tests.pipelines.test_trials import composed


def config(run: Path, **changes: object) -> TrainConfig:
    return replace(SPEECH, run=str(run), trainer=TrainerConfig(epochs=2, batch_size=4, threads=1), **changes)


def begun(run: Path) -> Path:
    """A run that was killed after its first epoch."""
    (run / "checkpoints").mkdir(parents=True)
    save_config(run, config(run))
    (run / "metrics.csv").write_text("epoch\n1\n")
    return run


def test_overwriting_keeps_its_hands_off_a_project_with_a_config_of_its_own(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "config.yaml").write_text("title: my thesis\nmodel: {layers: 3}\n")
    (project / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is not a spikeloom run directory"), claim(config(project, overwrite=True)):
        pass
    assert {path.name for path in project.iterdir()} == {"config.yaml", "thesis.tex"}


def test_overwriting_refuses_files_that_no_run_writes(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run / "notes.txt").write_text("mine")
    refused = pytest.raises(ValueError, match=r"notes\.txt.*overwrite=true would delete")
    with refused, claim(config(run, overwrite=True)):
        pass
    assert (run / "notes.txt").read_text() == "mine" and (run / "metrics.csv").exists()


def test_overwriting_moves_aside_first_and_leaves_one_new_run(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    with claim(config(run, overwrite=True)) as finished:
        assert finished is None and {path.name for path in run.iterdir()} == {"config.yaml"}
        (run / "metrics.csv").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_two_processes_cannot_train_into_one_directory(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    fcntl = pytest.importorskip("fcntl", reason="another kind of lock is used on this system")
    program = f"""
import fcntl, os, sys
fcntl.flock(os.open({str(run)!r}, os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
    assert fcntl
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdin is not None
    try:
        assert other.stdout.readline() == "held\n"
        for key in ("resume", "overwrite"):
            with pytest.raises(ValueError, match="written by another process"), claim(config(run, **{key: True})):
                pass
    finally:
        other.stdin.close()
        other.wait(30)
    with locked(run):  # free as soon as its holder is gone, whatever ended it
        assert (run / "metrics.csv").exists()


@pytest.mark.parametrize(("change", "key"), [
    ({"seed": 5}, "seed=0"), ({"optimizer": OptimizerConfig(lr=1.0)}, r"optimizer\.lr="),
])  # fmt: skip
def test_an_unfinished_run_is_not_resumed_as_another(tmp_path: Path, change: dict[str, object], key: str) -> None:
    run = begun(tmp_path / "run")
    with pytest.raises(ValueError, match=rf"begun with {key}"), claim(config(run, resume=True, **change)):
        pass
    assert load_config(run).seed == 0


def test_no_flipped_bit_of_a_checkpoint_changes_what_is_read(tmp_path: Path) -> None:
    path, draw, refused = tmp_path / "last.ckpt", random.Random(0), list[str]()
    of = {"weight": torch.arange(500.0), "bias": torch.ones(7)}
    AtomicCheckpointIO().save_checkpoint({"epoch": 3, "state_dict": of}, path)
    whole = path.read_bytes()
    for _ in range(200):
        bit = draw.randrange(8 * len(whole))
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        try:
            found = read_checkpoint(path, "add overwrite=true")
        except ValueError as error:
            refused.append(str(error))
        else:  # it was in padding
            assert found["epoch"] == 3 and all(torch.equal(found["state_dict"][name], of[name]) for name in of)
    assert len(refused) > 50 and all(str(path) in line and "overwrite=true" in line for line in refused)


@pytest.mark.parametrize("lr", [math.inf, math.nan, 0.0, -1.0])
def test_a_learning_rate_that_is_no_positive_number_is_refused(lr: float) -> None:
    with pytest.raises(ValueError, match="lr="):
        OptimizerConfig(lr=lr).check()


def test_what_a_killed_run_leaves_before_its_first_epoch_blocks_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    save_config(run, config(run))
    (run / ".metrics.csv.1a2b3c4d.partial").write_text("half a row")
    with claim(config(run)) as finished:
        assert finished is None and sorted(path.name for path in run.iterdir()) == ["config.yaml"]


def test_a_run_that_fails_before_it_writes_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), claim(config(tmp_path / "run")):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_from_elsewhere_reads_no_environment_and_multiplies_nothing(tmp_path: Path) -> None:
    for text, words in (
        ("name: ${oc.env:HOME}\n", "interpolations"), ("a: &a [1, 2]\nb: [*a, *a]\n", "aliases"),
        ("name: [\n", "cannot be read"), ("- 1\n", "cannot be read"), ("", "cannot be read"),
    ):  # fmt: skip
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ValueError, match=rf"config\.yaml.*{words}|{words}") as refused:
            load_config(tmp_path)
        assert len(str(refused.value).splitlines()) == 1


def test_keys_of_earlier_versions_are_understood(tmp_path: Path) -> None:
    values = OmegaConf.to_container(OmegaConf.structured(config(tmp_path, report_test_selected=True)))
    assert isinstance(values, dict)
    values["audit"] = values.pop("report_test_selected")
    assert typed(values).report_test_selected  # type: ignore[arg-type]
    eeg = OmegaConf.to_container(OmegaConf.structured(composed("pretrain", f"run={tmp_path}")))
    assert isinstance(eeg, dict)
    eeg["features"]["kind"] = "reading"
    del eeg["trainer"]["gradient_clip_val"]
    understood = typed(eeg)  # type: ignore[arg-type]
    assert understood.features.kind == "trial" and understood.trainer.gradient_clip_val == 1.0


def test_training_stops_at_the_first_loss_that_is_not_finite_and_keeps_the_last_good_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ClassificationModule.training_loss

    def breaks_in_second_epoch(self: ClassificationModule, batch: object) -> torch.Tensor:
        loss = real(self, batch)
        return loss * float("nan") if self.current_epoch == 1 else loss

    monkeypatch.setattr(ClassificationModule, "training_loss", breaks_in_second_epoch)
    with pytest.raises(ValueError, match=r"the loss is nan in epoch 2, batch 1 \(samples \d+.*optimizer\.lr"):
        train(config(tmp_path / "run"))
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["epoch"] == 0
    assert not (tmp_path / "run/result.json").exists()


def test_a_page_that_cannot_be_drawn_does_not_cost_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(classification, "render", broken)
    result = train(config(tmp_path / "run"))
    assert result["test_accuracy"] >= 0
    assert (tmp_path / "run/result.json").exists() and (tmp_path / "run/model/model.safetensors").exists()
    assert not (tmp_path / "run/report.html").exists()


# --- keys that a domain accepted and ignored ------------------------------------------------------------------------


@pytest.mark.slow
def test_eeg_honours_accumulation_averages_workers_and_clipping(tmp_path: Path) -> None:
    def weights(name: str, *keys: str) -> torch.Tensor:
        from spikeloom.pipelines.eeg.train import pretrain

        pretrain(composed("pretrain", f"run={tmp_path / name}", *keys))
        state = torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        return torch.cat([value.flatten() for value in state.values()])

    plain = weights("plain")
    assert torch.equal(plain, weights("workers", "trainer.num_workers=1"))
    for name, key in (
        ("sums", "trainer.accumulate=2"), ("average", "trainer.ema_decay=0.9"),
        ("clipped", "trainer.gradient_clip_val=0.001"),
    ):  # fmt: skip
        assert not torch.equal(plain, weights(name, key)), key


@pytest.mark.parametrize("key", ["optimizer.label_smoothing=0.1", "trainer.cache_mb=5", "report_test_selected=true"])
def test_eeg_refuses_by_name_what_it_cannot_honour(tmp_path: Path, key: str) -> None:
    from spikeloom.pipelines.eeg.train import pretrain

    with pytest.raises(ValueError, match=key.partition("=")[0].replace(".", r"\.")):
        pretrain(composed("pretrain", f"run={tmp_path / 'run'}", key))
    assert not (tmp_path / "run").exists()


def test_a_curriculum_without_its_data_leaves_no_folder(tmp_path: Path) -> None:
    from spikeloom.speech.datasets.fsdd import DigitsConfig

    with pytest.raises((ValueError, OSError)):
        distillation.distil(curriculum(tmp_path / "run", data=DigitsConfig(root=str(tmp_path / "nowhere"))))
    assert list(tmp_path.iterdir()) == []


def test_a_stage_killed_before_its_first_record_is_absent(tmp_path: Path) -> None:
    asked = curriculum(tmp_path / "run")
    stage = distillation.plan(asked)[0]
    stage.folder.mkdir(parents=True)
    (stage.folder / ".stage.json.0011aabb.partial").write_text("{")
    assert distillation.require_unchanged(stage, distillation.settings(stage, asked)) == "absent"


def test_loader_workers_share_the_cache_of_every_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    from spikeloom.accel.common import batches

    class Worker:
        num_workers = 4
        dataset: object

    for make in ("speech", "vision"):
        from tests.pipelines import test_lightning

        _, data = getattr(test_lightning, make)()
        worker = Worker()
        worker.dataset = data.train_set
        before = data.budget.free_bytes
        monkeypatch.setattr(batches, "get_worker_info", lambda worker=worker: worker)
        batches.start_worker(0)
        assert data.budget.free_bytes == before // 8, make


@pytest.mark.parametrize(("file", "change", "words"), [
    ("config.json", {"depth": 1_000_000}, "depth=1000000"), ("config.json", {"width": 10**30}, "width="),
    ("preprocessor_config.json", {"class_names": ["yes", 10**30]}, "class_names"),
    ("preprocessor_config.json", {"features": {"kind": "x" * 5000}}, "kind"),
])  # fmt: skip
def test_a_model_folder_made_to_do_harm_is_one_short_line_at_once(
    tmp_path: Path, file: str, change: dict[str, object], words: str
) -> None:
    train(config(tmp_path / "run"))
    path = tmp_path / "run/model" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=words) as refused:
        load_model(tmp_path / "run/model")
    assert len(str(refused.value)) < 1000 and len(str(refused.value).splitlines()) == 1
