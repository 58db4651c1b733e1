"""Result files of ZuCo, its raw blocks, and what is made of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.bci.raw.folder import read_record, write_record
from spikeloom.bci.raw.matlab_files import read_variable
from spikeloom.bci.raw.record import Gaze, Record, Shown
from spikeloom.bci.zuco.cache import CachedSentences, cached_sentences
from spikeloom.bci.zuco.leakage import published_rows
from spikeloom.bci.zuco.materials import _rows, _sentences
from spikeloom.bci.zuco.reader import read_sentences
from spikeloom.bci.zuco.records import Recording, Sentence
from spikeloom.bci.zuco.splits import Row, SplitConfig, load_split
from tests.fuzz.parser import OneFile, Parser, files, of_one_file, only_file
from tests.fuzz.texts import LINES


def result_files(version: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        from tests.bci.zuco import published

        rng = np.random.default_rng(0)
        (folder / "0").mkdir()
        traces = [rng.normal(size=(105, 2))]
        words = [published.word(rng, "A", 0), published.word(rng, "book", 1, rawEEG=traces, rawET=[np.ones((4, 2))])]
        rows = [published.sentence(rng, words, rawData=np.ones((105, 3))), published.missing(rng, "lost")]
        written = published.write_matlab5 if version == "5" else published.write_hdf5
        written(folder / "0" / "resultsZAB_SR.mat", rows)

    return write


def read_rows(folder: Path) -> Any:
    return list(read_sentences(folder / "resultsZAB_SR.mat", raw=True))


def are_sentences(result: Any) -> None:
    for row in result:
        assert row.eeg is None or (row.eeg.ndim == 1 and row.eeg.size <= 840)  # fewer where the file has fewer
        for word in row.words:
            assert all(v.ndim == 1 and v.size <= 840 for v in word.eeg.values())
            assert all(np.isnan(v) or 0 <= v < np.inf for v in word.durations_ms.values()), word.durations_ms


def variables(version: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import h5py
        from scipy.io import savemat

        (folder / "0").mkdir()
        path = folder / "0" / "v.mat"
        if version == "5":
            v = {"a": np.eye(3), "b": "text", "c": np.array(["u", "v"], dtype=object), "d": [{"e": 1.5}]}
            savemat(path, {"v": v}, do_compression=True)
            (folder / "1").mkdir()
            savemat(folder / "1" / "v.mat", {"v": v})
            return
        with h5py.File(path, "w", userblock_size=512) as file:
            group = file.create_group("v")
            group["a"] = np.eye(3)
            group["b"] = np.array([[ord(c)] for c in "text"], "u2")
            group["b"].attrs["MATLAB_class"] = np.bytes_("char")
            group["c"] = np.array([[group["a"].ref, group["b"].ref]], dtype=h5py.ref_dtype)

    return write


def block() -> Record:
    """60 samples, two sentences of a word each."""
    n = 60
    trace = np.stack([1000.0 + 2 * np.arange(n), np.full(n, 5.0), np.full(n, 6.0), np.full(n, 700.0)], axis=1)
    gaze = Gaze(
        first=np.array([6, 40]), samples=np.array([10, 12]), x_px=np.array([5.0, 5.0]), y_px=np.array([6.0, 6.0]),
        pupil=np.array([700.0, 700.0]), trace=trace,
    )  # fmt: skip
    bounds = np.array([[0.0, 0.0, 10.0, 10.0]])
    shown = tuple(
        Shown(index=i, content=text, word_bounds_px=bounds, on=on, off=on + 20)
        for i, (text, on) in enumerate((("one", 5), ("two", 35)))
    )
    eeg = np.random.default_rng(0).normal(size=(105, n)).astype(np.float32).astype(np.float64)
    return Record(recording=Recording("Z01", 1, "SR"), run="SNR1", eeg_uv=eeg, gaze=gaze, shown=shown)


def continuous(folder: Path) -> None:
    (folder / "0").mkdir()
    write_record(folder / "0", block())


def read_continuous(folder: Path) -> Record:
    made = block()
    rows = [
        Sentence(recording=made.recording, index=s.index, content=s.content, words=(), word_bounds_px=s.word_bounds_px)
        for s in made.shown
    ]
    return read_record(folder / "Z01_SNR1_EEG.mat", made.recording, made.run, rows)


def is_record(result: Record) -> None:
    assert np.isfinite(result.eeg_uv).all() and len(result.shown) == 2
    assert all(0 <= s.on < s.off <= result.n_samples for s in result.shown)


def caches(folder: Path) -> None:
    result_files("5")(folder)
    source = folder / "0" / "resultsZAB_SR.mat"
    cached_sentences(source, folder / "0")
    source.unlink()


def read_cache(folder: Path) -> Any:
    file = next(iter(folder.glob("*.safetensors")), folder / "resultsZAB_SR-0.safetensors")
    return list(CachedSentences(file, Recording("ZAB", 1, "SR")))


def splits(folder: Path) -> None:
    rows = [Row(f"Z0{i % 3}", "SR1", i, f"sentence number {i} of many") for i in range(20)]
    (folder / "0").mkdir()
    SplitConfig(unit="key", valid=0.2, test=0.2).build(rows).save(folder / "0")


def is_split(result: Any) -> None:
    assert result.keys and all(fate.split in ("train", "valid", "test", "dropped") for fate in result.keys.values())


PUBLISHED = "split_name,pickle_file,target_string\n" + "".join(
    f"{s},v1-task1-SR-x.pickle,{t}\n" for s, t in zip(("train", "valid", "test"), LINES, strict=True)
)


HDF5 = (
    "bci/zuco/hdf5.py:_class",
    "bci/zuco/hdf5.py:elements",
    "bci/zuco/hdf5.py:rows",
    "bci/zuco/reader.py:file_format",
)
ONE_FILE: tuple[OneFile, ...] = (
    ("matlab5_variable", variables("5"), lambda path: read_variable(path, "v"), None,
     ("bci/zuco/matlab5.py:variable",)),
    ("task_materials", files("nr_1.csv", lambda: [b"1;a;A sentence.;x\n2;b;Another one.;y\n"]),
     lambda path: _sentences(path, _rows(path, ";"), 2, 2), None, ("bci/zuco/materials.py:_rows",)),
    ("published_rows", files("a.csv", lambda: [PUBLISHED.encode()]), published_rows, None,
     ("bci/zuco/leakage.py:published_rows",)),
)  # fmt: skip
PARSERS = [
    *of_one_file(ONE_FILE),
    Parser(
        name="zuco_matlab5",
        write=result_files("5"),
        read=read_rows,
        promise=are_sentences,
        covers=("bci/zuco/matlab5.py:rows", "bci/zuco/reader.py:file_format"),
    ),
    Parser(
        name="zuco_hdf5",
        write=result_files("7.3"),
        read=read_rows,
        promise=are_sentences,
        covers=HDF5,
        formats={".mat": ".h5"},
    ),
    Parser(
        name="hdf5_variable",
        write=variables("7.3"),
        read=lambda f: read_variable(only_file(f), "v"),
        covers=("bci/zuco/hdf5.py:variable",),
        formats={".mat": ".h5"},
    ),
    Parser(
        name="zuco_continuous",
        write=continuous,
        read=read_continuous,
        promise=is_record,
        covers=("bci/zuco/matlab5.py:variable",),
    ),
    Parser(
        name="zuco_cache",
        write=caches,
        read=read_cache,
        mutates=(".safetensors",),
        covers=("bci/zuco/cache.py:__init__",),
    ),
    Parser(
        name="split_folder",
        write=splits,
        read=load_split,
        promise=is_split,
        covers=("bci/zuco/splits.py:load_split", "bci/zuco/splits.py:_read_keys"),
    ),
]
