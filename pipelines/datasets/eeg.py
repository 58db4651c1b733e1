"""`spikeloom data check dataset=eeg root=FILE_OR_FOLDER`: read every recording there (EDF, BDF, EEGLAB, BrainVision,
FIF, EyeLink .asc) once, and print what is in it and how it comes onto the net of the features. cap=MONTAGE: electrodes
by their order; rename=FILE: electrodes by name; unit=uV: for files that name no unit.
`spikeloom data describe dataset=eeg root=FILE out=FILE.html`: spectrum and band amplitudes of one recording as a page.
`spikeloom data features dataset=eeg root=FILE out=FILE.npz`: the 840 band amplitudes of every second, half overlapping,
or with asc=FILE of every fixation of the eye tracker that ran beside the EEG."""

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spikeloom.accel.common.files import first_few, whole
from spikeloom.accel.common.units import counted
from spikeloom.bci.raw.channels import read_renames
from spikeloom.bci.raw.clock import fit_clock, same_triggers
from spikeloom.bci.raw.eyelink import EyeLink, gaze_of, read_eyelink
from spikeloom.bci.raw.recordings import NetEEG, find_recordings, not_finite, onto_net, read_recording, windows_of
from spikeloom.bci.raw.sentences import SHORTEST
from spikeloom.bci.reports import charts as figures
from spikeloom.bci.reports.page import write_report
from spikeloom.bci.zuco.records import BANDS, FEATURES, N_CHANNELS, SAMPLING_HZ
from spikeloom.bci.zuco.summary import spectrum
from spikeloom.pipelines.config.data import DataConfig
from spikeloom.pipelines.training.runtime import watch

log = logging.getLogger("spikeloom")
WINDOW_S, STEP_S = 1.0, 0.5


def root_of(config: DataConfig) -> Path:
    return Path(config.root or Path(os.environ.get("SPIKELOOM_DATA", "data")) / "eeg")


def check(config: DataConfig) -> None:
    """Exits with 1 after one line for each recording that cannot be read or measures nothing; one without known
    electrodes can. Channels that measure nothing are counted at the end: the others are usable."""
    problems: list[str] = []
    lost: dict[str, int] = {}  # file -> channels
    print(f"eeg in {root_of(config)}")
    for file in watch(find_recordings(root_of(config)), "reading recordings"):
        try:
            line, lost[file.name] = in_one_line(file, config)
            print(f"  {file.name}: {line}")
        except (ValueError, OSError) as error:
            problems.append(str(error))
    for problem in problems:
        print(f"problem: {' '.join(problem.split())}")
    if problems:
        sys.exit(1)
    print(closing(lost))


def closing(lost: Mapping[str, int]) -> str:
    """The last line of a check without problems; lost: channels that measure nothing, by file."""
    if not any(lost.values()):
        return "no problem found"
    files = first_few([f"{name} {n}" for name, n in lost.items() if n])
    return f"left out: {counted(sum(lost.values()), 'channel')} with NaN, infinity or one value throughout ({files})"


def onto_the_net(file: Path, config: DataConfig) -> NetEEG:
    """The recording on the net, by the keys cap, unit and rename."""
    rename = None if config.rename is None else read_renames(Path(config.rename))
    return onto_net(read_recording(file), str(file), config.cap, unit=config.unit, rename=rename)


def in_one_line(file: Path, config: DataConfig) -> tuple[str, int]:
    """What is in one recording, how it comes onto the net, and how many of its channels measure nothing."""
    if file.suffix.lower() == ".asc":
        gaze = read_eyelink(file)
        seconds = np.ptp(gaze.samples[:, 0]) / 1000
        closed = int((~np.isfinite(gaze.samples)).any(axis=1).sum())
        return (
            f"gaze of the eye {gaze.eye} at {gaze.rate_hz:g} Hz, {len(gaze.samples):,} samples over {seconds:.1f} s "
            f"({closed:,} of them without a value), "
            f"{len(gaze.fixations)} fixations, {gaze.n_saccades} saccades, {gaze.n_blinks} blinks, "
            f"{len(gaze.triggers)} triggers, {len(gaze.messages)} messages" + "".join(f"; {n}" for n in gaze.notes)
        ), 0
    raw = read_recording(file)
    has = f"{len(raw.ch_names)} channels at {raw.info['sfreq']:g} Hz, {raw.times[-1]:.1f} s"
    has += f", {len(raw.annotations)} events"
    try:
        net = onto_the_net(file, config)
    except ValueError as error:
        if "electrodes with a known place" not in str(error):
            raise
        wrong = not_finite(raw, str(file))
        has += f", {wrong} channels with NaN or infinity" if wrong else ""
        return f"{has}; not onto the net: {' '.join(str(error).split())}", wrong
    return f"{has}; onto the net: {net.how}; mean |EEG| {np.abs(net.eeg_uv).mean():.1f} uV", len(net.lost)


def one_recording(config: DataConfig) -> tuple[Path, NetEEG]:
    file = root_of(config)
    if not file.is_file():
        raise ValueError(f"data {config.what} dataset=eeg needs one recording, got root={file}; use root=FILE")
    return file, onto_the_net(file, config)


def describe(config: DataConfig) -> None:
    """Write the page."""
    file, net = one_recording(config)
    windows = windows_of(net.eeg_uv.shape[1], WINDOW_S, STEP_S)
    reject_uv, rejection = net.reject_uv(config.reject_uv)
    amplitudes = net.amplitudes(windows, reject_uv)
    kept = amplitudes[~np.isnan(amplitudes).any(axis=1)]
    lead = (
        f"{net.eeg_uv.shape[1] / SAMPLING_HZ:.1f} s of EEG; {net.how}. Of {len(windows)} windows of a second "
        f"{len(kept)} are kept: {rejection}."
    )
    sections = [
        figures.power_spectrum(*spectrum(net.eeg_uv.T)),
        figures.sensor_layout(),
    ]
    if len(kept):
        sections.append(figures.band_topomaps(kept.mean(axis=0)))
    facts = {
        "recording": file.name, "onto the net of 105 electrodes": net.how,
        "seconds": f"{net.eeg_uv.shape[1] / SAMPLING_HZ:.1f}", "windows of a second": len(windows),
        "of them without artefact": len(kept),
        "events": len(net.events),
    }  # fmt: skip
    page = write_report(Path(config.out), f"The recording {file.name}", sections, facts, lead)
    log.info("%s -> %s", file, page)


def features(config: DataConfig) -> None:
    """Write amplitudes `[n, 840]` in uV (NaN where rejected), first samples and ends `[n]` at 500 Hz, and names."""
    out = Path(config.out)
    if out.suffix != ".npz":
        raise ValueError(f"data features dataset=eeg writes numbers, got out={out}; use out=FILE.npz")
    file, net = one_recording(config)
    if config.asc is None:
        pieces, what = windows_of(net.eeg_uv.shape[1], WINDOW_S, STEP_S), "windows of a second"
    else:
        pieces, what = fixation_pieces(net, read_eyelink(Path(config.asc)), file.name), "fixations of 100 ms or longer"
    if not len(pieces):
        raise ValueError(f"{file} has no piece to measure: no {what} inside it; use a longer recording")
    reject_uv, rejection = net.reject_uv(config.reject_uv)
    amplitudes = net.amplitudes(pieces, reject_uv)
    with whole(out) as partial, partial.open("wb") as opened:
        np.savez(opened, amplitudes_uv=amplitudes, first=pieces[:, 0], end=pieces[:, 1], names=np.array(FEATURES))
    lost = int(np.isnan(amplitudes).any(axis=1).sum())
    print(f"{file.name}: {net.how}; {rejection}")
    print(f"{len(pieces)} {what}, {lost} rejected for artefacts -> {out}")
    mean = (
        np.nanmean(amplitudes, axis=0).reshape(len(BANDS), N_CHANNELS)[:, :-1].mean(axis=1)
        if lost < len(pieces)
        else []
    )
    print(
        "mean amplitude, uV: " + ("  ".join(f"{b} {m:.2f}" for b, m in zip(BANDS, mean, strict=False)) or "none kept")
    )


def fixation_pieces(net: NetEEG, gaze: EyeLink, name: str) -> np.ndarray:
    """Fixations (first sample, end) on the clock of the EEG, which met the tracker's in the triggers both saw."""
    events = [(at, text.removeprefix("Stimulus/S").strip()) for at, text in net.events]
    seen = [(at * SAMPLING_HZ, int(text)) for at, text in events if text.isdigit()]
    same_triggers(name, [kind for _, kind in seen], [kind for _, kind in gaze.triggers])
    clock = fit_clock(np.array([at for at, _ in gaze.triggers]), np.array([at for at, _ in seen]))
    found = gaze_of(clock, net.eeg_uv.shape[1], gaze.fixations, gaze.samples)
    long_enough = found.samples >= SHORTEST
    return np.stack((found.first, found.first + found.samples), axis=1)[long_enough]
