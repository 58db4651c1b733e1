"""What stops a command from outside (signals, full disks, vanished data, small limits) is one line, and nothing is half
written: a training goes on from its last whole epoch."""

import ast
import contextlib
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from spikeloom.accel.common.files import whole
from spikeloom.pipelines import cli
from spikeloom.pipelines.commands import train as _verb  # noqa: F401  imported once, not by every child
from spikeloom.pipelines.config import composition as _composition  # noqa: F401
from spikeloom.pipelines.config.mistakes import refusal
from spikeloom.pipelines.domains import speech as _speech  # noqa: F401
from spikeloom.pipelines.training import classification as _training  # noqa: F401
from spikeloom.vision.datasets.events import EventFileError
from tests.pipelines.small_data import write_digits

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "train", "name=small", "data=synthetic", "data.n_words=3", "data.n_speakers=3", "data.takes=1",
    "data.n_test_speakers=1", "data.n_valid_speakers=1", "augmentation=none", "model.width=16", "model.heads=1",
    "model.depth=1", "trainer=cpu", "trainer.threads=1", "trainer.batch_size=4",
)  # fmt: skip


STARTED: list["Command"] = []


class Command:
    """`spikeloom …` in a forked process, its messages in a file."""

    def __init__(self, folder: Path, *arguments: str, before: Callable[[], object] = lambda: None) -> None:
        self.messages = folder / "stderr.txt"
        self.process = os.fork()
        STARTED.append(self)
        if self.process == 0:
            status: object = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(os.open(self.messages, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
                sys.stdout, sys.stderr = (os.fdopen(n, "w", 1, closefd=False) for n in (1, 2))  # not those of pytest
                os.chdir(folder)
                torch.set_num_threads(1)
                before()
                cli.main(list(arguments))
                status = 0
            except SystemExit as end:
                status = end.code or 0
            except BaseException as error:
                os.write(2, f"Traceback: {error!r}\n".encode())
            finally:
                os._exit(int(str(status)) if str(status).isdigit() else 1)

    def ended(self) -> int:
        _, state = os.waitpid(self.process, 0)
        STARTED.remove(self)
        return os.waitstatus_to_exitcode(state)

    def wait_for_rows(self, path: Path, n: int) -> None:
        """Until metrics.csv has `n` epochs. Fails where the command ends before."""
        while not path.is_file() or path.read_text("utf-8").count("\n") <= n:
            assert os.waitpid(self.process, os.WNOHANG) == (0, 0), self.messages.read_text("utf-8")
            time.sleep(0.01)

    def line(self) -> str:
        """The one line it ended with."""
        lines = [line for line in self.messages.read_text("utf-8").splitlines() if line.startswith("spikeloom: ")]
        told = self.messages.read_text("utf-8")
        assert len(lines) == 1 and "Traceback" not in told, told
        return lines[0]


@pytest.fixture(autouse=True)
def no_command_outlives_its_test() -> Iterator[None]:
    yield
    for command in STARTED.copy():
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(command.process, signal.SIGKILL)
            command.ended()
    STARTED.clear()


def partials(folder: Path) -> list[Path]:
    return [f for f in folder.rglob("*") if f.name.endswith(".partial")]


@pytest.mark.parametrize(
    ("number", "status"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)  # the run that goes on ends by SIGINT in either
def test_a_signal_in_mid_training_is_one_line_and_the_run_goes_on(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    run = tmp_path / "run"
    stopped = Command(tmp_path, *SMALL, f"run={run}", "trainer.epochs=5000")
    stopped.wait_for_rows(run / "metrics.csv", 2)
    os.kill(stopped.process, number)
    assert stopped.ended() == status
    assert stopped.line() == f"spikeloom: stopped by {number.name}; the run goes on with resume=true"
    assert partials(tmp_path) == []
    n = (run / "metrics.csv").read_text("utf-8").count("\n") - 1
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1 in (n, n - 1)
    resumed = Command(tmp_path, *SMALL, f"run={run}", "trainer.epochs=5000", "resume=true")
    resumed.wait_for_rows(run / "metrics.csv", n + 2)
    os.kill(resumed.process, signal.SIGINT)
    assert resumed.ended() == 130


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    run = tmp_path / "run"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    full = Command(tmp_path, *SMALL, f"run={run}", "trainer.epochs=2", before=limit)
    assert full.ended() == 2
    assert re.search(r"\.ckpt cannot be written \(File too large\); free space on the disk", full.line())
    assert partials(tmp_path) == [] and not list(run.rglob("*.ckpt"))
    assert Command(tmp_path, *SMALL, f"run={run}", "trainer.epochs=2", "resume=true").ended() == 0


@pytest.mark.parametrize("error", [
    OSError(28, "No space left on device"), RuntimeError("I/O error: No space left on device (os error 28)"),
])  # fmt: skip
def test_a_full_disk_is_named_however_a_library_puts_it(tmp_path: Path, error: Exception) -> None:
    def write() -> None:
        with whole(tmp_path / "a.bin") as partial:
            partial.write_bytes(b"half")
            raise error

    with pytest.raises(OSError, match=r"a\.bin cannot be written \(No space left on device\); free"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", [SystemExit(), RuntimeError("unexpected pos 64 vs 0")])
def test_an_exit_after_a_signal_that_was_lost_is_its_end(end: BaseException) -> None:
    """As an exception in a destructor is lost, and Lightning then exits without a code; torch, which was writing a
    checkpoint, raises an error of its own."""
    with pytest.raises(cli.Stopped) as stopped, cli.stopped_by_signals():  # noqa: PT012
        with contextlib.suppress(cli.Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        raise end
    assert stopped.value.number == signal.SIGTERM
    with pytest.raises(type(end)), cli.stopped_by_signals():
        raise end


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_data_that_vanish_in_mid_epoch_are_named_and_the_run_goes_on(tmp_path: Path, workers: int) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    write_digits(data)
    given = [
        "train", "experiment=spikescr_fsdd", f"data.root={data}", f"run={run}", "model.width=16", "model.heads=1",
        "trainer=cpu", "trainer.threads=1", "trainer.epochs=5000", "trainer.cache_mb=0", "leave_one_speaker_out=false",
        f"trainer.num_workers={workers}",
    ]  # fmt: skip
    command = Command(tmp_path, *given)
    command.wait_for_rows(run / "metrics.csv", 1)
    aside = data.rename(tmp_path / "aside")
    assert command.ended() == 2
    assert re.search(r"/data/\d_\w+_\d\.wav: no such file", command.line())
    assert partials(tmp_path) == []
    n = (run / "metrics.csv").read_text("utf-8").count("\n")
    aside.rename(data)
    resumed = Command(tmp_path, *given, "resume=true")
    resumed.wait_for_rows(run / "metrics.csv", n)
    os.kill(resumed.process, signal.SIGTERM)
    assert resumed.ended() == 143


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("x", "utf-8")
    for run in ("/proc/run", str(tmp_path / "a file" / "run")):  # read-only for everybody, even for root
        refused = Command(tmp_path, *SMALL, f"run={run}", "trainer.epochs=1")
        assert refused.ended() == 2
        assert run.rpartition("/")[0] in refused.line()


def test_sixteen_open_files_and_no_temporary_folder_are_enough_or_one_line(tmp_path: Path) -> None:
    def limit() -> None:
        os.closerange(3, 256)
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
        os.environ["TMPDIR"] = str(tmp_path / "gone")

    command = Command(tmp_path, *SMALL, f"run={tmp_path / 'run'}", "trainer.epochs=1", before=limit)
    status = command.ended()
    assert status in (0, 2) and partials(tmp_path) == []
    if status:
        assert "Too many open files" in command.line() or "temporary" in command.line()


def test_errors_of_worker_processes_are_the_line_alone() -> None:
    class Failing(torch.utils.data.Dataset[int]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            raise EventFileError(Path("a.bin"), 5, "cut off; copy the file again")

    with pytest.raises(EventFileError) as error:
        next(iter(torch.utils.data.DataLoader(Failing(), num_workers=1)))
    assert refusal(error.value) == "a.bin, byte 5: cut off; copy the file again"


def test_a_line_is_bounded_and_cannot_steer_a_terminal() -> None:
    line = refusal(ValueError("a.txt: \x1b[2J " + "x" * 10_000 + "; copy it again"))
    assert line.startswith("a.txt: ") and line.endswith("; copy it again") and len(line) <= 1200 and line.isprintable()


def test_no_result_depends_on_the_clock_of_the_wall() -> None:
    """Durations are counted by clocks that a correction does not move."""
    packages = ("accel", "bci", "speech", "vision", "pipelines")
    wall = re.compile(r"(^|\.)(time\.time|datetime\.(now|today|utcnow))$")
    calls = set[str]()
    for file in (f for package in packages for f in (ROOT / package).rglob("*.py")):
        names = [ast.unparse(n.func) for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.Call)]
        calls |= {f"{file.relative_to(ROOT)}: {name}" for name in names if wall.search(name)}
    assert calls == {"pipelines/config/composition.py: datetime.now"}  # names the folder of a sweep
