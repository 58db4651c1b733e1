"""Weights in released names give the same encoder, layer by layer; what is not taken is said, the unknown refused."""

import pytest
import torch
from torch import Tensor, nn

from spikeloom.bci.models.bart import bart_classes
from spikeloom.bci.models.cet_mae import CETMAE
from spikeloom.bci.models.e2t_ptr import E2TPTR
from spikeloom.bci.models.released import convert, describe_left, is_released_eeg

TEXT, VOCABULARY = 128, 300
BART = bart_classes().BartConfig(
    vocab_size=VOCABULARY, d_model=TEXT, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
    decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=40,
)  # fmt: skip


class ReleasedUnify(nn.Module):
    """One multi-stream layer with the names of the released one; its encoder holds three last norms."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(TEXT, 2, batch_first=True)
        for suffix in ("", "_e", "_t"):
            setattr(self, f"linear1{suffix}", nn.Linear(TEXT, 48))
            setattr(self, f"linear2{suffix}", nn.Linear(48, TEXT))
            setattr(self, f"norm1{suffix}", nn.LayerNorm(TEXT))
            setattr(self, f"norm2{suffix}", nn.LayerNorm(TEXT))


class ReleasedNames(nn.Module):
    """Modules of a released CET-MAE, small, under its names; of a decoder with `pretrained`, under the decoder's."""

    def __init__(self, decoder: bool = False, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        self.fc_eeg = nn.Linear(840, TEXT)
        self.eeg_encoder_layer = nn.TransformerEncoderLayer(840, 8, 24, batch_first=True)
        self.e_branch = nn.TransformerEncoder(self.eeg_encoder_layer, 2)
        self.unify_encoder_layer = ReleasedUnify()
        self.unify_branch = nn.Module()
        self.unify_branch.layers = nn.ModuleList([ReleasedUnify()])
        for suffix in ("", "_e", "_t"):
            setattr(self.unify_branch, f"norm{suffix}", nn.LayerNorm(TEXT))
        BART.vocab_size = vocabulary
        if decoder:
            self.pretrained = bart_classes().BartForConditionalGeneration(BART)
            return
        self.t_branch = bart_classes().BartModel(BART)
        self.t_branch_encoder = self.t_branch.get_encoder()
        self.mask_token = nn.Parameter(torch.randn(1, 1, 840))
        self.eeg_decoder_layers = nn.TransformerEncoderLayer(840, 8, 24, batch_first=True)
        self.eeg_decoder = nn.TransformerEncoder(self.eeg_decoder_layers, 1)
        self.decoder_norm, self.decoder_embed_e = nn.LayerNorm(840), nn.Linear(TEXT, 840)
        self.decoder_pred_t = nn.Linear(TEXT, vocabulary)
        self.pos_embed_e = nn.Module()
        self.pos_embed_e.register_buffer("pe", torch.zeros(9, 1, 840))


def released(decoder: bool = False, vocabulary: int = VOCABULARY) -> tuple[ReleasedNames, dict[str, Tensor]]:
    torch.manual_seed(0)
    names = ReleasedNames(decoder, vocabulary).eval()
    for value in names.parameters():  # norms and biases, too, must differ from what a new module has
        value.data.add_(0.05 * torch.randn_like(value))
    return names, {key: value.clone() for key, value in names.state_dict().items()}


@torch.no_grad()
def unified(names: ReleasedNames, x: Tensor, suffix: str) -> Tensor:
    """The released layer on [L, B, D], post-norm."""
    layer = names.unify_branch.layers[0]
    part = {name: getattr(layer, f"{name}{suffix}") for name in ("linear1", "linear2", "norm1", "norm2")}
    x = x.transpose(0, 1)
    x = part["norm1"](x + layer.self_attn(x, x, x, need_weights=False)[0])
    x = part["norm2"](x + part["linear2"](part["linear1"](x).relu()))
    last: Tensor = getattr(names.unify_branch, f"norm{suffix}")(x)
    return last.transpose(0, 1)


@torch.no_grad()
def test_every_part_of_a_cet_mae_computes_what_its_released_names_do() -> None:
    names, state = released()
    assert is_released_eeg(state)
    found = convert(state)
    model = found.model.eval()
    assert isinstance(model, CETMAE) and found.name == "cet_mae"
    x = torch.randn(5, 2, 840)
    for ours, theirs in zip(model.front.e_branch.layers, names.e_branch.layers, strict=True):
        torch.testing.assert_close(ours(x, None), theirs(x.transpose(0, 1)).transpose(0, 1), atol=1e-5, rtol=1e-4)
    ours, theirs = model.eeg_decoder.layers[0], names.eeg_decoder.layers[0]
    torch.testing.assert_close(ours(x, None), theirs(x.transpose(0, 1)).transpose(0, 1), atol=1e-5, rtol=1e-4)
    h = torch.randn(5, 2, TEXT)
    for stream, suffix in (("joint", ""), ("eeg", "_e"), ("text", "_t")):
        torch.testing.assert_close(
            model.front.unify_branch(h, None, stream), unified(names, h, suffix), atol=1e-5, rtol=1e-4
        )
    ids = torch.randint(4, VOCABULARY, (7, 2))
    wanted = names.t_branch.get_encoder()(input_ids=ids.T).last_hidden_state.transpose(0, 1)
    torch.testing.assert_close(model.encode_text(ids, torch.ones_like(ids, dtype=torch.bool)), wanted)
    for ours, theirs in (
        (model.front.fc_eeg, names.fc_eeg), (model.eeg_decoder.narrow, names.decoder_embed_e),
        (model.text_decoder, names.decoder_pred_t), (model.eeg_decoder.norm, names.decoder_norm),
    ):  # fmt: skip
        assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)
    assert torch.equal(model.eeg_decoder.mask_token, names.mask_token.flatten())
    taken = sum(len(keys) for keys in found.left.values())
    assert taken == sum(
        key.startswith(("eeg_encoder_layer.", "unify_encoder_layer.", "eeg_decoder_layers.", "pos_embed_e.",
                        "t_branch_encoder.", "t_branch.decoder.", "t_branch.shared.")) for key in state
    )  # fmt: skip
    assert any("only copied from" in line for line in describe_left(found.left))


@torch.no_grad()
def test_a_decoder_takes_the_eeg_stream_and_its_bart() -> None:
    names, state = released(decoder=True)
    found = convert(state)
    model = found.model.eval()
    assert isinstance(model, E2TPTR) and found.name == "e2t_ptr"
    h = torch.randn(5, 2, TEXT)
    torch.testing.assert_close(model.front.unify_branch(h, None, "eeg"), unified(names, h, "_e"), atol=1e-5, rtol=1e-4)
    eeg, mask = torch.randn(5, 2, 840), torch.ones(5, 2, dtype=torch.bool)
    ids = torch.randint(4, VOCABULARY, (6, 2))
    wanted = names.pretrained(
        inputs_embeds=model.front(eeg, mask).transpose(0, 1), attention_mask=mask.T, use_cache=False,
        decoder_input_ids=torch.cat((torch.full((2, 1), 2), ids.T[:, :-1]), 1),
    ).logits  # fmt: skip
    torch.testing.assert_close(model(eeg, mask, ids), wanted.transpose(0, 1), atol=1e-5, rtol=1e-4)
    assert "the joint and the text stream" in found.left


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("unify_branch.norm_e.weight"), r"1 tensors are missing \(unify_branch\.norm_e\.weight\)"),
        (lambda s: s.update({"decoder_norm.weight": torch.ones(3)}), r"decoder_norm\.weight has shape \(3,\)"),
        (lambda s: s.update({"surprise.weight": torch.ones(3)}), r"1 tensors belong to no CET-MAE.*surprise\.weight"),
        (lambda s: s.update({"fc_eeg.weight": torch.ones(TEXT, 7)}), r"fc_eeg\.weight has shape"),
        (lambda s: s.pop("decoder_pred_t.weight"), r"decoder_pred_t\.weight is missing"),
    ],
)
def test_what_is_missing_unknown_or_of_another_shape_is_named(change, message: str) -> None:  # type: ignore[no-untyped-def]
    _, state = released()
    change(state)
    with pytest.raises(ValueError, match=message):
        convert(state)
