"""Simpler decoders that a model should be compared with, each in the form its field knows.

    TransformerBART   EEG -> Transformer encoder -> ReLU(fc) -> BART -> text   (Wang & Ji, AAAI 2022, arXiv 2112.02690)
    CharacterCTC      EEG -> Transformer -> `frames` steps a token -> letters, CTC loss (Graves et al., 2006)

Shapes: L tokens, B samples, S ids. What this module does not do: train (`bci.evaluation.baselines`).
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from spikeloom.bci.data.tokenizer import EOS, PAD
from spikeloom.bci.models.cet_mae import CETMAEConfig, EEGEncoder, build_bart
from spikeloom.bci.models.layers import initialise

LETTERS = " abcdefghijklmnopqrstuvwxyz0123456789'"
BLANK = len(LETTERS)


class TransformerBART(nn.Module):
    """The EEG-to-text decoder of 2021: no masking, no contrast, no inherited encoder; BART pretrained where the
    configuration names weights."""

    def __init__(self, config: CETMAEConfig, vocab_size: int) -> None:
        super().__init__()
        bart = build_bart(config, vocab_size, init_std=0.02 * math.sqrt(1024 / config.text_width))
        self.encoder, self.fc = EEGEncoder(config), nn.Linear(config.width, bart.config.d_model)
        initialise(self.encoder)
        self.bart = bart

    def embed(self, eeg: Tensor, mask: Tensor) -> Tensor:
        """Inputs of BART [B, L, D]."""
        embedded: Tensor = self.fc(self.encoder(eeg, mask)).relu().transpose(0, 1)
        return embedded

    def loss(self, eeg: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """Cross-entropy of every id of `ids` [S, B] given those before it and the EEG, a scalar."""
        labels = ids.T
        start = labels.new_full((len(labels), 1), EOS)
        logits = self.bart(
            inputs_embeds=self.embed(eeg, mask), attention_mask=mask.T,
            decoder_input_ids=torch.cat((start, labels[:, :-1]), dim=1), use_cache=False,
        ).logits  # fmt: skip
        return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=PAD)

    @torch.no_grad()
    def generate(self, eeg: Tensor, mask: Tensor, max_new_tokens: int) -> Tensor:
        """Free-running ids [S, B], greedy."""
        ids = self.bart.generate(
            inputs_embeds=self.embed(eeg, mask), attention_mask=mask.T.long(), num_beams=1, do_sample=False,
            max_new_tokens=max_new_tokens, decoder_start_token_id=EOS,
        )  # fmt: skip
        return torch.as_tensor(ids[:, 1:].T)


class CharacterCTC(nn.Module):
    """Letters from words looked at: every token becomes `frames` steps, each a letter or nothing."""

    def __init__(self, config: CETMAEConfig, frames: int = 24) -> None:
        super().__init__()
        self.frames = frames
        self.encoder = EEGEncoder(replace(config, encoder_layers=min(2, config.encoder_layers)))
        self.spread = nn.Linear(config.width, frames * 32)
        self.head = nn.Linear(32, BLANK + 1)

    def forward(self, eeg: Tensor, mask: Tensor) -> Tensor:
        """Log-probabilities [L * frames, B, letters]."""
        x = self.spread(self.encoder(eeg, mask)).unflatten(2, (self.frames, 32)).relu()
        logits = self.head(x)  # [L, B, frames, letters]
        return logits.transpose(1, 2).flatten(0, 1).log_softmax(2)

    def loss(self, eeg: Tensor, mask: Tensor, texts: Sequence[str]) -> Tensor:
        """CTC of the letters of `texts`; texts longer than their frames count as far as they fit."""
        log_p = self(eeg, mask)
        steps = mask.sum(0) * self.frames
        targets = [letters_of(text)[: int(n) // 2] for text, n in zip(texts, steps, strict=True)]
        lengths = torch.tensor([len(target) for target in targets])
        joined = torch.tensor([letter for target in targets for letter in target])
        return nn.functional.ctc_loss(log_p, joined, steps.cpu(), lengths, blank=BLANK, zero_infinity=True)

    @torch.no_grad()
    def decode(self, eeg: Tensor, mask: Tensor) -> list[str]:
        """The likeliest letter of every step, repeats and blanks taken out."""
        best = self(eeg, mask).argmax(2).T.tolist()
        steps = (mask.sum(0) * self.frames).tolist()
        texts = []  # str
        for row, n in zip(best, steps, strict=True):
            kept = [k for place, k in enumerate(row[:n]) if k != BLANK and (not place or k != row[place - 1])]
            texts.append(" ".join("".join(LETTERS[k] for k in kept).split()))
        return texts


def letters_of(text: str) -> list[int]:
    """Places in LETTERS of a text in lower case; other characters are left out."""
    return [LETTERS.index(character) for character in text.lower() if character in LETTERS]
