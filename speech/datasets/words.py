"""Any folder of spoken words: a folder for each word, list files, or names that hold the word; split as they say.

    WORD/…/FILE               the folder is the word
    train/WORD/FILE           the upper folder is the set (train, valid, test under their customary names)
    lists in the folder       train.csv, val.csv, test.csv and the like (`word_lists`): sets, words, speakers
    names                     `pattern`, a regular expression on the path, has groups `word` and `speaker`

Where no split is given the sets are divided by speaker, and where speakers are unknown by clip, which is logged: voices
are then on both sides. Arabic Speech Commands (Ghandoura, Hjabo, Al Dakkak, 2021, CC BY 4.0) is one such folder.
Recordings in every format of `audio` are read when they are asked for. What this module does not do: download.
"""

import logging
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spikeloom.speech.datasets.folders import find_audio, word_folders
from spikeloom.speech.datasets.splits import SETS, SpeakerSplit
from spikeloom.speech.datasets.utterances import AudioFiles, SpeechSplits, Utterances
from spikeloom.speech.datasets.word_lists import SET_NAMES, Finder, composed, find_lists, read_list

log = logging.getLogger(__name__)
SHOWN = 5


@dataclass
class WordsConfig:
    """Where the recordings are, what their names say, and how they are split.

    root: folder of the recordings. sample_rate_hz: what they are resampled to; that of the features. pattern: regular
    expression searched in the path below `root` without its ending, with groups `speaker` and (where the folder is not
    the word) `word`. lists: set -> list file below `root`; empty: customary names are looked for, {} of none.
    classes: the words that are used; empty: all. valid_fraction, test_fraction, folds, fold, split_seed: see
    `splits.SpeakerSplit`. train_on: "train", or "all" for a model to be deployed, whose validation and test figures
    then say nothing about unknown voices.
    """

    root: str  # folder of the recordings
    source: str = "words"
    sample_rate_hz: int = 16_000  # rate they are resampled to: that of the features
    pattern: str = ""  # regular expression on the path with groups speaker and, where no folder is the word, word
    lists: dict[str, str] = field(default_factory=dict)  # set -> list file; {}: customary names are looked for
    classes: list[str] = field(default_factory=list)  # words that are used; []: all
    valid_fraction: float = 0.15  # fraction of the speakers held out for validation
    test_fraction: float = 0.15  # fraction of the speakers held out for test
    folds: int = 0  # parts the speakers are divided into, each tested once; 0: by the fractions
    fold: int = 0  # which part is tested, counted from 0
    split_seed: int = 0  # of the split by speakers
    train_on: str = "train"  # train, or all: a model to be deployed, whose figures are no estimate

    def load(self) -> Utterances:
        """All clips of the folder, unsplit."""
        recordings = self._recordings()
        return self._clips(recordings, self._class_names(recordings))

    def build(self) -> SpeechSplits[Utterances]:
        """Train, validation and test. Raises `ValueError` when one would be empty, `FileNotFoundError` for no data."""
        if self.train_on not in ("train", "all"):
            raise ValueError(f"data.train_on={self.train_on} is unknown; use train or all")
        recordings = self._recordings()
        sets = self._sets(recordings)
        names = self._class_names(recordings)
        by_set = {name: [r for r, where in zip(recordings, sets, strict=True) if where == name] for name in SETS}
        if empty := [name for name in SETS if not by_set[name]]:
            counts = ", ".join(f"{name} {len(of)}" for name, of in by_set.items())
            raise ValueError(
                f"{self.root}: the split leaves {' and '.join(empty)} empty ({counts}); give more speakers, larger "
                "data.valid_fraction and data.test_fraction, or lists of all three sets"
            )
        train, valid, test = (self._clips(by_set[name], names) for name in SETS)
        if self.train_on == "all":
            log.warning("data.train_on=all: validation and test clips also train; their accuracy is no estimate")
            train = self._clips(recordings, names)
        else:
            _require_classes(self.root, train)
            _report_shared(self.root, train, {"validation": valid, "test": test})
        return SpeechSplits(train=train, valid=valid, test=test)

    def _recordings(self) -> "list[Recording]":
        root = Path(self.root)
        if not root.is_dir():
            raise FileNotFoundError(
                f"no folder {root}; give data.root=FOLDER with a folder of recordings for each word"
            )
        files = find_audio(root, recursive=True)
        files = [f for f in files if "_background_noise_" not in f.relative_to(root).parts]
        if not files:
            raise FileNotFoundError(f"no recording in {root}; give data.root=FOLDER with a folder for each word")
        pattern = self._compiled()
        above = _set_folders(root)
        recordings = [_recording(root, file, pattern, above) for file in files]
        if pattern is not None:
            _report(root, [r.path.name for r in recordings if not r.named], "do not match data.pattern")
        recordings = self._with_lists(root, recordings)
        if self.classes:
            kept = [r for r in recordings if r.word in self.classes]
            if absent := sorted(set(self.classes) - {r.word for r in kept}):
                raise ValueError(f"{root}: no recording of {', '.join(absent)}; correct data.classes")
            recordings = kept
        without = [r.path.name for r in recordings if not r.word]
        _report(root, without, "belong to no word (no folder, list or data.pattern names it)")
        return [r for r in recordings if r.word]

    def _compiled(self) -> re.Pattern[str] | None:
        if not self.pattern:
            return None
        try:
            pattern = re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"data.pattern={self.pattern!r} is no regular expression ({error})") from error
        if not {"speaker", "word"} & set(pattern.groupindex):
            raise ValueError(f"data.pattern={self.pattern!r} has neither group; write (?P<speaker>…) or (?P<word>…)")
        return pattern

    def _with_lists(self, root: Path, recordings: "list[Recording]") -> "list[Recording]":
        """The recordings with the sets, words and speakers of the list files; lists of all three sets leave out the
        files they do not name."""
        if unknown := sorted(set(self.lists) - set(SETS) - set(sum(SET_NAMES.values(), ()))):
            raise ValueError(f"data.lists names {', '.join(unknown)}; use training, validation and testing")
        given = {_set_name(name): root / file for name, file in self.lists.items()} or find_lists(root)
        if not given:
            return recordings
        finder = Finder(root, [r.path for r in recordings])
        changed = dict[int, Recording]()
        absent, n_rows = list[str](), 0
        for name, file in given.items():
            for row in read_list(file):
                n_rows += 1
                i = finder.find(row.path)
                if i is None:
                    absent.append(row.path)
                    continue
                where = row.set or name
                if i in changed and changed[i].set != where:
                    raise ValueError(f"{file}: {row.path} is in {changed[i].set} and in {where}; name it in one list")
                found = recordings[i]
                changed[i] = found._replace(
                    set=where, word=row.word or found.word, speaker=row.speaker or found.speaker
                )
        if not changed:
            first = next(iter(given.values()))
            raise ValueError(f"{first}: none of the {n_rows:,} listed recordings is in {root}; check data.root")
        if absent:
            log.warning(
                "%d of %d listed recordings are not in %s (%s)", len(absent), n_rows, root, ", ".join(absent[:SHOWN])
            )
        rest = [i for i in range(len(recordings)) if i not in changed]
        if "training" in {r.set for r in changed.values()}:
            _report(root, [recordings[i].path.name for i in rest], "are in no list and left out")
            return [changed[i] for i in sorted(changed)]
        return [changed.get(i, r._replace(set="training")) for i, r in enumerate(recordings)]

    def _sets(self, recordings: "list[Recording]") -> list[str]:
        if any(r.set for r in recordings):
            missing = [name for name in ("validation", "testing") if name not in {r.set for r in recordings}]
            if missing != ["validation"]:
                return [r.set or "training" for r in recordings]
            # A published test set without a validation set: speakers of the training set choose the epoch.
            log.info("%s: no validation set is given; %g of the training speakers", self.root, self.valid_fraction)
            train = [i for i, r in enumerate(recordings) if r.set != "testing"]
            parts = self._divided([recordings[i] for i in train])
            sets = ["testing"] * len(recordings)
            for i, part in zip(train, parts, strict=True):
                sets[i] = "validation" if part == "testing" else "training"
            return sets
        return self._divided(recordings)

    def _divided(self, recordings: "list[Recording]") -> list[str]:
        split = SpeakerSplit(
            valid_fraction=self.valid_fraction, test_fraction=self.test_fraction, seed=self.split_seed,
            folds=self.folds, fold=self.fold,
        )  # fmt: skip
        unknown = sum(not r.speaker for r in recordings)
        if unknown:
            log.warning(
                "%s: the speaker of %d of %d recordings is unknown; these are split by clip, so a voice may be on both "
                "sides. Give data.pattern with a group (?P<speaker>…)", self.root, unknown, len(recordings),
            )  # fmt: skip
        return split.sets_of([(bool(r.speaker), r.speaker or f"{r.word}/{r.path.name}") for r in recordings])

    def _class_names(self, recordings: "list[Recording]") -> tuple[str, ...]:
        names = tuple(sorted({r.word for r in recordings}))
        alike = Counter(name.strip().casefold() for name in names)
        if twins := [name for name in names if alike[name.strip().casefold()] > 1]:
            log.warning("%s: classes that differ in case or spaces only: %s", self.root, ", ".join(map(repr, twins)))
        if len(names) < 2:
            raise ValueError(f"{self.root} holds only the word {', '.join(names) or '(none)'}; give at least two words")
        return names

    def _clips(self, recordings: "list[Recording]", class_names: tuple[str, ...]) -> Utterances:
        root = Path(self.root)
        index = {name: i for i, name in enumerate(class_names)}
        return Utterances(
            waveforms=AudioFiles([str(r.path) for r in recordings], self.sample_rate_hz),
            labels=np.array([index[r.word] for r in recordings], dtype=np.int64),
            speakers=[r.speaker for r in recordings],
            names=[r.path.relative_to(root).with_suffix("").as_posix() for r in recordings],
            class_names=class_names,
            sample_rate_hz=self.sample_rate_hz,
        )


class Recording(NamedTuple):
    """One file: the word said, the speaker ("" unknown), the set ("" not given), whether its name matched a pattern."""

    path: Path
    word: str
    speaker: str
    set: str
    named: bool


def _recording(root: Path, file: Path, pattern: re.Pattern[str] | None, above: dict[str, str]) -> Recording:
    below = file.relative_to(root)
    match = pattern.search(below.with_suffix("").as_posix()) if pattern else None
    said = match.groupdict() if match else {}
    where = above.get(below.parts[0], "")
    folders = below.parts[1:-1] if where else below.parts[:-1]
    word = said.get("word") or (folders[0] if folders and "word" not in (pattern.groupindex if pattern else {}) else "")
    return Recording(file, composed(word), said.get("speaker") or "", where, bool(match))


def _set_folders(root: Path) -> dict[str, str]:
    """Folder name -> set, where every folder of `root` is that of a set, and there is one for training."""
    names = [f.name for f in word_folders(root)]
    of = {name: _set_name(name.lower()) for name in names if name.lower() in sum(SET_NAMES.values(), ())}
    return of if len(of) == len(names) and "training" in of.values() and "testing" in of.values() else {}


def _set_name(name: str) -> str:
    return next((s for s, words in SET_NAMES.items() if name == s or name in words), name)


def _require_classes(root: str, train: Utterances) -> None:
    counts = np.bincount(train.labels, minlength=len(train.class_names))
    if missing := [name for name, n in zip(train.class_names, counts, strict=True) if not n]:
        raise ValueError(
            f"{root}: no training recording of {', '.join(missing[:SHOWN])}; give more, or choose data.classes"
        )


def _report_shared(root: str, train: Utterances, others: dict[str, Utterances]) -> None:
    """Log which voices of a given split are on both sides."""
    known = set(train.speaker_names())
    for name, clips in others.items():
        if shared := sorted(known & set(clips.speaker_names())):
            shown = ", ".join(shared[:SHOWN]) + (", …" if len(shared) > SHOWN else "")
            log.warning(
                "%s: %d of %d %s speakers are in the training set too, as its lists or folders say: %s",
                root, len(shared), len(clips.speaker_names()), name, shown,
            )  # fmt: skip


def _report(root: Path, names: list[str], what: str) -> None:
    if names:
        shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
        log.warning("%s: %d recordings %s: %s", root, len(names), what, shown)
