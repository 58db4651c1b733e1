"""The rules of recurrent layers and of their cells: a product with the input, one with the state, and the gates."""

from dataclasses import replace

from torch import Tensor

from spikeloom.accel.export.products import weighted
from spikeloom.accel.export.rules import Call, Found, NoRuleError, Operand, Place, spread

_GATES = {
    "lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1, "lstm_cell": 4, "gru_cell": 3, "rnn_tanh_cell": 1,
    "rnn_relu_cell": 1,
}  # fmt: skip


def recurrent(name: str, call: Call) -> list[Found]:
    """LSTM, GRU and plain recurrent layers: for each layer and direction, a product with the input of all steps, one
    with the state of each, and the gates."""
    x, weights = call.args[0], call.args[2]
    if not isinstance(weights, list | tuple):
        raise NoRuleError("recurrent layers of packed sequences have no rule; give a padded batch [T, B, ...]")
    biases, layers, bidirectional = call.args[3], call.args[4], call.args[7]
    each = 2 + 2 * bool(biases)
    size = weights[1].shape[1]
    if len(weights) != layers * (1 + bool(bidirectional)) * each:
        raise NoRuleError("recurrent layers with projections have no rule; use proj_size=0")
    rows = x.numel() // x.shape[-1]
    found = []
    for index in range(0, len(weights), each):
        layer, number = weights[index : index + 2], index // each
        first = number // (1 + bool(bidirectional)) == 0
        for kind, weight, place in (("input", layer[0], index), ("state", layer[1], index + 1)):
            n_out, n_in = weight.shape
            macs = rows * n_in * n_out
            wants: tuple[Place, ...] = (0,) if first and kind == "input" else (0, (2, 0))  # behind the first: always
            found.append(
                Found(
                    fields={
                        "kind": "gemm_weight",
                        "macs_forward": macs,
                        **spread(rows, call),
                        "in_channels": n_in,
                        "out_channels": n_out,
                    },
                    operands={"density_weight": Operand(tensor=weight, lanes=0)}
                    | ({"density_input": Operand(tensor=x, lanes=-1)} if first and kind == "input" else {}),
                    backward=((macs, wants),),
                    weight_gradient=((macs, ((2, place),)),),
                    suffix=f"{kind}{number}",
                )
            )
        gates = spread(rows * size * _GATES[name], call)
        lanes = gates.pop("tokens")
        fields = {"kind": "elementwise", "in_channels": lanes, "out_channels": lanes, **gates}
        found.append(Found(fields=fields, suffix=f"gates{number}"))
    return found


def cell(name: str, call: Call) -> list[Found]:
    """One step of a recurrent layer: x [B, C], state [B, H] or a pair of them, and their weights [gates H, C or H]."""
    x, state = call.args[:2]
    paired = isinstance(state, list | tuple)
    places: tuple[tuple[str, Tensor, Place, int], ...] = (
        ("input", x, 0, 2), ("state", state[0] if paired else state, (1, 0) if paired else 1, 3),
    )  # fmt: skip
    found = []
    for kind, given, place, number in places:
        weight = call.args[number]
        rows = given.numel() // given.shape[-1]
        fields = {**spread(rows, call), "in_channels": weight.shape[1], "out_channels": weight.shape[0]}
        operands = Operand(tensor=given, lanes=-1), Operand(tensor=weight, lanes=0)
        layer = weighted(fields, rows * weight.numel(), *operands, (place, number))
        found.append(replace(layer, suffix=kind))
    gates = spread(rows * call.args[3].shape[1] * _GATES[name], call)
    lanes = gates.pop("tokens")
    fields = {"kind": "elementwise", "in_channels": lanes, "out_channels": lanes, **gates}
    return [*found, Found(fields=fields, suffix="gates")]
