"""Tables of a report about the recordings: what was kept and dropped, and which sentences lie on both sides of a split.

Numbers come in finished (`bci.zuco.quality`, `bci.zuco.leakage`); here they get names a newcomer can read.
"""

from collections.abc import Mapping, Sequence

from spikeloom.accel.common.report import Section, Table
from spikeloom.bci.zuco.leakage import Overlap
from spikeloom.bci.zuco.quality import COUNTS

Row = Mapping[str, str | int | float | None]

MEANINGS = {
    "n_rows": "sentences shown",
    "n_missing_sentence": "sentences lost altogether (no EEG or no gaze)",
    "n_sentence_nan": "sentences whose EEG was rejected as a whole",
    "n_words": "words shown, in sentences that are there",
    "n_unfixated": "words never looked at",
    "n_fixations": "fixations on words",
    "n_nan_fixation": "fixations whose EEG was rejected for artefacts",
    "n_single_word": "sentences of one word",
    "n_non_ascii": "sentences with letters beyond a-z",
    "n_punct_token": "words without letter or digit, such as a lone dash",
    "n_long_vector": "vectors of more than 105 channels, cut to 105",
    "n_truncated_words": "kept sentences with more fixated words than a sample holds",
    "n_truncated_bpe": "kept sentences with more text tokens than a sample holds",
    "n_dropped": "sentences that give no sample",
    "drop_reason_missing": "… because they were lost",
    "drop_reason_no_text": "… because they have no text",
    "drop_reason_text_mismatch": "… because their words are not those of their text",
    "drop_reason_gaze": "… because counts or durations of fixations are not those of a reader (NaN, infinite, below 0)",
    "drop_reason_sentence_length": "… because the sentence vector has not 840 values",
    "drop_reason_sentence_nan": "… because the EEG of the sentence was rejected",
    "drop_reason_no_fixation": "… because no word was looked at",
    "drop_reason_word_length": "… because the vector of a word has not 840 values",
    "drop_reason_word_nan": "… because the EEG of a word was rejected",
    "drop_reason_not_finite": "… because a value is infinite",
    "drop_reason_flat": "… because a vector is all zero or all equal",
    "drop_reason_scale": "… because amplitudes are not those of EEG in µV (0.02 to 300)",
    "drop_reason_level": "… because amplitudes are not those of the other sentences of the recording (five-fold)",
    "n_kept": "sentences that give a sample",
}


def quality_totals(table: Sequence[Row]) -> Section:
    """Every count of the quality table, over all recordings. Raises ValueError for an empty table."""
    if not table:
        raise ValueError("got an empty quality table; use recordings that hold at least one sentence")
    rows = []  # tuple
    for name in COUNTS:
        values = [row[name] for row in table]
        known = [int(value) for value in values if value is not None]
        rows.append((MEANINGS[name], f"{sum(known):,}" if len(known) == len(values) else "not counted", name))
    total = {name: sum(int(row[name] or 0) for row in table) for name in ("n_rows", "n_kept")}
    share = 100 * total["n_kept"] / max(total["n_rows"], 1)
    return Section(
        "What is in the recordings",
        f"{len(table)} recording{'s' * (len(table) > 1)}. {total['n_kept']:,} of {total['n_rows']:,} sentences "
        f"({share:.1f} %) give a sample; every other one is counted under the first reason that holds. Rejected for "
        "artefacts and not looked at are different things and stay apart.",
        table=Table(("Count", "All recordings", "Name in the table"), rows),
    )


def quality_of_recordings(table: Sequence[Row]) -> Section:
    """One row a subject and task, the counts that differ most between people."""
    columns = ("n_rows", "n_kept", "n_missing_sentence", "n_sentence_nan", "n_words", "n_fixations", "n_nan_fixation")
    rows = [
        (
            str(row["subject"]),
            f"{row['task']}{row['version']}",
            *(f"{int(row[name] or 0):,}" for name in columns),
            "none" if row["omission_rate"] is None else f"{100 * float(row['omission_rate']):.0f} %",
        )
        for row in table
    ]
    names = ("Sentences", "Kept", "Lost", "EEG rejected", "Words", "Fixations", "Rejected", "Words skipped")
    return Section(
        "Recording by recording",
        "One line a reader and task (SR: film reviews; NR: normal reading; TSR: reading for a relation; 1 and 2: "
        "versions of ZuCo).",
        table=Table(("Reader", "Task", *names), rows),
    )


def sentences_on_both_sides(overlaps: Sequence[Overlap]) -> Section:
    """How many held-out sentences were also learnt from, split by split."""
    rows = [
        (o.name, f"{o.n_train:,}", f"{o.n_test:,}", f"{o.n_test_unique:,}", f"{o.n_shared:,}", f"{100 * o.share:.2f} %")
        for o in overlaps
    ]
    leaks = sum(o.n_shared > 0 for o in overlaps)
    verdict = "No held-out sentence was learnt from." if not leaks else f"{leaks} of {len(rows)} splits leak."
    return Section(
        "Sentences on both sides of a split",
        f"{verdict} A held-out sentence that was also learnt from can be recited without any brain signal. The share "
        "counts every sentence as often as it was read.",
        table=Table(("Split", "Train", "Held out", "Unique", "Also in train", "Share"), rows),
    )
