"""Keys of `spikeloom data`."""

from dataclasses import dataclass, field

from spikeloom.bci.zuco.splits import SplitConfig
from spikeloom.speech.features.cochlea.cochlea import CochleaConfig


@dataclass
class DataConfig:
    what: str = (
        "check"  # check, describe, fetch, list, cochlea, leakage or devices; of zuco also synthesize, split, cache, …
    )
    dataset: str = ""  # check, describe, fetch: one of conf/data, zuco or eeg (recordings of any kind)
    accept_license: bool = False  # fetch: you accept the licence that the command prints
    root: str | None = None  # where it lies; default: the folder conf/data names; cochlea: any folder of wavs (or in=)
    settings: list[str] = field(default_factory=list)  # keys of data and features as in a training
    out: str = "data.html"  # page of describe, folder of cache, FILE.h5 of cochlea, FILE.yaml of devices
    processes: int = 0  # check, cochlea, cache, features: how many work at the same time; 0: one a core
    cochlea: CochleaConfig = field(default_factory=CochleaConfig)
    time_dtype: str = "float32"  # of the spikes cochlea writes; float16 as in the published files
    batch_size: int = 16  # clips that cochlea hands on at a time
    tasks: list[str] = field(default_factory=lambda: ["SR1"])  # synthesize, fetch: SR1, NR1, TSR1, NR2, TSR2
    readers: list[str] = field(default_factory=list)  # fetch of zuco: such as [ZAB,YAC]; empty: all of the tasks
    subjects: int = 3  # synthesize: readers a version
    sentences: int = 40  # synthesize: of each task
    strength: float = 1.0  # synthesize: of the planted signal, 0 for none
    missing: float = 0.02  # synthesize: share of the sentences without any data
    rejected: float = 0.002  # synthesize: share of the fixations with artefacts
    raw: bool = False  # synthesize: continuous EEG and gaze as well, features computed from them
    format: str = "published"  # synthesize: matlab5 for version 1 and hdf5 for 2; or one of these for both
    text: str | None = None  # synthesize: a file with a sentence a line; null: ZuCo's task materials where they lie
    materials: str | None = None  # synthesize: folder of the task materials; null: zuco below the data folder
    seed: int = 0  # synthesize
    split: SplitConfig = field(default_factory=SplitConfig)  # split: unit run or key, seed, shares, margin
    asc: str | None = None  # features of dataset=eeg: EyeLink file beside root=RECORDING, fixations instead of windows
    cap: str | None = None  # dataset=eeg: montage of MNE, such as biosemi32, where a recording does not name electrodes
    unit: str | None = None  # dataset=eeg: V, mV, uV or nV of channels whose file names no unit of voltage
    rename: str | None = None  # dataset=eeg: table NAME<tab>ELECTRODE (.tsv, .csv, .json) for names such as Fpz-Cz
    reject_uv: float | None = None  # dataset=eeg: rejects pieces beyond; null: 90 on ZuCo's net, none on others
    epoch: str = "word"  # epochs of zuco: word (a fixation each) or sentence
    limit: int = 0  # features, bids of zuco: recordings to work on, the first ones; 0: all
    file: str | None = None  # devices: table of measured pulses, columns direction, conductance_siemens and device
    read_volts: float = 0.1  # devices: at which the weights are read
    g_min: float | None = None  # devices: lowest conductance in siemens; null: the lowest reading
    g_max: float | None = None  # devices: highest conductance in siemens; null: the highest reading
