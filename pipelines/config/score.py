"""Keys of `spikeloom score`."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from spikeloom.bci.evaluation.protocol import CONSTANT_SENTENCE


@dataclass
class ScoreConfig:
    predictions: str = MISSING  # decoded text: `Predicted:`/`True:` lines, EEG-To-Text dumps, .csv, .tsv, .json, .jsonl
    references: str | None = None  # where they lie in a file of their own: one a line, as the predictions
    out: str | None = None  # JSON file
    noise: str | None = None  # the same of a noise control
    controls: list[str] = field(default_factory=list)  # of further controls without EEG: gaze only, mask only, …
    column: str | None = None  # of the outputs, where a file has several, such as `predicted string with tf`
    reference_column: str | None = None  # of the references, where their column has no usual name
    train: str | None = None  # sentences the decoder was trained on, one a line; null: the references weigh the words
    constant: str = CONSTANT_SENTENCE  # the text of a decoder without any input
    encoder: str | None = None  # of sentences, for the semantic level: a folder, minilm or wordllama; null: left out
    tokenizer: str | None = MISSING  # folder with a byte-level BPE; without it bleu_bpe is null
    materials: str | None = MISSING  # folder of ZuCo's task materials, to tell film reviews from other text
    n_permutations: int = 999  # of the test against mismatched sentences
    seed: int = 0  # of the permutations
