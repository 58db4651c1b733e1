"""The parts of the models of this room that a chip would run, each a module of tensors alone: for export.

EEGPart      EEG [L, B, 840] without padding -> states [L, B, D]                the EEG stream of CET-MAE
DecoderStep  states [L, B, D], ids so far [S, B] -> scores [B, V] of the next id        one step of writing
"""

from typing import Any

import torch
from torch import Tensor, nn

from spikeloom.bci.models.cet_mae import CETMAE
from spikeloom.bci.models.e2t_ptr import E2TPTR


class EEGPart(nn.Module):
    """What EEG passes through before any text: encoder, projection, multi-stream layer."""

    def __init__(self, model: CETMAE | E2TPTR) -> None:
        super().__init__()
        self.front = model.front

    def forward(self, eeg: Tensor) -> Tensor:
        states: Tensor = self.front(eeg)
        return states


class DecoderStep(nn.Module):
    """One step of free-running decoding, without a cache: BART reads all it has written and says what comes next."""

    def __init__(self, model: E2TPTR) -> None:
        super().__init__()
        bart: Any = model.bart
        self.encoder, self.decoder = bart.get_encoder(), bart.get_decoder()
        self.head = bart.get_output_embeddings()
        self.register_buffer("bias", bart.final_logits_bias)

    def forward(self, states: Tensor, ids: Tensor) -> Tensor:
        read = self.encoder(inputs_embeds=states.transpose(0, 1)).last_hidden_state
        said = self.decoder(input_ids=ids.T, encoder_hidden_states=read, use_cache=False).last_hidden_state
        scores: Tensor = self.head(said[:, -1]) + self.bias
        return scores


@torch.no_grad()
def example_steps(model: E2TPTR, eeg: Tensor, n_ids: int) -> tuple[Tensor, Tensor]:
    """Inputs of a decoder step in the middle of writing: the states of EEG [L, B, 840] and the first `n_ids` ids that
    the model itself writes for it, decoder start included."""
    from spikeloom.bci.data.tokenizer import EOS
    from spikeloom.bci.models.e2t_ptr import DecodingConfig

    mask = torch.ones(eeg.shape[:2], dtype=torch.bool)
    written = model.generate(eeg, mask, DecodingConfig(max_new_tokens=n_ids))
    start = torch.full((1, eeg.shape[1]), EOS)
    return model.front(eeg), torch.cat((start, written))[:n_ids]
