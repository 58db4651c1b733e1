"""`spikeloom score`: a text file of Predicted/True pairs, measured and tested for use of the EEG; writes JSON."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from accel.files import write_json
from bci.evaluation.decodings import Decodings, read_pairs
from bci.evaluation.diversity import diversity
from bci.evaluation.metrics import bleu_bpe, measure
from bci.evaluation.protocol import constant_sentence_bleu, evidence
from bci.evaluation.significance import WordWeights, difference_permutation, sentence_permutation
from bci.zuco.materials import read_materials
from bci.zuco.text import normalise
from pipelines.process import set_up
from pipelines.schema import ScoreConfig

log = logging.getLogger("spikeloom")


def run(config: ScoreConfig) -> None:
    set_up()
    found = score(config)
    if config.out is not None:
        write_json(Path(config.out), found)
    tell(found)
    if config.out is not None:
        log.info("-> %s", config.out)


def score(config: ScoreConfig) -> dict[str, Any]:
    """Metrics in percent, the tests, and in words what they show."""
    films = film_reviews(Path(config.materials))
    decodings = with_tasks(read_pairs(Path(config.predictions)), films)
    train = read_lines(Path(config.train)) if config.train is not None else list(decodings.references)
    weights = WordWeights(train)
    metrics = measure(decodings.outputs, decodings.references)
    constant = constant_sentence_bleu(decodings.references, config.constant)
    own = sentence_permutation(decodings, weights, config.n_permutations, config.seed)
    difference = None
    if config.noise is not None:
        noise = with_tasks(read_pairs(Path(config.noise)), films)
        difference = difference_permutation(decodings, noise, weights, config.n_permutations, config.seed)
    tokenizer = Path(config.tokenizer)
    kind, words = evidence(metrics.bleu_word[0], constant[0], own.p, difference.p if difference else None)
    return {
        "predictions": config.predictions, "noise": config.noise, "rows": len(decodings),
        "verdict": words, "evidence": kind,
        **metrics.as_dict(), "rouge1_f": metrics.rouge1.f1,
        "bleu_bpe": list(bleu_bpe(decodings.outputs, decodings.references, tokenizer)) if tokenizer.exists() else None,
        "bleu_bpe_tokenizer": config.tokenizer if tokenizer.exists() else None,
        **diversity(decodings, train if config.train is not None else ()).as_dict(),
        "constant_sentence": config.constant, "constant_sentence_bleu_word": list(constant),
        "p_permutation": own.p, "permutation": own.as_dict(),
        "p_difference": difference.p if difference else None,
        "difference": difference.as_dict() if difference else None,
        "p_headline": max(own.p, difference.p) if difference else None,
        "sentences_by_task": dict(Counter({normalise(r): t for r, t in
                                           zip(decodings.references, decodings.tasks, strict=True)}.values())),
        "word_weights": config.train or "the references themselves",
    }  # fmt: skip


def film_reviews(materials: Path) -> set[str]:
    """Normalised sentences of ZuCo's film reviews, whose style differs from the encyclopedia's of the other tasks;
    none where the materials are not there."""
    if not (materials / "zuco1_task_materials").is_dir():
        return set()
    return {normalise(text) for text in read_materials(materials)["SR1"]}


def with_tasks(decodings: Decodings, films: set[str]) -> Decodings:
    """Rows of film reviews as task `film`, others as `text`: a file of pairs does not name tasks."""
    tasks = tuple("film" if normalise(text) in films else "text" for text in decodings.references)
    return replace(decodings, tasks=tasks)


def read_lines(path: Path) -> list[str]:
    """Train sentences, one a line. Raises ValueError when there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; give train=FILE with one sentence a line, or leave it out")
    lines = [line.strip() for line in path.read_bytes().decode("utf-8").split("\n") if line.strip()]
    if not lines:
        raise ValueError(f"{path} holds no sentence; give train=FILE with one sentence a line, or leave it out")
    return lines


def tell(found: dict[str, Any]) -> None:
    """The figures in a few lines, the verdict first."""

    def percent(values: list[float]) -> str:
        return " / ".join(f"{value:.2f}" for value in values)

    print(found["verdict"])
    print(f"  BLEU-1..4, words        {percent(found['bleu_word'])}")
    print(f"  constant sentence       {percent(found['constant_sentence_bleu_word'])}")
    if found["bleu_bpe"] is None:
        print("  BLEU-1..4, BPE          not counted: no tokenizer there; give tokenizer=FOLDER with a tokenizer.json")
    else:
        print(f"  BLEU-1..4, BPE          {percent(found['bleu_bpe'])}   (diagnostic: inflated)")
    print(f"  ROUGE-1 F, WER          {found['rouge1_f']:.2f}, {found['wer']:.2f}")
    print(f"  distinct outputs        {found['distinct_outputs']:,} of {found['rows']:,} rows")
    test = found["permutation"]
    print(f"  p, sentences permuted   {found['p_permutation']:.3f}   ({test['n_sentences']} sentences)")
    if found["p_difference"] is not None:
        print(f"  p, EEG minus noise      {found['p_difference']:.3f}")
