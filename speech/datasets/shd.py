"""Spiking Heidelberg Digits and Spiking Speech Commands as published, and single files in their layout.

Cramer et al., IEEE TNNLS 33:2744 (2022), https://zenkelab.org/datasets, CC BY 4.0. How a file is read is in
`spikeloom.speech.datasets.spike_files`; what this module does not do: download or unpack.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spikeloom.speech.datasets.clips import concatenate
from spikeloom.speech.datasets.spike_files import AGAIN, SITE, check_spans, read_spike_file
from spikeloom.speech.datasets.spike_trains import SpikeTrains
from spikeloom.speech.datasets.utterances import SpeechSplits, choose_speakers, hold_out_one_speaker

log = logging.getLogger(__name__)

SHD_FILES = ("shd_train.h5", "shd_test.h5")
SSC_FILES = ("ssc_train.h5", "ssc_valid.h5", "ssc_test.h5")
CHECKSUMS = {
    "shd_train.h5.zip": "md5:f3252aeb598ac776c1b526422d90eecb",
    "shd_test.h5.zip": "md5:1503a5064faa34311c398fb0a1ed0a6f",
    "ssc_train.h5.zip": "md5:d102be95e7144fcc0553d1f45ba94170",
    "ssc_valid.h5.zip": "md5:b4eee3516a4a90dd0c71a6ac23a8ae43",
    "ssc_test.h5.zip": "md5:a35ff1e9cffdd02a20eb850c17c37748",
    "ssc_valid.h5": "sha256:6365c36ff8c680c4b0caf27ca52faa59e14359db5810b528f40dd80e2bcb9210",
    "ssc_test.h5": "sha256:37eb723ad795cfba2a85cb78de7f0f1f2115ddfbe71fa4c979a7722e31a16253",
}


@dataclass
class SHDConfig:
    """Spiking Heidelberg Digits: 20 classes, 12 speakers.

    root: folder of shd_train.h5 and shd_test.h5, or one HDF5 file in their layout (to be scored, not to train on).
    Validation is speakers held out of the training file: `valid_speaker_names`, or `valid_speakers` of them drawn by
    `split_seed`. As published, two test speakers are heard in no other file; a few test clips are of training voices.
    """

    root: str
    source: str = "shd"
    valid_speakers: int = 2  # number of training speakers held out for validation
    valid_speaker_names: list[str] = field(default_factory=list)  # their names; empty: drawn by split_seed
    split_seed: int = 0  # of the drawn speakers

    def load(self) -> SpikeTrains:
        """All clips, training file first."""
        return _load(self.root, SHD_FILES)

    def build(self) -> SpeechSplits[SpikeTrains]:
        """Training and validation clips share no speaker; `shared_speakers()` names those of test heard in training."""
        published, test = (check_spans(part) for part in _read_published(self.root, SHD_FILES))
        speakers = published.speaker_names()
        held_out = self.valid_speaker_names or choose_speakers(speakers, self.valid_speakers, self.split_seed)
        kept = sorted(set(speakers) - set(held_out))
        if not held_out or not kept:
            raise ValueError(
                f"holding {len(held_out)} of {len(speakers)} speakers out of {SHD_FILES[0]} leaves "
                f"{'validation' if not held_out else 'training'} empty; use data.valid_speakers=2"
            )
        splits = SpeechSplits(train=published.of_speakers(kept), valid=published.of_speakers(held_out), test=test)
        if shared := splits.shared_speakers():
            unheard = sorted(set(test.speaker_names()) - set(speakers))
            log.info("test as published: speakers %s also train, %s never do", ", ".join(shared), ", ".join(unheard))
        return splits


@dataclass
class SSCConfig:
    """Spiking Speech Commands: 35 classes, the three published files, which share no speaker.

    root: their folder, or one HDF5 file in their layout (to be scored, not to train on). The split is not that of the
    Google Speech Commands recordings, so results on the two are not comparable.
    """

    root: str
    source: str = "ssc"

    def load(self) -> SpikeTrains:
        """All clips: training, validation, test file."""
        return _load(self.root, SSC_FILES)

    def build(self) -> SpeechSplits[SpikeTrains]:
        return SpeechSplits(*(check_spans(part) for part in _read_published(self.root, SSC_FILES)))


@dataclass
class SpikeFileConfig:
    """One HDF5 file in the layout above, split by speaker as the spoken digits are (`fsdd.DigitsConfig`).

    root: the file, or a folder that holds exactly one .h5 file.
    """

    root: str
    source: str = "spikes"
    test_speaker: str = ""  # name of the speaker held out for test; empty: drawn by split_seed
    valid_speaker: str = ""  # name of the speaker held out for validation; empty: drawn by split_seed
    split_seed: int = 0  # of the drawn speakers, and of valid_fraction
    # 0: one speaker is held out for validation; else this fraction of the training clips is
    valid_fraction: float = 0.0

    def load(self) -> SpikeTrains:
        """All clips, unsplit."""
        path = Path(self.root)
        if path.is_dir():
            files = sorted(path.glob("*.h5"))
            if len(files) != 1:
                raise ValueError(f"{path} holds {len(files)} .h5 files; give one of them as data.root=FILE.h5")
            path = files[0]
        return read_spike_file(path)

    def build(self) -> SpeechSplits[SpikeTrains]:
        """Train, validation and test: one speaker each held out for the last two, the rest for training."""
        return hold_out_one_speaker(
            check_spans(self.load()),
            test_speaker=self.test_speaker,
            valid_speaker=self.valid_speaker,
            valid_fraction=self.valid_fraction,
            seed=self.split_seed,
        )


def _read_published(root: str, files: Sequence[str]) -> list[SpikeTrains]:
    folder = Path(root)
    if folder.is_file():
        raise ValueError(f"{folder} is one file without a split; give the folder of {', '.join(files)}")
    for name in files:
        _require_file(folder / name)
    parts = [read_spike_file(folder / name) for name in files]
    for name, part in zip(files, parts, strict=True):
        if part.class_names != parts[0].class_names:
            raise ValueError(f"{folder / name} names other classes than {files[0]}; {AGAIN} (both)")
    return parts


def _load(root: str, files: Sequence[str]) -> SpikeTrains:
    """One file, or the published files of a folder after each other."""
    if Path(root).is_file():
        return read_spike_file(root)
    return concatenate(_read_published(root, files))


def _require_file(path: Path) -> None:
    """Raise `FileNotFoundError` that says where a missing published file comes from."""
    if path.is_file():
        return
    for packed in (path.with_name(f"{path.name}{suffix}") for suffix in (".zip", ".gz")):
        if packed.is_file():
            raise FileNotFoundError(f"no file {path}, but {packed.name} is there; unzip it in place")
    raise FileNotFoundError(
        f"no file {path}; get {path.name}.zip from {SITE} ({CHECKSUMS[f'{path.name}.zip']}), unzip it and put "
        f"{path.name} into {path.parent} (or give data.root=FOLDER)"
    )
