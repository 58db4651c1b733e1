"""Which electrode a channel is, and how many volts its numbers are: names, units, filters and triggers of a recording.

    EEG Fp1-LE, Fc5., POL fp1  -> Fp1, FC5, Fp1     one reference for all channels, or ears and mastoids
    EEG E1, e001               -> E1                of an EGI net
    Fpz-Cz beside Pz-Oz        -> refused           a difference of two electrodes: name one with rename=FILE
    A1 .. D32 without places   -> refused           letters and numbers of a cap, not the 10-05 system: give cap=NAME

What this module does not do: move potentials (`bci.raw.recordings`).
"""

import csv
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spikeloom.accel.common.files import first_few, read_json, read_text
from spikeloom.bci.raw.headers import Header

if TYPE_CHECKING:
    import mne

PLACES = ("colin27_1005", "standard_1005")  # the 10-05 system, by the names MNE gave it over time
VOLTS = {
    "v": 1.0, "volt": 1.0, "volts": 1.0, "mv": 1e-3, "millivolt": 1e-3, "uv": 1e-6, "µv": 1e-6, "μv": 1e-6,
    "microv": 1e-6, "muv": 1e-6, "microvolt": 1e-6, "microvolts": 1e-6, "nv": 1e-9, "nanov": 1e-9, "nanovolt": 1e-9,
}  # fmt: skip
MNE_MICROVOLT = ("μV", "µV", "\x83\xcaV", "uV")  # of EDF; V and whatever it does not know count as volts there
REFERENCES = {"ref", "le", "re", "lre", "ar", "av", "avg", "average", "car", "a1", "a2", "a1a2", "m1", "m2", "m1m2"}
CAP_NAME = re.compile(r"(?:1-)?[A-H]([1-9]|[12]\d|3[0-2])")  # BioSemi's plugs, as its software writes them too
NET_NAME = re.compile(r"E(\d+)")
PREFIX = re.compile(r"(?:eeg|pol)[\s_:-]*", re.IGNORECASE)
TRIGGER = re.compile(r"STI ?\d{3}|Status|Trig(ger)?s?|Mark(er)?s?|Stim(ulus)?", re.IGNORECASE)
LEAST_NET_NAMES = 32  # E and a number, from which on names are those of an EGI net
LEAST_CAP_NAMES = 4  # plugs without a namesake in the 10-05 system, from which on names are those of a cap


@cache
def system() -> Any:
    """MNE's montage of the 10-05 system."""
    import mne

    known = mne.channels.get_builtin_montages()
    return mne.channels.make_standard_montage(next(name for name in PLACES if name in known))


def read_renames(path: Path) -> dict[str, str]:
    """Name in the recording -> electrode, of a table with two columns (.tsv, .csv) or a .json object.

    Raises ValueError naming the file and the line.
    """
    if Path(path).suffix.lower() == ".json":
        found = read_json(Path(path), "use an object such as {'EEG Fpz-Cz': 'Fpz'}")
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise ValueError(f"{path} holds no object of texts; use {{'EEG Fpz-Cz': 'Fpz'}}")
        return found
    text = read_text(Path(path), "use rename=FILE with a line `NAME<tab>ELECTRODE`")
    renames: dict[str, str] = {}
    delimiter = "\t" if "\t" in text else ","
    for number, row in enumerate(csv.reader(text.splitlines(), delimiter=delimiter), 1):
        if not row or not any(cell.strip() for cell in row):
            continue
        if len(row) != 2 or not row[1].strip():
            raise ValueError(f"{path}, line {number}: got {len(row)} columns; use NAME{delimiter!r}ELECTRODE")
        if row[0].strip() in renames:
            raise ValueError(f"{path}, line {number}: {row[0].strip()!r} is renamed twice; keep one line")
        renames[row[0].strip()] = row[1].strip()
    if not renames:
        raise ValueError(f"{path} holds no line; use NAME<tab>ELECTRODE")
    return renames


class Named(NamedTuple):
    """renames: channel -> electrode, where they differ. notes: what was assumed, in words."""

    renames: dict[str, str]
    notes: tuple[str, ...]


def electrodes_of(names: Sequence[str], file: str, table: Mapping[str, str] | None = None) -> Named:
    """Names of the 10-05 system for channels, whatever their case, padding and common reference.

    Raises ValueError for a table that names channels the recording lacks, or one electrode twice.
    """
    standard = {name.lower(): name for name in system().ch_names}
    parts = {name: _parts(name) for name in names}
    numbers = {base: int(found[1]) for base, *_ in parts.values() if (found := re.fullmatch(r"e(\d+)", base.lower()))}
    if len(numbers) >= LEAST_NET_NAMES:  # EEG E1, e1, E001
        standard |= {base.lower(): f"E{n}" for base, n in numbers.items()}
    table = dict(table or {})
    if unknown := [name for name in table if name not in names]:
        raise ValueError(
            f"{file} has no channel {first_few(unknown)} of the rename table; it has {first_few(list(names), 8)}"
        )
    renamed: dict[str, str] = {name: standard.get(to.lower(), to) for name, to in table.items()}
    suffixed = {name: part[1].lower() for name, part in parts.items() if len(part) == 2 and name not in table}
    paired = {name for name, part in parts.items() if len(part) == 2 and part[0].lower() in standard}
    suffixes = {suffixed[name] for name in paired if name in suffixed}
    common = len(suffixes) == 1 and len(paired) >= 2
    taken = set(renamed.values())
    dropped = set[str]()
    for name in names:
        if name in table:
            continue
        base, *rest = parts[name]
        suffix = re.sub(r"[^a-z0-9]", "", rest[0].lower()) if rest else ""
        if rest and not (suffix in REFERENCES or common):
            continue
        wanted = standard.get(base.lower())
        if wanted is None or wanted in taken or (wanted != name and wanted in names):
            continue
        taken.add(wanted)
        if rest:
            dropped.add(rest[0])
        if wanted != name:
            renamed[name] = wanted
    doubled = sorted({to for to in renamed.values() if list(renamed.values()).count(to) > 1})
    if doubled:
        raise ValueError(f"{file}: {doubled[0]} is given to two channels by the rename table; give each one electrode")
    notes = []
    if table:
        notes.append(f"{len(table)} channels renamed by the table")
    if dropped:
        notes.append(f"reference {', '.join(sorted(dropped))} cut from the names")
        if len(dropped) > 1:
            notes.append("channels of different references are taken as one")
    return Named({a: b for a, b in renamed.items() if a != b}, tuple(notes))


def bipolar(names: Sequence[str]) -> list[str]:
    """Channels that are differences of two electrodes of the 10-05 system, such as Fpz-Cz."""
    standard = {name.lower() for name in system().ch_names} - REFERENCES
    found = []
    for name in names:
        parts = _parts(name.lower())
        if len(parts) == 2 and all(part in standard for part in parts):
            found.append(name)
    return found


def _parts(name: str) -> list[str]:
    """The electrode of a channel, and what it refers to where the name says so: EEG_Fp1-LE -> Fp1, LE."""
    plain = name.strip(" .")
    plain = PREFIX.sub("", plain, count=1) if PREFIX.match(plain) else plain
    return re.split(r"\s*[-:/_]\s*", (plain or name).strip(" ."), maxsplit=1)


def refuse_ambiguous(names: Sequence[str], file: str) -> None:
    """Raise ValueError where names without places belong to caps, so that those which the 10-05 system shares
    (A1, C3 of a BioSemi cap) or the net of the features (E1 of one of 256) would be put on wrong places."""
    standard = set(system().ch_names)
    plugs = [name for name in names if CAP_NAME.fullmatch(name) and name not in standard]
    if len(plugs) >= LEAST_CAP_NAMES and any(name.removeprefix("1-")[0] != "E" for name in plugs):  # E alone: a net
        n = sum(bool(CAP_NAME.fullmatch(name)) for name in names)
        raise ValueError(
            f"{file}: the channels {first_few(plugs)} are plugs of a cap ({n} of them), not the 10-05 system; store "
            f"the electrode places, or give cap=NAME (cap={'biosemi64' if n <= 64 else f'biosemi{n}'})"
        )
    numbers = [int(found[1]) for name in names if (found := NET_NAME.fullmatch(name))]
    if numbers and max(numbers) > 129:
        raise ValueError(
            f"{file}: the channels E1 … E{max(numbers)} are those of a net of 256, not of the net of 128 of the "
            "features; store the electrode places, or give cap=GSN-HydroCel-256 (257 with its reference)"
        )


# --- units and filters ----------------------------------------------------------------------------------------------


def scale_of(header: Header, raw: "mne.io.BaseRaw", picked: Sequence[str], unit: str | None, file: str, suffix: str
             ) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """What each picked channel is to be multiplied with so that it is in volts, `[n]`, and what was done, in words.

    unit: of channels whose file names none, or one that is no voltage. Raises ValueError for those without it.
    """
    if unit is not None and unit.casefold() not in VOLTS:
        raise ValueError(f"unit={unit} is no unit of voltage; use V, mV, uV or nV")
    given = None if unit is None else VOLTS[unit.casefold()]
    factors = np.ones(len(picked))
    known = dict(zip(raw.ch_names, header.units, strict=False)) if len(header.units) >= len(raw.ch_names) else {}
    unknown, corrected = [], []
    for k, name in enumerate(picked):
        if name not in known:
            if given is not None:  # EEGLAB keeps microvolts, FIF and arrays volts, by convention
                factors[k] = given / (1e-6 if suffix == ".set" else 1.0)
            continue
        written = known[name]
        volts = None if written == "MV" else VOLTS.get(written.casefold())
        if volts is None and suffix == ".vhdr" and not written:
            volts = 1e-6  # by its specification
        if volts is None:
            if given is None:
                unknown.append((name, written))
                continue
            volts = given
        assumed = _assumed(written, suffix)
        factors[k] = volts / assumed
        if factors[k] != 1.0:
            corrected.append(written or f"'' (unit={unit})")
    if unknown:
        name, written = unknown[0]
        raise ValueError(
            f"{file}: the unit of {len(unknown)} channels is {written!r} ({first_few([n for n, _ in unknown])}), which "
            "is no unit of voltage; give unit=uV (or V, mV, nV) if that is what they hold"
        )
    notes = [f"unit {', '.join(sorted(set(corrected)))} read as voltage"] if corrected else []
    if given is not None and not known:
        notes.append(f"numbers taken as {unit}")
    return factors, notes


def _assumed(written: str, suffix: str) -> float:
    """Volts that MNE makes of one of such a unit."""
    if suffix == ".vhdr":
        return {"V": 1.0, "mV": 1e-3, "µV": 1e-6, "uV": 1e-6, "nV": 1e-9, "": 1e-6}.get(written, 1.0)
    return 1e-6 if written in MNE_MICROVOLT else 1e-3 if written == "mV" else 1.0


def highpass_of(header: Header, raw: "mne.io.BaseRaw", picked: Sequence[str]) -> float:
    """The lowest high-pass in Hz of the picked channels: MNE keeps the highest for all. Unknown counts as 0."""
    if len(header.highpass_hz) >= len(raw.ch_names) > 0:
        each = dict(zip(raw.ch_names, header.highpass_hz, strict=False))
        found = [each[name] for name in picked if name in each]
        return float(np.nan_to_num(min(found, key=lambda hz: 0.0 if np.isnan(hz) else hz))) if found else 0.0
    return float(raw.info["highpass"])


# --- events ---------------------------------------------------------------------------------------------------------


class Events(NamedTuple):
    """marks: (second from the first sample, description). bad_s: spans (second, end) nobody should measure in."""

    marks: tuple[tuple[float, str], ...]
    bad_s: tuple[tuple[float, float], ...]
    notes: tuple[str, ...]


def events_of(raw: "mne.io.BaseRaw") -> Events:
    """Annotations and trigger channels, relative to the first sample, also of a recording that was cropped."""
    marks, bad = [], set[tuple[float, float]]()
    for a in raw.annotations:
        text, on = str(a["description"]), float(a["onset"] - raw.first_time)
        broken = re.match(r"(bad|edge|boundary)|new segment/.*lost", text, re.IGNORECASE)
        if broken or (on > 0 and re.match(r"new segment/?$", text, re.IGNORECASE)):
            bad.add((on, on + float(np.nan_to_num(a["duration"]))))
        marks.append((on, text))
    notes = [f"{len(bad)} spans marked bad or discontinuous"] if bad else []
    if not any(re.fullmatch(r"(Stimulus/S\s*)?\d+", text) for _, text in marks):
        found, said = _triggers(raw)
        marks += found
        notes += said
    return Events(tuple(sorted(marks, key=lambda mark: mark[0])), tuple(sorted(bad)), tuple(notes))


def trigger_channels(raw: "mne.io.BaseRaw") -> list[str]:
    """Channels of triggers, by type or by name; where one sums the others up (STI 014), that one alone."""
    named = [
        name
        for name, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True)
        if kind == "stim" or (kind in ("eeg", "misc") and TRIGGER.fullmatch(name.strip()))
    ]
    summing = [name for name in named if re.fullmatch(r"STI ?(014|101)|Status", name, re.IGNORECASE)]
    return summing[:1] or named


def _triggers(raw: "mne.io.BaseRaw") -> tuple[list[tuple[float, str]], list[str]]:
    """(second, code) where a trigger channel leaves its level, and what was read, in words."""
    import mne

    marks, notes = [], []
    kinds = dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))
    bdf = str(next(iter(raw.filenames), "")).lower().endswith(".bdf")
    for name in trigger_channels(raw):
        values = np.nan_to_num(raw.get_data(picks=[name])[0])
        if kinds[name] != "stim":  # read as a voltage
            values = values * 1e6 if np.abs(values).max() < 1 else values
            if np.abs(values - values.round()).max() > 0.01:
                notes.append(f"the channel {name} holds no whole numbers, no events are taken from it")
                continue
        channel = mne.io.RawArray(
            values.round()[None], mne.create_info([name], raw.info["sfreq"], "stim"), verbose="error"
        )
        sixteen = bdf or name.strip().lower() == "status"  # BioSemi keeps its own state in the bits above
        mask = {"mask": 0xFFFF, "mask_type": "and"} if sixteen else {}
        found = mne.find_events(channel, name, shortest_event=1, initial_event=False, verbose="error", **mask)
        marks += [(float(first / raw.info["sfreq"]), str(code)) for first, _, code in found]
        notes.append(f"{len(found)} events of the trigger channel {name}")
    return marks, notes
