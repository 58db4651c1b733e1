"""Sentences kept in a form that opens at once: one safetensors file per result file, any row read by itself.

A cache holds every record but the raw traces, bit for bit as `read_sentences` gives them. Its name is made of the
result file's name, size and modification time and of the code that read it, so a change of either makes a new one.
Deleting caches costs nothing but the time to parse again. Making one needs the memory of one file's records. Reading
corpora in BIDS (`bci.raw.bids_corpus`) keep the sentences of a recording in the same form.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, overload

import numpy as np

from spikeloom.accel.common.files import require_regular, sweep_leftovers, whole
from spikeloom.bci.zuco import hdf5, matlab5, reader, records
from spikeloom.bci.zuco.reader import read_sentences, recording_of
from spikeloom.bci.zuco.records import MEASURES, Fixations, Recording, Sentence, Word

FIXATIONS = tuple(Fixations.__dataclass_fields__)
VECTORS = ("eeg", "answer_eeg", *(f"words.{measure}" for measure in MEASURES))  # nearly all of the bytes
BOUNDS = ".bounds"  # arrays of varying length lie end to end; where each begins and the last one ends has this name


def cached_sentences(path: Path, folder: Path) -> "CachedSentences":
    """The rows of a result file out of the cache in `folder`, which is made first where it is missing or outdated.

    Raises the errors of `read_sentences`, and ValueError naming a damaged cache.
    """
    recording = recording_of(path)
    make_cache(path, folder)
    return CachedSentences(cache_file(path, folder), recording)


def make_cache(path: Path, folder: Path) -> bool:
    """Make the cache of a result file where it is missing or outdated, and say whether it was. Raises the errors of
    `read_sentences`."""
    return keep(cache_file(path, folder), lambda: read_sentences(path))


def keep(file: Path, read: Callable[[], Iterable[Sentence]]) -> bool:
    """Write what `read()` gives into the cache `file`, NAME-IDENTITY.safetensors, where it is missing, and remove what
    has another identity; says whether it was missing."""
    if file.is_file():
        return False
    _write(file, read())
    for outdated in set(file.parent.glob(f"{file.stem.rpartition('-')[0]}-*.safetensors")) - {file}:
        outdated.unlink()
    return True


def cache_file(path: Path, folder: Path) -> Path:
    """Where the cache of a result file lies, whether it is there or not."""
    return folder / f"{path.stem}-{identity([path], _code())}.safetensors"


class CachedSentences(Sequence[Sentence]):
    """The rows of one result file. A row is read when it is indexed, and not kept."""

    def __init__(self, file: Path, recording: Recording) -> None:
        from safetensors import SafetensorError, safe_open

        self.recording, self.file = recording, file
        require_regular(file, "delete it")
        try:
            store: Any = safe_open(file, framework="numpy")
            self.vectors = {name: store.get_slice(name) for name in VECTORS}
            self.table = {name: store.get_tensor(name) for name in set(store.keys()) - set(VECTORS)}
            _check(self.table, {name: slice_.get_shape() for name, slice_ in self.vectors.items()})
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise self.damaged(error) from error

    def __len__(self) -> int:
        return len(self.table["omission_rate"])

    @overload
    def __getitem__(self, index: int) -> Sentence: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sentence]: ...
    def __getitem__(self, index: int | slice) -> Sentence | list[Sentence]:
        if isinstance(index, slice):
            return [self.read(i) for i in range(len(self))[index]]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"row {index} of a file of {len(self)}")
        return self.read(position)

    def damaged(self, error: Exception) -> ValueError:
        what = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        return ValueError(f"the cache {self.file} is damaged ({what}); delete it, it will be made again")

    def read(self, index: int) -> Sentence:
        from safetensors import SafetensorError

        try:
            return self._read(index)
        except (SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
            raise self.damaged(error) from error

    def _read(self, index: int) -> Sentence:
        table = self.table
        eeg, answer_eeg = (self.pieces(name, index, index + 1)[0] for name in ("eeg", "answer_eeg"))
        bounds = self.pieces("word_bounds_px", index, index + 1)[0]
        traces = {name: self.pieces(name, index, index + 1)[0].copy() for name in FIXATIONS}
        return Sentence(
            recording=self.recording,
            index=index,
            content=self.text("content", index),
            words=self.words(*table["words" + BOUNDS][index : index + 2].tolist()),
            eeg=eeg if eeg.size else None,
            answer_eeg=answer_eeg if answer_eeg.size else None,
            omission_rate=float(table["omission_rate"][index]),
            word_bounds_px=bounds.reshape(-1, 4).copy() if bounds.size else None,
            fixations=Fixations(**traces) if table["has_fixations"][index] else None,
            n_long_vectors=int(table["n_long_vectors"][index]),
        )

    def words(self, first: int, end: int) -> tuple[Word, ...]:
        """The words at places first ... end - 1 of all words of the file."""
        table = self.table
        vectors = {measure: self.pieces(f"words.{measure}", first, end) for measure in MEASURES}
        fixations = self.pieces("words.fixations", first, end)
        return tuple(
            Word(
                content=self.text("words.content", w),
                fixations=fixations[w - first].copy(),
                n_fixations=int(table["words.n_fixations"][w]),
                pupil=float(table["words.pupil"][w]),
                durations_ms=_given(table["words.durations_ms"][w], table["words.has_duration"][w]),
                pupils=_given(table["words.pupils"][w], table["words.has_pupil"][w]),
                eeg={m: vectors[m][w - first] for m in MEASURES if vectors[m][w - first].size},
                n_rejected=int(table["words.n_rejected"][w]),
            )
            for w in range(first, end)
        )

    def text(self, name: str, place: int) -> str:
        try:
            return self.pieces(name, place, place + 1)[0].tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.damaged(error) from error

    def pieces(self, name: str, first: int, end: int) -> list[np.ndarray]:
        """Pieces first ... end - 1 of an array of pieces, read at once."""
        bounds = self.table[name + BOUNDS][first : end + 1]
        if bounds[0] == bounds[-1]:
            return [np.zeros(0)] * (end - first)
        values = (self.vectors if name in self.vectors else self.table)[name][int(bounds[0]) : int(bounds[-1])]
        return np.split(values, bounds[1:-1] - bounds[0])


PER_ROW = ("omission_rate", "n_long_vectors", "has_fixations")
PER_WORD = ("n_fixations", "pupil", "n_rejected")
PER_MEASURE = ("durations_ms", "has_duration", "pupils", "has_pupil")


def _check(table: dict[str, np.ndarray], vectors: dict[str, list[int]]) -> None:
    """Raise KeyError or ValueError where arrays are absent or their lengths and bounds contradict each other."""
    n_rows = len(table["omission_rate"])
    word_bounds = table["words" + BOUNDS]
    _check_bounds("words", word_bounds, n_rows, None)
    n_words = int(word_bounds[-1])
    lengths = dict.fromkeys(PER_ROW, n_rows) | {f"words.{name}": n_words for name in PER_WORD}
    for name, n in lengths.items():
        if n and table[name].shape != (n,):
            raise ValueError(f"{name} has shape {table[name].shape}, not ({n},)")
    for name in PER_MEASURE:
        if n_words and table[f"words.{name}"].shape != (n_words, len(MEASURES)):
            raise ValueError(f"words.{name} has shape {table[f'words.{name}'].shape}")
    of_words = {"words.content", "words.fixations", *(f"words.{measure}" for measure in MEASURES)}
    for name in ("content", "eeg", "answer_eeg", "word_bounds_px", *FIXATIONS, *of_words):
        values = vectors[name] if name in vectors else list(table[name].shape)
        if len(values) != 1:
            raise ValueError(f"{name} has {len(values)} dimensions")
        _check_bounds(name, table[name + BOUNDS], n_words if name in of_words else n_rows, values[0])


def _check_bounds(name: str, bounds: np.ndarray, n: int, n_values: int | None) -> None:
    if bounds.shape != (n + 1,) or bounds.dtype.kind not in "iu":
        raise ValueError(f"{name}{BOUNDS} has shape {bounds.shape}, not ({n + 1},) whole numbers")
    if bounds[0] or (np.diff(bounds) < 0).any() or n_values not in (None, int(bounds[-1])):
        raise ValueError(f"{name}{BOUNDS} does not rise from 0 to {n_values}")


def _given(values: np.ndarray, given: np.ndarray) -> dict[str, float]:
    return {measure: float(values[i]) for i, measure in enumerate(MEASURES) if given[i]}


def _write(file: Path, sentences: Iterable[Sentence]) -> None:
    from safetensors.numpy import save_file

    pieces: dict[str, list[np.ndarray]] = defaultdict(list)
    table: dict[str, list[Any]] = defaultdict(list)
    table["words" + BOUNDS].append(0)
    for sentence in sentences:
        table["words" + BOUNDS].append(table["words" + BOUNDS][-1] + len(sentence.words))
        table["omission_rate"].append(sentence.omission_rate)
        table["n_long_vectors"].append(sentence.n_long_vectors)
        table["has_fixations"].append(sentence.fixations is not None)
        pieces["content"].append(_bytes(sentence.content))
        for name in ("eeg", "answer_eeg", "word_bounds_px"):
            pieces[name].append(_flat(getattr(sentence, name)))
        for name in FIXATIONS:
            pieces[name].append(_flat(getattr(sentence.fixations, name, None)))
        for word in sentence.words:
            for name in ("n_fixations", "pupil", "n_rejected"):
                table[f"words.{name}"].append(getattr(word, name))
            for name, found, has in (
                ("durations_ms", word.durations_ms, "has_duration"),
                ("pupils", word.pupils, "has_pupil"),
            ):
                table[f"words.{name}"].append([found.get(measure, np.nan) for measure in MEASURES])
                table[f"words.{has}"].append([measure in found for measure in MEASURES])
            pieces["words.content"].append(_bytes(word.content))
            pieces["words.fixations"].append(word.fixations)
            for measure in MEASURES:
                pieces[f"words.{measure}"].append(_flat(word.eeg.get(measure)))
    arrays = {name: np.array(values) for name, values in table.items()}
    for name in (*VECTORS, "words.content", "words.fixations", *pieces):  # a file may have no word at all
        arrays[name] = np.concatenate(pieces[name]) if pieces[name] else np.zeros(0)
        arrays[name + BOUNDS] = np.cumsum([0, *(len(piece) for piece in pieces[name])], dtype=np.int64)
    sweep_leftovers(file.parent)
    with whole(file) as partial:
        save_file(arrays, partial)


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)


def _flat(values: np.ndarray | None) -> np.ndarray:
    return np.zeros(0) if values is None else np.ravel(values)


def identity(files: Iterable[Path], code: str) -> str:
    """A digest of names, sizes and modification times of files, and of the code that reads them."""
    stats = [(path.name, stat.st_size, stat.st_mtime_ns) for path in files for stat in [path.stat()]]
    return hashlib.sha256(f"{stats} {code}".encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """A digest of the code between a result file and its records."""
    return digest(Path(module.__file__ or "") for module in (matlab5, hdf5, reader, records))


def digest(modules: Iterable[Path]) -> str:
    """A digest of modules and of this one."""
    return hashlib.sha256(b"".join(module.read_bytes() for module in (*modules, Path(__file__)))).hexdigest()
