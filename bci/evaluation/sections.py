"""The assessment of a decoder as sections of a report; the verdict is the first line."""

from spikeloom.accel.common.report import INK, Section, Table, new_figure, palette
from spikeloom.bci.evaluation.controls import CONTROLS
from spikeloom.bci.evaluation.protocol import Assessment


def sections(assessment: Assessment) -> list[Section]:
    """Verdict and headline, both decoders side by side, the subjects, the controls."""
    return [headline(assessment), decoders(assessment), subjects(assessment), controls()]


def headline(assessment: Assessment) -> Section:
    """Excess, interval and p with both its parts."""
    e, eeg, diff = assessment.excess, assessment.p_eeg, assessment.p_diff
    paragraphs = [assessment.verdict, *assessment.remarks, *assessment.eeg_diversity.warnings()]
    rows: list[tuple[str, str]] = [
        ("excess of EEG over noise", f"{e.difference:+.4f}"),
        (f"{100 * e.level:.0f} % interval, readers and sentences resampled", f"{e.low:+.4f} to {e.high:+.4f}"),
        ("headline p, the largest of the next lines", f"{assessment.p:.3f}"),
        ("p_eeg: own sentence against permuted ones", f"{eeg.p:.3f} (T = {eeg.statistic:.2f})"),
        ("p_diff: the same, EEG minus noise", f"{diff.p:.3f} (T = {diff.statistic:.2f})"),
        *((f"p_diff: EEG minus {name.replace('_', ' ')}", f"{p:.3f}") for name, p in assessment.p_controls.items()),
        ("unique test sentences, strata, permutations", f"{eeg.n_sentences}, {eeg.n_strata}, {eeg.n_permutations}"),
        *((f"dropped: {reason}", str(count)) for reason, count in assessment.dropped.items()),
        *((f"decoding: {key}", str(value)) for key, value in assessment.decoding.items()),
    ]
    return Section(
        "Does the model read the EEG?",
        "Excess is what an output shares with its own sentence beyond sentences of the same task and length; 0 is "
        "chance, 1 a sentence repeated. The permutation keeps readers, tasks and lengths, so none of them can produce "
        "a small p. It cannot see teacher forcing: only the noise control can.",
        table=Table(("measure", "value"), rows),
        text="\n\n".join(paragraphs),
    )


def decoders(assessment: Assessment) -> Section:
    """Raw metrics of both, without a test."""
    eeg, noise = assessment.eeg, assessment.noise
    pairs = [
        *((f"BLEU-{k}, words", eeg.bleu_word[k - 1], noise.bleu_word[k - 1]) for k in (1, 2, 3, 4)),
        ("ROUGE-1 precision", eeg.rouge1.precision, noise.rouge1.precision),
        ("ROUGE-1 recall", eeg.rouge1.recall, noise.rouge1.recall),
        ("ROUGE-1 F", eeg.rouge1.f1, noise.rouge1.f1),
        ("word error rate", eeg.wer, noise.wer),
        ("character error rate", eeg.cer, noise.cer),
        ("chrF", eeg.chrf, noise.chrf),
        ("unique outputs", 100 * assessment.eeg_diversity.unique_share, 100 * assessment.noise_diversity.unique_share),
    ]
    return Section(
        "Raw scores of both decoders",
        "In percent. Their difference is no test: unequal lengths or styles alone make one, in either direction.",
        table=Table(("metric", "EEG", "noise"), [(name, f"{a:.2f}", f"{b:.2f}") for name, a, b in pairs]),
    )


def subjects(assessment: Assessment) -> Section:
    """Excess of each reader."""
    names, values = zip(*sorted(assessment.excess.by_subject.items()), strict=True)
    figure = new_figure(9.4, max(1.6, 0.28 * len(names) + 0.9))
    axes = figure.subplots()
    axes.barh(range(len(names)), values, color=palette[0])
    axes.axvspan(assessment.excess.low, assessment.excess.high, color=palette[6], alpha=0.25, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("excess of EEG over noise")
    return Section(
        "Each reader",
        "Mean excess of each reader; the band is the interval of the mean over all. A model that reads content is "
        "right of zero for most readers.",
        figure=figure,
    )


def controls() -> Section:
    """What else the model must beat."""
    rows = [(c.name.replace("_", " "), c.definition, " and ".join(c.masks)) for c in CONTROLS]
    return Section(
        "Controls",
        "Each is trained again and tested like the model, with five seeds or more.",
        table=Table(("control", "what it is", "masks"), rows),
    )
