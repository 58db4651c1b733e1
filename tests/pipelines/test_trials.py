"""From trials to a evaluated decoder: runs leave what they should, resume exactly, leak nothing, say what they show."""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from spikeloom.accel.trainer.workload import Workload
from spikeloom.bci.evaluation.controls import CONTROLS, ControlsConfig
from spikeloom.bci.evaluation.protocol import ProtocolConfig
from spikeloom.pipelines.commands import evaluate, export, train
from spikeloom.pipelines.commands.pretrain import run as pretrain
from spikeloom.pipelines.config.evaluate import EvaluateConfig, OtherFolder
from spikeloom.pipelines.config.export import ExportConfig
from spikeloom.pipelines.config.register import register
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.eeg import evaluate as eeg_evaluation
from spikeloom.pipelines.eeg import report as pages
from spikeloom.pipelines.training import callbacks
from spikeloom.pipelines.training.run_dir import load_config, load_model

TINY = [
    "data.n_sentences=60", "data.n_subjects=2", "trainer.batch_size=16", "trainer.threads=1", "trainer.epochs=2",
]  # fmt: skip


def composed(verb: str, *overrides: str) -> TrainConfig:
    register()
    with initialize_config_module("spikeloom.conf", version_base="1.3"):
        config = OmegaConf.to_object(compose(verb, overrides=[*overrides, *TINY]))
    assert isinstance(config, TrainConfig)
    return config


@pytest.fixture(scope="module", autouse=True)
def short_pages() -> Iterator[None]:
    """Pages without the pass over the recordings, which has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "summary_of", lambda config: None)
        yield


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "encoder"
    pretrain(composed("pretrain", f"run={run}"))
    return run


@pytest.fixture(scope="module")
def decoder(encoder: Path) -> Path:
    run = encoder.parent / "decoder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "tell_decoder", lambda *given: None)
        train.run(composed("train", "experiment=e2t_ptr_synthetic", f"pretrained={encoder}", f"run={run}"))
    return run


def test_a_pretraining_leaves_everything_a_reader_needs(encoder):
    for name in ("config.yaml", "metrics.csv", "result.json", "report.html", "checkpoints/best.ckpt", "split/keys.csv"):
        assert (encoder / name).stat().st_size > 0
    assert sorted(f.name for f in (encoder / "model").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json",
    ]  # fmt: skip
    result = json.loads((encoder / "result.json").read_text())
    assert "test_rows" not in result and result["train_rows"] > result["valid_rows"] > 0
    header = (encoder / "metrics.csv").read_text().split("\n")[0]
    assert header.startswith("epoch,train_loss,train_eeg,train_text,train_contrastive,valid_loss")
    assert 'src="http' not in (encoder / "report.html").read_text()


def test_a_resumed_pretraining_ends_in_the_same_weights(encoder, monkeypatch):
    class Killed(Exception):
        pass

    def die_in_second_epoch(self, trainer, module):
        if trainer.current_epoch == 1:
            raise Killed

    run = encoder.parent / "killed"
    monkeypatch.setattr(pages, "tell_pretraining", lambda *given: None)
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.History, "on_train_epoch_start", die_in_second_epoch)
        with pytest.raises(Killed):
            pretrain(composed("pretrain", f"run={run}"))
    pretrain(composed("pretrain", f"run={run}", "resume=true"))
    whole, resumed = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for folder in (encoder, run)
    )
    assert [k for k in whole if not torch.equal(whole[k], resumed[k])] == []
    assert (run / "metrics.csv").read_text() == (encoder / "metrics.csv").read_text()


@pytest.mark.slow
def test_models_of_readings_are_pruned_like_others(encoder, tmp_path):
    pruned = ["pruning=lats", "pruning.sparsity=0.6"]
    with pytest.raises(ValueError, match=r"are one weight and cannot be pruned apart; add it to pruning\.exclude"):
        train.run(composed("train", "experiment=e2t_ptr_synthetic", f"pretrained={encoder}",
                           f"run={tmp_path / 'tied'}", *pruned))  # fmt: skip
    run = tmp_path / "run"
    pretrain(composed("pretrain", f"run={run}", *pruned))
    told = json.loads((run / "result.json").read_text())["pruning"]
    assert told["method"] == "lats" and 0.6 <= told["sparsity"] < 0.61
    assert "How the zeros came" in (run / "report.html").read_text("utf-8")
    model = load_model(run / "model").model
    for layer in told["report"]["layers"]:
        assert int((model.get_submodule(layer["path"]).weight == 0).sum()) == layer["zeros"]
    assert "sparsity" in (run / "metrics.csv").read_text().split("\n")[0]


def test_a_decoder_inherits_split_and_tokenizer_and_survives_its_folder(encoder, decoder):
    for name in ("split/keys.csv", "model/tokenizer.json"):
        assert (decoder / name).read_bytes() == (encoder / name).read_bytes()
    result = json.loads((decoder / "result.json").read_text())
    assert len(result["test"]["bleu_word"]) == 4 and result["decoding"]["num_beams"] == 1
    model = load_model(decoder / "model").model
    kept = torch.load(decoder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(model.front.fc_eeg.weight, kept["model.front.fc_eeg.weight"])
    assert load_config(decoder).pretrained == str(encoder)


def test_held_out_sentences_that_pretraining_saw_are_refused(encoder, tmp_path):
    source = load_config(encoder)
    split = dataclasses.replace(source.features.split, seed=1)
    other = dataclasses.replace(source, features=dataclasses.replace(source.features, split=split))
    config = composed("train", "experiment=e2t_ptr_synthetic", f"pretrained={encoder}", f"run={tmp_path / 'run'}")
    with pytest.MonkeyPatch.context() as patch:
        from spikeloom.pipelines.eeg import train as reading_runs

        patch.setattr(reading_runs, "load_config", lambda folder: other)
        with pytest.raises(ValueError, match=r"held-out sentences were in the pre-training of"):
            train.run(config)


def test_a_decoder_without_a_pretraining_names_the_key(decoder, tmp_path):
    with pytest.raises(ValueError, match="add pretrained=RUN"):
        train.run(composed("train", "experiment=e2t_ptr_synthetic", f"run={tmp_path / 'run'}"))
    overrides = ("experiment=e2t_ptr_synthetic", f"pretrained={decoder}", f"run={tmp_path / 'run'}")
    with pytest.raises(ValueError, match="is not a finished pre-training"):
        train.run(composed("train", *overrides))
    with pytest.raises(ValueError, match="is not pre-trained; use experiment=cet_mae_synthetic"):
        pretrain(composed("train", f"run={tmp_path / 'run'}", "experiment=e2t_ptr_synthetic"))


def test_evaluation_trains_the_controls_and_opens_with_the_verdict(decoder, tmp_path, monkeypatch):
    two_strengths = functools.partial(eeg_evaluation.power_curve, strengths=(0.0, 1.0))
    monkeypatch.setattr(eeg_evaluation, "power_curve", two_strengths)
    out = tmp_path / "found.json"
    config = EvaluateConfig(
        run=str(decoder), out=str(out), controls=ControlsConfig(names=["text_prior_only"], seeds=1, power_runs=1),
        protocol=ProtocolConfig(n_permutations=19, n_draws=20),
    )  # fmt: skip
    evaluate.run(config)
    found = json.loads(out.read_text())
    assert found["verdict"].startswith("The model ")
    assert found["p"] == max(found["p_eeg"]["p"], found["p_diff"]["p"], *found["p_controls"].values())
    assert set(found["p_controls"]) == {"noise (real lengths)", "text_prior_only (neutral lengths)"}
    assert found["controls_not_trained"] == ["shuffled", "zero", "mask_only", "gaze_only"]
    assert set(found["controls"]) == {
        "noise (real lengths)", "noise (neutral lengths)", "text_prior_only (neutral lengths)",
    }  # fmt: skip
    for name in ("baselines", "retrieval", "leakage", "diagnostic_teacher_forced", "excess", "calibration"):
        assert found[name]
    assert all(pair["n_shared"] == 0 for pair in found["leakage"])
    page = out.with_suffix(".html").read_text()
    assert page.index(found["verdict"].split(":")[0]) < page.rindex("Raw scores")
    kept = {path: path.stat().st_mtime_ns for path in (decoder / "controls").rglob("test.json")}
    assert len(kept) == 3 and not list((decoder / "controls").rglob("*.ckpt"))

    with pytest.raises(ValueError, match=r"controls\.names=\['coffee'\] are unknown"):
        evaluate.run(dataclasses.replace(config, controls=ControlsConfig(names=["coffee"])))
    with pytest.raises(ValueError, match="use one of train, valid, test"):
        evaluate.run(dataclasses.replace(config, split="all"))
    with pytest.raises(ValueError, match="which has no folder"):
        evaluate.run(dataclasses.replace(config, data=OtherFolder(root="x")))


def test_encoder_and_decoder_step_export_without_an_unsupported_op(encoder, decoder):
    export.run(ExportConfig(run=str(encoder), batches=1, batch_size=4))
    export.run(ExportConfig(run=str(decoder), batches=1, batch_size=4))
    for folder in (encoder / "export", decoder / "export", decoder / "export/encoder"):
        assert json.loads((folder / "unsupported_ops.json").read_text()) == []
        workload = Workload.from_json(folder / "workload.json")
        kinds = {layer.kind for layer in workload.layers}
        assert {"gemm_weight", "gemm_activation", "norm", "elementwise"} <= kinds
    assert "gather" in {layer.kind for layer in Workload.from_json(decoder / "export/workload.json").layers}


def test_a_whole_training_step_exports_with_every_parameter_and_its_gradients(encoder, decoder):
    for run in (encoder, decoder):
        if not (run / "export/training_step").is_dir():
            export.run(ExportConfig(run=str(run), batches=1, batch_size=4))
        workload = Workload.from_json(run / "export/training_step/workload.json")
        model = load_model(run / "model").model
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert sum(layer.parameters for layer in workload.layers) == trained
        assert f"{trained:,} of {trained:,} parameters owned" in workload.source["balance"]
        assert "loss reaches all trained parameters" in workload.source["balance"]
        weights = [layer for layer in workload.layers if layer.kind == "gemm_weight"]
        assert all(layer.density_du is not None for layer in weights)
        assert sum(layer.macs_weight_gradient for layer in weights) > 0


def test_every_control_has_inputs(encoder):
    from spikeloom.bci.evaluation.control_inputs import ControlInputs
    from spikeloom.bci.evaluation.controls import trainings
    from spikeloom.pipelines.eeg.train import read

    trials = read(load_config(encoder))
    inputs, real = ControlInputs(trials.sets), trials["test"]
    for training in trainings(CONTROLS, 1):
        made = inputs.trials(training)["test"]
        assert all(tokens.shape[1] == 840 for tokens in made.eeg)
        if training.mask == "real":
            assert made.lengths == real.lengths
        elif training.control != "text_prior_only":
            assert sorted(made.lengths) == sorted(real.lengths) and made.lengths != real.lengths
        same = all((a.shape == b.shape) and (a == b).all() for a, b in zip(made.eeg, real.eeg, strict=True))
        assert same == (training.control == "random_init"), training


def test_the_page_shows_different_sentences_of_every_reader():
    texts = [f"sentence {i}" for i in range(45)]
    rows = pages.examples(texts * 3, 6)  # three readers, one after the other
    assert [row % 45 for row in rows] == [0, 7, 15, 22, 30, 37]
    assert [row // 45 for row in rows] == [0, 1, 2, 0, 1, 2]
    assert pages.examples(["one", "one"], 6) == [0]
