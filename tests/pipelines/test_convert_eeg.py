"""Released weights of the EEG models become runs that other verbs take, with what was not taken said on the console."""

import json
from pathlib import Path

import pytest
import torch

from spikeloom.bci.data.tokenizer import train_tokenizer
from spikeloom.bci.zuco.corpus import write_sentences
from spikeloom.pipelines.commands import convert, evaluate
from spikeloom.pipelines.config.convert import ConvertConfig
from spikeloom.pipelines.config.evaluate import EvaluateConfig
from spikeloom.pipelines.eeg import train
from spikeloom.pipelines.training.run_dir import load_config, load_model
from tests.bci.test_released_eeg import released
from tests.pipelines.test_trials import composed


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of both models."""
    folder = tmp_path_factory.mktemp("released")
    text = train_tokenizer(write_sentences(40, 0), 300)
    text.save(folder / "tokenizer")
    runs = {}
    for name in ("cet_mae", "e2t_ptr"):
        torch.save(released(name == "e2t_ptr", text.vocab_size)[1], folder / f"{name}.pt")
        runs[name] = folder / f"run_{name}"
        convert.run(ConvertConfig(
            checkpoint=str(folder / f"{name}.pt"), out=str(runs[name]), tokenizer=str(folder / "tokenizer"),
        ))  # fmt: skip
    return runs


def test_runs_hold_model_tokenizer_and_what_was_left_out(converted: dict[str, Path]) -> None:
    for name, run in converted.items():
        assert load_config(run).model.kind == name
        model = load_model(run / "model").model
        left = json.loads((run / "conversion.json").read_text())["left"]
        assert left and (run / "model/tokenizer.json").is_file()
        assert "Not taken:" in (run / "model/README.md").read_text()
        weight = released(name == "e2t_ptr", model.vocab_size)[1]["fc_eeg.weight"]
        assert torch.equal(model.front.fc_eeg.weight, weight)


def test_a_decoder_starts_from_a_converted_encoder_with_a_warning(
    converted: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    run = converted["cet_mae"]
    config = train.like_pretrained(composed("train", "experiment=e2t_ptr_synthetic", f"pretrained={run}"), run)
    assert config.features.text.tokenizer == str(run / "model") and config.features.split.unit == "run"
    with caplog.at_level("WARNING", "spikeloom"):
        train.check_unseen(None, run)  # type: ignore[arg-type]
    assert "which sentences it was trained on is not known" in caplog.text


def test_another_vocabulary_is_refused(converted: dict[str, Path], tmp_path: Path) -> None:
    folder = converted["cet_mae"].parent
    torch.save(released(vocabulary=333)[1], tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt knows 333 ids, the tokenizer of .* give tokenizer=FOLDER"):
        convert.run(ConvertConfig(
            checkpoint=str(tmp_path / "a.pt"), out=str(tmp_path / "run"), tokenizer=str(folder / "tokenizer"),
        ))  # fmt: skip


def test_a_converted_decoder_alone_has_no_controls(converted: dict[str, Path], tmp_path: Path) -> None:
    from spikeloom.bci.synthetic.zuco import SyntheticZuCoConfig
    from spikeloom.pipelines.training.run_dir import save_config

    run = converted["e2t_ptr"]
    config = load_config(run)
    config.data = SyntheticZuCoConfig(n_subjects=1, n_sentences=120)
    save_config(run, config)
    with pytest.raises(ValueError, match="names no CET-MAE it inherits from"):
        evaluate.run(EvaluateConfig(run=str(run), out=str(tmp_path / "found.json")))
