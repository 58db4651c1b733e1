"""Decoded text of any decoder, measured and tested for use of the EEG."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikeloom.bci.evaluation.diversity import diversity
from spikeloom.bci.evaluation.dumps import Dump, read_dump, read_lines
from spikeloom.bci.evaluation.embeddings import load_encoder
from spikeloom.bci.evaluation.levels import DEFINITIONS as LEVEL_DEFINITIONS
from spikeloom.bci.evaluation.levels import level_tests
from spikeloom.bci.evaluation.metrics import bleu_bpe, definitions, measure
from spikeloom.bci.evaluation.protocol import constant_sentence_bleu, evidence, mismatch
from spikeloom.bci.evaluation.rows import UNKNOWN, Decodings
from spikeloom.bci.evaluation.significance import WordWeights, difference_permutation, sentence_permutation
from spikeloom.bci.evaluation.signs import NEIGHBOURS, RANDOM_SPLIT, counts, forcing, near_train, remarks
from spikeloom.bci.evaluation.tokens import key_of
from spikeloom.bci.zuco.materials import read_materials
from spikeloom.pipelines.config.score import ScoreConfig


def score(config: ScoreConfig) -> dict[str, Any]:
    """Metrics in percent, the tests of every level, and in words what they show."""
    lists = {} if config.materials is None else task_lists(Path(config.materials))
    films = set(lists.get("SR1", ()))
    dump = read(config, config.predictions)
    decodings = with_tasks(dump.decodings, films)
    train = train_lines(Path(config.train)) if config.train is not None else list(decodings.references)
    encoder = None if config.encoder is None else load_encoder(config.encoder)
    weights = WordWeights(train)
    metrics = measure(decodings.outputs, decodings.references)
    constant = constant_sentence_bleu(decodings.references, config.constant)
    n, seed = config.n_permutations, config.seed
    own = sentence_permutation(decodings, weights, n, seed)
    files = [*([config.noise] if config.noise is not None else []), *config.controls]
    others = {file: with_tasks(read(config, file).decodings, films) for file in files}
    differences = {file: difference_permutation(decodings, other, weights, n, seed) for file, other in others.items()}
    worst = max(differences, key=lambda file: differences[file].p) if differences else None
    difference = differences[worst] if worst is not None else None
    tokenizer = None if config.tokenizer is None else Path(config.tokenizer)
    bpe = bleu_bpe(decodings.outputs, decodings.references, tokenizer) if tokenizer and tokenizer.exists() else None
    kind, words = evidence(
        metrics.bleu_word[0], constant[0], own.p, difference.p if difference else None,
        refused=mismatch(decodings, others) if others else None,
    )  # fmt: skip
    said = remarks(decodings, config.predictions)
    said += [remark for file, other in others.items() for remark in remarks(other, file)]
    said += split_remark(decodings, train if config.train is not None else None, lists)
    return {
        "predictions": config.predictions, "layout": dump.layout, "notes": list(dump.notes), "noise": config.noise,
        "controls": list(config.controls), "verdict": words, "evidence": kind, "remarks": said,
        **counts(decodings), "teacher_forcing": forcing(decodings).as_dict(),
        **metrics.as_dict(), "rouge1_f": metrics.rouge1.f1,
        "bleu_bpe": None if bpe is None else list(bpe), "bleu_bpe_tokenizer": None if bpe is None else config.tokenizer,
        **diversity(decodings, train if config.train is not None else ()).as_dict(),
        "constant_sentence": config.constant, "constant_sentence_bleu_word": list(constant),
        "p_permutation": own.p, "permutation": own.as_dict(),
        "p_difference": difference.p if difference else None, "p_difference_of": worst,
        "difference": difference.as_dict() if difference else None,
        "p_differences": {file: test.p for file, test in differences.items()},
        "p_headline": max(own.p, difference.p) if difference else None,
        "levels": level_tests(
            decodings, weights, encoder=encoder, noise=others[worst] if worst is not None else None, n_permutations=n,
            seed=seed,
        ),
        "sentences_by_task": dict(Counter({key_of(r): t for r, t in
                                           zip(decodings.references, decodings.tasks, strict=True)}.values())),
        "word_weights": config.train or "the references themselves",
        "definitions": definitions(decodings.references) | LEVEL_DEFINITIONS,
    }  # fmt: skip


def read(config: ScoreConfig, file: str) -> Dump:
    """The rows of predictions or of a control."""
    if config.references is None:
        return read_dump(Path(file), config.column, config.reference_column)
    if config.column is not None or config.reference_column is not None:
        raise ValueError(f"references={config.references} goes with files of lines, which have no columns; leave "
                         "column and reference_column out")  # fmt: skip
    return read_lines(Path(file), Path(config.references))


def task_lists(materials: Path) -> dict[str, list[str]]:
    """Normalised sentences of ZuCo's tasks in the order of presentation; none where the materials are not there."""
    if not (materials / "zuco1_task_materials").is_dir():
        return {}
    return {task: [key_of(text) for text in texts] for task, texts in read_materials(materials).items()}


def split_remark(decodings: Decodings, train: list[str] | None, lists: dict[str, list[str]]) -> list[str]:
    """Whether test sentences were shown next to train sentences, as far as it is known."""
    if train is None:
        return [f"the split is not known (train=FILE); on a random split {RANDOM_SPLIT}"]
    near, known = near_train([key_of(r) for r in decodings.references], [key_of(t) for t in train], lists)
    if not known:
        return [f"the order of presentation is not known (materials=FOLDER); on a random split {RANDOM_SPLIT}"]
    if near:
        return [f"{near} of {known} test sentences were shown within {NEIGHBOURS} of a train sentence: {RANDOM_SPLIT}"]
    return []


def with_tasks(decodings: Decodings, films: set[str]) -> Decodings:
    """Rows of film reviews, whose style differs, as task `film`, others as `text`, where a file names no tasks."""
    if set(decodings.tasks) != {UNKNOWN}:
        return decodings
    tasks = tuple("film" if key_of(text) in films else "text" for text in decodings.references)
    return replace(decodings, tasks=tasks)


def train_lines(path: Path) -> list[str]:
    """Train sentences, one a line. Raises ValueError when there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; give train=FILE with one sentence a line, or leave it out")
    lines = [line.strip() for line in path.read_bytes().decode("utf-8").split("\n") if line.strip()]
    if not lines:
        raise ValueError(f"{path} holds no sentence; give train=FILE with one sentence a line, or leave it out")
    return lines
