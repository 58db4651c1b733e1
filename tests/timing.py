"""Ratios of processor time within one run: the only times that tests assert."""

import time
from collections.abc import Callable


def least_s(*calls: Callable[[], object], runs: int = 30) -> list[float]:
    """Least processor time of each call, in seconds, called in turns: other work on the machine can only add to it."""

    def run(call: Callable[[], object]) -> float:
        start = time.process_time()
        call()
        return time.process_time() - start

    rounds = [[run(call) for call in calls] for _ in range(runs)]
    return [min(times) for times in zip(*rounds, strict=True)]
