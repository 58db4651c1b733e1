"""A reading corpus in BIDS gives the sentences, words and features of the recordings it was written from."""

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest

from spikeloom.bci.data.trials import read_splits
from spikeloom.bci.raw import bids_corpus
from spikeloom.bci.raw.bids import EVENT_COLUMNS, _events, _write_table
from spikeloom.bci.raw.bids_corpus import BIDSReading, BIDSReadingConfig, read_events
from spikeloom.bci.raw.datasets import ReadingWindows, raws_by_subject
from spikeloom.bci.raw.objects import onsets, raw_of
from spikeloom.bci.raw.record import Record
from spikeloom.bci.raw.sentences import sentences_of
from spikeloom.bci.synthetic.recordings import SyntheticRecords
from spikeloom.bci.synthetic.zuco import SyntheticZuCo, SyntheticZuCoConfig
from spikeloom.bci.zuco.records import Recording, Sentence
from spikeloom.bci.zuco.samples import SamplesConfig, drop_reason
from spikeloom.bci.zuco.source import rows_of
from spikeloom.bci.zuco.splits import SplitConfig
from spikeloom.pipelines import cli
from spikeloom.pipelines.commands import data
from spikeloom.pipelines.config.data import DataConfig

SET = SyntheticRecords(SyntheticZuCo(SyntheticZuCoConfig(n_subjects=2, n_sentences=6, seed=4)))


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [record for recording in SET.synthetic.recordings for record in SET.of(recording)]


@pytest.fixture
def corpus(records: list[Record], tmp_path: Path) -> Path:
    """Two readers, EEG as FIF beside its events, as no writer of ours lays it out."""
    for record in records:
        folder = tmp_path / f"sub-{record.recording.subject}" / "ses-1" / "eeg"
        folder.mkdir(parents=True)
        stem = f"sub-{record.recording.subject}_ses-1_task-read"
        raw = raw_of(record)
        raw.set_annotations(None)
        raw.save(folder / f"{stem}_eeg.fif", verbose="error")
        _write_table(folder / f"{stem}_events.tsv", list(EVENT_COLUMNS), _events(record))
    return tmp_path


def test_features_are_those_of_the_recording(corpus: Path, records: list[Record]) -> None:
    source = BIDSReadingConfig(root=str(corpus), subjects=[records[0].recording.subject]).build()
    found = list(source)
    expected = list(sentences_of(records[0]))
    assert [s.content for s in found] == [s.content for s in expected] == [row.text for row in rows_of(source)]
    assert source.recordings[0].task == "read" and [s.index for s in found] == list(range(6))
    for a, b in zip(found, expected, strict=True):
        assert [w.n_fixations for w in a.words] == [w.n_fixations for w in b.words]
        assert [w.durations_ms for w in a.words] == [w.durations_ms for w in b.words]
        if drop_reason(b) is None:
            np.testing.assert_allclose(a.eeg, b.eeg, rtol=0.05, atol=0.02)


def test_a_corpus_becomes_splits_like_any_other(corpus: Path) -> None:
    config = BIDSReadingConfig(root=str(corpus), subjects=["Z02"])
    split = SplitConfig(unit="key", valid=0.2, test=0.2)
    found = read_splits(config.build(), SamplesConfig().build(), split)
    assert {name for s in found.sets.values() for name in s.subjects} == {"Z02"}
    assert sum(len(s) for s in found.sets.values()) + sum(found.dropped.values()) == 6
    with pytest.raises(ValueError, match=r"it has the tasks read and subjects Z01, Z02"):
        BIDSReadingConfig(root=str(corpus), tasks=["sleep"]).build()
    (corpus / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no sub-"):
        BIDSReadingConfig(root=str(corpus / "empty")).build()


def test_sentences_are_computed_once_and_again_after_a_change(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is computed is replaced by the sentences as they were made."""
    computed: list[Recording] = []

    def made(recording: Recording) -> list[Sentence]:
        computed.append(recording)
        return list(SET.synthetic.read(recording._replace(task=SET.synthetic.recordings[0].task)))

    monkeypatch.setattr(BIDSReading, "records_of", lambda self, recording: iter([recording]))
    monkeypatch.setattr(bids_corpus, "sentences_of", made)
    config = BIDSReadingConfig(root=str(corpus))
    split = SplitConfig(unit="key", valid=0.2, test=0.2)
    first, second = (read_splits(config.build(), SamplesConfig().build(), split) for _ in range(2))
    assert [r.subject for r in computed] == ["Z01", "Z02"], "the second training computes nothing"
    assert first.dropped == second.dropped
    for name, trials in first.sets.items():
        assert trials.keys == second.sets[name].keys and len(trials)
        assert all(np.array_equal(a, b) for a, b in zip(trials.eeg, second.sets[name].eeg, strict=True))

    def again(config: BIDSReadingConfig) -> int:
        computed.clear()
        assert len(list(config.build())) == 12
        return len(computed)

    (rename := tmp_path / "rename.tsv").write_text("X\tCz\n", "utf-8")
    for setting in ({"rename": str(rename)}, {"unit": "uV"}, {"cap": "biosemi32"}):
        other = replace(config, **setting)
        assert again(other) == 2 and again(config) == 0 and again(other) == 0, "each setting has a cache"
    rename.write_text("X\tFz\n", "utf-8")
    assert again(replace(config, rename=str(rename))) == 2, "a table that changed"
    recording = next(corpus.rglob("*_eeg.fif"))
    events = recording.with_name(recording.name.replace("_eeg.fif", "_events.tsv"))
    for path in (recording, events):
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
        assert again(config) == 1 and again(config) == 0, "only the recording that changed"
    monkeypatch.setattr(bids_corpus, "_code", lambda: "other code")
    assert again(config) == 2
    assert len(list((corpus / ".spikeloom").glob("*.safetensors"))) == 2 * 5, "outdated ones are gone"

    line = ["data", "cache", "dataset=bids_reading", f"root={corpus}", f"out={tmp_path / 'kept'}", "processes=1"]
    computed.clear()
    for told in ("made in", "kept before"):
        cli.main(line)
        assert capsys.readouterr().out.count(told) == 2 and len(computed) == 2
    assert again(replace(config, cache=str(tmp_path / "kept"))) == 0


def test_a_derivative_takes_the_events_of_the_raw_recording_and_is_not_read_beside_it(corpus: Path) -> None:
    raw = list(BIDSReadingConfig(root=str(corpus), subjects=["Z01"]).build())
    for path in sorted(corpus.rglob("*_eeg.fif")):
        folder = corpus / "derivatives" / "clean" / path.parent.relative_to(corpus)
        folder.mkdir(parents=True)
        (folder / path.name.replace("_eeg", "_desc-clean_eeg")).write_bytes(path.read_bytes())
    assert len(BIDSReadingConfig(root=str(corpus)).build().recordings) == 2
    clean = BIDSReadingConfig(root=str(corpus), derivative="clean", subjects=["Z01"])
    found = list(clean.build())
    assert [s.content for s in found] == [s.content for s in raw]
    assert [w.n_fixations for s in found for w in s.words] == [w.n_fixations for s in raw for w in s.words]
    path = next((corpus / "derivatives").rglob("*_eeg.fif"))
    path.with_name(path.name.replace("desc-clean", "desc-more")).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="use desc=LABEL of clean, more"):
        clean.build()
    one = BIDSReadingConfig(root=str(corpus), derivative="clean", desc="clean").build()
    assert len(one.recordings) == 2
    with pytest.raises(ValueError, match="use derivative=NAME of clean"):
        BIDSReadingConfig(root=str(corpus), derivative="cleen").build()


def test_epochs_and_windows_come_out_of_the_reader(corpus: Path, records: list[Record], tmp_path: Path) -> None:
    data.run(DataConfig(what="epochs", dataset="bids_reading", root=str(corpus), out=str(tmp_path / "out"), limit=1))
    (file,) = (tmp_path / "out").glob("*_word-epo.fif")
    epochs = mne.read_epochs(file, verbose="error")
    windows = ReadingWindows(records[:1])
    assert len(epochs) == len(windows) and windows.n_cut + len(windows) == len(onsets(records[0], "word"))
    x, y, (number, first, end) = windows[3]
    np.testing.assert_array_equal(x, records[0].eeg_uv[:, first:end].astype(np.float32))
    assert x.shape == (105, 300) and windows.classes[y] == windows.metadata[3]["content"] and number >= 3
    assert onsets(records[0], "word")[number][0] == first + 50
    batch, targets = windows.tensors([0, 3])
    assert batch.shape == (2, 105, 300) and targets.tolist() == [windows.y[0], y]
    sentences = ReadingWindows(records, "sentence", 0.0, 0.5, target="subject")
    assert sentences.classes == ("Z01", "Z02") and len(sentences) == 12
    raws = raws_by_subject(records)
    assert {s: list(tasks) for s, tasks in raws.items()} == {"Z01": ["0SR"], "Z02": ["0SR"]}
    assert [list(runs) for tasks in raws.values() for runs in tasks.values()] == 2 * [["0SNR1"]]
    with pytest.raises(ValueError, match="unit=letter, target=content"):
        ReadingWindows(records, "letter")
    with pytest.raises(ValueError, match="after_s=SHORTER"):
        ReadingWindows(records[:1], after_s=1e4)
    with pytest.raises(ValueError, match="occurs twice"):
        raws_by_subject([records[0], records[0]])


def test_fixations_may_lie_in_the_eye_tracking_files(corpus: Path) -> None:
    (recording, _) = sorted(corpus.rglob("*_eeg.fif"))
    path = recording.with_name(recording.name.replace("_eeg.fif", "_events.tsv"))
    header, *rows = path.read_text("utf-8").splitlines()
    expected = read_events(recording)
    fixations = [row.split("\t") for row in rows if row.split("\t")[2] == "fixation"]
    path.write_text("\n".join([header, *(row for row in rows if row.split("\t")[2] == "sentence")]) + "\n", "utf-8")
    stem = path.name.removesuffix("_events.tsv") + "_recording-eye1_physioevents"
    columns = [name for name in EVENT_COLUMNS if name != "content"]
    (path.parent / f"{stem}.json").write_text(json.dumps({"Columns": columns}))
    table = "".join("\t".join(row[: len(columns)]) + "\n" for row in fixations)
    (path.parent / f"{stem}.tsv.gz").write_bytes(gzip.compress(table.encode()))
    found = read_events(recording)
    assert [(f.onset_s, f.word) for f in found[1]] == [(f.onset_s, f.word) for f in expected[1]]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("onset\tduration\ttrial_type\n1\t2\tsentence\n", "has no row of trial_type sentence with a text"),
        ("onset\tduration\ttrial_type\tcontent\n1\tx\tsentence\ta\n", "line 2 has no onset and duration"),
        ("onset\tduration\ttrial_type\tcontent\n1\t2\tsentence\ta\n", "has no row of trial_type fixation"),
        ("onset\tduration\ttrial_type\tcontent\n1\t2\tsentence\n", "line 2: 3 cells, the table has 4"),
        (
            "onset\tduration\ttrial_type\tcontent\tword_index\n1\t2\tsentence\ta\tn/a\n1\t1\tfixation\tn/a\tone\n",
            "line 3: the word is 'one'",
        ),
    ],
)
def test_what_is_no_event_is_named_with_its_line(events: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "sub-1_task-read_events.tsv").write_text(events)
    with pytest.raises(ValueError, match=rf"sub-1_task-read_events\.tsv.*{message}"):
        read_events(tmp_path / "sub-1_task-read_eeg.edf")
