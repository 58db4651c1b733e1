"""E2T-PTR: it inherits exactly what CET-MAE learnt, and writes without having seen the text."""

import pytest
import torch

from spikeloom.bci.data.tokenizer import load_tokenizer
from spikeloom.bci.models.cet_mae import CETMAEConfig
from spikeloom.bci.models.e2t_ptr import E2TPTR, DecodingConfig, build_e2t_ptr
from tests.bci.test_cet_mae import VOCABULARY, a_batch, a_model, parameters
from tests.conftest import data_folder


def a_decoder() -> E2TPTR:
    torch.manual_seed(0)
    return build_e2t_ptr(CETMAEConfig.planted(), VOCABULARY)


def test_parameter_counts_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = build_e2t_ptr(CETMAEConfig(), 50265)
    assert (parameters(model.front), parameters(model.bart)) == (51_095_344, 406_291_456)
    assert parameters(model) == 457_386_800


def test_the_front_is_that_of_cet_mae_bit_by_bit() -> None:
    source, model, batch = a_model(seed=1), a_decoder().eval(), a_batch()
    assert model.inherit(source.state_dict()) == len(model.front.state_dict())
    assert torch.equal(model.front(batch.eeg, batch.mask), source.front(batch.eeg, batch.mask))


def test_a_small_random_bart_has_the_attention_of_a_large_one_when_it_begins() -> None:
    query = a_decoder().bart.model.decoder.layers[0].encoder_attn.q_proj.weight
    assert float(query.detach().std()) * query.shape[1] ** 0.5 == pytest.approx(0.02 * 1024**0.5, rel=0.05)


def test_a_missing_or_an_unexpected_key_is_an_error_and_copies_nothing() -> None:
    weights, model = a_model(seed=1).state_dict(), a_decoder()
    before = model.front.fc_eeg.weight.clone()
    for wrong, message in (
        ({k: v for k, v in weights.items() if k != "front.fc_eeg.bias"}, "fc_eeg.bias is missing"),
        ({**weights, "front.extra": torch.ones(1)}, "extra is not in this model"),
        ({**weights, "front.fc_eeg.bias": torch.ones(3)}, "fc_eeg.bias has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            model.inherit(wrong)
    assert torch.equal(model.front.fc_eeg.weight, before)


def test_loss_ignores_padding_and_falls() -> None:
    model, batch = a_decoder().eval(), a_batch()
    padded = torch.cat((batch.ids, torch.ones(3, batch.ids.shape[1], dtype=torch.int64)))
    loss = model.loss(batch.eeg, batch.mask, batch.ids)
    torch.testing.assert_close(model.loss(batch.eeg, batch.mask, padded), loss, atol=1e-4, rtol=1e-4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(20):
        optimizer.zero_grad()
        model.loss(batch.eeg, batch.mask, batch.ids).backward()
        optimizer.step()
    assert float(model.loss(batch.eeg, batch.mask, batch.ids).detach()) < float(loss.detach()) - 0.5


@pytest.mark.parametrize("num_beams", [1, 4])
def test_generation_depends_on_eeg_alone(num_beams: int) -> None:
    model, batch = a_decoder(), a_batch()
    decoding = DecodingConfig(num_beams=num_beams, max_new_tokens=8)
    ids = model.generate(batch.eeg, batch.mask, decoding)
    padded = torch.where(batch.mask[..., None], batch.eeg, 50.0)
    assert torch.equal(model.generate(padded, batch.mask, decoding), ids) and ids.shape[1] == 4 and len(ids) <= 8
    assert model.training
    other = torch.randint(4, VOCABULARY - 1, batch.ids.shape)
    assert torch.equal(model.generate(batch.eeg, batch.mask, decoding), ids)
    forced = model.diagnostic_teacher_forced
    assert not torch.equal(forced(batch.eeg, batch.mask, batch.ids), forced(batch.eeg, batch.mask, other))


def test_more_tokens_than_positions_are_refused() -> None:
    batch = a_batch()
    with pytest.raises(ValueError, match="use 1 to 63 new tokens"):
        a_decoder().generate(batch.eeg, batch.mask, DecodingConfig(max_new_tokens=64))


def test_the_tokenizer_of_bart_large_keeps_its_ids() -> None:
    tokenizer = load_tokenizer(data_folder("tokenizer") / "bart")
    assert (tokenizer.vocab_size, tokenizer.mask_id) == (50265, 50264)
    ids, _ = tokenizer.encode(["Hello world"])
    assert ids[:, 0].tolist() == [0, 31414, 232, 2] and tokenizer.decode(ids) == ["Hello world"]
