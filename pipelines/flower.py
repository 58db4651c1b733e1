"""Rounds run by Flower: its FedAvg strategy chooses, collects and averages; the workers are those of this process.

Flower's grid usually reaches its nodes over a network. The one here calls them, so a round is the same everywhere.
A worker that does not answer is a message without a reply, which the strategy leaves out. Telemetry is off.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from accel.trainer.federated import Weights

Answers = Sequence[tuple[Any, dict[str, np.ndarray] | None]]


def run_rounds(
    n: int, workers: int, weights: Weights, one_round: Callable[[int, Weights], Any],
    close: Callable[[int, Weights, Any], None],
) -> Weights:  # fmt: skip
    """`n` rounds of Flower's FedAvg over all `workers`.

    `one_round` lets the workers train, `close` hears of the average of each round.

    Raises ValueError when Flower is not installed.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    try:
        from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
        from flwr.serverapp import Grid
        from flwr.serverapp.strategy import FedAvg
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError as error:
        raise ValueError(f"engine=flower needs Flower ({error}); pip install 'spikeloom[federated]'") from error
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # messages carry the run they belong to
    answers: dict[int, Answers] = {}  # round -> answers, of its workers in order

    def packed(arrays: Weights) -> Any:
        return ArrayRecord({name: Array(np.ascontiguousarray(value)) for name, value in arrays.items()})

    def unpacked(record: Any) -> dict[str, np.ndarray]:
        return {name: array.numpy().astype(weights[name].dtype) for name, array in record.items()}

    class InProcess(Grid):
        """Every worker is a node, numbered from 1."""

        # What a grid across a network needs besides; a strategy's rounds ask for none of it.
        set_run = create_message = push_messages = pull_messages = _across_a_network
        run = property(_across_a_network)

        def get_node_ids(self) -> Iterable[int]:
            return range(1, workers + 1)

        def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> Iterable[Any]:
            asked = list(messages)
            if not asked:
                return []
            content = asked[0].content
            turn = int(content["config"]["server-round"])
            answers[turn] = one_round(turn, unpacked(content["arrays"]))
            replies = []
            for message in sorted(asked, key=lambda m: m.metadata.dst_node_id):
                work, new = answers[turn][message.metadata.dst_node_id - 1]
                if new is not None:
                    metrics = MetricRecord({"num-examples": work.samples})
                    records = RecordDict({"arrays": packed(new), "metrics": metrics})
                    replies.append(Message(content=records, reply_to=message))
            return replies

    latest: dict[str, Weights] = {"weights": weights}

    def evaluate(turn: int, arrays: Any) -> None:
        if turn:
            latest["weights"] = unpacked(arrays)
            close(turn, latest["weights"], answers[turn])

    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_evaluate_nodes=0, min_available_nodes=1)
    strategy.start(InProcess(), packed(weights), num_rounds=n, evaluate_fn=evaluate)
    return latest["weights"]


def _across_a_network(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("these workers live in this process, not across a network; use send_and_receive")
