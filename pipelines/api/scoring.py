"""Decoded sentences measured, and tested for use of the EEG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikeloom.bci.evaluation.protocol import CONSTANT_SENTENCE
from spikeloom.pipelines.config.score import ScoreConfig
from spikeloom.pipelines.eeg import scoring

__all__ = ["score"]


def score(
    predictions: str | Path, *, noise: str | Path | None = None, controls: Sequence[str | Path] = (),
    column: str | None = None, train: str | Path | None = None, constant: str = CONSTANT_SENTENCE,
    encoder: str | Path | None = None, tokenizer: str | Path | None = None, materials: str | Path | None = None,
    n_permutations: int = 999, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Measure decoded sentences and test whether they show any use of the EEG, as `spikeloom score` does.

    Args:
        predictions: file with the output and the true sentence of every trial: lines ``Predicted: …`` and
            ``True: …``, a dump of EEG-To-Text, or .csv, .tsv, .json, .jsonl.
        noise: the same file of a control that was trained on noise in place of the EEG.
        controls: the same files of further controls without EEG.
        column: of the outputs, where a file has several.
        train: text file with the training sentences, one a line; None: the references weigh the words.
        constant: sentence that a decoder without any input would write.
        encoder: sentence encoder of the semantic level: a folder, ``"minilm"`` or ``"wordllama"``; None: left out.
        tokenizer: folder with the tokenizer.json of a byte-level BPE; None: ``bleu_bpe`` is None.
        materials: folder of ZuCo's task materials, which tell film reviews from other text; None: not told.
        n_permutations: draws of every permutation test.
        seed: of those draws.

    Returns:
        ``verdict``, in words, and ``evidence``, its kind; ``bleu_word`` (BLEU-1 to 4) and ``rouge1_f`` in percent,
        ``wer`` and ``cer``; ``p_permutation`` against the decoder's own sentences in other order, ``p_difference``
        against the controls, in [0, 1]; and the figures behind them.

    Raises:
        ValueError: for a file without rows, or with a row that has no true sentence.
        FileNotFoundError: where there is no such file.

    Examples:
        >>> import spikeloom
        >>> from pathlib import Path
        >>> rows = [("a quiet house", "a quiet house on the hill"), ("the film", "the film is long")]
        >>> text = "\\n".join(f"Predicted: {said}\\nTrue: {true}" for said, true in rows)
        >>> _ = Path("decoded.txt").write_text(text)
        >>> found = spikeloom.score("decoded.txt", n_permutations=99)
        >>> found["rows"], round(found["rouge1_f"])
        (2, 67)
    """
    files = {"noise": noise, "train": train, "encoder": encoder, "tokenizer": tokenizer, "materials": materials}
    return scoring.score(
        ScoreConfig(
            predictions=str(predictions), controls=[str(file) for file in controls], column=column, constant=constant,
            n_permutations=n_permutations, seed=seed,
            **{key: None if file is None else str(file) for key, file in files.items()},
        )
    )  # fmt: skip
