"""Write what spikeloom needs, with licences: a software bill of materials (CycloneDX 1.5) and a list for people.

    python packaging/sbom.py [FOLDER]        # FOLDER/sbom.json and FOLDER/licences.txt; default dist

Of the environment of this Python: the packages that `spikeloom` requires without extras, and all that these require.
Equal environments give equal files.
"""

import json
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

NAME = "spikeloom"
CLASSIFIER = "License :: OSI Approved :: "


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(found: Distribution, extras: set[str]) -> set[tuple[str, str]]:
    """(canonical name, extras) of what a package needs on this platform."""
    wanted = set()
    for line in found.requires or ():
        requirement = Requirement(line)
        if any(requirement.marker is None or requirement.marker.evaluate({"extra": e}) for e in extras | {""}):
            wanted.add((canonical(requirement.name), ",".join(sorted(requirement.extras))))
    return wanted


def closure(name: str = NAME) -> dict[str, tuple[Distribution, set[str]]]:
    """All packages that are needed: canonical name -> (package, names that it needs itself)."""
    found: dict[str, tuple[Distribution, set[str]]] = {}
    waiting, seen = [(name, "")], set[tuple[str, str]]()
    while waiting:
        asked = waiting.pop()
        if asked in seen:
            continue
        seen.add(asked)
        try:
            package = distribution(asked[0])
        except PackageNotFoundError:
            sys.exit(f"{asked[0]} is not installed, and {name} needs it; run `make` first")
        needs = required(package, set(filter(None, asked[1].split(","))))
        before = found.get(asked[0], (package, set()))[1]
        found[asked[0]] = (package, before | {other for other, _ in needs})
        waiting += sorted(needs)
    return dict(sorted(found.items()))


def licence(package: Distribution) -> str:
    """As the package states it: its SPDX expression, else its licence field if that is a name, else classifiers."""
    metadata: Any = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classified = [c.split(" :: ")[-1] for c in metadata.get_all("Classifier") or () if c.startswith(CLASSIFIER)]
    stated = (metadata.get("License") or "").strip()  # a name, or the whole text
    if stated and len(stated) <= 40 and "\n" not in stated and stated.upper() != "UNKNOWN":
        return stated
    return " and ".join(classified) or "not stated"


def component(name: str, package: Distribution) -> dict[str, Any]:
    stated, expression = licence(package), package.metadata.get("License-Expression")
    return {
        "type": "library", "bom-ref": purl(name, package), "name": package.metadata["Name"],
        "version": package.version, "purl": purl(name, package),
        "licenses": [{"expression": stated} if expression else {"license": {"name": stated}}],
    }  # fmt: skip


def purl(name: str, package: Distribution) -> str:
    return f"pkg:pypi/{name}@{package.version}"


def bill(found: dict[str, tuple[Distribution, set[str]]]) -> dict[str, Any]:
    """The CycloneDX document."""
    parts = {name: component(name, package) for name, (package, _) in found.items()}
    own = parts.pop(NAME) | {"type": "application"}
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"component": own},
        "components": list(parts.values()),
        "dependencies": [
            {"ref": purl(name, package), "dependsOn": sorted(purl(n, found[n][0]) for n in needs)}
            for name, (package, needs) in found.items()
        ],
    }  # fmt: skip


def main(folder: Path) -> None:
    found = closure()
    folder.mkdir(parents=True, exist_ok=True)
    document = json.dumps(bill(found), indent=1, ensure_ascii=False) + "\n"
    (folder / "sbom.json").write_text(document, encoding="utf-8", newline="\n")
    rows = [(package.metadata["Name"], package.version, licence(package)) for package, _ in found.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    listed = "".join(f"{n:{widths[0]}}  {v:{widths[1]}}  {stated}\n" for n, v, stated in rows)
    (folder / "licences.txt").write_text(listed, encoding="utf-8", newline="\n")
    unstated = [name for name, _, stated in rows if stated == "not stated"]
    print(f"{len(rows)} packages, {len(unstated)} without a stated licence -> {folder}/sbom.json, licences.txt")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("dist"))
