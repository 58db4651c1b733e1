"""The raw folders of ZuCo 1.0: continuous EEG and gaze of each block as two MATLAB files, read and written.

    <SUBJECT>_<RUN>_EEG.mat    EEGLAB struct EEG: data, srate, chanlocs.labels, event.type, event.latency (from 1)
    <SUBJECT>_<RUN>_ET.mat     data (TIME, x, y, area), event (time, trigger), eyeevent.fixations (data, colheader)
    triggers                   10 sentence on, 11 off; 12 control question on, 13 off; 15 answer

What was shown is not in them: texts and word bounds come from the result file of the same subject and task;
rows without bounds are passed over. The clocks meet in all triggers both devices saw (`bci.raw.clock`).
MATLAB 5 or 7.3, by first bytes.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.accel.common.files import contents, whole
from spikeloom.bci.raw.clock import Clock, fit_clock, same_triggers
from spikeloom.bci.raw.eyelink import gaze_of
from spikeloom.bci.raw.matlab_files import read_variable, write_variables
from spikeloom.bci.raw.record import Gaze, Record, Shown, runs_of
from spikeloom.bci.zuco.records import CHANNELS, REFERENCE, SAMPLING_HZ, Recording, Sentence

FILE_NAME = re.compile(r"(?:.*_)?([A-Z][A-Z0-9]+)_((?:S?NR|SR|TSR)\d+)_EEG\.mat")
ON, OFF = 10, 11
AS_PUBLISHED = "use the file as published"
FIXATION_COLUMNS = ("latency", "endtime", "duration", "fix_avgpos_x", "fix_avgpos_y", "fix_avgpupilsize")
TRACE_COLUMNS = ("TIME", "L_GAZE_X", "L_GAZE_Y", "L_AREA")


def find_runs(root: Path, recording: Recording) -> dict[str, Path]:
    """Run -> EEG file, of one recording, at any depth below `root`."""
    runs = {name for name, _ in runs_of(recording.version, recording.task, 10**6)}
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*_EEG.mat")):
        match = FILE_NAME.fullmatch(path.name)
        if match and match[1] == recording.subject and match[2] in runs:
            if match[2] in found:
                raise ValueError(f"{found[match[2]]} and {path} hold the same run; keep one")
            found[match[2]] = path
    return found


def read_records(root: Path, recording: Recording, rows: Sequence[Sentence]) -> Iterator[Record]:
    """The blocks below `root` of one recording; `rows`: its result file, all rows in order."""
    files = find_runs(root, recording)
    for run, places in runs_of(recording.version, recording.task, len(rows)):
        if run in files:
            yield read_record(files[run], recording, run, [rows[i] for i in places])


def read_record(eeg_file: Path, recording: Recording, run: str, rows: Sequence[Sentence]) -> Record:
    """One block. Raises ValueError naming the file where it is damaged, too slow, lacks channels, gaze or triggers."""
    gaze_file = eeg_file.with_name(eeg_file.name.removesuffix("EEG.mat") + "ET.mat")
    if not gaze_file.is_file():
        raise ValueError(f"{gaze_file} is missing; put the gaze beside {eeg_file.name}")
    with contents(eeg_file, AS_PUBLISHED):
        (eeg,) = read_variable(eeg_file, "EEG")
        rate_hz = float(np.ravel(eeg["srate"])[0])
        if rate_hz != SAMPLING_HZ:
            raise ValueError(f"{eeg_file} has {rate_hz:g} Hz; resample it to {SAMPLING_HZ:g} Hz")
        data = _on_net(eeg_file, eeg)
        triggers = [(_trigger(event["type"]), float(np.ravel(event["latency"])[0])) for event in eeg["event"]]
        triggers = [(kind, at) for kind, at in triggers if kind is not None]
        on = [round(at - 1) for kind, at in triggers if kind == ON]
        off = [round(at - 1) for kind, at in triggers if kind == OFF]
    if not len(on) == len(off) == len(rows):
        raise ValueError(
            f"{eeg_file} shows {len(on)} sentences on and {len(off)} off where {len(rows)} were read; leave the run out"
        )
    if not all(0 <= a < b <= data.shape[1] for a, b in zip(on, off, strict=True)):
        raise ValueError(f"{eeg_file}: a sentence ends before it begins, or beyond the recording; leave the run out")
    with contents(gaze_file, AS_PUBLISHED):
        seen = np.asarray(read_variable(gaze_file, "event"), dtype=np.float64).reshape(-1, 2)
        if not np.isfinite(seen).all():
            raise ValueError("an event without a time or a number")
        same_triggers(str(eeg_file), [int(kind or 0) for kind, _ in triggers], seen[:, 1].astype(int).tolist())
        clock = fit_clock(seen[:, 0], np.array([at - 1 for _, at in triggers]))
        gaze = _gaze(gaze_file, clock, data.shape[1])
    shown = tuple(
        Shown(index=row.index, content=row.content, word_bounds_px=row.word_bounds_px, on=a, off=b)
        for row, a, b in zip(rows, on, off, strict=True)
        if row.word_bounds_px is not None
    )
    return Record(recording=recording, run=run, eeg_uv=data, gaze=gaze, shown=shown)


def _on_net(path: Path, eeg: Any) -> np.ndarray:
    """The EEG of a block, float64 `[105, T]`. Raises ValueError where a channel is missing or a sample not finite."""
    labels = [str(place["labels"]).strip() for place in eeg["chanlocs"]]
    if missing := [name for name in CHANNELS if name not in labels and name != REFERENCE]:
        raise ValueError(f"{path} lacks the channel {missing[0]} ({len(missing)} in all); use the net of the study")
    data = np.zeros((len(CHANNELS), np.shape(eeg["data"])[1]))
    for place, name in enumerate(CHANNELS):
        if name in labels:
            data[place] = eeg["data"][labels.index(name)]
    if lost := int((~np.isfinite(data)).sum()):
        raise ValueError(f"{path} holds {lost:,} samples that are not finite; leave the run out")
    return data


def _gaze(path: Path, clock: Clock, n_samples: int) -> Gaze:
    (events,) = read_variable(path, "eyeevent")
    (fixations,) = events["fixations"]
    names = [str(name).strip() for name in fixations["colheader"]]
    if absent := [name for name in FIXATION_COLUMNS if name not in names and name != "duration"]:
        raise ValueError(f"{path}: its fixations have no column {absent[0]}; use eye events as EYE-EEG writes them")
    table = np.asarray(fixations["data"], dtype=np.float64).reshape(-1, len(names))
    places = [names.index(name) for name in FIXATION_COLUMNS if name != "duration"]
    samples = np.asarray(read_variable(path, "data"), dtype=np.float64)[:, :4]
    return gaze_of(clock, n_samples, table[:, places], samples)


def _trigger(kind: Any) -> int | None:
    """The number of a trigger, such as `'10  '`; None for a boundary or another comment."""
    text = kind.strip() if isinstance(kind, str) else str(round(float(np.ravel(kind)[0])))
    return int(text) if text.isdigit() else None


def write_record(folder: Path, record: Record) -> tuple[Path, Path]:
    """The two files of a block in `folder`, MATLAB 5; float32 EEG, as EEGLAB keeps it. Needs a gaze trace."""
    gaze = record.gaze
    if gaze.trace is None:
        raise ValueError(f"{record.run} has fixations but no gaze trace; write it as BIDS, or record the trace")
    events = sorted([(shown.on, ON) for shown in record.shown] + [(shown.off, OFF) for shown in record.shown])
    time = gaze.trace[:, 0]
    stem = f"{record.recording.subject}_{record.run}"
    eeg_file, gaze_file = folder / f"{stem}_EEG.mat", folder / f"{stem}_ET.mat"
    eeg = {
        "setname": stem, "srate": SAMPLING_HZ, "nbchan": float(len(CHANNELS)), "trials": 1.0,
        "pnts": float(record.n_samples), "data": record.eeg_uv.astype(np.float32),
        "chanlocs": [{"labels": name} for name in CHANNELS],
        "event": [{"type": f"{kind:<4d}", "latency": at + 1.0} for at, kind in events],
    }  # fmt: skip
    last = gaze.first + gaze.samples - 1
    columns = [time[gaze.first], time[last], time[last] - time[gaze.first], gaze.x_px, gaze.y_px, gaze.pupil]
    fixations = {"data": np.stack(columns, axis=1), "colheader": list(FIXATION_COLUMNS), "eye": "L" * len(last)}
    with whole(eeg_file) as partial:
        write_variables(partial, {"EEG": eeg})
    with whole(gaze_file) as partial:
        write_variables(partial, {
            "data": gaze.trace, "colheader": list(TRACE_COLUMNS),
            "event": np.array([(time[at], kind) for at, kind in events]), "eyeevent": {"fixations": fixations},
        })  # fmt: skip
    return eeg_file, gaze_file
