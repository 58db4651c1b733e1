"""The YAML tree of a chip file, with what it builds on merged in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import read_yaml
from spikeloom.accel.trainer.chip.constants import short


class ChipError(ValueError):
    """A chip file with faults; the message lists all of them, each with file, YAML path, value, unit and range."""


def read_document(path: str | Path, presets: Path | None = None) -> Any:
    """The YAML tree of a chip file. `base: other.yaml` names a file whose tree this one changes: mappings are merged,
    anything else (a number with its origin, a list) is replaced as a whole. The base lies beside the file that names
    it, or else in the folder `presets`.

    Raises:
        ChipError: for a file that cannot be read, or that is its own base.
    """
    chain: list[Path] = []
    documents = []  # dict, the file itself first
    following: Path | None = Path(path)
    while following is not None:
        chain.append(following.resolve())
        try:
            document = read_yaml(following, "write a chip file in YAML")
        except ValueError as error:
            raise ChipError(str(error)) from error
        base = document.pop("base", None) if isinstance(document, dict) else None
        documents.append(document)
        following = None if base is None else _base_of(following, base, presets, chain)
    tree = documents.pop()
    while documents:
        tree = _merged(tree, documents.pop())
    return tree


def _base_of(path: Path, base: Any, presets: Path | None, chain: list[Path]) -> Path:
    if not isinstance(base, str) or not base.strip():
        raise ChipError(f"{path}: base: got {short(base)}; name a chip file beside this one, or a preset")
    places = [path.parent / base, *([] if presets is None else [presets / base, presets / f"{base}.yaml"])]
    found = [place for place in places if place.is_file()]
    fresh = next((place for place in found if place.resolve() not in chain), None)
    if fresh is not None:
        return fresh
    if found:
        raise ChipError(f"{path}: base leads back to {found[0]}; a chip cannot build on itself")
    names = sorted(p.name for p in presets.glob("*.yaml")) if presets is not None else []
    known = f" or one of the presets {', '.join(names)}" if names else ""
    raise ChipError(f"{path}: base: got {base!r}, no such file; name a chip file beside this one{known}")


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)) or "value" in above:
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}
