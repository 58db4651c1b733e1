"""E2T-PTR: a pre-trained EEG encoder in front of BART (Wang et al., arXiv 2402.17433; ACL 2024, long.393).

    EEG -> e_branch -> GELU(fc_eeg) -> EEG stream of unify_branch -> BART(inputs_embeds) -> text
    loss = - mean log p(id[s] | id[<s], EEG)            over ids that are not padding

All parameters are fine-tuned in one phase. `generate` runs freely and never sees the text; what a model says when it is
fed the true text word by word is another thing, and is called `diagnostic_teacher_forced` wherever it appears.

Ablations: the joint stream in place of the EEG's, and T5 or a GPT in place of BART (`bci.models.text_decoders`).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from spikeloom.bci.data.tokenizer import EOS, PAD
from spikeloom.bci.models.cet_mae import STREAMS, CETMAEConfig, EEGFront, build_bart
from spikeloom.bci.models.text_decoders import TEXT_DECODERS, PrefixGPT, random_t5

ENCODED = ("eeg", "joint")  # streams of the multi-stream layer that EEG passes in pre-training


@dataclass
class DecodingConfig:
    """Free-running search, stored with every result. num_beams 1: greedy."""

    num_beams: int = 1  # of the beam search; 1: greedy
    max_new_tokens: int = 58  # longest text, in tokens


def build_e2t_ptr(config: CETMAEConfig, vocab_size: int, stream: str = "eeg", decoder: str = "bart") -> "E2TPTR":
    """An E2T-PTR with the EEG side and the BART of `config`; `inherit` gives it what a CET-MAE has learnt. stream: of
    the multi-stream layer, eeg or joint; decoder: bart, t5 or gpt2."""
    return E2TPTR(vocab_size=vocab_size, stream=stream, decoder=decoder, **asdict(config))


class E2TPTR(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["eeg", "brain-to-text"]):
    """EEG [L, B, 840] and its mask [L, B] -> text ids. Sizes as in CETMAEConfig, of which decoder_layers and
    freeze_text do not matter here; stream: eeg or joint; decoder: bart, t5 or gpt2, the last two with random weights of
    the text_* sizes."""

    def __init__(self, *, vocab_size: int, stream: str = "eeg", decoder: str = "bart", **sizes: object) -> None:
        super().__init__()
        if stream not in ENCODED or decoder not in TEXT_DECODERS:
            raise ValueError(
                f"stream={stream}, decoder={decoder}; use stream {' or '.join(ENCODED)} and decoder "
                f"{', '.join(TEXT_DECODERS)}"
            )
        config = CETMAEConfig(**sizes)  # type: ignore[arg-type]
        self.config, self.vocab_size, self.stream, self.decoder = config, vocab_size, stream, decoder
        if decoder != "bart":
            self.front = EEGFront(config, config.text_width, (stream,))
            self.bart = random_t5(config, vocab_size) if decoder == "t5" else PrefixGPT(config, vocab_size)
            return
        # 0.02 belongs to BART-large. At 64 wide it leaves attention uniform, and the decoder never looks at the EEG.
        bart = build_bart(config, vocab_size, init_std=0.02 * math.sqrt(1024 / config.text_width))
        if config.bart:
            portable = {"bart": None, "bart_config": bart.config.to_diff_dict()}
            self._hub_mixin_config = {"vocab_size": vocab_size, "stream": stream, **sizes, **portable}
        self.front = EEGFront(config, bart.config.d_model, (stream,))
        self.bart = bart

    def inherit(self, pretrained: Mapping[str, Tensor]) -> int:
        """Copy `front` from the state_dict of a CET-MAE, its own stream only; the number of tensors.

        Raises ValueError naming the keys when one is missing, unexpected or of another shape; nothing is copied then.
        """
        others = tuple(f".{stream}." for stream in STREAMS if stream != self.stream)
        given = {
            key.removeprefix("front."): value
            for key, value in pretrained.items()
            if key.startswith("front.") and not any(other in key for other in others)
        }
        wanted = self.front.state_dict()
        wrong = [f"{key} is missing" for key in wanted.keys() - given.keys()]
        wrong += [f"{key} is not in this model" for key in given.keys() - wanted.keys()]
        wrong += [
            f"{key} has shape {tuple(given[key].shape)}, here {tuple(wanted[key].shape)}"
            for key in wanted.keys() & given.keys()
            if wanted[key].shape != given[key].shape
        ]
        if wrong:
            raise ValueError(
                f"the pre-trained weights do not fit: {'; '.join(sorted(wrong)[:4])}"
                f"{f' and {len(wrong) - 4} more' if len(wrong) > 4 else ''}; use one configuration for both models"
            )
        self.front.load_state_dict(given)
        return len(given)

    def forward(self, eeg: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """Logits [S, B, V] of every id of `ids` [S, B] given those before it: for training, not for results."""
        labels = ids.T
        start = labels.new_full((len(labels), 1), EOS)  # BART's decoder starts with </s>
        states, given = self.front(eeg, mask).transpose(0, 1), torch.cat((start, labels[:, :-1]), dim=1)
        if isinstance(self.bart, PrefixGPT):
            return self.bart.logits(states, mask.T, given).transpose(0, 1)
        written = self.bart(inputs_embeds=states, attention_mask=mask.T, decoder_input_ids=given, use_cache=False)
        return written.logits.transpose(0, 1)

    def loss(self, eeg: Tensor, mask: Tensor, ids: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy of the equation above, a scalar; `label_smoothing` in [0, 1) is for training."""
        logits = self(eeg, mask, ids)
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), ids.flatten(), ignore_index=PAD, label_smoothing=label_smoothing
        )

    @torch.no_grad()
    def generate(self, eeg: Tensor, mask: Tensor, decoding: DecodingConfig | None = None) -> Tensor:
        """Free-running ids [S, B], padded, without the decoder's start; in evaluation mode, the text plays no part.

        Raises ValueError when BART has no position for that many tokens.
        """
        decoding = decoding or DecodingConfig()
        positions = self.positions
        if not 1 <= decoding.max_new_tokens < positions or decoding.num_beams < 1:
            raise ValueError(f"got {decoding}; use 1 to {positions - 1} new tokens and at least 1 beam")
        was_training = self.training
        self.eval()
        states = self.front(eeg, mask).transpose(0, 1)
        search = {
            "num_beams": decoding.num_beams, "do_sample": False, "max_new_tokens": decoding.max_new_tokens,
        }  # fmt: skip
        if isinstance(self.bart, PrefixGPT):
            ids = self.bart.write(states, mask.T, **search)
        else:
            ids = self.bart.generate(
                inputs_embeds=states, attention_mask=mask.T.long(), decoder_start_token_id=EOS, **search
            )[:, 1:]
        self.train(was_training)
        return torch.as_tensor(ids.T)

    @property
    def positions(self) -> int:
        """Places for ids of a text, its start among them."""
        if self.decoder != "bart":
            return self.config.text_positions
        places: int = self.bart.config.max_position_embeddings  # type: ignore[union-attr,assignment]
        return places

    @torch.no_grad()
    def diagnostic_teacher_forced(self, eeg: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """Most likely next id [S, B] after every true prefix of `ids` [S, B]. It reads the answer: no result."""
        was_training = self.training
        self.eval()
        likely = self(eeg, mask, ids).argmax(2)
        self.train(was_training)
        return likely
