"""List files of recordings: which file belongs to which set, and what else a table says about it.

    plain      one path a line: `WORD/FILE.wav`; `validation_list.txt` and `testing_list.txt` are of this kind
    table      CSV, TSV or semicolons with a header: a column of paths, and optionally the word, the speaker, the set

Lines that begin with # are comments. A list names files as its author had them. A row is matched by its path below the
folder, else by folder and stem, else by the stem alone where only one file has it: a copy in another format or below
another folder is found. Accents count alike, whether composed (NFC) or not (NFD, as on disks of macOS).
"""

import csv
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from spikeloom.accel.common.files import read_text

PATH = (
    "file", "path", "filename", "file_name", "filepath", "file_path", "audio", "audio_path", "audio_file",
    "audio_filepath", "wav", "wav_filename", "wav_path", "clip", "recording",
)  # fmt: skip
WORD = (
    "class", "word", "label", "sentence", "text", "keyword", "target", "category", "transcript", "transcription",
    "command",
)  # fmt: skip
SPEAKER = ("speaker", "speaker_id", "client_id", "speakerid", "spk")
SET = ("split", "set", "subset", "partition")
SET_NAMES = {
    "training": ("train", "training"),
    "validation": ("valid", "validation", "val", "dev"),
    "testing": ("test", "testing", "eval"),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One entry of a list; "" for what it does not say."""

    path: str
    word: str = ""
    speaker: str = ""
    set: str = ""


def find_lists(root: Path) -> dict[str, Path]:
    """Set -> list file lying in `root` under a customary name (train.csv, val.txt, testing_list.txt …)."""
    found: dict[str, Path] = {}
    for name, words in SET_NAMES.items():
        for word in words:
            for ending in (".csv", ".tsv", ".txt", "_list.txt"):
                file = root / f"{word}{ending}"
                if file.is_file() and name not in found:
                    found[name] = file
    return found


def read_list(file: Path) -> list[Row]:
    """The rows of a list. Raises `FileNotFoundError`, and `ValueError` for a file that is no list of recordings."""
    if not file.is_file():
        raise FileNotFoundError(f"no list {file}; give a file below data.root, or leave the list out")
    text = composed(read_text(file, "save it as UTF-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise ValueError(f"{file}: the list is empty; leave it out, or name recordings in it")
    delimiter = next((d for d in ("\t", ";", ",") if d in lines[0]), None)
    header = [name.strip().strip('"').lower() for name in lines[0].split(delimiter)]
    if not any(name in PATH for name in header):
        if delimiter and not PurePosixPath(lines[0].split(delimiter)[0].strip()).suffix:
            raise ValueError(
                f"{file}: no column of paths among {', '.join(header[:8])}; name it file, or give one path a line"
            )
        if delimiter is None:
            return [Row(path=line.strip().strip('"')) for line in lines]
        return [Row(path=values[0].strip()) for values in csv.reader(lines, delimiter=delimiter) if values]
    columns = {kind: next((n for n in header if n in names), None) for kind, names in
               (("path", PATH), ("word", WORD), ("speaker", SPEAKER), ("set", SET))}  # fmt: skip
    rows: list[Row] = []
    for number, values in enumerate(csv.reader(lines[1:], delimiter=delimiter or ","), 2):
        if len(values) < len(header):
            raise ValueError(f"{file}: line {number} has {len(values)} of {len(header)} columns; complete or remove it")
        value = {kind: values[header.index(name)].strip() if name else "" for kind, name in columns.items()}
        rows.append(Row(path=value["path"], word=value["word"], speaker=value["speaker"],
                        set=_set(file, number, value["set"])))  # fmt: skip
    return rows


class Finder:
    """Files below `root` by what a list may call them."""

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.by_path: dict[str, int] = {}
        self.by_folder: dict[tuple[str, str], list[int]] = {}
        self.by_stem: dict[str, list[int]] = {}
        for i, file in enumerate(files):
            parent, stem = composed(file.parent.name), composed(file.stem)
            self.by_path[composed(file.relative_to(root).as_posix())] = i
            self.by_folder.setdefault((parent, stem), []).append(i)
            self.by_stem.setdefault(stem, []).append(i)

    def find(self, path: str) -> int | None:
        """The number of the file a row means; None where none or several could be meant."""
        asked = PurePosixPath(composed(path).replace("\\", "/"))
        exact = self.by_path.get(asked.as_posix())
        if exact is not None:
            return exact
        for candidates in (self.by_folder.get((asked.parent.name, asked.stem)), self.by_stem.get(asked.stem)):
            if candidates and len(candidates) == 1:
                return candidates[0]
        return None


def composed(text: str) -> str:
    """The text with composed accents (NFC): what looks alike is alike."""
    return unicodedata.normalize("NFC", text)


def _set(file: Path, number: int, text: str) -> str:
    if not text:
        return ""
    for name, words in SET_NAMES.items():
        if text.lower() in words:
            return name
    known = ", ".join(words[0] for words in SET_NAMES.values())
    raise ValueError(f"{file}: line {number} names the set {text!r}; use {known}")
