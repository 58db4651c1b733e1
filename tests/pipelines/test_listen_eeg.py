"""`listen eeg=FILE` replays, decodes, tells and closes: to the end, and when it is asked to stop."""

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeloom.bci.streaming.replay import ReplayConfig
from spikeloom.bci.zuco.records import CHANNELS
from spikeloom.bci.zuco.samples import SamplesConfig
from spikeloom.pipelines.commands import listen
from spikeloom.pipelines.config.listen import ListenConfig
from spikeloom.pipelines.eeg import listen as listen_eeg

mne = pytest.importorskip("mne")
pytest.importorskip("mne_lsl", reason="mne-lsl is not installed: pip install 'spikeloom[stream]'", exc_type=ImportError)
SHORT = ReplayConfig(window_s=2.5, step_s=1.0, lead_s=2.5)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("eeg") / "x_raw.fif"
    data = 1e-5 * np.random.default_rng(0).standard_normal((105, 2250))
    mne.io.RawArray(data, mne.create_info(list(CHANNELS), 500.0, "eeg"), verbose="error").save(path, verbose="error")
    return path


def decoder(on_call: Callable[[int], object]):  # type: ignore[no-untyped-def]
    calls: list[int] = []

    def decode(tokens: torch.Tensor, mask: torch.Tensor) -> str:
        calls.append(len(tokens))
        on_call(len(calls))
        return f"sentence {len(calls)}"

    return lambda run: (decode, SamplesConfig())


def test_a_recording_is_decoded_window_by_window(recording: Path, tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(listen_eeg, "decoder_of", decoder(lambda n: None))
    out = tmp_path / "heard.json"
    listen.run(ListenConfig(run="r", eeg=str(recording), out=str(out), replay=SHORT))
    heard = json.loads(out.read_text("utf-8"))
    assert heard["samples"] == 2250 and heard["mode"] == "windows"
    assert [one["text"] for one in heard["decoded"]] == ["sentence 1", "sentence 2", "sentence 3"]
    assert [one["start_s"] for one in heard["decoded"]] == [0.826, 1.826, 2.826]
    assert 0 < heard["latency_ms"]["p50"] <= heard["latency_ms"]["max"]
    printed = capsys.readouterr().out
    assert "413 samples" in printed and "3 decoded" in printed and "the electrodes of the net as recorded" in printed


def test_asked_to_stop_it_closes_and_keeps_what_it_heard(recording: Path, tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    before, handler = threading.active_count(), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        listen_eeg, "decoder_of", decoder(lambda n: signal.raise_signal(signal.SIGTERM) if n == 1 else None)
    )
    out = tmp_path / "heard.json"
    listen.run(ListenConfig(run="r", eeg=str(recording), out=str(out), replay=SHORT))
    heard = json.loads(out.read_text("utf-8"))
    assert heard["decoded"][0]["text"] == "sentence 1" and len(heard["decoded"]) < 3 and heard["samples"] is None
    assert "interrupted; player and stream are closed" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == handler
    patience = time.monotonic() + 10  # the library's own threads end a moment later
    while threading.active_count() > before and time.monotonic() < patience:
        time.sleep(0.05)
    assert threading.active_count() == before


def test_what_cannot_be_heard_is_refused(recording: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(listen_eeg, "decoder_of", decoder(lambda n: None))
    with pytest.raises(ValueError, match="give one of them"):
        listen.run(ListenConfig(run="r", eeg="a.edf", wav="b.wav"))
    with pytest.raises(ValueError, match=r"has 4\.5 s, less than replay\.window_s=9"):
        listen.run(ListenConfig(run="r", eeg=str(recording), replay=ReplayConfig(window_s=9.0)))
    with pytest.raises(ValueError, match=r"none\.edf is missing"):
        listen.run(ListenConfig(run="r", eeg="none.edf"))
