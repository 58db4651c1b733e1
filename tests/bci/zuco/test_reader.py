"""Both file formats give the same records, with every published edge case; damage is one clear error."""

import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeloom.bci.zuco.frame import VALUES, word_columns, write_words
from spikeloom.bci.zuco.reader import file_format, find_files, read_sentences, recording_of
from spikeloom.bci.zuco.records import BANDS, MEASURES, Fixations, Sentence, Word
from tests.bci.zuco.published import edge_cases, sentence, word, write_hdf5, write_matlab5

Writer = Callable[[Path, list[dict[str, Any]]], Path]
WRITERS = [write_matlab5, lambda p, rows: write_matlab5(p, rows, compress=False), write_hdf5,
           lambda p, rows: write_hdf5(p, rows, signature_at_start=True)]  # fmt: skip
NAMES = ["matlab5", "matlab5-uncompressed", "hdf5", "hdf5-without-header"]
every_format = pytest.mark.parametrize("write", WRITERS, ids=NAMES)


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit, NaN where NaN, through the nesting of records."""
    if isinstance(a, Sentence | Word | Fixations):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray | float):
        return type(a) is type(b) and np.array_equal(a, b, equal_nan=True)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@every_format
@pytest.mark.parametrize("raw", [False, True])
def test_every_value_is_the_one_on_disk(write: Writer, raw: bool, tmp_path: Path) -> None:
    rows = edge_cases()
    read = list(read_sentences(write(tmp_path / "resultsZAB_SR.mat", rows), raw=raw))
    assert [s.content for s in read] == [row["content"] for row in rows]
    for found, row in zip(read, rows, strict=True):
        assert found.recording == ("ZAB", 1, "SR") and found.missing == isinstance(row["word"], np.ndarray)
        if found.missing:
            continue
        assert found.eeg is not None and found.answer_eeg is None
        np.testing.assert_array_equal(found.eeg, np.concatenate([row[f"mean_{b}"][0] for b in BANDS]))
        np.testing.assert_array_equal(found.word_bounds_px, row["wordbounds"])
        assert found.fixations is not None
        np.testing.assert_array_equal(found.fixations.duration_ms, 2 * row["allFixations"][0]["duration"][0])
        for got, on_disk in zip(found.words, row["word"], strict=True):
            assert got.content == on_disk["content"] and got.n_fixations == on_disk["nFixations"].sum()
            assert got.fixations.tolist() == on_disk["fixPositions"].ravel().tolist()
            for measure in MEASURES:
                assert (measure in got.eeg) == (measure in got.durations_ms) == bool(on_disk[measure].size)
                if measure in got.eeg:
                    assert got.durations_ms[measure] == 2 * on_disk[measure].item()
                    bands = [on_disk[f"{measure}_{b}"][0, :105] for b in BANDS]
                    np.testing.assert_array_equal(got.eeg[measure], np.concatenate(bands))
            if not raw:
                assert got.raw_eeg is None
            elif got.fixated:
                assert got.raw_eeg is not None
                for trace, cell in zip(got.raw_eeg, on_disk["rawEEG"], strict=True):
                    assert (trace is None) == (cell.size == 1)
                    assert trace is None or np.array_equal(trace, cell.T)


@every_format
def test_one_sentence_of_one_word_is_read(write: Writer, tmp_path: Path) -> None:
    rows = [sentence(np.random.default_rng(0), [word(np.random.default_rng(1), "Alone", 1)])]
    (found,) = read_sentences(write(tmp_path / "resultsYAC_NR.mat", rows))
    assert found.version == 2 and [w.content for w in found.words] == ["Alone"] and found.words[0].eeg["GD"].size == 840


def test_formats_give_the_same_records(tmp_path: Path) -> None:
    files = [write(tmp_path / str(i) / "resultsZAB_NR.mat", edge_cases()) for i, write in enumerate(WRITERS)
             if (tmp_path / str(i)).mkdir() is None]  # fmt: skip
    first, *others = [list(read_sentences(file, raw=True)) for file in files]
    for other in others:
        assert all(same(a, b) for a, b in zip(first, other, strict=True))
    assert [file_format(file) for file in files] == ["matlab5", "matlab5", "hdf5", "hdf5"]


def test_words_after_a_lone_dash_keep_their_features(tmp_path: Path) -> None:
    rows = edge_cases()[6:7] * 2
    *_, found = read_sentences(write_hdf5(tmp_path / "resultsYAC_NR.mat", rows))
    np.testing.assert_array_equal(found.words[2].eeg["GD"][:105], rows[0]["word"][2]["GD_t1"][0])
    assert not found.words[1].fixated and found.words[1].eeg == {}


@pytest.mark.parametrize("write", [write_matlab5, write_hdf5])
def test_fields_never_set_in_a_sentence_may_be_absent(write: Writer, tmp_path: Path) -> None:
    rows = edge_cases()
    for w in (w for row in rows if isinstance(row["word"], list) for w in row["word"]):
        for name in [name for name in w if name.startswith(("raw", "SFD"))]:
            del w[name]
    found = list(read_sentences(write(tmp_path / "resultsZAB_SR.mat", rows), raw=True))
    assert all("SFD" not in w.eeg and w.raw_eeg is None for s in found for w in s.words)
    assert found[3].words[1].n_rejected == 1


@pytest.mark.parametrize("compress", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_reading_needs_the_memory_of_a_sentence(compress: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [sentence(rng, [word(rng, "w", 1) for _ in range(4)]) for _ in range(2)] * 20
    file = write_matlab5(tmp_path / "resultsZAB_SR.mat", rows, compress=compress)
    tracemalloc.start()
    n = sum(1 for _ in read_sentences(file))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    held_bytes = 40 * 8 * (105 * 700 + 4 * 5 * 8 * 105)
    assert n == 40 and peak_bytes < held_bytes / 5


@pytest.mark.parametrize("write", [write_matlab5, lambda p, r: write_matlab5(p, r, compress=False), write_hdf5])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_file_cut_short_is_one_error_naming_it(write: Writer, share: float, tmp_path: Path) -> None:
    file = write(tmp_path / "resultsZAB_SR.mat", edge_cases())
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"resultsZAB_SR.mat is damaged.*download it again"):
        list(read_sentences(file))


def test_unknown_header_names_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "resultsZAB_SR.mat"
    file.write_bytes(b"PK\x03\x04 a zip file and more")
    with pytest.raises(ValueError, match=r"starts with b'PK.*use a MATLAB 5 or 7.3 file"):
        list(read_sentences(file))


def test_file_without_the_variable_names_what_it_holds(tmp_path: Path) -> None:
    from scipy.io import savemat

    file = tmp_path / "resultsZAB_SR.mat"
    savemat(file, {"EEG": np.eye(2)})
    with pytest.raises(ValueError, match="holds EEG, no sentenceData"):
        list(read_sentences(file))


def test_names_say_who_read_what(tmp_path: Path) -> None:
    assert recording_of(Path("resultsYAC_TSR.mat")) == ("YAC", 2, "TSR")
    for name in ("resultsQAB_SR.mat", "resultsZAB_XX.mat", "ZAB_SR.mat"):
        with pytest.raises(ValueError, match=r"name it results<SUBJECT>_<TASK>.mat"):
            recording_of(Path(name))
    with pytest.raises(ValueError, match=r"download them from https://osf.io"):
        find_files(tmp_path)
    for folder in ("task1- SR/Matlab files", "b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"resultsZAB_{'SR' if folder == 'b' else 'NR'}.mat").touch()
    assert [file.name for file in find_files(tmp_path)] == ["resultsZAB_NR.mat", "resultsZAB_SR.mat"]
    (tmp_path / "b" / "resultsZAB_NR.mat").touch()
    with pytest.raises(ValueError, match="hold the same subject and task; keep one"):
        find_files(tmp_path)


def test_frame_has_a_row_a_word_and_keeps_absent_and_rejected_apart(tmp_path: Path) -> None:
    read = list(read_sentences(write_matlab5(tmp_path / "resultsZAB_SR.mat", edge_cases()), raw=True))
    columns = word_columns(read)
    assert {len(column) for column in columns.values()} == {sum(len(s.words) for s in read)}
    assert columns["GD_eeg"][0] is None and np.isnan(columns["GD_ms"][0])
    rejected = columns["content"].tolist().index("bad")
    assert np.isnan(columns["GD_eeg"][rejected]).all() and columns["GD_ms"][rejected] > 0
    assert columns["raw_eeg"][1][0].shape == (50, 105)
    write_words(tmp_path / "words.csv", read)
    assert (tmp_path / "words.csv").read_text("utf-8").splitlines()[0] == ",".join(VALUES)
