"""`python -m tests.fuzz.run [NAME …] [n=100000] [seconds=600] [first=0] [guided=0] [found=FOLDER] [table=FILE]`

Shares the seconds among the parsers. A fraction `guided` of them goes to a coverage-guided search after that, where
atheris is installed; 1 leaves the other out. Prints one row a parser and search, and exits with 1 when anything was
found; the inputs lie in `found`.
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.batch import GOOD, Counts, lay, mutants, run, whole_cases
from tests.fuzz.parser import judge
from tests.fuzz.table import PARSERS

COLUMNS = ("inputs", "right", "refused", "traceback", "unnamed", "long", "silent", "memory", "hang", "crash")


def main(arguments: list[str]) -> int:
    options = dict(a.split("=", 1) for a in arguments if "=" in a)
    names = [a for a in arguments if "=" not in a] or list(PARSERS)
    if unknown := [name for name in names if name not in PARSERS]:
        print(f"no parser {', '.join(unknown)}; choose from {', '.join(PARSERS)}", file=sys.stderr)
        return 2
    n, seconds, first = (int(options.get(k, d)) for k, d in (("n", 100_000), ("seconds", 600), ("first", 0)))
    guided = float(options.get("guided", 0))
    if guided and find_spec("atheris") is None:
        print("guided= needs atheris: pip install atheris", file=sys.stderr)
        return 2
    found = Path(options.get("found", "fuzz-found")).absolute()
    found.mkdir(parents=True, exist_ok=True)
    print(f"{'parser':22s} " + " ".join(f"{c:>9s}" for c in (*COLUMNS, "seconds")), flush=True)
    totals, ended = Counter[str](), time.monotonic() + seconds * (1 - guided)
    for i, name in enumerate(names if guided < 1 else ()):
        share = (ended - time.monotonic()) / (len(names) - i)
        with tempfile.TemporaryDirectory() as folder:
            cases = whole_cases(PARSERS[name], Path(folder) / "whole")
            lay(cases[0], Path(folder) / "first")
            with contextlib.redirect_stdout(io.StringIO()):
                judge(PARSERS[name], Path(folder) / "first")  # what it imports is there before any child is
        counts = run(PARSERS[name], mutants(PARSERS[name], cases), n, share, found, first)
        totals.update(tell(name, counts, options.get("table")))
    if guided:
        for name, counts in follow_coverage(names, seconds * guided / len(names), found):
            totals.update(tell(f"{name}, guided", counts, options.get("table")))
    print(f"{'all':22s} " + " ".join(f"{v:9,d}" for v in (totals.total(), *(totals[c] for c in COLUMNS[1:]))))
    return int(totals.total() > sum(totals[c] for c in GOOD))


def tell(name: str, counts: Counts, table: str | None) -> Counter[str]:
    """Print the row of a parser, add it to a table, and return its outcomes."""
    print(row(name, counts), flush=True)
    if table is not None:
        kinds = {k: v[:1] for k, v in counts.kinds.items()}
        line = json.dumps({"parser": name, "seconds": counts.seconds, **counts.outcomes, "kinds": kinds})
        with Path(table).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    for kind, kept in counts.kinds.items():
        print(f"    {kind}: {kept[0] if kept else ''}", flush=True)
    return counts.outcomes


def follow_coverage(names: list[str], seconds: float, found: Path) -> Iterator[tuple[str, Counts]]:
    """Each parser with what a coverage-guided search (`tests.fuzz.guided`) of so many seconds judges and finds."""
    each = max(1, round(seconds))
    command = [sys.executable, "-m", "tests.fuzz.guided", str(each), str(found), *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as searching:
        assert searching.stdout is not None
        for line in searching.stdout:
            told = json.loads(line)
            name, status, counts = told.pop("parser"), told.pop("status"), Counts(seconds=each)
            counts.kinds.update(told.pop("kinds", {}))
            counts.outcomes.update(told)
            if status:  # the case it was at is still laid out
                counts.outcomes["crash"] += 1
                kind = f"crash of the guided search, status {status}"
                counts.kinds.setdefault(kind, []).append(str(found / name / "guided-case"))
            yield name, counts
    if searching.returncode:
        raise RuntimeError(f"the guided search ended with status {searching.returncode}")


def row(name: str, counts: Counts) -> str:
    numbers = (counts.inputs, *(counts.outcomes[c] for c in COLUMNS[1:]))
    return f"{name:22s} " + " ".join(f"{v:9,d}" for v in numbers) + f" {counts.seconds:9.1f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
