"""EEG recordings, gaze, and events in BIDS."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.bci.raw.bids_corpus import read_events
from spikeloom.bci.raw.channels import read_renames
from spikeloom.bci.raw.eyelink import read_eyelink
from spikeloom.bci.raw.recordings import onto_net, read_recording
from spikeloom.bci.streaming.decoder import spans_beside
from tests.fuzz.parser import OneFile, Parser, of_one_file
from tests.fuzz.texts import LINES


def noise(n_samples: int = 300, rate_hz: float = 100.0) -> Any:
    import mne

    names = ["Fp1", "Fp2", "C3", "C4", "Cz", "O1", "O2", "Pz", "Fz"]
    data = 1e-5 * np.random.default_rng(0).standard_normal((len(names), n_samples))
    raw = mne.io.RawArray(data, mne.create_info(names, rate_hz, "eeg"), verbose="error")
    return raw.set_annotations(mne.Annotations([0.5, 1.0], [0.2, 0.0], ["BAD_x", "10"]))


def fif(folder: Path) -> None:
    (folder / "0").mkdir()
    noise().save(folder / "0" / "x_raw.fif", verbose="error")


def exported(ending: str, kind: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import mne

        (folder / "0").mkdir()
        mne.export.export_raw(folder / "0" / f"x{ending}", noise(), fmt=kind, verbose="error")

    return write


def bdf(folder: Path) -> None:
    """The samples of an EDF file as 24 bits."""
    exported(".edf", "edf")(folder)
    path = folder / "0" / "x.edf"
    raw = path.read_bytes()
    n_header = int(raw[184:192])
    samples = np.frombuffer(raw[n_header:], "<i2").astype("<i4").view("u1").reshape(-1, 4)[:, :3]
    head = (
        b"\xffBIOSEMI"
        + raw[8:192]
        + b"24BIT".ljust(44)
        + raw[236:n_header].replace(b"EDF Annotations ", b"BDF Annotations ")
    )
    (folder / "0" / "x.bdf").write_bytes(head + samples.tobytes())
    path.unlink()


def read_eeg(folder: Path) -> Any:
    path = next(f for f in sorted(folder.iterdir()) if f.suffix in (".fif", ".edf", ".bdf", ".set", ".vhdr"))
    return onto_net(read_recording(path), str(path), unit=None)


def is_net(result: Any) -> None:
    assert result.eeg_uv.shape[0] == 105 and np.isfinite(result.eeg_uv).all()
    assert all(np.isfinite(second) for second, _ in result.events)


def gaze_text(folder: Path) -> None:
    for case, eyes in enumerate(("LEFT", "LEFT RIGHT")):
        lines = [f"SAMPLES GAZE {eyes} RATE 500.00", "MSG 900 TRIALID 1", "INPUT 950 10"]
        cells = " 100.0 110.0 1000.0" * len(eyes.split())
        lines += [f"{1000 + 2 * i}{cells} ..." for i in range(20)]
        lines += ["EFIX L 1000 1030 30 100 110 1000", "ESACC L 1 2 3", "EBLINK L 1 2 3"]
        (folder / str(case)).mkdir()
        (folder / str(case) / "a.asc").write_text("\n".join(lines), "utf-8")


def is_gaze(result: Any) -> None:
    assert (
        len(result.samples) and (np.diff(result.samples[:, 0]) >= 0).all() and np.isfinite(result.samples[:, 0]).all()
    )
    assert np.isfinite(result.fixations[:, :2]).all() and 0 < result.rate_hz <= 10_000


def renames(folder: Path) -> None:
    for name, text in (("a.tsv", "EEG Fpz-Cz\tFpz\nEEG Pz-Oz\tPz\n"), ("a.json", '{"EEG Fpz-Cz": "Fpz"}')):
        (folder / name[2:]).mkdir()
        (folder / name[2:] / name).write_text(text, "utf-8")


# --- BIDS -----------------------------------------------------------------------------------------------------------

EVENTS = "onset\tduration\ttrial_type\tsentence_id\tword_index\tcontent\n" + "".join(
    f"{i}.5\t0.9\tsentence\t{i}\tn/a\t{line}\n{i}.6\t0.2\tfixation\t{i}\t1\tx\n" for i, line in enumerate(LINES)
)


def bids_events(folder: Path) -> None:
    import gzip

    for case in ("0", "1"):
        (folder / case).mkdir()
        (folder / case / "sub-1_eeg.edf").write_bytes(b"")
    (folder / "0" / "sub-1_events.tsv").write_text(EVENTS, "utf-8")
    without = "".join(line for line in EVENTS.splitlines(keepends=True) if "fixation" not in line)
    (folder / "1" / "sub-1_events.tsv").write_text(without, "utf-8")
    rows = "".join(f"{i}.6\t0.2\tfixation\t1\n" for i in range(3)).encode()
    (folder / "1" / "sub-1_recording-eye1_physioevents.tsv.gz").write_bytes(gzip.compress(rows, mtime=0))
    columns = json.dumps({"Columns": ["onset", "duration", "trial_type", "word_index"]})
    (folder / "1" / "sub-1_recording-eye1_physioevents.json").write_text(columns, "utf-8")


def are_events(result: Any) -> None:
    for event in [*result[0], *result[1]]:
        assert np.isfinite(event.onset_s) and np.isfinite(event.duration_s) and event.duration_s > 0


def are_spans(result: Any) -> None:
    for span in result:
        assert 0 <= span.on < span.off and span.fixations.shape[1] == 2


ONE_FILE: tuple[OneFile, ...] = (
    ("eyelink", gaze_text, read_eyelink, is_gaze, ("bci/raw/eyelink.py:read_eyelink",)),
    ("renames", renames, read_renames, None, ("bci/raw/channels.py:read_renames",)),
)  # fmt: skip
RECORDINGS = (
    ("fif", fif, ("bci/raw/headers.py:_fif_tags",)),
    ("edf", exported(".edf", "edf"), ("bci/raw/headers.py:_edf",)),
    ("bdf", bdf, ("bci/raw/headers.py:_edf",)),
    ("brainvision", exported(".vhdr", "brainvision"), ("bci/raw/headers.py:_brainvision",)),
    ("eeglab", exported(".set", "eeglab"), ("bci/raw/headers.py:_eeglab", "bci/zuco/matlab5.py:check")),
)
PARSERS = [
    *of_one_file(ONE_FILE),
    *(
        Parser(
            name=name,
            write=write,
            read=read_eeg,
            promise=is_net,
            covers=("bci/raw/recordings.py:read_recording", *covers),
        )
        for name, write, covers in RECORDINGS
    ),
    Parser(
        name="bids_events",
        write=bids_events,
        read=lambda f: read_events(f / "sub-1_eeg.edf"),
        promise=are_events,
        mutates=(".tsv", ".gz", ".json"),
        covers=(
            "accel/common/files.py:read_gzip",
            "bci/raw/bids_corpus.py:read_events",
            "bci/raw/bids_corpus.py:_rows",
            "bci/raw/bids_corpus.py:_physio",
        ),
    ),
    Parser(
        name="events_beside",
        write=bids_events,
        read=lambda f: spans_beside(f / "sub-1_eeg.edf"),
        promise=are_spans,
        mutates=(".tsv",),
        covers=("bci/streaming/decoder.py:spans_beside",),
    ),
]
