"""A stream of another process is joined by name, put onto the net, and joined again after it was gone."""

import subprocess
import sys
from uuid import uuid4

import numpy as np
import pytest

from spikeloom.bci.streaming.live import follow, net_matrix
from spikeloom.bci.streaming.replay import ReplayConfig, Window
from spikeloom.bci.zuco.records import CHANNELS

mne = pytest.importorskip("mne")
pytest.importorskip("mne_lsl", reason="mne-lsl is not installed: pip install 'spikeloom[stream]'", exc_type=ImportError)

NAMES = ["EEG_Fp1", "EEG_Fp2", "C3", "C4", "Cz", "O1", "O2", "Pz", "Fz"]
PLAYER = """
import sys, time
import numpy as np
from mne_lsl.lsl import StreamInfo, StreamOutlet, local_clock
name, on, off, rounds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
names = sys.argv[5].split(",")
rng = np.random.default_rng(0)
for k in range(rounds):
    info = StreamInfo(name, "eeg", len(names), 250.0, "float32", name)
    info.set_channel_names(names); info.set_channel_types("eeg"); info.set_channel_units("microvolts")
    outlet = StreamOutlet(info, chunk_size=25)
    outlet.wait_for_consumers(20)
    begun, sent = time.monotonic(), 0
    while time.monotonic() - begun < on:
        while sent < (time.monotonic() - begun) * 250:
            outlet.push_chunk(rng.standard_normal((25, len(names))).astype("float32") * 20)
            sent += 25
        time.sleep(0.01)
    del outlet
    time.sleep(off)
"""


@pytest.mark.slow
def test_a_stream_of_another_process_is_joined_dropped_and_joined_again() -> None:
    name, seen, said = f"t{uuid4().hex[:8]}", list[Window](), list[str]()
    player = subprocess.Popen([sys.executable, "-c", PLAYER, name, "5", "4", "2", ",".join(NAMES)])
    try:
        found = follow(
            name, seen.append, ReplayConfig(window_s=1.0, step_s=0.5, timeout_s=20.0), seconds=6.0,
            on_event=said.append,
        )  # fmt: skip
    finally:
        player.terminate()
        player.wait(10)
    assert "9 electrodes interpolated to 105" in found.how and any("is back after" in text for text in said)
    assert len(found.gaps) >= 1 and found.n_windows == len(seen) >= 6
    assert all(window.data.shape == (105, 500) and np.isfinite(window.data).all() for window in seen)
    assert 3 < 1e6 * np.median(seen[0].data[:-1].std(axis=1)) < 200 and not seen[0].data[-1].any()


def test_a_stream_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(OSError, match=r"no stream called nobody-here within 0\.5 s"):
        follow("nobody-here", lambda window: None, ReplayConfig(timeout_s=0.5))


def test_channels_of_amplifiers_become_places_of_the_net() -> None:
    matrix, used, how = net_matrix(NAMES, "x")
    assert matrix.shape == (105, 9) and used == list(range(9)) and "9 electrodes interpolated" in how
    np.testing.assert_allclose(matrix.sum(axis=1), 0.0, atol=1e-9)  # what all channels share, the reference, is gone
    matrix, used, how = net_matrix(["aux", *CHANNELS], "x")
    assert used == list(range(1, 106)) and how.startswith("the electrodes of the net")
    np.testing.assert_allclose(matrix[:-1, :-1], np.eye(104))
    assert net_matrix([str(k) for k in range(32)], "x", cap="biosemi32")[0].shape == (105, 32)
    with pytest.raises(ValueError, match="x has 0 electrodes with a known place"):
        net_matrix(["0", "1"], "x")
    with pytest.raises(ValueError, match="cap=biosemi32 has 32 electrodes, the stream 2"):
        net_matrix(["0", "1"], "x", cap="biosemi32")
