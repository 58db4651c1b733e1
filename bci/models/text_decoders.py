"""What writes the text behind the EEG of an E2T-PTR, for ablations: BART, T5 or a GPT, by `transformers`.

    bart    encoder and decoder, absolute positions                    pretrained where the sizes name weights
    t5      encoder and decoder, relative positions, RMS norm          of the same text_* sizes, random weights
    gpt2    decoder alone, EEG states as its prefix                    of the same text_* sizes, random weights

Shapes: states [B, L, D] of the EEG, mask [B, L] bool, ids [B, S]. What this module does not do: pretrained T5 or GPT
weights, whose tokenizers are others.
"""

from typing import Any

import torch
from torch import Tensor, nn

from spikeloom.bci.data.tokenizer import EOS, PAD, START
from spikeloom.bci.models.bart import bart_classes
from spikeloom.bci.models.cet_mae import CETMAEConfig

TEXT_DECODERS = ("bart", "t5", "gpt2")
EEG_POSITIONS = 512  # of a GPT, before those of the text


def _linear(module: nn.Module) -> None:
    """GPT-2's products in place, as the `nn.Linear` they compute, which every count of operations knows."""
    children: list[tuple[str, Any]] = list(module.named_children())
    for name, child in children:
        if type(child).__name__ == "Conv1D":
            width_in, width_out = child.weight.shape
            linear = nn.Linear(width_in, width_out)
            with torch.no_grad():
                linear.weight.copy_(child.weight.T)
                linear.bias.copy_(child.bias)
            setattr(module, name, linear)
        else:
            _linear(child)


def random_t5(config: CETMAEConfig, vocab_size: int) -> Any:
    """T5ForConditionalGeneration of the text_* sizes of `config`."""
    classes = bart_classes()
    return classes.T5ForConditionalGeneration(classes.T5Config(
        vocab_size=vocab_size, d_model=config.text_width, d_kv=config.text_width // config.text_heads,
        d_ff=config.text_ffn, num_layers=config.text_layers, num_decoder_layers=config.text_layers,
        num_heads=config.text_heads, dropout_rate=config.dropout, pad_token_id=PAD, eos_token_id=EOS,
        decoder_start_token_id=EOS,
    ))  # fmt: skip


class PrefixGPT(nn.Module):
    """A GPT-2 that goes on writing after the states of the EEG."""

    def __init__(self, config: CETMAEConfig, vocab_size: int) -> None:
        super().__init__()
        classes = bart_classes()
        self.gpt = classes.GPT2LMHeadModel(classes.GPT2Config(
            vocab_size=vocab_size, n_embd=config.text_width, n_layer=config.text_layers, n_head=config.text_heads,
            n_inner=config.text_ffn, n_positions=config.text_positions + EEG_POSITIONS, resid_pdrop=config.dropout,
            embd_pdrop=config.dropout, attn_pdrop=config.dropout, bos_token_id=START, eos_token_id=EOS,
            pad_token_id=PAD,
        ))  # fmt: skip
        _linear(self.gpt)

    def logits(self, states: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """[B, S, V]: scores of the id after each of `ids`, whose first is the start."""
        joined, seen = self._prefixed(states, mask, ids)
        positions = (seen.cumsum(1) - 1).clamp(min=0)
        found = self.gpt(inputs_embeds=joined, attention_mask=seen, position_ids=positions, use_cache=False)
        logits: Tensor = found.logits[:, states.shape[1] :]
        return logits

    def write(self, states: Tensor, mask: Tensor, **search: Any) -> Tensor:
        """Ids [B, S] without the start."""
        start = torch.full((len(states), 1), EOS, device=states.device)
        joined, seen = self._prefixed(states, mask, start)
        return torch.as_tensor(self.gpt.generate(inputs_embeds=joined, attention_mask=seen, **search))

    def _prefixed(self, states: Tensor, mask: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat((states, self.gpt.get_input_embeddings()(ids)), dim=1)
        return joined, torch.cat((mask, torch.ones_like(ids, dtype=torch.bool)), dim=1).long()
