"""Ablations of CET-MAE and E2T-PTR are keys: other streams and decoders learn, write from EEG alone, are read back."""

from pathlib import Path

import pytest
import torch

from spikeloom.bci.models.cet_mae import CETMAEConfig
from spikeloom.bci.models.e2t_ptr import E2TPTR, DecodingConfig, build_e2t_ptr
from tests.bci.test_cet_mae import VOCABULARY, a_batch, a_model
from tests.pipelines.test_zuco import composed


@pytest.mark.parametrize(("stream", "decoder"), [("joint", "bart"), ("eeg", "t5"), ("eeg", "gpt2")])
def test_an_ablated_decoder_learns_and_writes_from_eeg_alone(stream: str, decoder: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, batch = a_model(seed=1), a_batch()
    model = build_e2t_ptr(CETMAEConfig.planted(), VOCABULARY, stream, decoder)
    assert model.inherit(source.state_dict()) == len(model.front.state_dict())
    unify = source.front.unify_branch(source.front.project(batch.eeg, batch.mask), batch.mask, stream)
    torch.testing.assert_close(model.eval().front(batch.eeg, batch.mask), unify)

    padded = torch.cat((batch.ids, torch.ones(3, batch.ids.shape[1], dtype=torch.int64)))
    loss = model.loss(batch.eeg, batch.mask, batch.ids)
    torch.testing.assert_close(model.loss(batch.eeg, batch.mask, padded), loss, atol=1e-4, rtol=1e-4)
    longer = torch.cat((batch.eeg, torch.full((4, *batch.eeg.shape[1:]), 50.0)))
    more = torch.cat((batch.mask, torch.zeros(4, batch.mask.shape[1], dtype=torch.bool)))
    torch.testing.assert_close(model.loss(longer, more, batch.ids), loss, atol=1e-4, rtol=1e-4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(20):
        optimizer.zero_grad()
        model.loss(batch.eeg, batch.mask, batch.ids).backward()
        optimizer.step()
    assert float(model.loss(batch.eeg, batch.mask, batch.ids).detach()) < float(loss.detach()) - 0.5

    for beams in (1, 2):
        search = DecodingConfig(num_beams=beams, max_new_tokens=8)
        ids = model.generate(batch.eeg, batch.mask, search)
        assert ids.shape[1] == batch.eeg.shape[1] and len(ids) <= 8
        assert torch.equal(model.generate(longer, more, search), ids)
    model.save_pretrained(tmp_path)
    again = E2TPTR.from_pretrained(tmp_path)
    assert (again.stream, again.decoder) == (stream, decoder)
    assert torch.equal(again.generate(batch.eeg, batch.mask, search), ids)


def test_a_gpt_writes_what_its_scores_say() -> None:
    """Free-running ids are the likeliest ones after their own prefix, so the start and the places are the same."""
    torch.manual_seed(0)
    model, batch = build_e2t_ptr(CETMAEConfig.planted(), VOCABULARY, decoder="gpt2").eval(), a_batch()
    ids = model.generate(batch.eeg, batch.mask, DecodingConfig(max_new_tokens=6))
    likely = model.diagnostic_teacher_forced(batch.eeg, batch.mask, ids)
    written = (ids == 2).cumsum(0) - (ids == 2).int() == 0  # up to the end
    assert torch.equal(likely[written], ids[written])


def test_unknown_streams_and_decoders_are_refused() -> None:
    with pytest.raises(ValueError, match="decoder=llama; use stream eeg or joint and decoder bart"):
        build_e2t_ptr(CETMAEConfig.planted(), VOCABULARY, decoder="llama")
    with pytest.raises(ValueError, match="stream=text"):
        build_e2t_ptr(CETMAEConfig.planted(), VOCABULARY, stream="text")


@pytest.mark.parametrize(
    ("suffix", "tasks"),
    [
        pytest.param(suffix, tasks, marks=[] if quick else [pytest.mark.slow])
        for i, suffix in enumerate(("", "_full", "_published"))
        for tasks in (3, 4, 5)
        for quick in [tasks == 3 + i]
    ],
)
def test_recipes_compose_with_every_ablation(suffix: str, tasks: int) -> None:
    made = composed(
        f"experiment=cet_mae_zuco{suffix}", f"data=zuco_{tasks}_tasks", "model.pretraining.eeg_mask=0.25",
        "model.pretraining.text_mask=0.5", "model.pretraining.contrastive_weight=0",
        "model.pretraining.sentence_mask=random",
    )  # fmt: skip
    assert len(made.data.tasks) == tasks and made.model.pretraining.contrastive_weight == 0
    made = composed(
        f"experiment=e2t_ptr_zuco{suffix}", f"data=zuco_{tasks}_tasks", "model.stream=joint", "model.decoder=t5",
        "pretrained=RUN",
    )  # fmt: skip
    assert (made.model.stream, made.model.decoder, len(made.data.tasks)) == ("joint", "t5", tasks)
