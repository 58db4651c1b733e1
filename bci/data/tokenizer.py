"""Text to ids and back: the BPE tokenizer of BART from a folder, or one of the same kind trained on the given text.

`<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, `<mask>` last, in both. Ids are time first, [S, B], padded to the longest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spikeloom.accel.common.files import brief, require_regular, whole

START, PAD, EOS, UNKNOWN = range(4)
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_MASK = "<mask>"
_FILE = "tokenizer.json"


class EncodedText(NamedTuple):
    """ids: int64 [S, B], `<s> … </s>`, then padding; n_truncated: texts that were longer."""

    ids: Tensor
    n_truncated: int


@dataclass(frozen=True, kw_only=True)
class TextTokenizer:
    """A byte-level BPE with BART's special tokens. Raises ValueError when their ids are others."""

    bpe: Any  # tokenizers.Tokenizer

    def __post_init__(self) -> None:
        found = {token: self.bpe.token_to_id(token) for token in (*_SPECIAL, _MASK)}
        wanted = {**dict(zip(_SPECIAL, range(4), strict=True)), _MASK: self.vocab_size - 1}
        if found != wanted:
            raise ValueError(f"the special tokens have ids {found}, not {wanted}; use a tokenizer of BART's kind")

    @property
    def vocab_size(self) -> int:
        return int(self.bpe.get_vocab_size())

    @property
    def mask_id(self) -> int:
        return self.vocab_size - 1

    def encode(self, texts: Sequence[str], max_length: int = 58) -> EncodedText:
        """`<s> text </s>` of every text, at most `max_length` ids: what is longer loses its end, not its `</s>`."""
        if not texts or max_length < 3:
            raise ValueError(f"got {len(texts)} texts and max_length {max_length}; use at least 1 text and 3 ids")
        rows = [encoding.ids for encoding in self.bpe.encode_batch(list(texts), add_special_tokens=False)]
        room = max_length - 2
        ids = torch.full((2 + min(room, max(map(len, rows))), len(rows)), PAD)
        for b, row in enumerate(rows):
            cut = [START, *row[:room], EOS]
            ids[: len(cut), b] = torch.tensor(cut)
        return EncodedText(ids, sum(len(row) > room for row in rows))

    def decode(self, ids: Tensor) -> list[str]:
        """Texts of ids [S, B] without special tokens, each up to its first `</s>` after the start."""
        texts = []  # str
        for row in ids.T.tolist():
            end = next((s for s, i in enumerate(row) if s and i == EOS), len(row))
            texts.append(self.bpe.decode(row[:end], skip_special_tokens=True).strip())
        return texts

    def save(self, folder: Path) -> None:
        """Write tokenizer.json into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        with whole(folder / _FILE) as partial:
            self.bpe.save(str(partial))


def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer of a folder that holds tokenizer.json. Raises ValueError naming the file."""
    path = Path(folder) / _FILE
    if not path.is_file():
        raise ValueError(f"{path} is missing; copy tokenizer.json of facebook/bart-large there, or train one")
    bpe = read_bpe(path, "copy it again")
    bpe.no_truncation()
    bpe.no_padding()
    try:
        return TextTokenizer(bpe=bpe)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_bpe(path: Path, remedy: str) -> Any:
    """The `tokenizers.Tokenizer` of a tokenizer.json. Raises ValueError naming the file and the remedy."""
    from tokenizers import Tokenizer

    require_regular(path, remedy)
    try:
        bpe = Tokenizer.from_file(str(path))
        bpe.encode("a text", add_special_tokens=False)  # what is torn inside shows itself here
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises plain Exception, and a panic of its own that is none
        raise ValueError(f"{path} is no tokenizer ({brief(error)}); {remedy}") from error
    return bpe


def train_tokenizer(texts: Sequence[str], vocab_size: int = 2000) -> TextTokenizer:
    """A byte-level BPE of at most `vocab_size` ids learnt from `texts`, which should be those of the train split.

    Equal texts give equal tokenizers. Raises ValueError without text, or below the 261 ids that bytes and special
    tokens take.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab_size < 261 or not any(texts):
        raise ValueError(f"got vocab_size={vocab_size} and {len(texts)} texts; use at least 261 ids and some text")
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, special_tokens=list(_SPECIAL), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    bpe.train_from_iterator(texts, trainer)
    bpe.add_special_tokens([_MASK])
    return TextTokenizer(bpe=bpe)
