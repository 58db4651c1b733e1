"""`python -m tests.fuzz.guided seconds found PARSER …`: a search for new code paths with atheris, where it is there.

The bytes of libFuzzer are the choices of the mutations (`mutation.Decisions`), and coverage of our modules tells it
which choices lead on. The findings are kept as those of `batch`. Each parser is searched in a forked process, which a
crash or a hang in C ends; its parent keeps the case it was at. Prints one line a parser: its name, how the process
ended, the number of inputs by outcome and the kinds of findings, as JSON.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

# What is instrumented, below `spikeloom`.
MODULES = (
    "accel.common", "accel.interop", "accel.learning", "accel.trainer", "bci.data", "bci.evaluation",
    "bci.models.released", "bci.raw", "bci.zuco", "pipelines.config", "pipelines.datasets", "pipelines.reports",
    "pipelines.training.run_dir", "speech.datasets", "speech.models.released", "vision.checkpoints", "vision.convert",
    "vision.convert_resnet", "vision.datasets",
)  # fmt: skip


def main(seconds: int, found: Path, names: list[str]) -> None:
    import atheris

    packages = [f"spikeloom.{name}" for name in MODULES]
    with atheris.instrument_imports(include=packages), contextlib.redirect_stderr(io.StringIO()):
        from tests.fuzz.table import PARSERS
    for name in names:
        told = found / name / "guided.json"
        told.parent.mkdir(parents=True, exist_ok=True)
        told.write_text("{}", "utf-8")
        child = os.fork()
        if child == 0:
            try:
                search(atheris, PARSERS[name], seconds, found, told)
            finally:
                os._exit(1)
        _, state = os.waitpid(child, 0)
        status, outcomes = os.waitstatus_to_exitcode(state), json.loads(told.read_text("utf-8"))
        print(json.dumps({"parser": name, "status": status, **outcomes}), flush=True)
        told.unlink()
        if not status:
            shutil.rmtree(found / name / "guided-case", ignore_errors=True)


def search(atheris: Any, parser: Any, seconds: int, found: Path, told: Path) -> None:
    """Judge what libFuzzer draws for so many seconds, and end the process."""
    from tests.fuzz import batch
    from tests.fuzz.mutation import Decisions, mutated

    counts, case_folder = batch.Counts(), found / parser.name / "guided-case"
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    with tempfile.TemporaryDirectory() as folder:
        cases = batch.whole_cases(parser, Path(folder) / "whole")
    batch.lay(cases[0], case_folder)
    batch.judge(parser, case_folder)  # what it imports is there before memory is bounded
    batch.bound()

    def one(data: bytes) -> None:
        case = mutated(Decisions(data), cases, parser.mutates, parser.formats)
        verdict = batch.timed(parser, case, case_folder)
        counts.outcomes[verdict.outcome] += 1
        if verdict.outcome not in batch.GOOD:
            batch.keep(parser, verdict, case_folder, found, counts.inputs, counts)
        if counts.inputs % 50 == 0 or verdict.outcome not in batch.GOOD:
            told.write_text(json.dumps({**counts.outcomes, "kinds": counts.kinds}), "utf-8")

    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=0", "-max_len=200", "-verbosity=0",
         f"-artifact_prefix={found}/{parser.name}/guided-"],
        one,
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
