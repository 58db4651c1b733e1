"""Small result files in the nesting of the published ones, written with scipy and h5py alone.

One neutral content, `rows(...)`, is written as MATLAB 5 (`write_matlab5`) and as MATLAB 7.3 (`write_hdf5`): a str is a
char array, a numpy array is as MATLAB shows it, a list of dicts is a struct array, a list of arrays a cell array.
"""

from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.io import savemat

from spikeloom.bci.zuco.records import BANDS, MEASURES

_names = count()
NAN = np.full((1, 1), np.nan)
EMPTY = np.zeros((0, 0))


def word(rng: np.random.Generator, content: str, n_fixations: int, first: int = 1, **changed: Any) -> dict[str, Any]:
    """A word; `n_fixations` 0 leaves every field `[]`."""
    names = ["fixPositions", "nFixations", "meanPupilSize", "rawEEG", "rawET"]
    names += [
        f"{m}{s}"
        for m in MEASURES
        for s in ("", "_pupilsize", *(f"_{b}" for b in BANDS), *(f"_{b}_diff" for b in BANDS))
    ]
    if n_fixations == 0:
        return {"content": content, **dict.fromkeys(names, EMPTY)}
    found: dict[str, Any] = {"content": content, "fixPositions": np.arange(first, first + n_fixations)[None] * 1.0}
    found |= {"nFixations": np.array([[float(n_fixations)]]), "meanPupilSize": rng.uniform(300, 900, (1, 1))}
    found["rawEEG"] = [rng.normal(size=(105, 50 + i)) for i in range(n_fixations)]
    found["rawET"] = [rng.normal(size=(4, 50 + i)) for i in range(n_fixations)]
    for measure in MEASURES:
        given = measure != "SFD" or n_fixations == 1
        found[measure] = np.array([[float(rng.integers(50, 300))]]) if given else EMPTY
        found[f"{measure}_pupilsize"] = rng.uniform(300, 900, (1, 1)) if given else EMPTY
        for band in BANDS:
            found[f"{measure}_{band}"] = rng.uniform(0, 9, (1, 105)) if given else EMPTY
            found[f"{measure}_{band}_diff"] = rng.normal(size=(1, 48)) if given else EMPTY
    return found | changed


def sentence(rng: np.random.Generator, words: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
    n = len(words)
    found: dict[str, Any] = {"content": " ".join(w["content"] for w in words), "rawData": rng.normal(size=(105, 700))}
    for band in BANDS:
        found[f"mean_{band}"] = rng.uniform(0, 9, (1, 105))
        found[f"mean_{band}_sec"] = rng.uniform(0, 9, (2, 105))
        found[f"mean_{band}_diff"] = rng.normal(size=(1, 48))
        found[f"answer_mean_{band}"] = EMPTY
    found["word"] = words
    found["omissionRate"] = np.array([[sum(w["nFixations"].size == 0 for w in words) / n]])
    found["allFixations"] = [{name: rng.uniform(60, 500, (1, 4)) for name in ("x", "y", "duration", "pupilsize")}]
    found["wordbounds"] = rng.uniform(0, 600, (n, 4))
    return found | changed


def missing(rng: np.random.Generator, content: str) -> dict[str, Any]:
    """A row whose EEG or gaze was lost."""
    lost = {name: NAN for band in BANDS for name in (f"mean_{band}", f"mean_{band}_sec", f"mean_{band}_diff")}
    return sentence(rng, [word(rng, content, 0)], **lost, rawData=NAN, word=NAN, omissionRate=NAN, allFixations=EMPTY)


def edge_cases(seed: int = 0) -> list[dict[str, Any]]:
    """Eight rows: whole; missing; rejected sentence; rejected word; one word; non-ASCII; lone dash; a long vector."""
    rng = np.random.default_rng(seed)
    bad = {f"{m}_{b}": np.full((1, 105), np.nan) for m in ("FFD", "GD", "TRT", "GPT", "SFD") for b in BANDS}
    rejected = word(rng, "bad", 1, **bad, rawEEG=[NAN], rawET=[EMPTY])
    second = word(rng, "half", 2)
    second["rawEEG"][1] = NAN
    no_mean = {f"mean_{b}": np.full((1, 105), np.nan) for b in BANDS}
    return [
        sentence(rng, [word(rng, "A", 0), word(rng, "quiet", 1), word(rng, "river.", 3, first=2)]),
        missing(rng, "lost"),
        sentence(rng, [word(rng, "All", 1), second], **no_mean, rawData=NAN),
        sentence(rng, [word(rng, "One", 1), rejected]),
        sentence(rng, [word(rng, "Alone", 2)]),
        sentence(rng, [word(rng, "Maxime", 1), word(rng, "Bôcher", 2)]),
        sentence(rng, [word(rng, "before", 1), word(rng, "-", 0), word(rng, "after", 2)]),
        sentence(rng, [word(rng, "long", 1, GD_a1=rng.uniform(0, 9, (1, 107)))]),
    ]  # fmt: skip


def write_matlab5(path: Path, rows: list[dict[str, Any]], compress: bool = True) -> Path:
    savemat(path, {"other": np.eye(3), "sentenceData": _structs(rows)}, do_compression=compress, long_field_names=True)
    return path


def _structs(elements: list[dict[str, Any]]) -> np.ndarray:
    array = np.empty((1, len(elements)), dtype=[(name, object) for name in elements[0]])
    for i, element in enumerate(elements):
        for name, value in element.items():
            array[0, i][name] = _matlab5(value)
    return array


def _matlab5(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if isinstance(value[0], dict):
        return _structs(value)
    cell = np.empty((1, len(value)), dtype=object)
    cell[0] = [*value] if len({v.shape for v in value}) > 1 else None
    for i, entry in enumerate(value):
        cell[0, i] = entry
    return cell


def write_hdf5(path: Path, rows: list[dict[str, Any]], signature_at_start: bool = False) -> Path:
    with h5py.File(path, "w", userblock_size=0 if signature_at_start else 512) as file:
        file.create_group("#refs#")
        _write_structs(file, file.create_group("sentenceData"), rows)
    if not signature_at_start:
        with path.open("r+b") as head:
            head.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM")
    return path


def _write_structs(file: h5py.File, group: h5py.Group, elements: list[dict[str, Any]]) -> None:
    group.attrs["MATLAB_class"] = np.bytes_("struct")
    for name in elements[0]:
        if len(elements) == 1:  # as MATLAB does: a struct of one element holds the values themselves
            _write_value(file, group, name, elements[0][name])
        else:
            references = [_write_value(file, file["#refs#"], None, element[name]).ref for element in elements]
            group.create_dataset(name, data=np.array(references, dtype=h5py.ref_dtype)[:, None], dtype=h5py.ref_dtype)


def _write_value(file: h5py.File, group: h5py.Group, name: str | None, value: Any) -> Any:
    name = name or f"r{next(_names)}"
    if isinstance(value, list) and isinstance(value[0], dict):
        node = group.create_group(name)
        _write_structs(file, node, value)
        return node
    if isinstance(value, list):
        references = [_write_value(file, file["#refs#"], None, entry).ref for entry in value]
        node = group.create_dataset(
            name, data=np.array(references, dtype=h5py.ref_dtype)[:, None], dtype=h5py.ref_dtype
        )
        node.attrs["MATLAB_class"] = np.bytes_("cell")
    elif isinstance(value, str):
        node = group.create_dataset(name, data=np.frombuffer(value.encode("utf-16-le"), dtype=np.uint16)[:, None])
        node.attrs["MATLAB_class"] = np.bytes_("char")
        node.attrs["MATLAB_int_decode"] = np.int32(2)
    elif value.size == 0:
        node = group.create_dataset(name, data=np.zeros(2, dtype=np.uint64))
        node.attrs["MATLAB_class"] = np.bytes_("double")
        node.attrs["MATLAB_empty"] = np.uint8(1)
    else:
        node = group.create_dataset(name, data=value.T)
        node.attrs["MATLAB_class"] = np.bytes_("double")
    return node
