"""The whole assessment of a decoder against its noise control, and what a single file of outputs can tell at most.

The headline is the excess of EEG over noise with its interval, and p, the largest of p_eeg and of p_diff against every
control that has no EEG of the trial: noise, zeros, the mask, the gaze, another trial, the text alone. Raw BLEU and
ROUGE stand beside it untested: their difference is no test of content. Outputs that look teacher-forced where the
control runs free get no verdict (`bci.evaluation.signs`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from spikeloom.accel.common.units import counted
from spikeloom.bci.evaluation.decodings import Decodings
from spikeloom.bci.evaluation.diversity import Diversity, diversity
from spikeloom.bci.evaluation.excess import Excess, excess
from spikeloom.bci.evaluation.metrics import TextMetrics, bleu, measure
from spikeloom.bci.evaluation.significance import (
    PermutationTest,
    WordWeights,
    difference_permutation,
    sentence_permutation,
)
from spikeloom.bci.evaluation.signs import forcing, remarks

ALPHA = 0.05
# The output that one published decoder repeats for nine of ten sentences; it reads nothing and scores a little more.
CONSTANT_SENTENCE = "He was born in New York City and grew up in the Bronx."


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """EEG decoder and its controls, free-running. p_controls: p_diff against each further control without EEG;
    untested: those that were not trained. remarks: what the rows give away, in words. `dropped` and `decoding` are
    printed with the result."""

    eeg: TextMetrics
    noise: TextMetrics
    eeg_diversity: Diversity
    noise_diversity: Diversity
    p_eeg: PermutationTest
    p_diff: PermutationTest
    excess: Excess
    dropped: dict[str, int]
    decoding: dict[str, Any]
    p_controls: dict[str, float] = field(default_factory=dict)
    untested: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    refused: str | None = None

    @property
    def p(self) -> float:
        """The headline: the largest of all."""
        return max(self.p_eeg.p, self.p_diff.p, *self.p_controls.values())

    @property
    def worst(self) -> str:
        """The test with the largest p."""
        tests = {"permuted sentences": self.p_eeg.p, "the noise control": self.p_diff.p, **self.p_controls}
        return max(tests, key=lambda name: tests[name])

    @property
    def beats_noise(self) -> bool:
        """Whether every test rejects and the interval of the excess lies above 0."""
        return self.refused is None and self.p < ALPHA and self.excess.low > 0

    @property
    def verdict(self) -> str:
        """One sentence, the first of every report."""
        e = self.excess
        figures = (
            f"excess {e.difference:+.4f}, {100 * e.level:.0f} % interval [{e.low:+.4f}, {e.high:+.4f}], "
            f"p = {self.p:.3f} on {self.p_eeg.n_sentences} unseen sentences"
        )
        if self.refused is not None:
            return f"No verdict: {self.refused}."
        others = f" and {counted(len(self.p_controls), 'other')} without EEG" if self.p_controls else ""
        against = f"its noise control{others}"
        left = f" Not trained: {', '.join(self.untested)}." if self.untested else ""
        if self.beats_noise:
            return f"The model beats {against}: {figures}.{left}"
        return f"The model does not beat {against}: {figures} (largest p: {self.worst}).{left}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "verdict": self.verdict, "beats_noise": self.beats_noise, "p": self.p, "p_eeg": self.p_eeg.as_dict(),
            "p_diff": self.p_diff.as_dict(), "p_controls": self.p_controls, "p_worst_of": self.worst,
            "controls_not_trained": list(self.untested), "remarks": list(self.remarks), "refused": self.refused,
            "excess": self.excess.as_dict(),
            "eeg": self.eeg.as_dict() | self.eeg_diversity.as_dict(),
            "noise": self.noise.as_dict() | self.noise_diversity.as_dict(),
            "warnings": self.eeg_diversity.warnings(), "dropped": self.dropped, "decoding": self.decoding,
        }  # fmt: skip


@dataclass
class ProtocolConfig:
    """n_permutations, n_draws: of the tests and of the interval, whose level is `level`."""

    n_permutations: int = 999  # of the permutation tests
    n_draws: int = 2000  # of the bootstrap interval
    level: float = 0.95  # of the bootstrap interval
    seed: int = 0  # of permutations and draws

    def build(self) -> "Protocol":
        return Protocol(self)


class Protocol:
    """Assesses decoders by one set of settings."""

    def __init__(self, config: ProtocolConfig) -> None:
        self.config = config

    def assess(
        self,
        eeg: Decodings,
        noise: Decodings,
        train_texts: Sequence[str],
        *,
        dropped: dict[str, int],
        decoding: dict[str, Any],
        controls: Mapping[str, Decodings] = MappingProxyType({}),
        untested: Sequence[str] = (),
    ) -> Assessment:
        """Test a decoder.

        Args:
            eeg, noise: test rows of both decoders, the noise control trained with a neutralised mask.
            train_texts: what both learnt from.
            dropped: rows left out, by reason.
            decoding: the settings outputs were generated with.
            controls: test rows of further controls without EEG, by name; each must be beaten.
            untested: such controls that were not trained.
        """
        c, weights = self.config, WordWeights(train_texts)
        refused = mismatch(eeg, {"the noise control": noise, **controls})
        return Assessment(
            eeg=measure(eeg.outputs, eeg.references),
            noise=measure(noise.outputs, noise.references),
            eeg_diversity=diversity(eeg, train_texts),
            noise_diversity=diversity(noise, train_texts),
            p_eeg=sentence_permutation(eeg, weights, c.n_permutations, c.seed),
            p_diff=difference_permutation(eeg, noise, weights, c.n_permutations, c.seed),
            excess=excess(eeg, noise, weights, n_draws=c.n_draws, level=c.level, seed=c.seed),
            dropped=dropped,
            decoding=decoding,
            p_controls={
                name: difference_permutation(eeg, other, weights, c.n_permutations, c.seed).p
                for name, other in controls.items()
            },
            untested=tuple(untested),
            remarks=(*remarks(eeg, "the EEG decoder"), *remarks(noise, "the noise control")),
            refused=refused,
        )


def mismatch(eeg: Decodings, controls: Mapping[str, Decodings]) -> str | None:
    """Why outputs and controls cannot be compared, in words: one is teacher-forced, the other runs free; None: they
    can."""
    marks = forcing(eeg)
    for name, control in controls.items():
        other = forcing(control)
        if marks.likely != other.likely:
            forced, free = ("the outputs look", name) if marks.likely else (f"{name} looks", "the outputs do")
            shown = (marks if marks.likely else other).in_words()
            return f"{forced} teacher-forced ({shown}) and {free} not; decode both freely"
    return None


def evidence(
    outputs_bleu1: float,
    constant_bleu1: float,
    p_permutation: float,
    p_diff: float | None = None,
    *,
    refused: str | None = None,
) -> tuple[str, str]:
    """What outputs show of the EEG: one of `none`, `needs_noise_control`, `beats_noise_control`, `not_comparable`, and
    why in words. The tests alone decide; a score below that of one constant sentence is a remark on usefulness.

    p_diff: of the outputs against those of controls without EEG, the largest, None without one. refused: why outputs
    and controls cannot be compared.
    """
    useless = "" if outputs_bleu1 > constant_bleu1 else (
        f" Usefulness: one constant sentence scores no less (BLEU-1 {constant_bleu1:.2f} against {outputs_bleu1:.2f})."
    )  # fmt: skip
    if refused is not None:
        return "not_comparable", f"No verdict: {refused}.{useless}"
    lost = []  # str
    if p_permutation >= ALPHA:
        lost.append(
            f"they fit their own sentences no better than permuted ones of equal length (p = {p_permutation:.3f})"
        )
    if p_diff is not None and p_diff >= ALPHA:
        lost.append(f"a decoder without EEG fits as well (p = {p_diff:.3f})")
    if lost:
        return "none", f"No evidence that the outputs use the EEG: {'; '.join(lost)}.{useless}"
    won = f"The outputs fit their own sentences better than permuted ones (p = {p_permutation:.3f})"
    if p_diff is None:
        return "needs_noise_control", (
            f"{won}. That is not yet evidence of EEG: teacher-forced outputs of noise pass, too. Free-running outputs "
            f"of the same model trained on noise must be beaten.{useless}"
        )
    return "beats_noise_control", (
        f"Evidence of EEG, if the decoder ran free: {won[0].lower()}{won[1:]}, also beyond every control without EEG "
        f"(p = {p_diff:.3f}).{useless}"
    )


def constant_sentence_bleu(references: Sequence[str], sentence: str = CONSTANT_SENTENCE) -> tuple[float, ...]:
    """BLEU-1..4 in percent of saying `sentence` to everything."""
    return bleu([sentence] * len(references), references)
