"""What was done to recordings before a model saw them, counted: the first of a kind is logged at once, all at the end.

A file that is resampled, mixed or cut is no error, but whoever trains on it or scores it has to know how many there
were. Each process counts for itself; a loader worker hands its counts over with every batch (`common.batches`).
"""

import logging
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)
SHOWN = 3  # names in a line


class Changes:
    """Kinds of change -> the recordings they happened to, each counted once however often it is read."""

    def __init__(self) -> None:
        self.names: dict[str, dict[str, None]] = {}  # kind -> names, in order of appearance
        self.unsent: list[tuple[str, str]] = []  # (kind, name) counted since the last `take`, of a loader worker

    def add(self, kind: str, name: str | Path) -> None:
        """Count `name` under `kind`; the first of a kind is logged as a warning."""
        names = self.names.setdefault(kind, {})
        if not names:
            log.warning("%s: %s (logged once; others of this kind are counted)", name, kind)
        if str(name) not in names:
            names[str(name)] = None
            self.unsent.append((kind, str(name)))

    def take(self) -> list[tuple[str, str]]:
        """What was counted since this was last called, as (kind, name)."""
        taken, self.unsent = self.unsent, []
        return taken

    def receive(self, counted: Iterable[tuple[str, str]]) -> None:
        """Count what another process took; it has logged the first of a kind."""
        for kind, name in counted:
            self.names.setdefault(kind, {})[name] = None

    def clear(self) -> None:
        self.names.clear()
        self.unsent.clear()

    def summary(self) -> list[str]:
        """One line a kind: how many recordings, and the names of the first ones."""
        lines = []
        for kind, names in self.names.items():
            shown = ", ".join(list(names)[:SHOWN]) + (", …" if len(names) > SHOWN else "")
            lines.append(f"{len(names):,} recording{'s' if len(names) != 1 else ''}: {kind} ({shown})")
        return lines


changes = Changes()
