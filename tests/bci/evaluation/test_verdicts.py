"""Verdicts follow the tests: the largest p over all controls without EEG, and what the rows give away is said."""

from dataclasses import replace

import jiwer
import numpy as np
import pytest

from spikeloom.bci.evaluation.battery import synthetic_pool
from spikeloom.bci.evaluation.embeddings import SentenceEncoder, load_encoder
from spikeloom.bci.evaluation.levels import (
    bleu_1_similarity,
    character_similarity,
    level_tests,
    word_edit_similarity,
)
from spikeloom.bci.evaluation.metrics import bleu
from spikeloom.bci.evaluation.null_worlds import NULL_WORLDS, NullWorld, draw
from spikeloom.bci.evaluation.protocol import ProtocolConfig, mismatch
from spikeloom.bci.evaluation.rows import Decodings
from spikeloom.bci.evaluation.significance import WordWeights, level_permutation
from spikeloom.bci.evaluation.signs import counts, degenerate, forcing, near_train, remarks

POOL = synthetic_pool()
FREE = draw(NULL_WORLDS[2], POOL, 0)


def teacher_forced(decodings: Decodings, seed: int = 0) -> Decodings:
    """Half of the true words in their places, then the letters past the end that forced decoders repeat."""
    rng = np.random.default_rng(seed)
    outputs = []
    for text in decodings.references:
        words = [word if rng.random() < 0.5 else "the" for word in text.split()]
        outputs.append(" ".join(words) + "gggggg,,,,,,,,")
    return replace(decodings, outputs=tuple(outputs))


def test_teacher_forced_outputs_against_a_free_control_get_no_verdict() -> None:
    free = FREE.decodings
    forced = teacher_forced(free)
    assert forcing(forced).likely and not forcing(free).likely
    assert mismatch(forced, {"noise": free}) is not None and mismatch(free, {"noise": free}) is None
    asked = ProtocolConfig(n_permutations=99, n_draws=100).build()
    found = asked.assess(forced, free, FREE.train_texts, dropped={}, decoding={})
    assert not found.beats_noise and found.verdict.startswith("No verdict: the outputs look teacher-forced")
    assert any("handed the answer" in remark for remark in found.remarks)


def with_content(share: float, seed: int = 0) -> Decodings:
    """FREE, a share of whose rows name their own sentence."""
    rng = np.random.default_rng(seed)
    pairs = zip(FREE.decodings.outputs, FREE.decodings.references, strict=True)
    return replace(FREE.decodings, outputs=tuple(true if rng.random() < share else said for said, true in pairs))


@pytest.mark.parametrize("world", [NULL_WORLDS[3], NULL_WORLDS[7]])
def test_lengths_alone_are_no_sign_of_teacher_forcing(world: NullWorld) -> None:
    assert not forcing(draw(world, POOL, 1).decodings).likely


def test_the_headline_is_the_largest_p_over_all_controls() -> None:
    true, other = with_content(0.3), FREE.decodings
    asked = ProtocolConfig(n_permutations=99, n_draws=100).build()
    alone = asked.assess(true, other, FREE.train_texts, dropped={}, decoding={})
    assert alone.beats_noise and alone.p < 0.05
    beside = asked.assess(
        true, other, FREE.train_texts, dropped={}, decoding={}, controls={"gaze only": true}, untested=("mask_only",),
    )  # fmt: skip
    assert beside.p == beside.p_controls["gaze only"] == 1.0 and not beside.beats_noise
    assert "largest p: gaze only" in beside.verdict and "Not trained: mask_only." in beside.verdict


def test_one_text_for_all_rows_and_doubled_rows_are_said() -> None:
    same = replace(FREE.decodings, outputs=("so it goes",) * len(FREE.decodings))
    assert degenerate(same) == f"one text for all {len(same)} rows ('so it goes')"
    assert any(remark.startswith("noise wrote one text for all") for remark in remarks(same, "noise"))
    doubled = FREE.decodings.select([*range(len(FREE.decodings)), 0, 1])
    assert counts(doubled)["doubled"] == 2 and counts(FREE.decodings)["doubled"] == 0
    assert counts(FREE.decodings)["readers"] == 6


def test_neighbours_in_the_order_of_presentation_are_counted() -> None:
    order = [f"s{i}" for i in range(100)]
    train, test = order[:50], order[60:70]
    assert near_train(test, train, {"T": order}) == (0, 10)
    assert near_train(order[::10], [key for key in order if key not in order[::10]], {"T": order}) == (10, 10)
    assert near_train(["elsewhere"], train, {"T": order}) == (0, 0)


def letters(texts: list[str]) -> np.ndarray:
    """How often each letter occurs: an encoder that knows no words."""
    return np.array([[text.count(chr(97 + k)) for k in range(26)] for text in texts], dtype=np.float32)


def test_every_level_finds_what_was_planted_and_not_what_was_not() -> None:
    encoder = SentenceEncoder(name="letters", width=26, vectors_of=letters)
    found = level_tests(with_content(0.3), WordWeights(FREE.train_texts), encoder=encoder, n_permutations=99)
    assert {level: values["p"] for level, values in found.items()} == {
        "bleu_1": 0.01, "word_edits": 0.01, "characters": 0.01, "semantic": 0.01, "retrieval": 0.01,
    }  # fmt: skip
    assert found["retrieval"]["top"][1] > found["retrieval"]["chance_top"][1]
    null_p = [level_permutation(draw(NULL_WORLDS[k], POOL, k).decodings, character_similarity, 99).p for k in range(4)]
    assert min(null_p) > 0.01


def test_similarities_of_words_are_those_of_the_metrics() -> None:
    outputs = ["the king of the hill", "Frogs eat flies", "", "the the the"]
    sentences = ["the king was on the hill", "flies eat frogs", "the"]
    bleu_1, edits = bleu_1_similarity(outputs, sentences), word_edit_similarity(outputs, sentences)
    for i, said in enumerate(outputs[:2]):
        for j, true in enumerate(sentences):
            n, m = len(said.split()), len(true.split())
            assert 100 * bleu_1[i, j] * np.exp(min(0, 1 - m / n)) == pytest.approx(bleu([said], [true])[0])
            wrong = jiwer.process_words(true, said)
            assert edits[i, j] == pytest.approx(
                1 - (wrong.substitutions + wrong.deletions + wrong.insertions) / max(n, m)
            )
    assert not bleu_1[2].any() and not edits[2].any()
    assert bleu_1[3].tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    assert bleu_1_similarity(["我爱你"], ["我爱他"])[0, 0] == pytest.approx(2 / 3)  # characters are the words


def test_equal_outputs_are_retrieved_at_chance() -> None:
    same = replace(FREE.decodings, outputs=("so it goes",) * len(FREE.decodings))
    found = level_tests(same, WordWeights(FREE.train_texts), n_permutations=19)
    assert {values["p"] for values in found.values()} == {1.0}


def test_an_encoder_that_is_not_there_says_what_to_install_or_give(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"is no folder and none of minilm, wordllama.*spikeloom\[text\]"):
        load_encoder("nowhere")
    with pytest.raises(ValueError, match=r"lacks config\.json"):
        load_encoder(str(tmp_path))
