"""Rows that are wrong without saying so are dropped for a reason; damaged caches and fields name themselves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.io import savemat

from spikeloom.bci.data.trials import read_splits
from spikeloom.bci.synthetic.zuco import SyntheticZuCo, SyntheticZuCoConfig
from spikeloom.bci.zuco.cache import CachedSentences, cached_sentences
from spikeloom.bci.zuco.corpus import write_sentences
from spikeloom.bci.zuco.quality import quality_table
from spikeloom.bci.zuco.reader import read_sentences
from spikeloom.bci.zuco.records import BANDS, Sentence
from spikeloom.bci.zuco.samples import SamplesConfig, drop_reason, level, unlike_the_rest
from spikeloom.bci.zuco.source import ZuCoConfig
from spikeloom.bci.zuco.splits import SplitConfig
from spikeloom.bci.zuco.text import normalise
from spikeloom.bci.zuco.write_hdf5 import write_hdf5
from spikeloom.bci.zuco.write_matlab5 import write_matlab5


def synthetic_rows(version: int = 1, n: int = 8) -> list[Sentence]:
    config = SyntheticZuCoConfig(
        version=version, task="NR", n_subjects=1, n_sentences=n, signal_strength=1.0, missing=0.0, rejected=0.0, seed=0
    )
    made = SyntheticZuCo(config, write_sentences(n, 0))
    return list(made.read(made.recordings[0]))


def test_rows_that_are_wrong_in_silence_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = synthetic_rows()
    infinite = rows[1].eeg.copy()
    infinite[5] = np.inf
    rows[1] = replace(rows[1], eeg=infinite)
    rows[2], rows[3] = replace(rows[2], words=rows[3].words), replace(rows[3], words=rows[2].words)
    rows[4] = replace(rows[4], content="")
    rows[5] = replace(rows[5], eeg=rows[5].eeg * 1e-6)
    rows[6] = replace(rows[6], eeg=np.zeros(840))
    path = tmp_path / f"results{rows[0].subject}_NR.mat"
    write_matlab5(path, rows)
    wanted = [None, "not_finite", "text_mismatch", "text_mismatch", "no_text", "scale", "flat", None]
    assert [drop_reason(row) for row in read_sentences(path)] == wanted
    (table,) = quality_table(read_sentences(path), SamplesConfig().build())
    assert table["n_kept"] == 2 and table["drop_reason_text_mismatch"] == 2 and table["drop_reason_scale"] == 1


def test_fixations_no_tracker_gives_cost_their_row_and_are_counted(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    faults = [
        *(("FFD", ms) for ms in (np.nan, np.inf, -np.inf, -120.0, 0.0, 1e9)),
        *(("GPT", ms) for ms in (np.nan, -1.0)),
        *(("nFixations", n) for n in (np.nan, np.inf, -1.0, 1.5)),
        *(("fixPositions", place) for place in (np.nan, np.inf, 0.0, 2.5)),
    ]
    (row, *_) = synthetic_rows(version=2, n=2)
    words = tuple(word for word in row.words if word.n_fixations > 1)[:1] + row.words[-1:]
    short = replace(row, words=words, content=" ".join(word.content for word in words))
    rows = [replace(short, index=k) for k in range(1 + len(faults))]
    path = tmp_path / f"results{row.subject}_NR.mat"
    write_hdf5(path, rows)
    with h5py.File(path, "r+") as file:
        for words, (field, value) in zip(file["sentenceData/word"][:].flat[1:], faults, strict=True):
            file[file[words][field][:].flat[0]][:] = value
    found = {fault: drop_reason(row) for fault, row in zip([None, *faults], read_sentences(path), strict=True)}
    assert found == dict.fromkeys(faults, "gaze") | {None: None}
    (table,) = quality_table(cached_sentences(path, tmp_path), SamplesConfig().build())
    assert table["drop_reason_gaze"] == table["n_dropped"] == len(faults)


def test_fillers_of_words_that_nobody_looked_at_are_no_fault() -> None:
    (row, *_) = synthetic_rows(n=2)
    words = tuple(
        word if word.fixated else replace(word, durations_ms={"FFD": np.nan, "GD": 0.0}) for word in row.words
    )
    assert not all(word.fixated for word in words)
    assert drop_reason(replace(row, words=words)) is None
    several = tuple(
        replace(word, durations_ms=word.durations_ms | {"SFD": np.nan}) if word.n_fixations > 1 else word
        for word in words
    )
    assert drop_reason(replace(row, words=several)) is None
    counted = tuple(replace(word, n_fixations=0) for word in words)  # but for durations
    assert drop_reason(replace(row, words=counted)) == "gaze"


def times_ten(row: Sentence) -> Sentence:
    words = tuple(replace(word, eeg={name: 10 * eeg for name, eeg in word.eeg.items()}) for word in row.words)
    return replace(row, eeg=10 * row.eeg, words=words)


def test_a_row_ten_times_its_recording_is_dropped_by_the_table_and_by_the_splits(tmp_path: Path) -> None:
    rows = synthetic_rows(n=30)
    assert not unlike_the_rest([level(row) for row in rows]).any()
    rows[3] = times_ten(rows[3])
    write_matlab5(tmp_path / f"results{rows[0].subject}_NR.mat", rows)
    (table,) = quality_table(read_sentences(tmp_path / f"results{rows[0].subject}_NR.mat"), SamplesConfig().build())
    assert table["drop_reason_level"] == table["n_dropped"] == 1 and table["n_kept"] == 29
    source = ZuCoConfig(root=str(tmp_path), tasks=[]).build()
    found = read_splits(source, SamplesConfig().build(), SplitConfig(unit="key", valid=0.2, test=0.2))
    assert found.dropped == {"level": 1} and sum(len(part) for part in found.sets.values()) == 29
    assert normalise(rows[3].content) not in {key for part in found.sets.values() for key in part.keys}


@pytest.mark.parametrize("field", ["word", "content", "mean_t1"])
def test_a_null_reference_costs_one_row(field: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    rows = synthetic_rows(version=2, n=4)
    path = tmp_path / f"results{rows[0].subject}_NR.mat"
    write_hdf5(path, rows)
    with h5py.File(path, "r+") as file:
        references = file[f"sentenceData/{field}"][:]
        references.flat[2] = h5py.Reference()
        file[f"sentenceData/{field}"][...] = references
    reasons = [drop_reason(row) for row in read_sentences(path)]
    assert [k for k, reason in enumerate(reasons) if reason is not None] == [2]


def test_a_field_that_is_not_there_is_named_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "resultsZ01_NR.mat"
    for missing in ("content", "mean_t2"):
        savemat(path, {"sentenceData": {name: 1.0 for name in ("content", *(f"mean_{b}" for b in BANDS))
                                        if name != missing} | {"word": np.nan}})  # fmt: skip
        if missing == "mean_t2":
            savemat(path, {"sentenceData": {"content": "a b", "word": np.nan, "mean_t1": np.ones((1, 105))}})
        with pytest.raises(ValueError, match=rf"resultsZ01_NR\.mat: row 0 lacks '{missing}'"):
            list(read_sentences(path))


def test_a_damaged_cache_names_itself(tmp_path: Path) -> None:
    rows = synthetic_rows()
    path = tmp_path / f"results{rows[0].subject}_NR.mat"
    write_matlab5(path, rows)
    cached_sentences(path, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    arrays = load_file(file)
    for change in ({"n_long_vectors": None}, {"answer_eeg.bounds": None},
                   {"words.GPT.bounds": arrays["words.GPT.bounds"] + 2**32},
                   {"words.pupil": arrays["words.pupil"][:-1]}, {"content": arrays["content"] * 0 + 255}):  # fmt: skip
        damaged = {k: v for k, v in (arrays | change).items() if v is not None}
        save_file(damaged, file)
        with pytest.raises(ValueError, match=r"the cache .*safetensors is damaged \(.*delete it"):
            list(CachedSentences(file, rows[0].recording))
