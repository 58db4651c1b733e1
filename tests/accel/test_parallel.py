"""Any number of processes gives the results of one, in order; what they count, raise or die of reaches the caller."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spikeloom.accel.common.changes import changes
from spikeloom.accel.common.parallel import UNDER_WAY, blocks, each


def square(number: int) -> int:
    time.sleep(0.002 * (number % 3))  # they do not end in the order in which they began
    changes.add("squared", str(number % 5))
    return number * number


def refuse(number: int) -> int:
    if number == 7:
        raise ValueError(f"item {number} is wrong")
    return number


def die(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def counted() -> dict[str, list[str]]:
    found = {kind: sorted(names) for kind, names in changes.names.items()}
    changes.clear()
    return found


def test_several_processes_give_the_results_and_the_counts_of_one() -> None:
    changes.clear()
    alone, of_one = list(each(square, range(40))), counted()
    assert alone == [n * n for n in range(40)] and of_one == {"squared": ["0", "1", "2", "3", "4"]}
    assert list(each(square, range(40), 2)) == alone and counted() == of_one


def test_processes_that_are_not_forked_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and Windows: the work is sent to them."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert list(each(square, range(6), 2)) == [n * n for n in range(6)]
    changes.clear()


def test_no_more_is_under_way_than_is_fetched(tmp_path: Path) -> None:
    def begun(number: int) -> int:
        (tmp_path / str(number)).touch()
        return number

    results = each(begun, range(200), 2)
    for number in range(10):
        assert next(results) == number
    time.sleep(0.05)
    assert len(list(tmp_path.iterdir())) <= 10 + 2 * UNDER_WAY
    results.close()
    assert len(list(tmp_path.iterdir())) < 200, "what nobody waits for is not begun"


def test_errors_and_deaths_are_one_error() -> None:
    with pytest.raises(ValueError, match="item 7 is wrong"):
        list(each(refuse, range(20), 2))
    with pytest.raises(OSError, match=r"one of 2 processes was killed.*use fewer"):
        list(each(die, range(20), 2))
    with pytest.raises(ValueError, match="processes=0 must be >= 1"):
        list(each(square, range(2), 0))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(
        "import os, sys, time\n"
        "from spikeloom.accel.common.parallel import each\n"
        "def work(i):\n"
        f"    open({str(tmp_path)!r} + f'/{{os.getpid()}}.pid', 'w').close()\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    list(each(work, range(4), 2))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    children = []
    while len(children) < 2:
        time.sleep(0.02)
        assert parent.poll() is None
        children = [int(path.stem) for path in tmp_path.glob("*.pid")]
    parent.kill()
    parent.wait()
    for _ in range(500):
        if not any(alive(child) for child in children):
            return
        time.sleep(0.02)
    raise AssertionError(f"{children} still run")


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")  # ended, nobody has asked


def test_blocks_cover_every_item_once() -> None:
    assert blocks(5, 2) == [range(2), range(2, 4), range(4, 5)] and blocks(0) == []
