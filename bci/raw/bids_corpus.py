"""Reading corpora in BIDS: EEG of people who read sentences, with eye tracking, whoever recorded them.

    sub-*/[ses-*/]eeg/*_eeg.{vhdr,edf,bdf,set,fif}   any system; brought onto the net by `bci.raw.recordings`
    *_events.tsv                                     onset, duration, trial_type; sentences with their text, fixations
                                                     with the place of their word
    *_recording-*_physioevents.tsv.gz (+ .json)      fixations of BIDS 1.11, where the events hold none

    trial_type   sentence: shown from onset for duration    fixation: eyes on the word `word_index` (from 0)
    text         content, text, sentence or stimulus         sentence of a fixation: sentence_id, else the one on screen

`spikeloom data bids` writes such a data set, synthetic or of ZuCo. derivative=NAME reads the EEG below
`derivatives/NAME` (`*_desc-LABEL_eeg.*`) and takes the events that lie beside it, else those of the raw recording.
The sentences of a recording are computed once and then read from a cache (`bci.zuco.cache`), whose name is made of the
settings, of every file beside the recording and its events, and of the code and the version of MNE that read them.
What this module does not do: find words under gaze positions where no column names them.
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np

from spikeloom.accel.common.files import first_few, read_gzip, read_object
from spikeloom.bci.raw.channels import read_renames
from spikeloom.bci.raw.record import Gaze, Record, Shown
from spikeloom.bci.raw.recordings import SUFFIXES, onto_net, read_recording
from spikeloom.bci.raw.sentences import sentences_of
from spikeloom.bci.zuco import records
from spikeloom.bci.zuco.cache import CachedSentences, digest, identity, keep
from spikeloom.bci.zuco.records import SAMPLING_HZ, Recording, Sentence
from spikeloom.bci.zuco.splits import Row

ENTITY = re.compile(r"(?:^|_)(sub|ses|task|run)-([A-Za-z0-9]+)")
TEXT_COLUMNS = ("content", "text", "sentence", "stimulus", "stim_text")
WORD_COLUMNS = ("word_index", "word_idx", "word_id", "word_position")
ID_COLUMNS = ("sentence_id", "sentence_idx", "stimulus_id", "trial_id")
SENTENCE_TYPES, FIXATION_TYPES = ("sentence", "sentence_onset", "reading"), ("fixation", "fix")
LONGEST_S = 30 * 24 * 3600.0  # of a recording
CELL = 100.0  # px: words are laid out on one line, since only their places are known
GET = "use a BIDS data set of a reading task with eye tracking, such as `spikeloom data bids` writes"

GAZE_AGAIN = "export the eye tracking again"


@dataclass
class BIDSReadingConfig:
    """root: folder of the data set or of a derivative. tasks, subjects: labels without task- and sub-; empty: all.
    derivative: folder below derivatives whose EEG is read; null: the raw one. desc: its label, where it has several.
    cap, unit, rename: of the recordings, as `spikeloom data check dataset=eeg` takes them. cache: where sentences that
    were computed are kept; null: `.spikeloom` in root."""

    source: str = "bids_reading"
    root: str = ""
    tasks: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    derivative: str | None = None
    desc: str | None = None
    cap: str | None = None
    unit: str | None = None
    rename: str | None = None
    cache: str | None = None

    def build(self) -> "BIDSReading":
        return BIDSReading(self)


@dataclass(frozen=True, kw_only=True)
class _Event:
    onset_s: float
    duration_s: float
    sentence: str
    text: str = ""
    word: int = -1


class BIDSReading:
    """The sentences of a corpus with the features of every word. Raises ValueError where there is none."""

    def __init__(self, config: BIDSReadingConfig) -> None:
        self.config, self.root = config, Path(config.root)
        self.folder = Path(config.cache) if config.cache else self.root / ".spikeloom"
        self.how: dict[Path, str] = {}  # recording -> what was done to bring it onto the net, once it was read
        self.lost: dict[Path, int] = {}  # recording -> channels that measure nothing, once it was read
        if not self.root.is_dir():
            raise ValueError(f"{self.root} is no folder; {GET}, and give data.root=FOLDER")
        folder = self.root if config.derivative is None else self.root / "derivatives" / config.derivative
        if not folder.is_dir():
            there = [path.name for path in sorted(self.root.glob("derivatives/*")) if path.is_dir()]
            raise ValueError(
                f"{folder} is no folder; use derivative=NAME of {first_few(there) or 'a data set with one'}"
            )
        found: dict[Recording, list[Path]] = {}
        labels: dict[str, set[str]] = {}  # recording without its label -> labels
        for path in sorted(folder.rglob("*_eeg.*")):
            inside = path.relative_to(folder).parts
            entities = dict(ENTITY.findall(path.stem))
            if path.suffix.lower() not in SUFFIXES or "sub" not in entities or "task" not in entities:
                continue
            label = next(iter(re.findall(r"_desc-([A-Za-z0-9]+)", path.stem)), "")
            if {"derivatives", "sourcedata"} & set(inside[:-1]) or (config.desc is not None and label != config.desc):
                continue
            labels.setdefault(plain_stem(path), set()).add(label)
            found.setdefault(Recording(entities["sub"], 1, entities["task"]), []).append(path)
        if doubled := next((f for f in labels.values() if len(f) > 1), None):
            raise ValueError(f"{folder} holds recordings several times; use desc=LABEL of {', '.join(sorted(doubled))}")
        if not found:
            raise ValueError(f"{self.root} holds no sub-*_task-*_eeg file ({', '.join(SUFFIXES)}); {GET}")
        self.paths = {
            recording: paths
            for recording, paths in found.items()
            if (not config.tasks or recording.task in config.tasks)
            and (not config.subjects or recording.subject in config.subjects)
        }
        if not self.paths:
            tasks, subjects = (sorted({getattr(r, name) for r in found}) for name in ("task", "subject"))
            raise ValueError(
                f"{self.root} holds no recording of tasks {config.tasks} and subjects {config.subjects}; it has the "
                f"tasks {first_few(tasks)} and subjects {first_few(subjects)}"
            )

    @property
    def recordings(self) -> tuple[Recording, ...]:
        return tuple(self.paths)

    def rows(self) -> list[Row]:
        """Every sentence somebody read, from the events alone."""
        return [
            Row(recording.subject, f"{recording.task}{recording.version}", index, event.text)
            for recording, paths in self.paths.items()
            for index, event in enumerate(event for path in paths for event in self._events[path][0])
        ]

    @cached_property
    def _events(self) -> dict[Path, tuple[list[_Event], list[_Event]]]:
        return {path: read_events(path, self._raw) for paths in self.paths.values() for path in paths}

    @property
    def _raw(self) -> Path | None:
        """The data set whose events count where none lie beside a derivative."""
        return None if self.config.derivative is None else self.root

    def __iter__(self) -> Iterator[Sentence]:
        for recording in self.paths:
            yield from self.sentences(recording)

    def sentences(self, recording: Recording) -> CachedSentences:
        """Those of one reader and task, out of the cache, which is made first where it is missing or outdated."""
        self.keep(recording)
        return CachedSentences(self._cache_file(recording), recording)

    def keep(self, recording: Recording) -> bool:
        """Make the cache of a recording where it is missing or outdated, and say whether it was."""
        file = self._cache_file(recording)
        return keep(file, lambda: (s for record in self.records_of(recording) for s in sentences_of(record)))

    def _cache_file(self, recording: Recording) -> Path:
        config = self.config
        rename = None if config.rename is None else sorted(read_renames(Path(config.rename)).items())
        settings = hashlib.sha256(f"{[config.derivative, config.desc, config.cap, config.unit, rename]}".encode())
        beside = {parent for path in self.paths[recording] for parent in (
            path.parent, path.resolve().parent, events_file(path, self._raw).parent,
        )}  # fmt: skip
        files = (path for folder in sorted(beside) for path in sorted(folder.iterdir()))
        found = identity((path for path in files if path.is_file() and not path.name.startswith(".")), _code())
        name = f"sub-{recording.subject}_task-{recording.task}-{settings.hexdigest()[:8]}"
        return self.folder / f"{name}-{found}.safetensors"

    def records(self) -> Iterator[Record]:
        """Every recording on the net, with gaze and sentences."""
        for recording in self.paths:
            yield from self.records_of(recording)

    def records_of(self, recording: Recording) -> Iterator[Record]:
        """The files of one reader and task."""
        start = 0
        for path in self.paths[recording]:
            sentences, fixations = self._events[path]
            yield self._record(recording, path, sentences, fixations, start)
            start += len(sentences)

    def _record(
        self, recording: Recording, path: Path, sentences: list[_Event], fixations: list[_Event], start: int
    ) -> Record:
        config = self.config
        rename = None if config.rename is None else read_renames(Path(config.rename))
        net = onto_net(read_recording(path), str(path), config.cap, unit=config.unit, rename=rename)
        self.how[path], self.lost[path], n = net.how, len(net.lost), net.eeg_uv.shape[1]
        shown, first, samples, x_px = [], [], [], []
        for index, sentence in enumerate(sentences, start):
            on, off = _samples(sentence, n)
            words = sentence.text.split()
            shown.append(
                Shown(index=index, content=sentence.text, word_bounds_px=_one_line(len(words)), on=on, off=off)
            )
            for fixation in _of_sentence(sentence, fixations):
                if fixation.word >= len(words):
                    raise ValueError(
                        f"{path}: a fixation at {fixation.onset_s:g} s is on word {fixation.word} of a sentence of "
                        f"{len(words)} words ({sentence.text[:40]!r}); count words from 0, split at spaces"
                    )
                begin, end = _samples(fixation, n)
                first.append(begin)
                samples.append(end - begin)
                x_px.append(CELL * fixation.word + CELL / 2 if fixation.word >= 0 else -10 * CELL)
        gaze = Gaze(
            first=np.array(first, dtype=np.int64), samples=np.array(samples, dtype=np.int64),
            x_px=np.array(x_px, dtype=np.float64), y_px=np.full(len(first), CELL / 2),
            pupil=np.full(len(first), np.nan),
        )  # fmt: skip
        stem = "_".join(f"{name}-{label}" for name, label in ENTITY.findall(path.stem))
        return Record(recording=recording, run=stem, eeg_uv=net.eeg_uv, gaze=gaze, shown=tuple(shown))


def _one_line(n_words: int) -> np.ndarray:
    left = CELL * np.arange(n_words)
    return np.stack((left, np.zeros(n_words), left + CELL, np.full(n_words, CELL)), axis=1)


def _samples(event: _Event, n_samples: int) -> tuple[int, int]:
    """(first sample, end), inside the record."""
    first = min(max(0, round(event.onset_s * SAMPLING_HZ)), n_samples - 1)
    return first, min(n_samples, max(first + 1, round((event.onset_s + event.duration_s) * SAMPLING_HZ)))


def _of_sentence(sentence: _Event, fixations: list[_Event]) -> list[_Event]:
    """Those while it was on the screen, and not named as those of another one, in order."""
    end = sentence.onset_s + sentence.duration_s
    inside = [
        f
        for f in fixations
        if sentence.onset_s <= f.onset_s < end
        and (not f.sentence or not sentence.sentence or f.sentence == sentence.sentence)
    ]
    return sorted(inside, key=lambda f: f.onset_s)


def plain_stem(recording: Path) -> str:
    """`sub-1_task-read` of `sub-1_task-read_desc-clean_eeg.fif`: what its events are called by."""
    return re.sub(r"_(desc|space|rec)-[A-Za-z0-9]+", "", recording.name[: -len(recording.suffix)].removesuffix("_eeg"))


def events_file(recording: Path, raw: Path | None = None) -> Path:
    """The events of a recording `*_eeg.*`; raw: data set whose events count where none lie beside it. Raises ValueError
    where there are none."""
    own = recording.name[: -len(recording.suffix)].removesuffix("_eeg")
    stem = plain_stem(recording)
    paths = [recording.with_name(f"{name}_events.tsv") for name in (own, stem)]
    paths += [] if raw is None else sorted(raw.glob(f"sub-*/**/{stem}_events.tsv"))
    path = next((candidate for candidate in paths if candidate.is_file()), paths[0])
    if not path.is_file():
        raise ValueError(f"{path} is missing beside {recording.name}; {GET}")
    return path


def read_events(recording: Path, raw: Path | None = None) -> tuple[list[_Event], list[_Event]]:
    """Sentences and fixations of a recording, of its `events_file`.

    Raises ValueError naming file and line of what is no event.
    """
    path, stem = events_file(recording, raw), plain_stem(recording)
    sentences, fixations = _split(path, _rows(path, path.read_bytes()))
    if not fixations:
        for gaze in sorted(path.parent.glob(f"{stem}_recording-*_physioevents.tsv.gz")):
            fixations += _split(gaze, _physio(gaze))[1]
    if not sentences:
        raise ValueError(f"{path} has no row of trial_type sentence with a text; {GET}")
    if not fixations:
        raise ValueError(
            f"{path} has no row of trial_type fixation with a word_index, nor a _physioevents.tsv.gz; {GET}"
        )
    return sentences, fixations


@cache
def _code() -> str:
    """A digest of the code between a recording and its sentences, with the version of MNE."""
    modules = (*sorted(Path(__file__).parent.glob("*.py")), Path(records.__file__))
    return f"{digest(modules)} mne {version('mne')}"


Line = tuple[int, Mapping[str, str]]


def _rows(path: Path, content: bytes, header: list[str] | None = None) -> list[Line]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); export it again") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    found: list[Line] = []
    try:
        names = header or next(reader, [])
        for cells in reader:
            if cells and len(cells) != len(names):
                raise csv.Error(f"{len(cells)} cells, the table has {len(names)} columns")
            if cells:
                found.append((reader.line_num, dict(zip(names, cells, strict=True))))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; export it again") from error
    return found


def _physio(path: Path) -> list[Line]:
    sidecar = path.with_name(path.name.removesuffix(".tsv.gz") + ".json")
    columns = read_object(sidecar, GAZE_AGAIN).get("Columns")
    if not isinstance(columns, list):
        raise ValueError(f"{sidecar} names no Columns; {GAZE_AGAIN}")
    return _rows(path, read_gzip(path, GAZE_AGAIN), [str(name) for name in columns])


def _split(path: Path, rows: list[Line]) -> tuple[list[_Event], list[_Event]]:
    sentences, fixations = [], []
    for number, row in rows:
        kind = row.get("trial_type", "").strip().lower()
        if kind not in (*SENTENCE_TYPES, *FIXATION_TYPES):
            continue
        try:
            onset, duration = float(row["onset"]), float(row["duration"])
            if not (abs(onset) <= LONGEST_S and 0 < duration <= LONGEST_S):
                raise ValueError(f"onset {onset}, duration {duration}")
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}, line {number} has no onset and duration in seconds ({error})") from error
        name = _first(row, ID_COLUMNS)
        text = _first(row, TEXT_COLUMNS)
        if kind in SENTENCE_TYPES:
            if text:
                sentences.append(_Event(onset_s=onset, duration_s=duration, sentence=name, text=text))
            continue
        word = _first(row, WORD_COLUMNS)
        if word and not re.fullmatch(r"-?\d+(\.0+)?", word):
            raise ValueError(f"{path}, line {number}: the word is {word[:20]!r}; give its place from 0, or n/a")
        fixations.append(
            _Event(onset_s=onset, duration_s=duration, sentence=name, word=int(float(word)) if word else -1)
        )
    if any(f.word >= 0 for f in fixations) or not fixations:
        return sentences, fixations
    return sentences, []  # gaze without words says nothing of words


def _first(row: Mapping[str, str], names: tuple[str, ...]) -> str:
    """The first of those columns that holds something."""
    return next((row[name].strip() for name in names if row.get(name, "").strip() not in ("", "n/a")), "")
