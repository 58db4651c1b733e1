"""What a trial costs in CET-MAE and E2T-PTR: every layer that runs, attention included, and no padding."""

import pytest
import torch

from spikeloom.bci.data.tokenizer import EOS
from spikeloom.bci.models.e2t_ptr import DecodingConfig
from spikeloom.bci.models.operations import count_operations
from tests.bci.test_cet_mae import a_model
from tests.bci.test_e2t_ptr import a_decoder


def test_the_eeg_encoder_of_cet_mae_costs_its_layers_and_its_attention() -> None:
    model, trial = a_model(seed=1), torch.randn(7, 840)
    found = count_operations(model, [trial, torch.randn(4, 840)])
    assert found.ac == 0 and found.samples == 2 and found.steps == 5.5
    front = model.front
    width, text = front.fc_eeg.in_features, front.fc_eeg.out_features
    products = sum(  # scores and mixtures of all heads: 2 L^2 C
        2 * length**2 * (text + len(front.e_branch.layers) * width) for length in (7, 4)
    )
    assert found.dense_macs("product") == products / 2
    assert found.mac == found.dense_macs()
    assert all("text" in path or "joint" in path for path in found.counter.unused)
    assert found.spike_driven.verdict == "not spike-driven"
    assert "CETMAE has no spiking neurons" in found.spike_driven.sentence()


def test_decoding_costs_more_with_every_token_written() -> None:
    model, trial = a_decoder(), torch.randn(6, 840)
    model.bart.final_logits_bias[0, EOS] = -1e4  # it never ends by itself
    one, four = (count_operations(model, [trial], DecodingConfig(max_new_tokens=n)) for n in (1, 4))
    assert one.details["tokens_written"] == 1 and four.details["tokens_written"] == 4
    head = "bart.lm_head"
    vocabulary = model.bart.lm_head.weight.numel()
    for found in (one, four):
        (of_head,) = [layer for layer in found.layers if layer.path == head]
        assert of_head.dense == vocabulary * found.details["tokens_written"]
    assert not one.counter.unused and one.mac < four.mac


def test_a_trial_is_needed() -> None:
    with pytest.raises(ValueError, match="got 0 samples"):
        count_operations(a_model(), [])
