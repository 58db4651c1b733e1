"""Processes that train together, for tests: forks of this one with the variables that torchrun sets."""

import json
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def on_ranks(world: int, work: Callable[..., Any], *arguments: Any, killed: bool = False) -> list[Any]:
    """What `work(*arguments)` returns on each of `world` processes; JSON values.

    `killed`: the processes are expected to die by a signal, and nothing is returned.
    """
    context = multiprocessing.get_context("fork")
    with TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        processes = [
            context.Process(target=_rank, args=(rank, world, port, Path(folder), work, arguments))
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(1800)  # a hang; no test depends on it
            if process.is_alive():
                process.kill()
        codes = [process.exitcode for process in processes]
        if killed:
            assert all(code is not None and code < 0 for code in codes), codes
            return []
        found = [path.read_text() for path in sorted(Path(folder).iterdir())]
        assert codes == [0] * world, "\n".join(found)
        return [json.loads(text) for text in found]


def _rank(rank: int, world: int, port: int, folder: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if world > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
            "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "tests",
        }  # fmt: skip
    try:
        text = json.dumps(work(*arguments))
        code = 0
    except BaseException:
        text, code = traceback.format_exc(), 1
    (folder / f"rank{rank}").write_text(text)
    os._exit(code)  # no clean-up of what belongs to the process it was forked from
