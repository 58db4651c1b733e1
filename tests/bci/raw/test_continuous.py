"""Continuous recordings give the features of the result files again, as MNE objects and as BIDS lose nothing."""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spikeloom.bci.raw.bids import write_bids
from spikeloom.bci.raw.folder import find_runs, read_record, read_records, write_record
from spikeloom.bci.raw.matlab_files import read_variable, write_variables
from spikeloom.bci.raw.objects import epochs_of, fixations_on_words, raw_of
from spikeloom.bci.raw.record import Record
from spikeloom.bci.raw.sentences import sentences_of
from spikeloom.bci.synthetic.recordings import SyntheticRecords
from spikeloom.bci.synthetic.zuco import SyntheticZuCoConfig
from spikeloom.bci.zuco.reader import read_sentences
from spikeloom.bci.zuco.records import CHANNELS, MEASURES, Sentence, is_reference
from spikeloom.bci.zuco.write_hdf5 import write_hdf5
from spikeloom.bci.zuco.write_matlab5 import write_matlab5

SET = SyntheticRecords(SyntheticZuCoConfig(n_subjects=1, n_sentences=3, rejected=0.02, missing=0.3, seed=6).build())
RECORDING = SET.synthetic.recordings[0]


@pytest.fixture(scope="module")
def record() -> Record:
    (made,) = SET.of(RECORDING)
    return made


@pytest.fixture(scope="module")
def rows(record: Record) -> list[Sentence]:
    return list(SET.rows_of(record))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, record: Record) -> Path:
    path = tmp_path_factory.mktemp("raw")
    write_record(path, record)
    return path


@pytest.mark.parametrize(("write", "name"), [(write_matlab5, "v5"), (write_hdf5, "v73")])
def test_features_recomputed_from_the_raw_files_are_those_of_the_result_file(
    write, name: str, folder: Path, rows: list[Sentence], tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / "resultsZ01_SR.mat", rows)
    kept = list(read_sentences(tmp_path / "resultsZ01_SR.mat", raw=True))
    (again,) = read_records(folder, RECORDING, kept)
    worst, n, n_rejected = 0.0, 0, 0
    found = {sentence.index: sentence for sentence in sentences_of(again, raw=True)}
    assert set(found) == {s.index for s in kept if not s.missing} and any(s.missing for s in kept)
    for index, b in found.items():
        a = kept[index]
        pairs = [(a.eeg, b.eeg)]
        for v, w in zip(a.words, b.words, strict=True):
            assert (v.content, v.fixations.tolist(), v.n_rejected) == (w.content, w.fixations.tolist(), w.n_rejected)
            assert v.durations_ms == w.durations_ms
            pairs += [(v.eeg.get(m), w.eeg.get(m)) for m in MEASURES if m in v.eeg or m in w.eeg]
            for trace, other in zip(v.raw_eeg or (), w.raw_eeg or (), strict=True):
                assert (trace is None) == (other is None)
                assert trace is None or np.allclose(trace, other, atol=1e-4)
        for x, y in pairs:
            assert x is not None and y is not None and np.array_equal(np.isnan(x), np.isnan(y))
            n_rejected += bool(np.isnan(x).any())
            if not np.isnan(x).any():
                worst, n = max(worst, float((np.abs(x - y)[x > 0] / x[x > 0]).max())), n + 1
    assert n > 50 and n_rejected > 0 and worst <= 1e-3


def test_a_rejected_fixation_takes_its_sentence_and_raw_data_with_it(record: Record, rows: list[Sentence]) -> None:
    for sentence in (s for s in rows if not s.missing):
        lost = any(word.n_rejected for word in sentence.words)
        assert bool(np.isnan(sentence.eeg).all()) == lost == (sentence.raw_eeg is None)
        assert all((trace is None) == bool(np.isnan(trace_eeg).all()) for w in sentence.words if w.n_fixations == 1
                   for trace, trace_eeg in zip(w.raw_eeg, [w.eeg["SFD"]], strict=True))  # fmt: skip


def test_records_carry_the_signal_the_features_show() -> None:
    """Amplitudes of a word rise and fall with the planted log amplitude, at a strength far above the noise."""
    made = SyntheticRecords(SyntheticZuCoConfig(n_subjects=1, n_sentences=2, signal_strength=2.0, seed=1).build())
    (record,) = made.of(made.synthetic.recordings[0])
    gain, signal = made.synthetic.signal.gain(0), made.synthetic.signal
    correlations = []
    for sentence in sentences_of(record):
        for word in sentence.words:
            if word.durations_ms.get("TRT", 0) > 300 and not np.isnan(word.eeg["TRT"]).any():
                found = np.log(word.eeg["TRT"][~is_reference]) - gain[~is_reference]
                correlations.append(np.corrcoef(found, signal.signal(word.content)[~is_reference])[0, 1])
    assert len(correlations) >= 3 and np.mean(correlations) > 0.3


def test_damaged_or_unlike_files_are_one_error(folder: Path, rows: list[Sentence], tmp_path: Path) -> None:
    shown = [replace(row, index=i) for i, row in enumerate(rows)]
    run, file = next(iter(find_runs(folder, RECORDING).items()))
    copy = tmp_path / file.name
    copy.write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"Z01_SNR1_ET\.mat is missing"):
        read_record(copy, RECORDING, run, shown)
    gaze = folder / "Z01_SNR1_ET.mat"
    told = {name: read_variable(gaze, name) for name in ("data", "event")}
    told["eyeevent"] = read_variable(gaze, "eyeevent")[0]
    told["eyeevent"] = {"fixations": told["eyeevent"]["fixations"][0]}
    told["event"] = np.array(told["event"])
    told["event"][1, 1] = 13
    write_variables(tmp_path / "Z01_SNR1_ET.mat", told)
    with pytest.raises(ValueError, match="trigger 1 is 11 in the EEG and 13 in the gaze; leave this run out"):
        read_record(copy, RECORDING, run, shown)
    (tmp_path / "Z01_SNR1_ET.mat").write_bytes(gaze.read_bytes())
    with pytest.raises(ValueError, match="3 sentences on and 3 off where 2 were read"):
        read_record(copy, RECORDING, run, shown[:2])
    copy.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"Z01_SNR1_EEG\.mat is damaged"):
        read_record(copy, RECORDING, run, shown)


def test_mne_objects_have_the_montage_and_an_epoch_a_fixation(record: Record) -> None:
    raw = raw_of(record, gaze=True)
    assert raw.ch_names[:105] == list(CHANNELS) and raw.get_channel_types()[105:] == ["eyegaze", "eyegaze", "pupil"]
    np.testing.assert_allclose(raw.get_data(picks="eeg"), record.eeg_uv * 1e-6)
    assert set(raw.get_montage().ch_names) >= set(CHANNELS)
    fixations = fixations_on_words(record)
    sentences = epochs_of(record, unit="sentence")
    assert sentences.metadata.content.tolist() == [s.content for s in record.shown][: len(sentences)]
    assert (sentences.metadata.duration_s <= sentences.times[-1] + 1e-9).all()
    with pytest.raises(ValueError, match="unit=letter is none of word, sentence"):
        epochs_of(record, unit="letter")
    epochs = epochs_of(record)
    assert epochs.metadata.word.tolist() == [f.word for f in fixations_on_words(record)][: len(epochs)]
    assert len(epochs) == len(fixations) and epochs.get_data().shape[1:] == (105, 301)
    first = fixations[0]
    assert f"fixation/{first.sentence}/{first.word}" in epochs.event_id
    np.testing.assert_allclose(epochs.get_data()[0][:, 50], record.eeg_uv[:, first.first] * 1e-6, atol=1e-12)


def test_bids_reads_back_with_every_channel_event_and_gaze(record: Record, tmp_path: Path) -> None:
    mne_bids = pytest.importorskip("mne_bids", reason="mne-bids is not installed: pip install 'spikeloom[bids]'")
    pytest.importorskip("pybv", reason="pybv is not installed: pip install 'spikeloom[bids]'")
    root = tmp_path / "bids"
    assert write_bids(root, [record], "Synthetic", {"seed": 6}) == 1
    (path,) = mne_bids.find_matching_paths(root, suffixes="eeg", extensions=".vhdr")
    raw = mne_bids.read_raw_bids(path, verbose="error")
    assert raw.ch_names == list(CHANNELS)
    np.testing.assert_allclose(raw.get_data(), record.eeg_uv * 1e-6, atol=2e-9)
    names = re.compile(
        r"(dataset_description\.json|README|participants\.(tsv|json)|sub-Z01/sub-Z01_scans\.tsv|sub-Z01/eeg/sub-Z01_"
        r"(space-CapTrak_(coordsystem\.json|electrodes\.(tsv|json))|task-SR_run-01_(eeg\.(vhdr|vmrk|eeg|json)|"
        r"channels\.tsv|events\.(tsv|json)|recording-eye1_(physio|physioevents)\.(tsv\.gz|json))))"
    )
    files = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
    assert [file for file in files if not names.fullmatch(file)] == []
    stem = root / "sub-Z01" / "eeg" / "sub-Z01_task-SR_run-01_"
    header, *channels = [line.split("\t") for line in Path(f"{stem}channels.tsv").read_text("utf-8").split("\n")[:-1]]
    assert len(channels) == 105 and {row[header.index("reference")] for row in channels} == {"Cz"}
    assert "reference" in channels[-1][header.index("description")]
    header, *events = [line.split("\t") for line in Path(f"{stem}events.tsv").read_text("utf-8").split("\n")[:-1]]
    assert header[:6] == ["onset", "duration", "trial_type", "sentence_id", "word_index", "n_fixations"]
    assert sum(row[2] == "sentence" for row in events) == 3
    assert sum(row[2] == "fixation" for row in events) == len(fixations_on_words(record))
    told = json.loads(Path(f"{stem}recording-eye1_physio.json").read_text("utf-8"))
    assert told["PhysioType"] == "eyetrack" and told["Columns"][:3] == ["timestamp", "x_coordinate", "y_coordinate"]
    trace = gzip.decompress(Path(f"{stem}recording-eye1_physio.tsv.gz").read_bytes()).decode().split("\n")
    assert len(trace) - 1 == record.n_samples and trace[0].count("\t") == 3
    described = json.loads((root / "dataset_description.json").read_text("utf-8"))
    assert described["Synthetic"] is True and described["Generator"] == {"seed": 6}
    with pytest.raises(ValueError, match="already holds"):
        write_bids(root, [record], "Synthetic")
