"""Records as a BIDS data set: EEG through mne-bids (BrainVision), words and gaze beside it.

    sub-Z01/eeg/sub-Z01_task-SR_run-01_eeg.vhdr        105 channels; channels.tsv says that all refer to Cz
    ..._events.tsv                                     sentences on the screen and fixations on their words
    ..._recording-eye1_physio.tsv.gz (+ .json)         gaze trace, PhysioType eyetrack, as in BIDS 1.11
    ..._recording-eye1_physioevents.tsv.gz (+ .json)   fixations, on words or not

The eye-tracking files are written here: mne-bids asks for a screen calibration, which neither ZuCo nor synthetic data
have, and it will not be made up. What this module does not do: anonymise.
"""

import gzip
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.accel.common.files import read_json, whole, write_json
from spikeloom.bci.raw.objects import fixations_on_words, raw_of
from spikeloom.bci.raw.record import Record, run_names
from spikeloom.bci.zuco.records import REFERENCE, SAMPLING_HZ

BIDS_VERSION = "1.11.0"
AUTHORS = ("Hollenstein", "Rotsztejn", "Troendle", "Pedroni", "Zhang", "Langer")  # of ZuCo 1.0, Scientific Data 2018
SCREEN_PX = (800, 600)
EVENT_COLUMNS = {
    "onset": "Seconds from the first sample of the recording.",
    "duration": "Seconds.",
    "trial_type": "sentence: on the screen; fixation: the eyes rest on a word.",
    "sentence_id": "Row of the sentence in its task, from 0.",
    "word_index": "Place of the word in the sentence, from 0; n/a for a whole sentence.",
    "n_fixations": "Fixations of this word, or on words of this sentence.",
    "content": "The word or the sentence.",
}


def write_bids(root: Path, records: Iterable[Record], name: str, generator: Mapping[str, Any] | None = None) -> int:
    """Write every record below `root` and the files of the data set; returns how many.

    generator: how synthetic data were made (seed, strength); it marks the data set as synthetic. Raises ValueError
    where mne-bids is missing or `root` holds another data set.
    """
    try:
        import mne_bids
    except ImportError as error:
        raise ValueError(f"BIDS needs mne-bids and pybv ({error}); pip install 'spikeloom[bids]'") from error
    if (root / "dataset_description.json").exists():
        raise ValueError(f"{root} already holds a BIDS data set; use another folder")
    n_records = 0
    for record in records:
        _write_record(mne_bids, root, record)
        n_records += 1
    authors = ("spikeloom, from random numbers",) if generator is not None else AUTHORS
    mne_bids.make_dataset_description(
        path=root, name=name, dataset_type="raw", data_license="CC-BY-4.0", authors=list(authors), overwrite=True,
        verbose="error",
    )  # fmt: skip
    path = root / "dataset_description.json"
    described = read_json(path, "write the data set again")
    described |= {"BIDSVersion": BIDS_VERSION, "Synthetic": generator is not None, **{"Generator": generator or {}}}
    write_json(path, described)
    return n_records


def _write_record(mne_bids: Any, root: Path, record: Record) -> None:
    recording = record.recording
    run = run_names(recording.version, recording.task).index(record.run) + 1
    path = mne_bids.BIDSPath(
        root=root, subject=recording.subject, task=recording.task, run=f"{run:02d}", datatype="eeg", suffix="eeg"
    )
    raw = raw_of(record)
    raw.info["line_freq"] = 50.0
    placed = raw.get_montage()
    raw.set_annotations(None)  # what was read has its own columns
    mne_bids.write_raw_bids(
        raw, path, format="BrainVision", allow_preload=True, montage=placed, overwrite=True, verbose="error"
    )
    stem = path.fpath.name.removesuffix(path.fpath.suffix).removesuffix("_eeg")
    folder = path.fpath.parent
    _mark_reference(folder / f"{stem}_channels.tsv")
    sidecar = folder / f"{stem}_eeg.json"
    told = {"EEGReference": REFERENCE, "PowerLineFrequency": 50, "TaskName": recording.task}
    write_json(sidecar, read_json(sidecar, "write the data set again") | told)
    _write_table(folder / f"{stem}_events.tsv", list(EVENT_COLUMNS), _events(record))
    write_json(folder / f"{stem}_events.json", {name: {"Description": text} for name, text in EVENT_COLUMNS.items()})
    _write_gaze(folder / f"{stem}_recording-eye1", record)


def _mark_reference(path: Path) -> None:
    header, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")]
    name, description = header.index("name"), header.index("description")
    for row in rows:
        if row[name] == REFERENCE:
            row[description] = "reference electrode, 0 by definition"
    _write_table(path, [*header, "reference"], [[*row, REFERENCE] for row in rows])


def _events(record: Record) -> list[list[str]]:
    fixations = fixations_on_words(record)
    of_word: dict[tuple[int, int], int] = {}
    for fixation in fixations:
        key = (fixation.sentence, fixation.word)
        of_word[key] = of_word.get(key, 0) + 1
    rows = []  # (first sample, cells)
    for shown in record.shown:
        n = sum(count for (sentence, _), count in of_word.items() if sentence == shown.index)
        cells = [_seconds(shown.on), _seconds(shown.off - shown.on), "sentence", str(shown.index), "n/a", str(n)]
        rows.append((shown.on, [*cells, shown.content]))
    for f in fixations:
        cells = [_seconds(f.first), _seconds(f.samples), "fixation", str(f.sentence), str(f.word)]
        rows.append((f.first, [*cells, str(of_word[f.sentence, f.word]), f.content]))
    return [cells for _, cells in sorted(rows, key=lambda row: row[0])]


def _write_gaze(stem: Path, record: Record) -> None:
    """Trace and fixations, tables without a header, as BIDS has physiological recordings."""
    gaze = record.gaze
    common = {"SamplingFrequency": SAMPLING_HZ, "StartTime": 0.0, "PhysioType": "eyetrack", "RecordedEye": "left"}
    screen = {"SampleCoordinateSystem": "gaze-on-screen", "ScreenResolution": list(SCREEN_PX)}
    if gaze.trace is not None:
        columns = {
            "timestamp": ("Time of the tracker's clock.", "ms"),
            "x_coordinate": ("Gaze on the screen, from the left.", "pixel"),
            "y_coordinate": ("Gaze on the screen, from the top.", "pixel"),
            "pupil_size": ("Area of the pupil.", "arbitrary"),
        }
        named = {name: {"Description": text, "Units": unit} for name, (text, unit) in columns.items()}
        write_json(stem.with_name(f"{stem.name}_physio.json"), {**common, **screen, "Columns": list(columns), **named})
        rows = [[_cell(value) for value in row] for row in gaze.trace]
        _write_table(stem.with_name(f"{stem.name}_physio.tsv.gz"), None, rows)
    names = ["onset", "duration", "trial_type", "x_coordinate", "y_coordinate", "pupil_size"]
    write_json(
        stem.with_name(f"{stem.name}_physioevents.json"),
        {"Columns": names, "OnsetSource": "first sample of the EEG", "Description": "Fixations, on words or not."},
    )
    values = zip(gaze.first, gaze.samples, gaze.x_px, gaze.y_px, gaze.pupil, strict=True)
    fixations = [[_seconds(a), _seconds(n), "fixation", _cell(x), _cell(y), _cell(p)] for a, n, x, y, p in values]
    _write_table(stem.with_name(f"{stem.name}_physioevents.tsv.gz"), None, fixations)


def _seconds(samples: int) -> str:
    return f"{samples / SAMPLING_HZ:.3f}"


def _cell(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.6g}" if abs(value) < 1e5 else f"{value:.3f}"


def _write_table(path: Path, header: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    lines = ([] if header is None else [header]) + list(rows)
    content = "".join("\t".join(cell.replace("\t", " ") for cell in line) + "\n" for line in lines).encode("utf-8")
    with whole(path) as partial:
        partial.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
