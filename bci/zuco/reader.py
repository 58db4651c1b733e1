"""ZuCo result files as sentences, whatever format they were saved in: the first bytes choose, not name or version.

    results<SUBJECT>_<TASK>.mat  ->  Sentence, Sentence, ...      one at a time, as the file holds them

ZuCo 1.0 was published as MATLAB 5 and also circulates as MATLAB 7.3; 2.0 is 7.3. Both readers hand over the same
values, and only this module knows what the fields mean.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spikeloom.accel.common.files import require_regular
from spikeloom.bci.zuco import hdf5, matlab5
from spikeloom.bci.zuco.matlab5 import Value
from spikeloom.bci.zuco.records import (
    BANDS,
    MEASURES,
    N_CHANNELS,
    SAMPLE_MS,
    TASKS,
    Fixations,
    Recording,
    Sentence,
    Word,
)

VARIABLE = "sentenceData"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
FILE_NAME = re.compile(rf"results([A-Z][A-Z0-9]+)_({'|'.join(TASKS)})\.mat")
VERSION_OF_INITIAL = {"Z": 1, "Y": 2, "X": 2}  # X: subjects of the benchmark's hidden part

BAND_FIELDS = frozenset(f"{prefix}_{band}" for prefix in ("mean", "answer_mean", *MEASURES) for band in BANDS)
FIELDS = BAND_FIELDS | {
    "content", "omissionRate", "wordbounds", "word", "fixPositions", "nFixations", "meanPupilSize", "rawEEG",
    "allFixations", "x", "y", "duration", "pupilsize",
    *MEASURES,
    *(f"{measure}_pupilsize" for measure in MEASURES),
}  # fmt: skip
RAW_FIELDS = FIELDS | {"rawData", "rawET"}


def file_format(path: Path) -> str:
    """Who reads the file, `matlab5` or `hdf5`, by its first bytes. Raises ValueError naming them when neither can."""
    require_regular(path, "use a MATLAB file as published on osf.io")
    with path.open("rb") as file:
        head = file.read(520)
    if HDF5_SIGNATURE in (head[:8], head[512:520]):
        return "hdf5"
    if head.startswith(b"MATLAB 5.0") and head[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
        return "matlab5"
    raise ValueError(f"{path} starts with {head[:16]!r}; use a MATLAB 5 or 7.3 file as published on osf.io")


def recording_of(path: Path) -> Recording:
    """Which subject and task a file holds, by its name. Raises ValueError for a name that does not say."""
    match = FILE_NAME.fullmatch(path.name)
    version = VERSION_OF_INITIAL.get(match[1][0]) if match else None
    if match is None or version is None:
        raise ValueError(
            f"{path} does not say who read what; name it results<SUBJECT>_<TASK>.mat, with a subject Z… (version 1.0), "
            f"Y… or X… (2.0) and a task of {', '.join(TASKS)}"
        )
    return Recording(match[1], version, match[2])


def find_files(root: Path) -> list[Path]:
    """The result files below `root`, at any depth and under any folder names, sorted by file name.

    Raises ValueError when there is none, and when two hold the same subject and task.
    """
    files = sorted((p for p in root.rglob("results*.mat") if FILE_NAME.fullmatch(p.name)), key=lambda p: (p.name, p))
    if not files:
        raise ValueError(
            f"{root} holds no results<SUBJECT>_<TASK>.mat; download them from https://osf.io/q3zws (version 1.0) and "
            "https://osf.io/2urht (2.0) and put the folders there"
        )
    for file, following in zip(files, files[1:], strict=False):
        if file.name == following.name:
            raise ValueError(f"{file} and {following} hold the same subject and task; keep one")
    return files


def read_sentences(path: Path, *, raw: bool = False, recording: Recording | None = None) -> Iterator[Sentence]:
    """Every row of a file in its order, read one by one; missing ones too.

    raw: read the EEG and gaze traces as well. recording: what the file holds where its name does not say. Raises
    ValueError naming the file, and the row if there is one, when it cannot be read.
    """
    recording = recording or recording_of(path)
    wanted = RAW_FIELDS if raw else FIELDS
    if file_format(path) == "hdf5":
        rows = hdf5.rows(path, VARIABLE, wanted, shape_only=() if raw else ("rawEEG",))
    else:
        rows = matlab5.rows(path, VARIABLE, wanted)
    for index, row in enumerate(rows):
        try:
            yield _sentence(recording, index, row, raw)
        except KeyError as error:
            raise ValueError(f"{path}: row {index} lacks {error}; download it again") from error
        except (TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
            raise ValueError(f"{path}: row {index} is not as published ({error}); download it again") from error


def _sentence(recording: Recording, index: int, row: dict[str, Value], raw: bool) -> Sentence:
    found = row.get("word")
    structs = found if isinstance(found, list) else []  # NaN instead of a struct where EEG or gaze were lost
    return Sentence(
        recording=recording,
        index=index,
        content=_text(row["content"]),
        words=tuple(_word(struct, raw) for struct in structs),
        eeg=_bands(row, "mean"),
        answer_eeg=_bands(row, "answer_mean"),
        omission_rate=_scalar(row.get("omissionRate")),
        word_bounds_px=_copy(row.get("wordbounds")),
        fixations=_fixations(row.get("allFixations")),
        raw_eeg=_trace(row.get("rawData")) if raw else None,
        n_long_vectors=sum(_n_long_vectors(fields) for fields in (row, *structs)),
    )


def _word(struct: dict[str, Value], raw: bool) -> Word:
    eeg = {m: vector for m in MEASURES if (vector := _bands(struct, m)) is not None}
    traces = _cell(struct.get("rawEEG"))
    gaze = _cell(struct.get("rawET"))
    # Rejected fixations show in the list of traces; where no traces were kept, one is known from a vector of NaN.
    n_rejected = max(sum(_rejected(trace) for trace in traces), any(np.isnan(vector).any() for vector in eeg.values()))
    return Word(
        content=_text(struct["content"]),
        fixations=_whole(_numbers(struct.get("fixPositions"))),
        n_fixations=int(_whole(np.nan_to_num([_scalar(struct.get("nFixations"))]))[0]),
        pupil=_scalar(struct.get("meanPupilSize")),
        durations_ms={m: _scalar(struct[m]) * SAMPLE_MS for m in MEASURES if _numbers(struct.get(m)).size},
        pupils={m: _scalar(struct[f"{m}_pupilsize"]) for m in MEASURES if _numbers(struct.get(f"{m}_pupilsize")).size},
        eeg=eeg,
        n_rejected=int(n_rejected),
        raw_eeg=tuple(_trace(trace) for trace in traces) if raw and "rawEEG" in struct else None,
        raw_gaze=tuple(_trace(trace) for trace in gaze) if raw and "rawET" in struct else None,
    )


def _bands(fields: dict[str, Value], prefix: str) -> np.ndarray | None:
    """The vectors of the eight bands behind each other, `[840]`; None where the file has none of them. Raises KeyError
    where it has fields for some bands and not for others."""
    absent = [f"{prefix}_{band}" for band in BANDS if f"{prefix}_{band}" not in fields]
    if absent and (prefix == "mean" or len(absent) < len(BANDS)):
        raise KeyError(absent[0])
    vectors = [_numbers(fields.get(f"{prefix}_{band}"))[:N_CHANNELS] for band in BANDS]
    rejected = (vector.size == 1 and np.isnan(vector[0]) for vector in vectors)  # one NaN stands for all channels
    joined = np.concatenate([np.full(N_CHANNELS, np.nan) if r else v for v, r in zip(vectors, rejected, strict=True)])
    return joined if joined.size else None


def _n_long_vectors(fields: dict[str, Value]) -> int:
    return sum(_numbers(fields.get(name)).size > N_CHANNELS for name in BAND_FIELDS)


def _fixations(value: Value) -> Fixations | None:
    if not isinstance(value, list) or not value:
        return None
    columns = [_numbers(value[0].get(name)).copy() for name in ("x", "y", "duration", "pupilsize")]
    return Fixations(x_px=columns[0], y_px=columns[1], duration_ms=columns[2] * SAMPLE_MS, pupil=columns[3])


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    if value.size:
        raise ValueError(f"content is numeric, of shape {value.shape}")
    return ""


def _numbers(value: Value) -> np.ndarray:
    """Every number of a value `[n]`, none where the field is absent or empty."""
    return np.zeros(0) if value is None or isinstance(value, str | list) else np.ravel(value, order="F")


def _scalar(value: Value) -> float:
    numbers = _numbers(value)
    return float(numbers[0]) if numbers.size else float("nan")


def _whole(numbers: np.ndarray) -> np.ndarray:
    """Counts and places, int64 `[n]`; -1 for what is no whole number, so that it costs its row and not the file."""
    whole = np.isfinite(numbers) & (numbers == np.rint(numbers)) & (np.abs(numbers) < 2**31)
    return np.where(whole, numbers, -1.0).astype(np.int64)


def _cell(value: Value) -> list[Value]:
    return value if isinstance(value, list) else [value] if _numbers(value).size else []


def _rejected(trace: Value) -> bool:
    return bool(np.size(trace) <= 1)


def _trace(value: Value) -> np.ndarray | None:
    """`[channels, L]` of the file as float64 `[L, channels]`; None where rejected or absent."""
    return None if value is None or _rejected(value) else np.ascontiguousarray(value.T)


def _copy(value: Value) -> np.ndarray | None:
    """An array free of the buffer it was read from; None where absent or empty."""
    return None if _numbers(value).size == 0 else np.array(value, order="C")
