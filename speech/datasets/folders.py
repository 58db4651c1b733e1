"""Recordings in a folder: which files are read, and one line about those that are not.

Every ending of `audio.ENDINGS` counts, in upper or lower case. Hidden files, among them the `._NAME` that macOS leaves
on foreign disks, are no recordings. What this module does not do: open a file.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

from spikeloom.speech.datasets.audio import ENDINGS

log = logging.getLogger(__name__)
# Sound without a decoder here, and files that lie beside recordings.
OTHER_SOUND = (".m4a", ".aac", ".wma", ".amr", ".webm", ".mp4", ".3gp", ".mka", ".ape", ".wv", ".sph", ".voc")
SIDE_FILES = (".txt", ".csv", ".tsv", ".md", ".json", ".yaml", ".yml", ".html", ".pdf", ".zip", ".gz", ".tar", ".py")
LARGEST_DEPTH = 8
SHOWN = 3


def find_audio(folder: Path, *, recursive: bool = False) -> list[Path]:
    """The recordings in `folder`, sorted by name so that the order does not depend on the file system.

    recursive: those in its sub-folders too, hidden ones left out. What is not read is counted in one logged line.
    """
    found: list[Path] = []
    skipped: list[Path] = []
    _collect(folder, LARGEST_DEPTH if recursive else 0, found, skipped)
    report_skipped(folder, len(found), skipped)
    return sorted(found)


def has_audio(folder: Path) -> bool:
    """Whether a recording lies directly in `folder`."""
    return any(is_audio(file) for file in folder.iterdir())


def is_audio(file: Path) -> bool:
    hidden = file.name.startswith(".")
    return file.suffix.lower() in ENDINGS and not hidden and file.is_file() and _is_text(file)


def word_folders(root: Path) -> list[Path]:
    """The sub-folders of `root` that are not hidden, sorted by name."""
    return sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))


def report_skipped(folder: Path, n_read: int, skipped: Iterable[Path]) -> None:
    """Log in one line how many files of `folder` are not read, and why. Text, lists and archives are expected."""
    skipped = list(skipped)
    kinds = {
        "hidden": [f for f in skipped if f.name.startswith(".")],
        "formats without a decoder here (convert them to FLAC or wav)": [
            f for f in skipped if f.suffix.lower() in OTHER_SOUND and not f.name.startswith(".")
        ],
    }
    kinds["names that are not UTF-8 (rename them, for instance with convmv)"] = [f for f in skipped if not _is_text(f)]
    known = {f for files in kinds.values() for f in files}
    kinds["no recordings"] = [f for f in skipped if f not in known and f.suffix.lower() not in SIDE_FILES and f.suffix]
    parts = [f"{len(files)} {kind} ({_names(files)})" for kind, files in kinds.items() if files]
    if parts:
        n = sum(len(files) for files in kinds.values())
        folder_name = str(folder).encode(errors="backslashreplace").decode()
        log.warning("%s: %d of %d files not read: %s", folder_name, n, n_read + n, "; ".join(parts))


def _collect(folder: Path, depth: int, found: list[Path], skipped: list[Path]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            if depth and not entry.name.startswith("."):
                _collect(entry, depth - 1, found, skipped)
        elif is_audio(entry):
            found.append(entry)
        else:
            skipped.append(entry)


def _names(files: list[Path]) -> str:
    names = (f.name if _is_text(f) else str(f.name.encode(errors="surrogateescape")) for f in sorted(files)[:SHOWN])
    return ", ".join(names) + (", …" if len(files) > SHOWN else "")


def _is_text(file: Path) -> bool:
    """Whether a path is text: an old disk or archive may hold names in Latin-1, which no report can contain."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return False
    return True
