"""Published decodings reproduce the published and counted figures, and the verb says honestly what they show."""

import json
from pathlib import Path

import pytest

from spikeloom.bci.evaluation.decodings import Decodings, read_pairs
from spikeloom.bci.evaluation.metrics import measure
from spikeloom.bci.evaluation.protocol import CONSTANT_SENTENCE
from spikeloom.bci.evaluation.significance import WordWeights, difference_permutation, sentence_permutation
from spikeloom.bci.zuco.text import normalise
from spikeloom.pipelines.commands.score import run
from spikeloom.pipelines.config.score import ScoreConfig
from spikeloom.pipelines.eeg.scoring import with_tasks
from tests.conftest import data_folder

# BLEU-1..4 over words and BPE (None: not published), ROUGE-1 P/R/F with repeats and as sets, WER, distinct-1/2, texts.
KNOWN = {
    "free_running_eeg": ((8.88, 3.44, 1.63, 0.75), None, (15.45, 10.64, 11.95), (15.84, 10.84, 12.29), 97.30,
                         (0.00131, 0.00160), 4),
    "teacher_forced_eeg": ((27.85, 14.15, 7.11, 3.17), (39.57, 22.75, 12.49, 6.72), (29.49, 26.71, 27.99),
                           (30.64, 25.47, 27.74), 77.51, (0.04154, 0.07806), 411),
    "teacher_forced_noise": ((27.48, 13.77, 6.67, 2.70), (39.46, 22.53, 12.16, 6.43), (29.22, 26.44, 27.72),
                             (30.49, 25.25, 27.54), 77.79, (0.04601, 0.08194), 481),
}  # fmt: skip


def scored(dump: Path, out: Path, **keys: str) -> dict:
    data = dump.parents[2]
    run(
        ScoreConfig(
            predictions=str(dump), out=str(out), tokenizer=str(data / "tokenizer/bart"), materials=str(data / "zuco"),
            n_permutations=199, **keys,
        )
    )  # fmt: skip
    return json.loads(out.read_text())


def dumps() -> list[Path]:
    return sorted(data_folder("zuco/decoding_dumps").glob("*.txt"))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What the verb writes for each dump."""
    folder = tmp_path_factory.mktemp("scores")
    return {dump.stem: scored(dump, folder / f"{dump.stem}.json") for dump in dumps()}


def test_every_known_dump_is_measured_as_counted(found):
    for dump in dumps():
        assert found[dump.stem]["rows"] == dump.read_bytes().count(b"\nPredicted:")
    for name in KNOWN.keys() & found.keys():
        words, bpe, multiset, once, wer, distinct, unique = KNOWN[name]
        scores = found[name]
        assert scores["bleu_word"] == pytest.approx(words, abs=0.02)
        assert bpe is None or scores["bleu_bpe"] == pytest.approx(bpe, abs=0.02)
        assert [*scores["rouge1"].values()] == pytest.approx(multiset, abs=0.02)
        assert [*scores["rouge1_set"].values()] == pytest.approx(once, abs=0.02)
        assert scores["rouge1_f"] == scores["rouge1"]["f1"]
        assert scores["wer"] == pytest.approx(wer, abs=0.02)
        assert (scores["distinct_1"], scores["distinct_2"]) == pytest.approx(distinct, abs=2e-5)
        assert scores["distinct_outputs"] == unique
        assert scores["constant_sentence_bleu_word"] == pytest.approx([9.41, 3.70, 1.72, 0.78], abs=0.02)


def test_a_constant_sentence_scores_what_it_is_known_to_score():
    references = read_pairs(dumps()[0]).references
    found = measure([CONSTANT_SENTENCE] * len(references), references)
    assert found.bleu_word == pytest.approx((9.41, 3.70, 1.72, 0.78), abs=0.02)
    assert (*found.rouge1, *found.rouge1_set) == pytest.approx((16.33, 11.24, 12.64, 16.79, 11.48, 13.04), abs=0.02)
    assert found.wer == pytest.approx(97.03, abs=0.02)


def test_no_dump_passes_for_use_of_the_eeg(found):
    assert {name: f["evidence"] for name, f in found.items() if f["evidence"] == "beats_noise_control"} == {}
    if "free_running_eeg" in found:
        assert found["free_running_eeg"]["verdict"].startswith("No evidence")


def with_corpora(path: Path) -> Decodings:
    """The rows of a dump with the corpora of the known statistics: films are the 39 sentences found where the list of
    task 1 is split at every semicolon (read as the CSV it is, it gives 40)."""
    lines = (path.parents[1] / "zuco1_task_materials/sentiment_labels_task1.csv").read_text("utf-8").split("\n")
    return with_tasks(read_pairs(path), {normalise(line.split(";")[1]) for line in lines if ";" in line})


def test_the_permutation_gives_the_known_statistics():
    known = {"free_running_eeg": (-0.93, 0.7, 1), "teacher_forced_eeg": (9.18, 0, 0.005),
             "teacher_forced_noise": (9.19, 0, 0.005)}  # fmt: skip
    for dump in dumps():
        if dump.stem in known:
            t, low, high = known[dump.stem]
            rows = with_corpora(dump)
            test = sentence_permutation(rows, WordWeights(rows.references))
            assert test.statistic == pytest.approx(t, abs=0.02)
            assert low <= test.p <= high
            assert (test.n_sentences, test.n_strata) == (104, 17)


def test_teacher_forced_outputs_are_not_told_from_those_of_noise(tmp_path):
    eeg, noise = (data_folder("zuco/decoding_dumps") / f"teacher_forced_{kind}.txt" for kind in ("eeg", "noise"))
    if not (eeg.is_file() and noise.is_file()):
        pytest.skip("no pair of teacher-forced dumps")
    test = difference_permutation(with_corpora(eeg), with_corpora(noise), WordWeights(with_corpora(eeg).references))
    assert test.statistic == pytest.approx(0.31, abs=0.02)
    found = scored(eeg, tmp_path / "o.json", noise=str(noise))
    assert found["p_headline"] > 0.3
    assert found["evidence"] == "none"


def pairs(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_pairs_are_read_in_either_order_and_only_at_line_feeds(tmp_path):
    rows = read_pairs(pairs(tmp_path / "a.txt", "Predicted:  b\x85c\rd\nTrue:one two\n\nPredicted: \nTrue: three\r\n"))
    assert rows.outputs == (" b\x85c\rd", "")
    assert rows.references == ("one two", "three")
    assert read_pairs(pairs(tmp_path / "b.txt", "True: one\nPredicted: x\n")).outputs == ("x",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing here\n", "holds no line"),
        ("Predicted: a\nPredicted: b\nTrue: c\n", "b.txt:2"),
        ("Predicted: a\nTrue: c\nTrue: d\n", "b.txt:3"),
        ("Predicted: a\nTrue: c\nPredicted: d\n", "b.txt:3"),
        ("Predicted: a\nTrue: \n", "empty `True:`"),
    ],
)
def test_a_torn_file_is_refused_with_its_line(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        read_pairs(pairs(tmp_path / "b.txt", text))
