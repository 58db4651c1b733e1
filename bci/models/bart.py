"""The one door to the `transformers` BART: pretrained weights where the user has them, otherwise a small random one.

Nothing here downloads by default; a name is looked up where `transformers` looks. The layout inside a BART is batch
first, [B, S, D]; everything of ours outside it is time first.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from spikeloom.accel.common.files import brief, read_object
from spikeloom.accel.common.sizes import check_sizes
from spikeloom.bci.data.tokenizer import EOS, PAD, START


@dataclass
class BartSizes:
    """Encoder and decoder have the same sizes. The defaults are those of facebook/bart-large."""

    width: int = 1024
    layers: int = 12
    heads: int = 16
    ffn: int = 4096
    max_positions: int = 1024
    dropout: float = 0.1


def bart_classes() -> ModuleType:
    """`transformers`; importing it takes seconds, so that is done by the first BART that is made."""
    import transformers

    return transformers


def random_bart(sizes: BartSizes, vocab_size: int, init_std: float = 0.02) -> Any:
    """BartForConditionalGeneration of these sizes, its weights N(0, init_std), by `transformers`; in float32."""
    classes = bart_classes()
    config = classes.BartConfig(
        vocab_size=vocab_size, d_model=sizes.width, encoder_layers=sizes.layers, decoder_layers=sizes.layers,
        encoder_attention_heads=sizes.heads, decoder_attention_heads=sizes.heads, encoder_ffn_dim=sizes.ffn,
        decoder_ffn_dim=sizes.ffn, max_position_embeddings=sizes.max_positions, dropout=sizes.dropout,
        bos_token_id=START, pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=EOS, forced_eos_token_id=EOS,
        init_std=init_std,
    )  # fmt: skip
    return classes.BartForConditionalGeneration(config)


def bart_of_config(values: dict[str, Any]) -> Any:
    """BartForConditionalGeneration of a `transformers` configuration, randomly initialised; in float32."""
    classes = bart_classes()
    return classes.BartForConditionalGeneration(classes.BartConfig(**values))


def pretrained_bart(name: str, vocab_size: int) -> Any:
    """BartForConditionalGeneration from a folder or a name such as facebook/bart-large, in float32.

    Raises ValueError when there are no such weights, or when they belong to another vocabulary.
    """
    try:
        folder = Path(name)
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            check_sizes(read_object(folder / "config.json", "copy it again"), folder / "model.safetensors")
        bart = bart_classes().BartForConditionalGeneration.from_pretrained(name, dtype=torch.float32)
    except Exception as error:  # transformers raises whatever a configuration or weights of others lead it to
        raise ValueError(
            f"no BART weights at {name!r} ({brief(error)}); give a folder that holds config.json and "
            "model.safetensors, or null for a small BART of our own"
        ) from error
    if bart.config.vocab_size != vocab_size:
        raise ValueError(
            f"the weights of {name!r} know {bart.config.vocab_size} tokens, the tokenizer {vocab_size}; "
            "use the tokenizer of the same model"
        )
    return bart
