"""Rounds run by Flower: a ServerApp whose FedAvg strategy chooses, collects and averages, and a ClientApp that trains.

Both live in this process. Flower's grid usually reaches its nodes over a network; the one here hands every message to
the ClientApp with the context of its node, so a round is the same everywhere. A worker that does not answer is a
message with an error for a reply, which the strategy leaves out. Telemetry is off.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from spikeloom.accel.trainer.federated.rounds import Weights

Answer = tuple[Any, dict[str, np.ndarray] | None]
NO_ANSWER = 0  # code of an error reply


def run_rounds(
    n: int, workers: int, weights: Weights, ask: Callable[[int, int, Weights], Answer],
    close: Callable[[int, Weights, Sequence[Answer]], None],
) -> Weights:  # fmt: skip
    """`n` rounds of Flower's FedAvg over all `workers`.

    Args:
        n: rounds.
        workers: nodes, numbered from 0.
        weights: that the server starts with.
        ask: (worker, round, weights) -> what it did and its new weights, None where it does not answer.
        close: (round, average, answers of all workers) after each round.

    Returns:
        The average of the last round.

    Raises:
        ValueError: when Flower is not installed.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    try:
        from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
        from flwr.clientapp import ClientApp
        from flwr.serverapp import Grid, ServerApp
        from flwr.serverapp.strategy import FedAvg
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError as error:
        raise ValueError(f"engine=flower needs Flower ({error}); pip install 'spikeloom[federated]'") from error
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # messages carry the run they belong to
    answers: dict[int, dict[int, Answer]] = {}  # round -> worker -> answer
    latest: dict[str, Weights] = {"weights": weights}

    def packed(arrays: Weights) -> Any:
        return ArrayRecord({name: Array(np.ascontiguousarray(value)) for name, value in arrays.items()})

    def unpacked(record: Any) -> dict[str, np.ndarray]:
        return {name: array.numpy().astype(weights[name].dtype) for name, array in record.items()}

    client, server = ClientApp(), ServerApp()

    @client.train()
    def train(message: Any, context: Any) -> Any:
        worker, turn = int(context.node_config["partition-id"]), int(message.content["config"]["server-round"])
        work, new = answers.setdefault(turn, {})[worker] = ask(worker, turn, unpacked(message.content["arrays"]))
        if new is None:
            return Message(Error(code=NO_ANSWER, reason=work.why), reply_to=message)
        metrics = MetricRecord({"num-examples": work.samples})
        return Message(RecordDict({"arrays": packed(new), "metrics": metrics}), reply_to=message)

    @server.main()
    def serve(grid: Any, context: Any) -> None:
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_evaluate_nodes=0, min_available_nodes=1)
        strategy.start(grid, packed(weights), num_rounds=n, evaluate_fn=evaluate)

    def evaluate(turn: int, arrays: Any) -> None:
        if turn:
            latest["weights"] = unpacked(arrays)
            close(turn, latest["weights"], [answers[turn][k] for k in sorted(answers[turn])])

    def context_of(node: int) -> Any:
        return Context(
            run_id=1, node_id=node, node_config={"partition-id": node - 1, "num-partitions": workers},
            state=RecordDict(), run_config={},
        )  # fmt: skip

    class InProcess(Grid):
        """Every worker is a node, numbered from 1."""

        # What a grid across a network needs besides; a strategy's rounds ask for none of it.
        set_run = create_message = push_messages = pull_messages = _across_a_network
        run = property(_across_a_network)

        def get_node_ids(self) -> Iterable[int]:
            return range(1, workers + 1)

        def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> Iterable[Any]:
            asked = sorted(messages, key=lambda m: m.metadata.dst_node_id)
            return [client(message, context_of(message.metadata.dst_node_id)) for message in asked]

    server(InProcess(), context_of(0))
    return latest["weights"]


def _across_a_network(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("these workers live in this process, not across a network; use send_and_receive")
