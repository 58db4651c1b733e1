"""Where trials come from: the recordings below a folder, behind the same three names as the synthetic set.

    recordings   who read what            rows()   every sentence somebody read, without its EEG: what a split needs
    iteration    the sentences themselves, recording by recording, one at a time

Result files are parsed once and then read from the cache (`spikeloom.bci.zuco.cache`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from spikeloom.bci.synthetic.zuco import SyntheticZuCo
from spikeloom.bci.zuco.cache import CachedSentences, cached_sentences
from spikeloom.bci.zuco.reader import find_files, recording_of
from spikeloom.bci.zuco.records import Recording, Sentence
from spikeloom.bci.zuco.splits import Row


class Recorded(Protocol):
    """Sentences of recordings, synthetic or not."""

    @property
    def recordings(self) -> tuple[Recording, ...]: ...
    def __iter__(self) -> Iterator[Sentence]: ...


@dataclass
class ZuCoConfig:
    """root: any folder above the result files. tasks: with their version, such as SR1 and NR2; subjects: names; both
    empty: all there are. cache: where parsed files are kept; null: `.spikeloom` in root."""

    source: str = "zuco"
    root: str = ""
    tasks: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    cache: str | None = None

    def build(self) -> "ZuCoFiles":
        return ZuCoFiles(self)


class ZuCoFiles:
    """The chosen recordings below a folder. Raises ValueError when there is none, naming what is there."""

    def __init__(self, config: ZuCoConfig) -> None:
        root = Path(config.root)
        if not root.is_dir():
            raise ValueError(
                f"{root} is no folder; get results<SUBJECT>_<TASK>.mat of ZuCo from osf.io/q3zws (1.0) or osf.io/2urht "
                "(2.0), and give data.root=FOLDER or set SPIKELOOM_DATA"
            )
        self.folder = Path(config.cache) if config.cache else root / ".spikeloom"
        found = {recording_of(path): path for path in find_files(root)}
        self.paths = {
            recording: path
            for recording, path in found.items()
            if (not config.tasks or task_of(recording) in config.tasks)
            and (not config.subjects or recording.subject in config.subjects)
        }
        for name, asked, there in (
            ("tasks", config.tasks, {task_of(recording) for recording in found}),
            ("subjects", config.subjects, {recording.subject for recording in found}),
        ):
            if absent := sorted(set(asked) - there):
                raise ValueError(f"{root} holds no recording of {name} {absent}; use some of {sorted(there)}")
        if not self.paths:
            raise ValueError(f"{root} holds no recording of these subjects in these tasks; ask for fewer at once")

    @property
    def recordings(self) -> tuple[Recording, ...]:
        return tuple(self.paths)

    @cached_property
    def _cached(self) -> dict[Recording, CachedSentences]:
        return {recording: cached_sentences(path, self.folder) for recording, path in self.paths.items()}

    def rows(self) -> list[Row]:
        return [
            Row(recording.subject, task_of(recording), index, sentences.text("content", index))
            for recording, sentences in self._cached.items()
            for index in range(len(sentences))
        ]

    def __iter__(self) -> Iterator[Sentence]:
        for sentences in self._cached.values():
            yield from sentences


def task_of(recording: Recording) -> str:
    """The task with its version, as in NR2."""
    return f"{recording.task}{recording.version}"


def rows_of(source: Recorded) -> list[Row]:
    """Every sentence somebody read, by text alone where the source can tell it without making its EEG."""
    if isinstance(source, SyntheticZuCo):
        return [
            Row(recording.subject, task_of(recording), index, text)
            for recording in source.recordings
            for index, text in enumerate(source.texts)
        ]
    rows = getattr(source, "rows", None)
    if rows is not None:
        return list(rows())
    return [Row(sentence.subject, task_of(sentence.recording), sentence.index, sentence.content) for sentence in source]
