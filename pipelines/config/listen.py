"""Keys of `spikeloom listen`."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from spikeloom.bci.streaming.replay import ReplayConfig
from spikeloom.speech.streaming import SpotterConfig


@dataclass
class ListenConfig:
    run: str = MISSING  # run directory of a causal model, or of an EEG decoder
    wav: str | None = None  # sound file of any format and length; null: the microphone
    device: str | None = None  # name or number of the microphone; null: the default input
    seconds: float = 0.0  # how long to hear the microphone; 0: until Ctrl-C
    out: str | None = None  # JSON file
    without_keywords: str | None = None  # measure false accepts an hour and misses: sound file or folder, or synthetic
    hours: float = 1.0  # of synthetic sound without keywords
    keywords: str | None = None  # folder of keyword clips that may be missed; null: test set of the run
    keyword_clips: int = 500  # of them at most, evenly spread
    page: str | None = None  # HTML page with the detection-error tradeoff (without_keywords)
    spotter: SpotterConfig = field(default_factory=SpotterConfig)
    eeg: str | None = None  # EEG recording to replay to a run of an EEG-to-text model; seconds: of it, 0: all
    lsl: str | None = None  # name of an LSL stream of another process to join, for a run of an EEG-to-text model
    cap: str | None = None  # montage of MNE, such as biosemi32, where the recording does not name its electrodes
    unit: str | None = None  # V, mV, uV or nV of channels whose file names no unit of voltage
    rename: str | None = None  # table NAME<tab>ELECTRODE (.tsv, .csv, .json) for names such as Fpz-Cz
    reject_uv: float | None = None  # rejects pieces beyond; null: 90 on the net of ZuCo, none on other caps
    piece_s: float = 0.25  # of EEG that stand for a fixation where the eyes were not tracked
    replay: ReplayConfig = field(default_factory=lambda: ReplayConfig(window_s=4.0, step_s=1.0))
