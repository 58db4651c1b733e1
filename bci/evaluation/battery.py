"""How often the tests reject where there is nothing to find, counted, and how often they find what is there.

    null runs    the whole pipeline without a signal, and decoders of twelve kinds that ignore the EEG, at every level
    power        the pipeline with a signal, at every level, and words planted into decoders of the twelve kinds
    confounds    decoders of the gaze and of the time (`bci.evaluation.confounds`), which weaker tests let pass

Once in a while a test must reject without a signal; too often, and no result counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spikeloom.bci.evaluation.calibration import STRENGTHS, Experiment, p_of
from spikeloom.bci.evaluation.confounds import drift_world, gaze_world
from spikeloom.bci.evaluation.embeddings import SentenceEncoder
from spikeloom.bci.evaluation.excess import excess
from spikeloom.bci.evaluation.levels import retrieval_beyond, retrieval_scores, similarities, tabulated
from spikeloom.bci.evaluation.metrics import bleu
from spikeloom.bci.evaluation.null_worlds import NULL_WORLDS, PLANTED_WORLD, NullWorld, Text, draw
from spikeloom.bci.evaluation.protocol import constant_sentence_bleu, evidence
from spikeloom.bci.evaluation.retrieval import retrieval_permutation
from spikeloom.bci.evaluation.rows import Decodings
from spikeloom.bci.evaluation.significance import (
    Similarity,
    WordWeights,
    difference_permutation,
    level_difference,
    level_permutation,
    sentence_permutation,
)
from spikeloom.bci.zuco.corpus import write_sentences

ALPHA = 0.05
FRACTIONS = (0.005, 0.01, 0.02, 0.05, 0.1)  # of the content words of a sentence, planted into its output
PERMUTATIONS = 199
TESTS = ("own", "difference", "headline")  # p of permuted sentences, of EEG minus a control, the larger of both
Say = Callable[[str], object]


def calibrate(
    pool: Sequence[Text],
    lists: Mapping[str, Sequence[str]] | None = None,
    *,
    null_runs: int = 200,
    power_runs: int = 20,
    world_runs: int = 100,
    confound_runs: int = 100,
    encoder: SentenceEncoder | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Everything counted, as values for JSON.

    Args:
        pool: sentences of the null worlds, of which the planted one needs rare words.
        lists: sentences by task in their reading order, for the drift; None leaves it out.
        null_runs, power_runs: experiments without a signal, and at each strength.
        world_runs, confound_runs: of each null world, of each confound.
        encoder: of the semantic level; None leaves it out.
    """
    without = false_positives(null_runs)
    say(f"{null_runs} runs without a signal: {without['rejected']:.3f} have p < .05")
    found: dict[str, Any] = {"pipeline": without, "null_worlds": null_rates(pool, world_runs, encoder, say)}
    found["power"] = power(power_runs, encoder, say) if power_runs else None
    found["planted_words"] = planted_words(pool, power_runs, encoder, say=say) if power_runs else None
    found["confounds"] = confounds(lists, confound_runs, say) if confound_runs else None
    return found


def false_positives(n_runs: int, first_seed: int = 0) -> dict[str, float]:
    """Of runs without a signal: the share with p < .05, and that of 95 % intervals of EEG minus noise that hold 0."""
    rejected, covered = [], []
    for seed in range(first_seed, first_seed + n_runs):
        run = Experiment(seed).run(0.0)
        rejected.append(p_of(run.eeg, run.train_texts, seed) < ALPHA)
        interval = excess(run.eeg, run.noise, WordWeights(run.train_texts), seed=seed)
        covered.append(interval.low <= 0 <= interval.high)
    return {"runs": n_runs, "rejected": float(np.mean(rejected)), "intervals_with_0": float(np.mean(covered))}


def synthetic_pool() -> list[Text]:
    """Sentences to read and to write where no task materials are at hand: two tasks of the built-in grammar."""
    return [Text(text, f"T{i % 2}") for i, text in enumerate(write_sentences(900, 0))]


def world_p(world: NullWorld, pool: Sequence[Text], seed: int) -> float:
    """p_eeg of one draw of a world."""
    drawn = draw(world, pool, seed)
    return sentence_permutation(drawn.decodings, WordWeights(drawn.train_texts), PERMUTATIONS, seed).p


def level_p(
    eeg: Decodings, noise: Decodings, weights: WordWeights, compared: Mapping[str, Similarity], seed: int
) -> dict[str, tuple[float, float, float]]:
    """p of TESTS at every level of one decoder and its control; `compared`: similarities by level."""
    given = PERMUTATIONS, seed
    own = {"words": sentence_permutation(eeg, weights, *given).p}
    beyond = {"words": difference_permutation(eeg, noise, weights, *given).p}
    for level, similarity in compared.items():
        own[level] = level_permutation(eeg, similarity, *given).p
        beyond[level] = level_difference(eeg, noise, similarity, *given).p
    own["retrieval"] = retrieval_permutation(*retrieval_scores(eeg, weights), *given).p
    beyond["retrieval"] = retrieval_beyond(eeg, noise, weights, *given).p
    return {level: (own[level], beyond[level], max(own[level], beyond[level])) for level in own}


def null_rates(
    pool: Sequence[Text], world_runs: int, encoder: SentenceEncoder | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """Share of runs with p < .05 at each level and of each test, over all null worlds and in each of them."""
    compared = {
        level: tabulated(similarity, [text.text for text in pool])
        for level, similarity in similarities(encoder).items()
    }
    of_world: list[dict[str, list[float]]] = []
    for k, world in enumerate(NULL_WORLDS):
        p: dict[str, list[tuple[float, float, float]]] = {}
        for seed in range(1000 * k, 1000 * k + world_runs):
            drawn, control = draw(world, pool, seed), draw(world, pool, seed, decoder=1)
            weights = WordWeights(drawn.train_texts)
            for level, values in level_p(drawn.decodings, control.decodings, weights, compared, seed).items():
                p.setdefault(level, []).append(values)
        of_world.append({level: (np.array(values) < ALPHA).mean(0).tolist() for level, values in p.items()})
        shown = ", ".join(f"{level} {rates[0]:.3f}" for level, rates in of_world[-1].items())
        say(f"  null world rho {world.rho:g}, leak {world.leak:g}: {shown}")
    levels = {}
    for level in of_world[0]:
        rates = np.array([found[level] for found in of_world])  # [worlds, tests]
        levels[level] = {
            test: {"rejected": float(rates[:, t].mean()), "largest": float(rates[:, t].max())}
            for t, test in enumerate(TESTS)
        }
        shown = ", ".join(
            f"{test} {v['rejected']:.4f} (largest {v['largest']:.3f})" for test, v in levels[level].items()
        )
        say(f"{world_runs * len(NULL_WORLDS):,} null runs, {level}: {shown}")
    return {
        "runs": world_runs * len(NULL_WORLDS), "levels": levels, "encoder": None if encoder is None else encoder.name,
        "worlds": [
            {"rho": w.rho, "leak": w.leak, "tau": w.tau, **{level: r[0] for level, r in rates.items()}}
            for w, rates in zip(NULL_WORLDS, of_world, strict=True)
        ],
    }  # fmt: skip


def power(runs: int, encoder: SentenceEncoder | None = None, say: Say = lambda _: None) -> dict[str, Any]:
    """Share of runs of the pipeline with p < .05 at each strength and level: `own` and `headline` by level."""
    compared, strengths = similarities(encoder), STRENGTHS[1:]
    p: list[dict[str, list[tuple[float, float, float]]]] = [{} for _ in strengths]
    for k in range(runs):
        drawn = Experiment(500 + k)
        for strength, of_strength in zip(strengths, p, strict=True):
            found = level_p(drawn.eeg(strength), drawn.noise, WordWeights(drawn.train_texts), compared, k)
            for level, values in found.items():
                of_strength.setdefault(level, []).append(values)
    curves: dict[str, dict[str, list[float]]] = {}
    for strength, of_strength in zip(strengths, p, strict=True):
        _add(curves, of_strength)
        say(f"  strength {strength:<8g} " + ", ".join(f"{k} {curve['own'][-1]:.2f}" for k, curve in curves.items()))
    return {"strengths": list(strengths), "runs": runs, "levels": curves}


def planted_words(
    pool: Sequence[Text], runs: int, encoder: SentenceEncoder | None = None,
    fractions: Sequence[float] = FRACTIONS, say: Say = lambda _: None,
) -> dict[str, Any]:  # fmt: skip
    """Decoders with a fraction of the true content words, each beside one like it without: share of runs with p < .05
    by level, test and fraction, verdicts of `evidence` by fraction, and how many are below the constant sentence."""
    curves: dict[str, dict[str, list[float]]] = {}
    kinds: list[dict[str, int]] = []
    useless: list[int] = []
    for fraction in fractions:
        p: dict[str, list[tuple[float, float, float]]] = {}
        kinds.append({})
        useless.append(0)
        for seed in range(runs):
            eeg = draw(replace(PLANTED_WORLD, planted=fraction), pool, seed)
            noise = draw(replace(PLANTED_WORLD, planted=0.0), pool, seed, decoder=1).decodings
            found = level_p(eeg.decodings, noise, WordWeights(eeg.train_texts), similarities(encoder), seed)
            for level, values in found.items():
                p.setdefault(level, []).append(values)
            references = eeg.decodings.references
            score, constant = bleu(eeg.decodings.outputs, references)[0], constant_sentence_bleu(references)[0]
            kind, _ = evidence(score, constant, *found["words"][:2])
            kinds[-1][kind] = kinds[-1].get(kind, 0) + 1
            useless[-1] += score <= constant
        _add(curves, p)
        told = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds[-1].items()))
        shown = ", ".join(f"{level} {curve['headline'][-1]:.2f}" for level, curve in curves.items())
        say(f"  planted {fraction:<6g} {shown}; {told}; {useless[-1]} of {runs} below the constant sentence")
    return {
        "runs": runs, "fractions": list(fractions), "levels": curves, "evidence": kinds,
        "below_constant_sentence": useless,
    }  # fmt: skip


def _add(curves: dict[str, dict[str, list[float]]], p: Mapping[str, Sequence[tuple[float, float, float]]]) -> None:
    """The share of p < .05 of each level and test, as one more point of its curve."""
    for level, of_level in p.items():
        for test, share in zip(TESTS, (np.array(of_level) < ALPHA).mean(0), strict=True):
            curves.setdefault(level, {}).setdefault(test, []).append(float(share))


def confounds(lists: Mapping[str, Sequence[str]] | None, runs: int, say: Say = lambda _: None) -> dict[str, Any]:
    """Share of runs in which decoders of gaze and of time pass, one control after the other."""
    passed = []
    names: list[str] = []
    for seed in range(runs):
        run = gaze_world(seed)
        weights, names = WordWeights(run.train_texts), list(run.controls)
        p = [sentence_permutation(run.eeg, weights, PERMUTATIONS, seed).p]
        p += [difference_permutation(run.eeg, other, weights, PERMUTATIONS, seed).p for other in run.controls.values()]
        passed.append(np.maximum.accumulate(p) < ALPHA)
    shares = np.mean(passed, axis=0).tolist()
    gaze = dict(zip(("permuted sentences", *(f"and {name}" for name in names)), shares, strict=True))
    say("  gaze world: " + ", ".join(f"{name} {share:.2f}" for name, share in gaze.items()))
    found: dict[str, Any] = {"runs": runs, "gaze": gaze, "drift": None}
    if lists is None:
        return found
    found["drift"] = {}
    for unit in ("key", "run"):
        p = []
        for seed in range(runs):
            drawn = drift_world(lists, unit, seed)
            p.append(sentence_permutation(drawn.decodings, WordWeights(drawn.train_texts), PERMUTATIONS, seed).p)
        found["drift"][unit] = float((np.array(p) < ALPHA).mean())
        say(f"  drift world, split by {unit}: {found['drift'][unit]:.3f} have p < .05")
    return found
