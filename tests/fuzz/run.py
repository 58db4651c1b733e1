"""`python -m tests.fuzz.run [NAME …] [n=100000] [seconds=600] [first=0] [guided=0] [found=FOLDER] [table=FILE]`

Shares the seconds among the parsers; of each, a fraction `guided` goes to a coverage-guided search where atheris is
installed. Prints one row a parser and exits with 1 when anything was found; the inputs lie in `found`.
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
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
    totals, ended = Counter[str](), time.monotonic() + seconds
    for i, name in enumerate(names):
        share = (ended - time.monotonic()) / (len(names) - i)
        with tempfile.TemporaryDirectory() as folder:
            cases = whole_cases(PARSERS[name], Path(folder) / "whole")
            lay(cases[0], Path(folder) / "first")
            with contextlib.redirect_stdout(io.StringIO()):
                judge(PARSERS[name], Path(folder) / "first")  # what it imports is there before any child is
        counts = run(PARSERS[name], mutants(PARSERS[name], cases), n, share * (1 - guided), found, first)
        if guided:
            follow_coverage(name, share * guided, found, counts)
        totals.update(counts.outcomes)
        print(row(name, counts), flush=True)
        if "table" in options:
            with Path(options["table"]).open("a", encoding="utf-8") as file:
                kinds = {k: v[:1] for k, v in counts.kinds.items()}
                file.write(
                    json.dumps({"parser": name, "seconds": counts.seconds, **counts.outcomes, "kinds": kinds}) + "\n"
                )
        for kind, kept in counts.kinds.items():
            print(f"    {kind}: {kept[0] if kept else ''}", flush=True)
    print(f"{'all':22s} " + " ".join(f"{v:9,d}" for v in (totals.total(), *(totals[c] for c in COLUMNS[1:]))))
    return int(totals.total() > sum(totals[c] for c in GOOD))


def follow_coverage(name: str, seconds: float, found: Path, counts: Counts) -> None:
    """Add what a coverage-guided search (`tests.fuzz.guided`) of so many seconds judges and finds."""
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(max(1, int(seconds))), str(found)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    outcomes = json.loads(lines[-1]) if lines else {"kinds": {}}
    for kind, kept in outcomes.pop("kinds").items():
        counts.kinds.setdefault(kind, []).extend(kept)
    counts.outcomes.update(outcomes)
    counts.seconds += seconds
    if ended.returncode:  # the case it was at is still laid out
        counts.outcomes["crash"] += 1
        kind = f"crash of the guided search, status {ended.returncode}"
        counts.kinds.setdefault(kind, []).append(str(found / name / "guided-case"))


def row(name: str, counts: Counts) -> str:
    numbers = (counts.inputs, *(counts.outcomes[c] for c in COLUMNS[1:]))
    return f"{name:22s} " + " ".join(f"{v:9,d}" for v in numbers) + f" {counts.seconds:9.1f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
