"""The Free Spoken Digit Dataset: 8 kHz recordings named `{digit}_{speaker}_{index}.wav`, split by speaker.

Speakers are discovered from the file names, so a folder with fewer or more of them works. What this module does not do:
download. Dataset: Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikeloom.speech.datasets.folders import find_audio
from spikeloom.speech.datasets.utterances import AudioFiles, SpeechSplits, Utterances, hold_out_one_speaker

log = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 8000
_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>.+)_(?P<index>\d+)")
_WHERE = (
    "get it from https://github.com/Jakobovski/free-spoken-digit-dataset, put its `recordings` folder at "
    "$SPIKELOOM_DATA/fsdd/recordings (or give data.root=FOLDER)"
)


@dataclass
class DigitsConfig:
    """Where the digits are and who is held out.

    root: folder of wavs, or the folder that holds `recordings/`; test_speaker, valid_speaker: names, or empty to draw
    one each by `split_seed`. valid_fraction > 0: no voice is spent on validation; this share of the training voices'
    clips is held out instead, which can choose an epoch but says nothing about unheard voices.
    """

    root: str
    source: str = "fsdd"
    test_speaker: str = ""
    valid_speaker: str = ""
    split_seed: int = 0  # of the drawn speakers, and of valid_fraction
    # 0: one speaker is held out for validation; else this fraction of the training clips is
    valid_fraction: float = 0.0

    def load(self) -> Utterances:
        """All recordings, unsplit."""
        return read_digits(self.root)

    def build(self) -> SpeechSplits[Utterances]:
        """Train, validation and test: one speaker each held out for the last two, the rest for training."""
        return hold_out_one_speaker(
            self.load(),
            test_speaker=self.test_speaker,
            valid_speaker=self.valid_speaker,
            valid_fraction=self.valid_fraction,
            seed=self.split_seed,
        )


def read_digits(root: str | Path) -> Utterances:
    """Every matching recording below `root`, sorted by name; read, and its errors raised, when it is asked for.

    Raises `FileNotFoundError` when the folder or its recordings are missing, `ValueError` for a folder with one digit.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; {_WHERE}")
    if (folder / "recordings").is_dir():
        folder = folder / "recordings"
    files = find_audio(folder)
    if not files:
        raise FileNotFoundError(f"no recording in {folder}; {_WHERE}")
    matches = [(file, match) for file in files if (match := _NAME.fullmatch(file.stem))]
    strange = [file.name for file in files if not _NAME.fullmatch(file.stem)]
    if strange:
        shown = ", ".join(strange[:5])
        log.warning("%d of %d recordings are not named DIGIT_SPEAKER_INDEX: %s", len(strange), len(files), shown)
    if not matches:
        raise ValueError(f"none of the {len(files)} recordings in {folder} is named DIGIT_SPEAKER_INDEX; {_WHERE}")
    digits = sorted({match["digit"] for _, match in matches})
    if len(digits) < 2:
        raise ValueError(f"{folder} holds only the digit {digits[0]}; use a folder with at least two digits")
    return Utterances(
        waveforms=AudioFiles([str(file) for file, _ in matches], SAMPLE_RATE_HZ),
        labels=np.array([digits.index(match["digit"]) for _, match in matches], dtype=np.int64),
        speakers=[match["speaker"] for _, match in matches],
        names=[file.stem for file, _ in matches],
        class_names=tuple(digits),
        sample_rate_hz=SAMPLE_RATE_HZ,
    )
