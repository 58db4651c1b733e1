"""Triggers and interruptions are found whatever the channel is called; EyeLink files in any coding and with gaps."""

from pathlib import Path

import mne
import numpy as np
import pytest

from spikeloom.bci.raw.channels import events_of
from spikeloom.bci.raw.eyelink import read_eyelink
from spikeloom.bci.raw.recordings import onto_net
from tests.bci.raw.test_recordings import named

CAP = mne.channels.make_standard_montage("biosemi32").ch_names


def triggered(name: str, kind: str, codes: list[float]) -> mne.io.RawArray:
    raw = named(list(CAP), seconds=4.0)
    values = np.zeros((1, raw.n_times))
    for second, code in enumerate(codes, 1):
        values[0, 500 * second : 500 * second + 20] = code
    extra = mne.io.RawArray(values, mne.create_info([name], 500.0, kind), verbose="error")
    return raw.add_channels([extra], force_update_info=True)


@pytest.mark.parametrize(
    ("name", "kind", "unit"),
    [("STI 014", "stim", 1.0), ("TRIG", "misc", 1.0), ("TRIG", "eeg", 1.0), ("Trigger", "eeg", 1e-6),
     ("Status", "stim", 1.0)],
)  # fmt: skip
def test_channels_of_triggers_are_events_and_no_electrodes(name: str, kind: str, unit: float) -> None:
    high = 65536 if name == "Status" else 0  # BioSemi keeps its own state there
    raw = triggered(name, kind, [high + 5 * unit, high + 7 * unit])
    found = onto_net(raw)
    assert found.events == ((1.0, "5"), (2.0, "7")) and f"2 events of the trigger channel {name}" in found.how
    assert "without a place" not in found.how and onto_net(raw, cap="biosemi32").measured == tuple(CAP)


def test_a_channel_that_sums_the_others_up_is_read_alone_and_a_voltage_is_no_trigger() -> None:
    raw = triggered("STI 014", "stim", [5, 0, 6])
    raw.add_channels([triggered("STI 001", "stim", [5, 0, 6]).pick(["STI 001"])], force_update_info=True)
    assert events_of(raw).marks == ((1.0, "5"), (3.0, "6"))
    wave = triggered("TRIG", "eeg", [0.37e-6, 1.52e-6])
    assert events_of(wave).marks == () and "TRIG holds no whole numbers" in events_of(wave).notes[0]


def test_lost_samples_and_joints_are_interruptions_once() -> None:
    raw = named(list(CAP))
    raw.set_annotations(mne.Annotations([2.0], [0.0], ["New Segment/LostSamples: 3"]))
    assert events_of(raw).bad_s == ((2.0, 2.0),)
    joined = mne.concatenate_raws([named(list(CAP)), named(list(CAP))])
    assert len(events_of(joined).bad_s) == 1


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_eyelink_is_read_in_every_coding_with_its_missing_values(coding: str, tmp_path: Path) -> None:
    lines = ["SAMPLES GAZE LEFT RATE 500.00"]
    lines += [f"{1000 + i} {'-32768.0' if i == 3 else '100.0'} 200.0 900.0 ..." for i in range(6)]
    path = tmp_path / "a.asc"
    path.write_bytes("\r\n".join(lines).encode(coding))
    found = read_eyelink(path)
    assert len(found.samples) == 6 and np.isnan(found.samples[:, 1]).tolist() == [i == 3 for i in range(6)]
    assert found.notes == ("a block names 500 Hz, its samples lie 1 ms apart",)
    path.write_text("\n".join(lines[1:]))
    with pytest.raises(ValueError, match=r"a\.asc, line 1.*before the line SAMPLES"):
        read_eyelink(path)
