"""`python -m tests.fuzz.guided PARSER seconds found`: a search for new code paths with atheris, where it is installed.

The bytes of libFuzzer are the choices of the mutations (`mutation.Decisions`), and coverage of our modules tells it
which choices lead on. The findings are kept as those of `batch`; a crash or a hang in C ends this process, whose
parent keeps the case it was at. Prints one line: the number of inputs by outcome, as JSON.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path


def main(name: str, seconds: int, found: Path) -> None:
    import atheris

    below = ("accel.trainer", "accel.learning", "accel.interop", "accel.common", "bci.raw", "bci.zuco", "bci.data",
             "bci.evaluation", "bci.models.released", "speech.datasets", "speech.models.released", "vision.datasets",
             "vision.checkpoints", "vision.convert", "vision.convert_resnet", "pipelines.datasets", "pipelines.config",
             "pipelines.reports", "pipelines.training.run_dir")  # fmt: skip
    packages = [f"spikeloom.{name}" for name in below]
    with atheris.instrument_imports(include=packages), contextlib.redirect_stderr(io.StringIO()):
        from tests.fuzz import batch
        from tests.fuzz.mutation import Decisions, mutated
        from tests.fuzz.table import PARSERS
    parser, counts = PARSERS[name], batch.Counts()
    case_folder = found / parser.name / "guided-case"
    with tempfile.TemporaryDirectory() as folder:
        cases = batch.whole_cases(parser, Path(folder) / "whole")
    batch.lay(cases[0], case_folder)
    batch.judge(parser, case_folder)  # what it imports is there before memory is bounded
    batch.bound()
    told = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def one(data: bytes) -> None:
        case = mutated(Decisions(data), cases, parser.mutates, parser.formats)
        verdict = batch.timed(parser, case, case_folder)
        counts.outcomes[verdict.outcome] += 1
        if verdict.outcome not in batch.GOOD:
            batch.keep(parser, verdict, case_folder, found, counts.inputs, counts)
        if counts.inputs % 200 == 0:
            os.write(told, json.dumps({**counts.outcomes, "kinds": counts.kinds}).encode() + b"\n")

    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=0", "-max_len=200", "-verbosity=0",
         f"-artifact_prefix={found}/{parser.name}/guided-"],
        one,
    )  # fmt: skip
    with contextlib.suppress(SystemExit):
        atheris.Fuzz()
    os.write(told, json.dumps({**counts.outcomes, "kinds": counts.kinds}).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
