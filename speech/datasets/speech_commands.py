"""Google Speech Commands v0.02: a folder of wavs per word, 35 classes or 12, split as published or by speaker.

    35 classes   the words. No unknown, no silence.
    12 classes   ten words, `_unknown_` (the other 25) and `_silence_` (background noise); of the last two as many clips
                 as one of the ten words has on average.

A folder may be the whole archive (word folders, `_background_noise_`, list files), or the published 12-class test set,
whose folders are the twelve classes and whose clips all belong to the published test split. Warden, arXiv:1804.03209,
CC BY 4.0. What this module does not do: download, unpack, or read a wav before it is asked for.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spikeloom.accel.common.files import read_text
from spikeloom.speech.datasets.clips import concatenate
from spikeloom.speech.datasets.folders import find_audio
from spikeloom.speech.datasets.noise import cut_noise
from spikeloom.speech.datasets.splits import SETS, SpeakerSplit, hash_percentage
from spikeloom.speech.datasets.utterances import AudioFiles, SpeechSplits, Utterances

log = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16_000
TEN_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
OTHER_WORDS = (
    "backward", "bed", "bird", "cat", "dog", "eight", "five", "follow", "forward", "four", "happy", "house", "learn",
    "marvin", "nine", "one", "seven", "sheila", "six", "three", "tree", "two", "visual", "wow", "zero",
)  # fmt: skip
UNKNOWN, SILENCE, NOISE = "_unknown_", "_silence_", "_background_noise_"
CLASSES = {35: tuple(sorted((*TEN_WORDS, *OTHER_WORDS))), 12: (*TEN_WORDS, UNKNOWN, SILENCE)}
LISTS = {"validation": "validation_list.txt", "testing": "testing_list.txt"}
ARCHIVE = "speech_commands_v0.02.tar.gz"
CHECKSUMS = {ARCHIVE: "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"}
WHERE = (
    f"get http://download.tensorflow.org/data/{ARCHIVE} ({CHECKSUMS[ARCHIVE]}), unpack it into one folder and put that "
    "at $SPIKELOOM_DATA/gsc (or give data.root=FOLDER)"
)
# Every split is cut from its own stretch of the noise recordings, as shares of their length.
STRETCHES = {"training": (0.0, 0.8), "validation": (0.8, 0.9), "testing": (0.9, 1.0)}


@dataclass
class CommandsConfig:
    """Where the words are, how many classes, and who is held out.

    classes: 35 or 12. split: "published" (list files, or the hash rule that made them) or "speakers", for a folder of
    test clips only: shares of `valid_fraction` and `test_fraction` of its speakers are held out, in the order of a hash
    of `split_seed` and their name, or with `folds` > 0 one of the folds of its speakers, whose test speakers are
    disjoint; never to be reported as a Speech Commands score. test_root: folder of the published 12-class test set, to
    be the test split whole; when empty, unknown words and silence are drawn as in training.
    """

    root: str  # folder with one folder of wavs for each word
    source: str = "gsc"
    classes: int = 35
    split: str = "published"
    split_seed: int = 0  # of the split by speakers
    valid_fraction: float = 0.15  # fraction of the speakers held out for validation (split=speakers)
    test_fraction: float = 0.15  # fraction of the speakers held out for test (split=speakers)
    folds: int = 0  # parts the speakers are divided into, each tested once (split=speakers); 0: by the fractions
    fold: int = 0  # which part is tested, counted from 0
    test_root: str = ""

    def load(self) -> Utterances:
        """All clips of a folder, unsplit: whichever class folders it holds, nothing drawn, nothing left out."""
        return clips_of(find_recordings(self.root, self.classes), self.classes)

    def build(self) -> SpeechSplits[Utterances]:
        """Train, validation and test. Raises `ValueError` when one would be empty, `FileNotFoundError` for no data."""
        if self.test_root and (self.classes, self.split) != (12, "published"):
            raise ValueError("data.test_root is the published 12-class test set; use data.classes=12 split=published")
        recordings = find_recordings(self.root, self.classes)
        if self.split == "published":
            sets = published_sets(self.root, recordings)
        elif self.split == "speakers":
            split = SpeakerSplit(
                valid_fraction=self.valid_fraction, test_fraction=self.test_fraction, seed=self.split_seed,
                folds=self.folds, fold=self.fold,
            )  # fmt: skip
            sets = split.sets_of([(r.speaker != "", r.speaker or r.path.name) for r in recordings])
        else:
            raise ValueError(f"data.split={self.split} is unknown; use published or speakers")
        by_set = {name: [r for r, where in zip(recordings, sets, strict=True) if where == name] for name in SETS}
        empty = [name for name in SETS if not by_set[name]]
        if empty:
            counts = ", ".join(f"{name} {len(of)}" for name, of in by_set.items())
            raise ValueError(
                f"the {self.split} split of {self.root} leaves {' and '.join(empty)} empty ({counts}); "
                + ("use data.split=speakers" if self.split == "published" else "use more speakers or another seed")
            )
        train, valid, test = (self._clips_of_set(name, by_set[name]) for name in SETS)
        return SpeechSplits(train=train, valid=valid, test=test)

    def _clips_of_set(self, name: str, recordings: "list[Recording]") -> Utterances:
        if name == "testing" and self.test_root:
            return clips_of(find_recordings(self.test_root, 12), 12)
        if self.classes == 35 or any(r.path.parent.name in (UNKNOWN, SILENCE) for r in recordings):
            return clips_of(recordings, self.classes)
        return self._twelve_classes(name, recordings)

    def _twelve_classes(self, name: str, recordings: "list[Recording]") -> Utterances:
        """The ten words, and as many clips of other words and of noise as one of the ten has on average."""
        ten = [recording for recording in recordings if recording.word in TEN_WORDS]
        others = [recording for recording in recordings if recording.word not in TEN_WORDS]
        share = round(len(ten) / len(TEN_WORDS))
        if not share:
            raise ValueError(f"{self.root}: {len(ten)} clips of the ten words in {name}; use the whole archive")
        rng = np.random.default_rng((self.split_seed, SETS.index(name)))
        kept = sorted(rng.choice(len(others), min(share, len(others)), replace=False)) if others else []
        words = clips_of([*ten, *(others[i] for i in kept)], 12)
        return concatenate([words, self._silence(share, STRETCHES[name], rng)])

    def _silence(self, n: int, stretch: tuple[float, float], rng: np.random.Generator) -> Utterances:
        cuts = cut_noise(Path(self.root) / NOISE, n, SAMPLE_RATE_HZ, stretch, rng)
        return Utterances(
            waveforms=cuts,
            labels=np.full(n, CLASSES[12].index(SILENCE), dtype=np.int64),
            speakers=[""] * n,
            names=[f"{SILENCE}/{name}" for name in cuts.names()],
            class_names=CLASSES[12],
            sample_rate_hz=SAMPLE_RATE_HZ,
        )


class Recording(NamedTuple):
    """One wav: its file, the word said ("" for silence) and the speaker ("" for silence)."""

    path: Path
    word: str
    speaker: str

    def label(self, classes: int) -> str:
        """Its class among 35 or 12."""
        if classes == 35 or self.word in TEN_WORDS:
            return self.word
        return UNKNOWN if self.word else SILENCE


def which_set(name: str) -> str:
    """training, validation or testing of a file, `word/speaker_nohash_n.wav` or `_unknown_/word_speaker_nohash_n.wav`.

    The published rule: the base name up to `_nohash_` is hashed, so that all clips of a speaker share a set; below 10
    of 100 validation, below 20 testing. A word in front of the speaker, as in `_unknown_`, is no part of the name.
    """
    percentage = hash_percentage(speaker_of(name))
    return "validation" if percentage < 10 else "testing" if percentage < 20 else "training"


def speaker_of(name: str) -> str:
    """The speaker in a file name; the whole base name when it has no `_nohash_`."""
    return re.sub(r"_nohash_.*$", "", _without_word(name)[1])


def _without_word(name: str) -> tuple[str, str]:
    """The word in front of the speaker, "" if there is none, and the base name without it."""
    base = name.rsplit("/", 1)[-1]
    word, _, rest = base.partition("_")
    return (word, rest) if word in CLASSES[35] and "_nohash_" in rest else ("", base)


def find_recordings(root: str | Path, classes: int) -> list[Recording]:
    """The recordings below `root` in the order of their paths; `_background_noise_` is not among them.

    Raises `FileNotFoundError` where the folder or its class folders are missing, and `ValueError` for a folder that is
    no class or a number of classes other than 35 and 12.
    """
    if classes not in CLASSES:
        raise ValueError(f"data.classes={classes} is not defined for Speech Commands; use 35 or 12")
    folder = Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; {WHERE}")
    names = sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".") and f.name != NOISE)
    if not names:
        raise FileNotFoundError(f"no folder of a word in {folder}; {WHERE}")
    strange = [name for name in names if name not in (*CLASSES[35], UNKNOWN, SILENCE)]
    if strange:
        shown = ", ".join(strange[:5])
        raise ValueError(f"{folder}: {shown} is no class of Speech Commands v0.02; remove it or give another data.root")
    if classes == 35 and (twelve := sorted({UNKNOWN, SILENCE} & set(names))):
        raise ValueError(f"{folder} holds {' and '.join(twelve)}, the 12-class form; use data.classes=12")
    recordings = [r for name in names for r in _recordings_of(folder / name)]
    if not recordings:
        raise FileNotFoundError(f"no recording in the class folders of {folder}; {WHERE}")
    unnamed = [r.path.name for r in recordings if r.word and "_nohash_" not in r.path.name]
    if unnamed:
        shown = ", ".join(unnamed[:5])
        log.warning("%d of %d recordings are not named SPEAKER_nohash_N: %s", len(unnamed), len(recordings), shown)
    return recordings


def _recordings_of(folder: Path) -> list[Recording]:
    files = find_audio(folder)
    if folder.name == SILENCE:
        return [Recording(file, "", "") for file in files]
    if folder.name != UNKNOWN:
        return [Recording(file, folder.name, speaker_of(file.name)) for file in files]
    return [Recording(file, _without_word(file.name)[0] or UNKNOWN, speaker_of(file.name)) for file in files]


def published_sets(root: str | Path, recordings: Sequence[Recording]) -> list[str]:
    """The set of every recording: from the list files where they lie in `root`, else by the hash rule.

    In the 12-class folder form every clip is of the published test set, silence included.
    """
    folder = Path(root)
    there = {name: folder / file for name, file in LISTS.items() if (folder / file).is_file()}
    if not there:
        return ["testing" if r.path.parent.name in (UNKNOWN, SILENCE) else which_set(r.path.name) for r in recordings]
    if len(there) != len(LISTS):
        (lost,) = set(LISTS) - set(there)
        raise FileNotFoundError(f"no file {folder / LISTS[lost]} beside {next(iter(there.values())).name}; {WHERE}")
    listed = {line: name for name, file in there.items() for line in read_text(file, WHERE).split()}
    paths = [f"{recording.path.parent.name}/{recording.path.name}" for recording in recordings]
    if absent := len(set(listed) - set(paths)):
        log.warning("%d of %d clips named in the list files of %s are not there", absent, len(listed), folder)
    return [listed.get(path, "training") for path in paths]


def clips_of(recordings: Sequence[Recording], classes: int) -> Utterances:
    """The recordings as utterances of 35 or 12 classes, unread."""
    names = CLASSES[classes]
    return Utterances(
        waveforms=AudioFiles([str(recording.path) for recording in recordings], SAMPLE_RATE_HZ),
        labels=np.array([names.index(recording.label(classes)) for recording in recordings], dtype=np.int64),
        speakers=[recording.speaker for recording in recordings],
        names=[f"{recording.path.parent.name}/{recording.path.stem}" for recording in recordings],
        class_names=names,
        sample_rate_hz=SAMPLE_RATE_HZ,
    )
