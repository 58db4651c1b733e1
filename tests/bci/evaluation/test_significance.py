"""The vectorised permutation test equals the written-out one, sees content, and ignores everything else."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from spikeloom.bci.evaluation.calibration import Experiment
from spikeloom.bci.evaluation.decodings import Decodings
from spikeloom.bci.evaluation.excess import excess, row_excess
from spikeloom.bci.evaluation.protocol import ProtocolConfig, evidence
from spikeloom.bci.evaluation.sections import sections
from spikeloom.bci.evaluation.significance import (
    Sentences,
    WordWeights,
    centred,
    difference_permutation,
    kernels,
    mean_kernels,
    sentence_permutation,
    studentised,
)
from spikeloom.bci.zuco.corpus import write_sentences
from spikeloom.bci.zuco.text import normalise


def decoder(share: float, seed: int = 0, n: int = 40, readers: int = 3) -> tuple[Decodings, list[str]]:
    """Train sentences at random, with `share` of rows that say their own sentence instead."""
    texts = write_sentences(2 * n, 0)
    read, train = texts[:n], texts[n:]
    rng = np.random.default_rng(seed)
    rows = [(a, i) for a in range(readers) for i in range(n)]
    outputs = tuple(read[i] if rng.random() < share else train[rng.integers(n)] for _, i in rows)
    return Decodings(
        outputs=outputs,
        references=tuple(read[i] for _, i in rows),
        subjects=tuple(f"S{a}" for a, _ in rows),
        tasks=tuple("NR" if i % 2 else "SR" for _, i in rows),
        seeds=(0,) * len(rows),
    ), train


def literal(rows: Decodings, train: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """W of both kernels and, with the idf kernel, the excess of each row: loops after the equations."""
    keys = sorted({normalise(r) for r in rows.references})
    text = {normalise(r): r for r in rows.references}
    task = {normalise(r): t for r, t in zip(rows.references, rows.tasks, strict=True)}
    train_keys = {normalise(t) for t in train}
    df = Counter(w for k in train_keys for w in set(k.split()))
    weigh = {"flat": lambda w: 1.0, "idf": lambda w: max(0.0, math.log((len(train_keys) + 1) / (df[w] + 1)))}
    x = []
    for k in keys:
        n_w, n_c = len(text[k].split()), len(text[k])
        of_task = [j for j in keys if task[j] == task[k]]
        row = []
        for name in sorted(set(task.values())):
            values = [math.log(n_w), math.log(n_w) ** 2, math.log(n_c / n_w)]
            means = [
                sum(f(len(text[j].split()), len(text[j])) for j in of_task) / len(of_task)
                for f in (lambda w, c: math.log(w), lambda w, c: math.log(w) ** 2, lambda w, c: math.log(c / w))
            ]
            row += [1.0, *(v - m for v, m in zip(values, means, strict=True))] if task[k] == name else [0.0] * 4
        x.append(row)
    projector = np.eye(len(keys)) - np.array(x) @ np.linalg.pinv(np.array(x), rcond=1e-8)
    found, m_idf = {}, None
    for name, weight in weigh.items():
        m = np.zeros((len(rows), len(keys)))
        for r, output in enumerate(rows.outputs):
            c_o = Counter(normalise(output).split())
            for j, key in enumerate(keys):
                c_j = Counter(key.split())
                norm = sum(weight(w) * c for w, c in c_o.items()) * sum(weight(w) * c for w, c in c_j.items())
                m[r, j] = sum(weight(w) * min(c, c_j[w]) for w, c in c_o.items()) / math.sqrt(norm) if norm else 0
        m_idf = m @ projector
        own = [keys.index(normalise(r)) for r in rows.references]
        found[name] = np.array([np.mean([m_idf[r] for r, i in enumerate(own) if i == k], 0) for k in range(len(keys))])
    w, values = found["idf"], []
    for r, i in enumerate(own):
        (g,) = [g for g in Sentences.of(rows).strata if i in g]
        values.append(m_idf[r, i] - m_idf[r, g].mean() - w[g, i].mean() + w[np.ix_(g, g)].mean())
    return found, np.array(values)


def test_kernels_and_excess_equal_the_written_out_equations():
    rows, train = decoder(0.2)
    rows = replace(rows, outputs=("", "zzz unheard-of zzz", *rows.outputs[2:]))
    expected, values = literal(rows, train)
    found = mean_kernels(rows, WordWeights(train))
    for name, w in expected.items():
        np.testing.assert_allclose(found[name], w, atol=1e-12)
    np.testing.assert_allclose(row_excess(rows, WordWeights(train)), values, atol=1e-9)


def test_statistic_equals_the_written_out_one():
    rng = np.random.default_rng(0)
    w, g = rng.standard_normal((7, 7)), [np.array([0, 2, 4]), np.array([1, 3, 5, 6])]
    q = np.array([4, 1, 2, 6, 0, 5, 3])
    top, bottom = 0.0, 0.0
    for stratum in g:
        for i in stratum:
            j = q[i]
            d = w[i, j] - w[i, stratum].mean() - w[stratum, j].mean() + w[np.ix_(stratum, stratum)].mean()
            top, bottom = top + d, bottom + d * d
    assert studentised(centred(w, g), q[None])[0] == pytest.approx(top / math.sqrt(bottom))


def test_strata_hold_five_neighbours_in_length_of_one_task():
    rows, _ = decoder(0.0)
    sentences = Sentences.of(rows)
    strata = sentences.strata
    assert sorted(np.concatenate(strata).tolist()) == list(range(len(sentences)))
    assert min(map(len, strata)) >= 5
    assert all(len({sentences.tasks[i] for i in g}) == 1 for g in strata)


def test_nothing_smooth_in_length_is_left_in_a_kernel():
    rows, train = decoder(0.3)
    sentences = Sentences.of(rows)
    for m in kernels(rows.outputs, sentences, WordWeights(train)).values():
        np.testing.assert_allclose(m @ sentences.length_space(), 0, atol=1e-9)


def test_content_is_found_and_chance_is_not():
    for share, low, high in ((0.0, 0.06, 1.0), (0.3, 0.0, 0.01)):
        rows, train = decoder(share)
        assert low <= sentence_permutation(rows, WordWeights(train), 199).p <= high


def test_order_of_rows_and_number_of_seeds_change_nothing():
    rows, train = decoder(0.1)
    weights = WordWeights(train)
    turned = rows.select(range(len(rows) - 1, -1, -1))
    twice = Decodings(**{k: getattr(rows, k) * 2 for k in ("outputs", "references", "subjects", "tasks")},
                      seeds=(0,) * len(rows) + (1,) * len(rows))  # fmt: skip
    first = sentence_permutation(rows, weights, 99)
    assert sentence_permutation(turned, weights, 99).statistic == pytest.approx(first.statistic)
    assert sentence_permutation(twice, weights, 99).statistic == pytest.approx(first.statistic)


def test_what_noise_does_as_well_is_no_evidence():
    rows, train = decoder(0.5)
    assert sentence_permutation(rows, WordWeights(train), 199).p < 0.01
    other = decoder(0.5, seed=1)[0]
    assert difference_permutation(rows, other, WordWeights(train), 199).p > 0.05


def test_two_constant_decoders_differ_by_exactly_nothing():
    rows, train = decoder(0.0)
    one = replace(rows, outputs=(train[0],) * len(rows))
    two = replace(rows, outputs=(train[1],) * len(rows))
    weights = WordWeights(train)
    assert sentence_permutation(one, weights, 99).p == 1
    assert difference_permutation(one, two, weights, 99).p == 1
    found = excess(one, two, weights, n_draws=200)
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_the_report_opens_with_the_honest_sentence():
    drawn = Experiment(0)
    for strength, said in ((0.0, "does not beat"), (1.0, "The model beats")):
        run = drawn.run(strength)
        found = ProtocolConfig(n_permutations=99, n_draws=200).build().assess(
            run.eeg, run.noise, run.train_texts, dropped={"sentence_nan": 2}, decoding={"num_beams": 1}
        )  # fmt: skip
        first, *_ = sections(found)
        assert said in first.text.split("\n\n")[0]
        assert found.p == max(found.p_eeg.p, found.p_diff.p)
        assert found.as_dict()["beats_noise"] is (strength > 0)
        assert ("dropped: sentence_nan", "2") in first.table.rows


def test_readings_that_only_one_decoder_has_are_left_out_of_the_difference():
    rows, train = decoder(0.3)
    part = rows.select(range(0, len(rows) - 40))  # the third reader is missing
    found = excess(rows, part, WordWeights(train), n_draws=100)
    assert set(found.by_subject) == {"S0", "S1"}
    assert found.difference == 0
    with pytest.raises(ValueError, match="share no trial"):
        difference_permutation(rows, replace(rows, tasks=("TSR",) * len(rows)), WordWeights(train))


def test_words_of_the_verdict_follow_the_figures():
    kind, words = evidence(8.9, 9.4, 0.001)
    assert kind == "needs_noise_control" and "Usefulness: one constant sentence scores no less" in words
    assert evidence(8.9, 9.4, 0.001, 0.01)[0] == "beats_noise_control"
    assert evidence(12, 9.4, 0.001, 0.01, refused="one is teacher-forced")[0] == "not_comparable"
    assert evidence(12, 9.4, 0.3)[0] == "none"
    assert evidence(12, 9.4, 0.001)[0] == "needs_noise_control"
    assert evidence(12, 9.4, 0.001, 0.2)[0] == "none"
    assert evidence(12, 9.4, 0.001, 0.01)[0] == "beats_noise_control"
