"""How often the tests reject where there is nothing to find, counted: over runs of the whole pipeline without a signal,
and over decoders of twelve kinds that ignore the EEG. Once in a while they must; too often, and no result counts."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bci.evaluation.calibration import STRENGTHS, experiment, p_of, power_curve
from bci.evaluation.excess import excess
from bci.evaluation.null_worlds import NULL_WORLDS, PLANTED_WORLD, NullWorld, Text, draw
from bci.evaluation.significance import WordWeights, sentence_permutation
from bci.zuco.corpus import write_sentences

ALPHA = 0.05
PERMUTATIONS = 199
Say = Callable[[str], object]


def false_positives(n_runs: int, first_seed: int = 0) -> dict[str, float]:
    """Of runs without a signal: the share with p < .05, and that of 95 % intervals of EEG minus noise that hold 0."""
    rejected, covered = [], []
    for seed in range(first_seed, first_seed + n_runs):
        run = experiment(0.0, seed)
        rejected.append(p_of(run, seed) < ALPHA)
        interval = excess(run.eeg, run.noise, WordWeights(run.train_texts), seed=seed)
        covered.append(interval.low <= 0 <= interval.high)
    return {"runs": n_runs, "rejected": float(np.mean(rejected)), "intervals_with_0": float(np.mean(covered))}


def world_p(world: NullWorld, pool: Sequence[Text], seed: int) -> float:
    """p_eeg of one draw of a world."""
    drawn = draw(world, pool, seed)
    return sentence_permutation(drawn.decodings, WordWeights(drawn.train_texts), PERMUTATIONS, seed).p


def world_rate(world: NullWorld, pool: Sequence[Text], seeds: Sequence[int]) -> float:
    return float(np.mean([world_p(world, pool, seed) < ALPHA for seed in seeds]))


def synthetic_pool() -> list[Text]:
    """Sentences to read and to write where no task materials are at hand: two tasks of the built-in grammar."""
    return [Text(text, f"T{i % 2}") for i, text in enumerate(write_sentences(900, 0))]


def calibrate(
    pool: Sequence[Text],
    *,
    null_runs: int = 200,
    power_runs: int = 20,
    world_runs: int = 100,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Everything counted. `pool`: sentences of the null worlds, of which the planted one needs rare words."""
    without = false_positives(null_runs)
    say(f"{null_runs} runs without a signal: {without['rejected']:.3f} have p < .05")
    power = power_curve(power_runs, STRENGTHS[1:])
    curve = {
        "strengths": [0.0, *power["strengths"]], "rejected": [without["rejected"], *power["rejected"]],
        "runs": [float(null_runs), *power["runs"]],
    }  # fmt: skip
    for strength, share in zip(curve["strengths"], curve["rejected"], strict=True):
        say(f"  strength {strength:<8g} {share:.3f} of the runs have p < .05")
    rates = []
    for k, world in enumerate(NULL_WORLDS):
        rates.append(world_rate(world, pool, range(1000 * k, 1000 * k + world_runs)))
        say(f"  null world rho {world.rho:g}, leak {world.leak:g}: {rates[-1]:.3f}")
    found = world_rate(PLANTED_WORLD, pool, range(max(1, world_runs // 2)))
    say(f"null worlds pooled {np.mean(rates):.4f}, largest {max(rates):.3f}; planted words found in {found:.2f}")
    return {
        "pipeline": without, "power": curve,
        "null_worlds": [
            {"rho": w.rho, "leak": w.leak, "tau": w.tau, "rejected": rate}
            for w, rate in zip(NULL_WORLDS, rates, strict=True)
        ],
        "null_worlds_pooled": float(np.mean(rates)), "null_worlds_largest": max(rates), "world_runs": world_runs,
        "planted_words_found": found,
    }  # fmt: skip
