"""The whole judgement of a decoder against its noise control, and what a single file of outputs can tell at most.

The headline is the excess of EEG over noise with its interval, and p = max(p_eeg, p_diff). Raw BLEU and ROUGE of both
stand beside it untested: their difference is no test of content. Only free-running outputs belong here; nothing in the
rows can prove that they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bci.evaluation.decodings import Decodings
from bci.evaluation.diversity import Diversity, diversity
from bci.evaluation.excess import Excess, excess
from bci.evaluation.metrics import TextMetrics, bleu, measure
from bci.evaluation.significance import (
    PermutationTest,
    WordWeights,
    difference_permutation,
    sentence_permutation,
)

ALPHA = 0.05
# The output that one published decoder repeats for nine of ten sentences; it reads nothing and scores a little more.
CONSTANT_SENTENCE = "He was born in New York City and grew up in the Bronx."


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """EEG decoder beside its noise control, both free-running. `dropped` and `decoding` are printed with the result."""

    eeg: TextMetrics
    noise: TextMetrics
    eeg_diversity: Diversity
    noise_diversity: Diversity
    p_eeg: PermutationTest
    p_diff: PermutationTest
    excess: Excess
    dropped: dict[str, int]
    decoding: dict[str, Any]

    @property
    def p(self) -> float:
        """The headline: the larger of both."""
        return max(self.p_eeg.p, self.p_diff.p)

    @property
    def beats_noise(self) -> bool:
        """Whether both tests reject and the interval of the excess lies above 0."""
        return self.p < ALPHA and self.excess.low > 0

    @property
    def verdict(self) -> str:
        """One sentence, the first of every report."""
        e = self.excess
        figures = (
            f"excess {e.difference:+.4f}, {e.level:.0%} interval [{e.low:+.4f}, {e.high:+.4f}], p = {self.p:.3f} "
            f"on {self.p_eeg.n_sentences} unseen sentences"
        )
        if self.beats_noise:
            return f"The model beats its noise control: {figures}."
        return f"The model does not beat its noise control: {figures}."

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "verdict": self.verdict, "beats_noise": self.beats_noise, "p": self.p, "p_eeg": self.p_eeg.as_dict(),
            "p_diff": self.p_diff.as_dict(), "excess": self.excess.as_dict(),
            "eeg": self.eeg.as_dict() | self.eeg_diversity.as_dict(),
            "noise": self.noise.as_dict() | self.noise_diversity.as_dict(),
            "warnings": self.eeg_diversity.warnings(), "dropped": self.dropped, "decoding": self.decoding,
        }  # fmt: skip


@dataclass
class ProtocolConfig:
    """n_permutations, n_draws: of the tests and of the interval, whose level is `level`."""

    n_permutations: int = 999
    n_draws: int = 2000
    level: float = 0.95
    seed: int = 0

    def build(self) -> "Protocol":
        return Protocol(self)


class Protocol:
    """Judges decoders by one set of settings."""

    def __init__(self, config: ProtocolConfig) -> None:
        self.config = config

    def judge(
        self,
        eeg: Decodings,
        noise: Decodings,
        train_texts: Sequence[str],
        *,
        dropped: dict[str, int],
        decoding: dict[str, Any],
    ) -> Judgement:
        """eeg, noise: test rows of both decoders, the noise control trained with a neutralised mask; train_texts: what
        both learnt from; dropped: rows left out, by reason; decoding: the settings outputs were generated with."""
        c, weights = self.config, WordWeights(train_texts)
        return Judgement(
            eeg=measure(eeg.outputs, eeg.references),
            noise=measure(noise.outputs, noise.references),
            eeg_diversity=diversity(eeg, train_texts),
            noise_diversity=diversity(noise, train_texts),
            p_eeg=sentence_permutation(eeg, weights, c.n_permutations, c.seed),
            p_diff=difference_permutation(eeg, noise, weights, c.n_permutations, c.seed),
            excess=excess(eeg, noise, weights, n_draws=c.n_draws, level=c.level, seed=c.seed),
            dropped=dropped,
            decoding=decoding,
        )


def evidence(
    outputs_bleu1: float, constant_bleu1: float, p_permutation: float, p_diff: float | None = None
) -> tuple[str, str]:
    """What outputs show of the EEG: one of `none`, `needs_noise_control`, `beats_noise_control`, and why in words.

    p_diff: of the outputs against those of a noise control, None without one.
    """
    lost = []  # str
    if p_permutation >= ALPHA:
        lost.append(
            f"they fit their own sentences no better than permuted ones of equal length (p = {p_permutation:.3f})"
        )
    if outputs_bleu1 <= constant_bleu1:
        lost.append(f"one constant sentence does no worse (BLEU-1 {constant_bleu1:.2f} against {outputs_bleu1:.2f})")
    if p_diff is not None and p_diff >= ALPHA:
        lost.append(f"a decoder of noise fits as well (p = {p_diff:.3f})")
    if lost:
        return "none", f"No evidence that the outputs use the EEG: {'; '.join(lost)}."
    won = (
        f"The outputs fit their own sentences better than permuted ones (p = {p_permutation:.3f}) and score more than "
        f"one constant sentence (BLEU-1 {outputs_bleu1:.2f} against {constant_bleu1:.2f})"
    )
    if p_diff is None:
        return "needs_noise_control", (
            f"{won}. That is not yet evidence of EEG: teacher-forced outputs of noise pass both. Free-running outputs "
            "of the same model trained on noise must be beaten."
        )
    return "beats_noise_control", (
        f"Evidence of EEG, if the decoder ran free: {won[0].lower()}{won[1:]}, also beyond a decoder of noise "
        f"(p = {p_diff:.3f})."
    )


def constant_sentence_bleu(references: Sequence[str], sentence: str = CONSTANT_SENTENCE) -> tuple[float, ...]:
    """BLEU-1..4 in percent of saying `sentence` to everything."""
    return bleu([sentence] * len(references), references)
