"""How long a call takes."""

import time
from collections.abc import Callable


def least_s(call: Callable[[], object], runs: int = 30) -> float:
    """Least processor time of a call, in seconds: what others do on the machine can only add."""

    def run() -> float:
        start = time.process_time()
        call()
        return time.process_time() - start

    return min(run() for _ in range(runs))
