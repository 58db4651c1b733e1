"""CET-MAE: sizes, time, masks and losses are those of the equations; on planted data every term learns."""

import math

import pytest
import torch
from torch import nn

from spikeloom.bci.data.tokenizer import train_tokenizer
from spikeloom.bci.models.cet_mae import CETMAE, CETMAEConfig, Layer, keep
from spikeloom.bci.models.pretraining import (
    OptimisationConfig,
    PretrainingBatch,
    PretrainingConfig,
    info_nce,
    mask_eeg,
    mask_text,
    sentence_numbers,
)

VOCABULARY = 300


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def a_batch(lengths: tuple[int, ...] = (12, 9, 2, 5), seed: int = 0) -> PretrainingBatch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths))[:, None] < torch.tensor(lengths)
    eeg = torch.randn(*mask.shape, 840, generator=generator) * mask[..., None]
    ids = torch.randint(4, VOCABULARY - 1, (9, len(lengths)), generator=generator)
    ids[0], ids[-1] = 0, 2
    ids[-2:, 1] = torch.tensor([2, 1])
    return PretrainingBatch(eeg, mask, ids, torch.arange(len(lengths)))


def a_model(seed: int = 0) -> CETMAE:
    torch.manual_seed(seed)
    return CETMAEConfig.planted().build(VOCABULARY).eval()


def test_parameter_counts_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = CETMAEConfig().build(50265)
    blocks = (model.front.e_branch, model.front.fc_eeg, model.text_encoder, model.front.unify_branch)
    assert [parameters(b) for b in blocks] == [37_635_888, 861_184, 203_678_720, 29_398_016]
    assert parameters(model.eeg_decoder) == 7_136_168 and parameters(model.text_decoder) == 51_521_625
    assert parameters(model) - parameters(model.text_encoder) == 126_552_882
    assert parameters(CETMAEConfig.planted().build(656)) == 407_321


def test_a_layer_is_the_encoder_layer_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = Layer(32, 4, 48, dropout=0.0), nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0)
    attention = ours.attention
    parts = [attention.query, attention.key, attention.value]
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([part.weight for part in parts]),
            "self_attn.in_proj_bias": torch.cat([part.bias for part in parts]),
            **{f"self_attn.out_proj.{key}": value for key, value in attention.out.state_dict().items()},
            **{f"linear1.{key}": value for key, value in ours.feed_forward.expand.state_dict().items()},
            **{f"linear2.{key}": value for key, value in ours.feed_forward.contract.state_dict().items()},
            **{
                f"norm{i}.{key}": value for i in (1, 2) for key, value in getattr(ours, f"norm{i}").state_dict().items()
            },
        }
    )
    mask = torch.arange(7)[:, None] < torch.tensor([7, 4, 1])
    x, y = (torch.randn(7, 3, 32).requires_grad_() for _ in range(2))
    y.data.copy_(x.data)
    out, expected = ours(x, mask)[mask], theirs(y, src_key_padding_mask=~mask.T)[mask]
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_samples_do_not_meet_and_time_matters() -> None:
    model, batch = a_model(), a_batch((12, 12, 12))
    masked = torch.zeros_like(batch.mask)
    masked[[2, 5]] = True
    run = lambda eeg, ids: model(eeg, batch.mask, masked, ids, torch.zeros_like(ids, dtype=torch.bool))  # noqa: E731
    out, order = run(batch.eeg, batch.ids), [2, 0, 1]
    permuted = run(batch.eeg[:, order], batch.ids[:, order])
    torch.testing.assert_close(permuted.eeg, out.eeg[:, order], atol=1e-5, rtol=0)
    torch.testing.assert_close(permuted.text_vector, out.text_vector[order], atol=1e-5, rtol=0)
    vectors = model.eeg_vector(batch.eeg, batch.mask)
    assert (model.eeg_vector(batch.eeg.flip(0), batch.mask) - vectors).abs().max() > 1e-3


@torch.no_grad()
def test_masked_and_padded_tokens_are_never_seen() -> None:
    model, batch = a_model(), a_batch()
    masked = mask_eeg(batch.mask, 0.5, "forced", torch.Generator().manual_seed(0))
    ids, ids_masked = mask_text(batch.ids, 0.5, VOCABULARY - 1, torch.Generator().manual_seed(0))
    hidden = (masked | ~batch.mask)[..., None]
    first = model(batch.eeg, batch.mask, masked, ids, ids_masked)
    second = model(torch.where(hidden, 100.0, batch.eeg), batch.mask, masked, ids, ids_masked)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@torch.no_grad()
def test_gathering_kept_tokens_equals_masking_them_where_they_stand() -> None:
    model, batch = a_model(), a_batch()
    masked = mask_eeg(batch.mask, 0.5, "forced", torch.Generator().manual_seed(0))
    kept = keep(batch.mask, masked)
    packed = model.front.e_branch(batch.eeg, None, kept)
    whole = model.front.e_branch(batch.eeg, batch.mask & ~masked)
    here = whole.gather(0, kept.time[..., None].expand_as(packed))
    torch.testing.assert_close(packed[kept.mask], here[kept.mask], atol=1e-5, rtol=1e-5)


def test_a_sample_without_a_kept_token_is_refused() -> None:
    mask = torch.ones(4, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="keep no EEG token"):
        keep(mask, mask)


def test_frozen_text_encoder_is_bit_equal_after_a_step_and_a_free_one_learns(tmp_path) -> None:
    from spikeloom.bci.models.bart import random_bart

    config = CETMAEConfig.planted()
    bart = random_bart(config.bart_sizes, VOCABULARY)
    bart.save_pretrained(tmp_path)
    config.bart = str(tmp_path)
    frozen, free = config.build(VOCABULARY), a_model()
    for model, learns in ((frozen, False), (free, True)):
        before = {k: v.clone() for k, v in model.text_encoder.state_dict().items()}
        if model is frozen:
            source = bart.get_encoder().state_dict()
            assert all(torch.equal(before[k], source[k]) for k in source) and not model.train().text_encoder.training
        losses = PretrainingConfig.planted().build()
        OptimisationConfig(warmup_steps=1).build(model, 4).step(losses(model, a_batch()).total)
        assert learns != all(torch.equal(before[k], v) for k, v in model.text_encoder.state_dict().items())
    with pytest.raises(ValueError, match="300 tokens, the tokenizer 301"):
        config.build(301)
    config.bart = str(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no BART weights"):
        config.build(VOCABULARY)


def test_temperature_starts_at_0_07_is_clamped_and_learns() -> None:
    model = a_model()
    assert float(model.scale.detach()) == pytest.approx(14.2857, abs=1e-4)
    losses = PretrainingConfig().build()(model, a_batch())
    losses.contrastive.backward()
    assert float(model.logit_scale.grad) != 0
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    assert float(model.scale.detach()) == pytest.approx(100.0, rel=1e-5)


def test_other_readings_of_a_sentence_are_no_negatives() -> None:
    same = nn.functional.normalize(torch.ones(4, 8), dim=1)
    loss = info_nce(same, same, 14.0, sentence_numbers(["a", "b", "a", "c"]))
    assert float(loss) == pytest.approx((2 * math.log(3) + 2 * math.log(4)) / 4, abs=1e-5)
    assert float(info_nce(same, same, 14.0, torch.arange(4))) == pytest.approx(math.log(4), abs=1e-5)


@torch.no_grad()
def test_text_logits_are_not_floored() -> None:
    model, batch = a_model(), a_batch()
    nothing = torch.zeros_like(batch.mask)
    out = model(batch.eeg, batch.mask, nothing, batch.ids, torch.zeros_like(batch.ids, dtype=torch.bool))
    assert float(model.text_decoder(out.text).min()) < -0.2


@pytest.mark.parametrize("n_words", range(1, 58))
def test_as_many_words_are_masked_as_the_table_says(n_words: int) -> None:
    mask = torch.arange(58)[:, None] < torch.tensor([n_words + 1, n_words + 1, 58])
    hidden = mask_eeg(mask, 0.75, "forced", torch.Generator().manual_seed(n_words))
    expected = max(0, int(0.75 * (n_words + 1)) - 1)
    assert hidden[:n_words].sum(0)[:2].tolist() == [expected] * 2 and bool(hidden[n_words, :2].all())
    assert not bool((hidden & ~mask).any()) and bool((mask & ~hidden).any(0).all())
    table = {1: 0, 2: 1, 3: 2, 4: 2, 20: 14, 57: 42}
    assert table.get(n_words, expected) == expected
    free = mask_eeg(mask, 0.75, "random", torch.Generator().manual_seed(n_words))
    assert int(free[:, 0].sum()) == int(0.75 * (n_words + 1)) and bool((mask & ~free).any(0).all())


def test_text_masks_spare_special_tokens_and_leave_one_of_each() -> None:
    ids = torch.tensor([[0, 7, 8, 2, 1, 1], [0, 9, 2, 1, 1, 1], [0, 5, 6, 7, 8, 2]]).T
    original = ids.clone()
    generator = torch.Generator().manual_seed(0)
    for ratio in (0.01, 0.75, 0.99):
        for _ in range(20):
            out, chosen = mask_text(ids, ratio, VOCABULARY - 1, generator)
            assert torch.equal(ids, original) and bool((ids[chosen] > 3).all())
            assert bool((out[chosen] == VOCABULARY - 1).all()) and torch.equal(out[~chosen], ids[~chosen])
            assert 1 <= int(chosen[:, 0].sum()) <= 1 and 1 <= int(chosen[:, 2].sum()) <= 3


def test_equal_seeds_give_equal_losses_and_nan_is_an_error() -> None:
    runs = []  # losses of one seed
    for _ in range(2):
        model = a_model().train()
        optimisation = OptimisationConfig(lr=2e-3, warmup_steps=2).build(model, 5)
        losses = PretrainingConfig.planted().build()
        runs.append([])
        for step in range(4):
            torch.manual_seed(step)
            loss = losses(model, a_batch(seed=step), torch.Generator().manual_seed(step)).total
            optimisation.step(loss)
            runs[-1].append(float(loss.detach()))
    assert runs[0] == runs[1] and runs[0][-1] != runs[0][0]
    batch = a_batch()
    with pytest.raises(ValueError, match="not finite"):
        losses(model, batch._replace(eeg=batch.eeg * math.nan))


def test_warm_up_rises_to_lr_and_the_cosine_falls_to_zero() -> None:
    layer = nn.Linear(2, 1)
    optimisation = OptimisationConfig(lr=1.0, warmup_steps=5).build(layer, 20)
    rates = []  # before each step
    for _ in range(20):
        rates.append(optimisation.optimizer.param_groups[0]["lr"])
        optimisation.step(layer(torch.ones(1, 2)).sum())
    assert rates[0] == pytest.approx(0.2) and max(rates) == pytest.approx(1.0) == rates[5]
    assert rates[12] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 15)))
    assert optimisation.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


def test_mixed_precision_gives_finite_losses_and_gradients() -> None:
    model, batch = a_model().train(), a_batch()
    with torch.autocast("cpu", torch.bfloat16):
        losses = PretrainingConfig.planted().build()(model, batch)
    losses.total.backward()
    gradient = model.front.e_branch.layers[0].attention.query.weight.grad
    assert bool(torch.stack(losses).isfinite().all()) and bool(gradient.isfinite().all()) and bool(gradient.any())


def test_a_pretrained_bart_travels_with_the_model(tmp_path) -> None:
    from spikeloom.bci.models.bart import random_bart

    random_bart(CETMAEConfig.planted().bart_sizes, VOCABULARY).save_pretrained(tmp_path / "bart")
    config = CETMAEConfig.planted()
    config.bart = str(tmp_path / "bart")
    model, batch = config.build(VOCABULARY).eval(), a_batch()
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "bart").rename(tmp_path / "gone")
    again = CETMAE.from_pretrained(tmp_path / "model").eval()
    assert torch.equal(again.text_vector(batch.ids), model.text_vector(batch.ids)) and again.text_frozen


def test_a_model_survives_its_folder(tmp_path) -> None:
    model, batch = a_model(), a_batch()
    model.save_pretrained(tmp_path)
    again = CETMAE.from_pretrained(tmp_path).eval()
    assert torch.equal(again.eeg_vector(batch.eeg, batch.mask), model.eeg_vector(batch.eeg, batch.mask))
    assert again.config == model.config


def test_tokenizer_keeps_bart_ids_and_truncates_to_an_end_token() -> None:
    texts = ["The quiet river crossed the old bridge.", "A bell found Bôcher."]
    tokenizer = train_tokenizer(texts, 400)
    ids, truncated = tokenizer.encode(texts)
    assert tokenizer.decode(ids) == texts and truncated == 0 and tokenizer.mask_id == tokenizer.vocab_size - 1
    short, truncated = tokenizer.encode(texts, 4)
    assert short.shape == (4, 2) and truncated == 2 and short[-1].tolist() == [2, 2]
