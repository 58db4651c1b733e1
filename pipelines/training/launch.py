"""Several processes that train together: how they are started, and which of them writes.

`trainer.devices=2 trainer.strategy=ddp` starts the same command again under torchrun, once for every device; on a
cluster, or under a torchrun of your own, the processes are there already and Lightning finds them. Every process reads
the data and takes its part of each batch; the first alone claims the run directory, scores the test set and reports.

Two processes with batches of b do what one process does that adds up two batches of b (trainer.accumulate=2), dropout
included: batch norm counts the samples of its own process, as PyTorch's does. With trainer.sync_batchnorm=true it
counts those of all, and without dropout the processes follow one with batches of 2 b.
"""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from spikeloom.pipelines.config.train import TrainerConfig


def rank() -> int:
    """The number of this process among those that train together; 0 for one alone."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    return int(os.environ["SLURM_PROCID"]) if int(os.environ.get("SLURM_NTASKS", "1")) > 1 else 0


def is_first() -> bool:
    """Whether this process writes."""
    return rank() == 0


def started_already() -> bool:
    """Whether torchrun or SLURM has started the processes."""
    return "RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def start_processes(config: TrainerConfig, verb: str, overrides: Sequence[str]) -> None:
    """Run `spikeloom VERB …` once for every device, and end as they end.

    Raises:
        ValueError: several machines are asked for, whose processes only their scheduler can start; or a device or a
            strategy that this machine does not have.
    """
    check_devices(config)
    if config.num_nodes > 1:
        raise ValueError(
            f"trainer.num_nodes={config.num_nodes} needs a process on every machine; start them with torchrun or SLURM "
            "(trainer=slurm), or use trainer.num_nodes=1"
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with TemporaryDirectory(prefix="spikeloom-") as logs:
        code = elastic(config.devices, ["-m", "spikeloom", verb, *overrides], logs)
    if code:
        sys.exit(code)


def elastic(processes: int, command: Sequence[str], logs: str) -> int:
    """Exit status of `python COMMAND` in `processes` processes, whose first failure ends all of them.

    The first process has the console. The others write into `logs`; of them, one line is shown: that of a failure which
    the first did not have itself.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # a failure is told below, in one line
    quiet = ",".join(f"{rank}:3" for rank in range(1, processes)) or "0"
    own = ["--standalone", f"--nproc-per-node={processes}", f"--redirects={quiet}", f"--log-dir={logs}"]
    try:
        run(parse_args([*own, *command]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        told = rank == 0 or (0 in error.failures and error.failures[0].exitcode == failure.exitcode)
        if not told:
            print(_last_line(Path(logs), rank), file=sys.stderr)
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    return 0


def _last_line(logs: Path, rank: int) -> str:
    """What process `rank` wrote last on its standard error."""
    lines = [line for path in logs.rglob(f"{rank}/stderr.log") for line in path.read_text("utf-8").splitlines() if line]
    return lines[-1] if lines else f"spikeloom: process {rank} ended without a word"


def check_devices(config: TrainerConfig) -> None:
    """Raise ValueError where the processes would all fail: without CUDA, on fewer devices, or sharded on a CPU."""
    import torch

    if config.accelerator in ("cuda", "gpu"):
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if there < config.devices:
            found = f"has {there} of them" if there else "has none"
            raise ValueError(
                f"trainer.accelerator={config.accelerator} trainer.devices={config.devices} needs CUDA devices, and "
                f"this machine {found}; use trainer=cpu, or trainer=ddp for several processes"
            )
    if "fsdp" in config.strategy and not torch.cuda.is_available():
        raise ValueError(
            f"trainer.strategy={config.strategy} shards parameters over CUDA devices, and this machine has none; use "
            "trainer=ddp"
        )
