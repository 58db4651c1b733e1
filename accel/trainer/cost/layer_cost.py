"""From a part of a layer to its cost on each engine of a core: which loops, how many bytes, how many cycles.

A `Part` is a range of output channels for a range of images. The energies of single operations are in `cost`, cycles in
`cycles`, what is read again in `traffic`; `simulator` lists the assumptions.
"""

from __future__ import annotations

from math import ceil

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.cost.closed_forms import (
    OPERAND_BITS,
    REAL,
    STATE_BITS,
    ConvLoops,
    Energy,
    adam_energy,
    backward_energy,
    elementwise_energy,
    forward_energy,
    gradient_unit_energy,
    loss_energy,
    norm_backward_energy,
    norm_forward_energy,
    soma_energy,
    weight_gradient_energy,
    weights_stay,
)
from spikeloom.accel.trainer.cost.compression import stored_bits
from spikeloom.accel.trainer.cost.crossbar import crossbar_energy, programming_energy
from spikeloom.accel.trainer.cost.cycles import active_share, gradient_cycles, lanes, skipped_shares, stream_cycles
from spikeloom.accel.trainer.cost.dataflow import Choice, Objective, choices, products_of
from spikeloom.accel.trainer.cost.traffic import ONCE, Reads, bytes_of, reuse
from spikeloom.accel.trainer.schedule.result import EngineName, PhaseCost
from spikeloom.accel.trainer.schedule.tile import Part, Work, trained_parameters
from spikeloom.accel.trainer.workload import Layer


def layer_phases(layer: Layer, chip: Chip, backward: bool) -> list[PhaseCost]:
    """Cost of a whole layer on a single core, for a whole iteration."""
    return part_phases(layer, chip, Part(backward=backward))


def part_phases(layer: Layer, chip: Chip, part: Part) -> list[PhaseCost]:
    """Cost of a part of `layer` on each engine that it uses. The kinds of layers are those of `workload`."""
    steps = part.of_images(layer.image_steps)
    if steps == 0 or (part.high - part.low) == 0:
        return []
    work = Work(layer=layer, chip=chip, part=part, steps=steps)
    kinds = {
        "gemm_weight": _gemm_weight, "gemm_activation": _gemm_activation, "neuron": _neuron, "norm": _norm,
        "elementwise": _elementwise, "gather": _gather,
    }  # fmt: skip
    phases = kinds[layer.kind](work) if layer.kind in kinds else []  # a view moves nothing
    return phases + _optimizer(work)


def _gemm_weight(work: Work) -> list[PhaseCost]:
    layer, chip, steps = work.layer, work.chip, work.steps
    loops = work.loops(layer.positions)
    inserted = chip.mapping.strided_gradient == "zero_inserted" and max(layer.stride) > 1
    wide = work.loops(layer.in_height * layer.in_width * layer.tokens) if inserted else loops
    inserted_share = loops.positions / wide.positions
    # Weights that stay in arrays of devices are not read from anywhere.
    stored = min(stored_bits(layer, chip), layer.weight_bits)
    weights = 0 if chip.crossbar else bytes_of(loops.weights, stored)
    du = bytes_of(work.elements, OPERAND_BITS)
    inputs, input_class, planes = work.input_bytes(), work.operand.tensor, work.operand.planes
    has_backward = work.part.backward and layer.macs_backward > 0
    at_home = work.part.weights_at_home

    stay = weights_stay(loops, chip.fp.memories["weight"], stored)

    def forward() -> Energy:
        active = active_share(layer, chip.fp, 1.0)
        if chip.crossbar:
            return steps * crossbar_energy(
                loops, chip, chip.crossbar, forward=True, operand=work.operand, active=active
            )
        first = forward_energy(loops, chip, operand=work.operand, active=active, weight_bits=stored)
        if not stay:
            return steps * first
        return first + (steps - 1) * forward_energy(
            loops, chip, operand=work.operand, load_weights=False, active=active
        )

    shares = skipped_shares(layer, chip.fp, ("input", "weight"), loops.positions * steps)
    cycles = stream_cycles(loops, chip.fp, forward=True, image_steps=steps, planes=planes, shares=shares)
    times = reuse(
        loops, chip, chip.fp, forward=True, image_steps=steps, streamed_bits=work.operand.width,
        streamed_elements=work.input_elements(loops), weights_at_home=at_home, visits=work.part.energy,
        weight_bits=stored,
    )  # fmt: skip
    phases = [
        work.phase(
            "fp", forward, cycles, looped=loops.macs * steps, true=work.macs(layer.macs_forward),
            reads={input_class: (inputs, times.streamed), "W": (weights, times.stationary)},
            ports=work.array_ports("fp", cycles),
        )
    ]  # fmt: skip
    if has_backward:

        def backward() -> Energy:
            active = active_share(layer, chip.bp, inserted_share)
            if chip.crossbar:
                return steps * crossbar_energy(wide, chip, chip.crossbar, forward=False, operand=REAL, active=active)
            first = backward_energy(wide, chip, active=active, weight_bits=stored)
            if not weights_stay(wide, chip.bp.memories["weight"], stored):
                return steps * first
            return first + (steps - 1) * backward_energy(wide, chip, load_weights=False, active=active)

        shares = skipped_shares(layer, chip.bp, ("du", "weight"), wide.positions * steps)
        cycles = stream_cycles(wide, chip.bp, forward=False, image_steps=steps, shares=shares)
        times = reuse(
            wide, chip, chip.bp, forward=False, image_steps=steps, streamed_bits=OPERAND_BITS,
            streamed_elements=work.elements, weights_at_home=at_home, visits=work.part.energy, weight_bits=stored,
        )  # fmt: skip
        phases.append(
            work.phase(
                "bp", backward, cycles, looped=wide.macs * steps,
                true=work.macs(layer.macs_backward),
                reads={"du": (du, times.streamed), "W": (weights, times.stationary)},
                ports=work.array_ports("bp", cycles),
            )
        )  # fmt: skip
    if layer.macs_weight_gradient:

        def gradient() -> Energy:
            active = active_share(layer, chip.wg, inserted_share)
            return steps * weight_gradient_energy(wide, chip, operand=work.operand, active=active)

        shares = skipped_shares(layer, chip.wg, ("input", "du"), wide.positions * steps)
        cycles = gradient_cycles(wide, chip.wg, image_steps=steps, planes=planes, shares=shares)
        reads = {input_class: (inputs, ONCE), **({} if has_backward else {"du": (du, ONCE)})}
        gradients = bytes_of(loops.weights + max(0, work.parameters - loops.weights), OPERAND_BITS)
        phases.append(
            work.phase(
                "wg", gradient, cycles, looped=wide.macs * steps, true=work.macs(layer.macs_weight_gradient),
                reads=reads, writes={"dW": gradients}, ports=work.array_ports("wg", cycles),
            )
        )  # fmt: skip
    return phases


def _gemm_activation(work: Work) -> list[PhaseCost]:
    """A product of two activations: both are read in FP and BP, nothing stays in the array between image steps."""
    layer, chip, steps = work.layer, work.chip, work.steps
    loops = work.loops(layer.positions)
    operands = {"activation": bytes_of(loops.weights * steps, layer.weight_bits)}
    name = work.operand.tensor
    operands[name] = operands.get(name, 0) + work.input_bytes()
    if work.part.flows is not None:
        return _searched(work, loops, work.part.flows)
    phases = []
    for engine, total in (("fp", layer.macs_forward), ("bp", layer.macs_backward if work.part.backward else 0)):
        macs = work.macs(total)
        if macs == 0:
            continue
        array, forward = chip.arrays[engine], engine == "fp"
        active = active_share(layer, array, 1.0)
        reads = {name: (size, ONCE) for name, size in operands.items()}
        if forward:
            shares = skipped_shares(layer, array, ("input", "weight"), loops.positions)
        else:
            shares = skipped_shares(layer, array, ("du", "weight"), loops.positions)
            reads["du"] = (bytes_of(work.elements, OPERAND_BITS), ONCE)
        products = macs / loops.macs  # matrix products of this size in the iteration

        def product(forward: bool = forward, active: float = active, products: float = products) -> Energy:
            if forward:
                return products * forward_energy(loops, chip, operand=work.operand, active=active)
            return products * backward_energy(loops, chip, active=active)

        planes = work.operand.planes if forward else 1
        one = stream_cycles(loops, array, forward=forward, image_steps=1, planes=planes, shares=shares)
        cycles = ceil(products * one)
        phases.append(
            work.phase(
                engine, product, cycles, looped=macs, true=macs, reads=reads,  # type: ignore[arg-type]
                ports=work.array_ports(engine, cycles),
            )
        )  # fmt: skip
    return phases


def _searched(work: Work, loops: ConvLoops, objective: Objective) -> list[PhaseCost]:
    """The same with each product on the engine and in the flow that suit the objective; each operand is read where its
    product runs, and one read of the gradient serves both engines."""
    layer, chip = work.layer, work.chip
    forward, backward = work.macs(layer.macs_forward), work.macs(layer.macs_backward if work.part.backward else 0)
    products = products_of(layer, loops, work.operand, forward, backward)
    sizes = {
        "A": (work.operand.tensor, work.input_bytes()),
        "B": ("activation", bytes_of(loops.weights * work.steps, layer.weight_bits)),
        "dC": ("du", bytes_of(work.elements, OPERAND_BITS)),
    }  # fmt: skip
    reads_of = {"C": ("A", "B"), "dA": ("dC", "B"), "dB": ("A",)}
    phases: list[PhaseCost] = []
    left = {"C": forward, "dA": backward // 2 if len(products) > 2 else backward, "dB": backward - backward // 2}
    chosen = choices(products, layer, chip, objective)
    engines: tuple[EngineName, ...] = ("fp", "bp", "wg")
    for engine in engines:
        mine = [choice for choice in chosen if choice.engine == engine]
        if not mine:
            continue
        reads: dict[str, tuple[int, Reads]] = {}
        for choice in mine:
            for tensor, size in (sizes[operand] for operand in reads_of[choice.product.name]):
                reads[tensor] = (reads.get(tensor, (0, ONCE))[0] + size, ONCE)
        macs, cycles = sum(left[c.product.name] for c in mine), sum(choice.cycles for choice in mine)

        def price(mine: list[Choice] = mine) -> Energy:
            return sum((choice.energy for choice in mine), start=Energy())

        ports = work.array_ports(engine, cycles)
        phases.append(work.phase(engine, price, cycles, looped=macs, true=macs, reads=reads, ports=ports))
    return phases


def _neuron(work: Work) -> list[PhaseCost]:
    """Spikes are always written; what BP needs to remember is one mask bit, or 16 bits of potential or derivative."""
    elements, chip = work.elements, work.chip
    saved = {"s": bytes_of(elements, 1)}
    if work.part.backward:
        saved |= {name: bytes_of(elements, bits) for name, bits in _saved_bits(work.layer, chip).items()}
    phases = [work.phase("fp", lambda: soma_energy(elements, chip), ceil(elements / lanes(chip, "fp")), writes=saved)]
    if work.part.backward:
        reads = {name: (size, ONCE) for name, size in saved.items()}
        du = {"du": bytes_of(elements, OPERAND_BITS)}
        phases.append(
            work.phase(
                "bp",
                lambda: gradient_unit_energy(elements, chip),
                ceil(elements / lanes(chip, "bp")),
                reads=reads,
                writes=du,
            )
        )
    return phases


def _norm(work: Work) -> list[PhaseCost]:
    layer, chip, elements = work.layer, work.chip, work.elements
    # Batch statistics are one pair for each channel, those of a layer norm one pair for each normalised row.
    rows = "batch_norm" not in layer.op
    statistics = max(1, elements // layer.out_channels) if rows else work.part.of_channels(layer.out_channels)
    saved = {"norm": bytes_of(elements, OPERAND_BITS)} if work.part.backward else {}
    cycles = 2 * ceil(elements / lanes(chip, "fp"))
    phases = [
        work.phase(
            "fp",
            lambda: norm_forward_energy(elements, statistics, chip),
            cycles,
            writes=saved,
            ports=work.norm_port(elements, 3),
        )
    ]
    if work.part.backward:
        reads = {name: (size, ONCE) for name, size in saved.items()}
        gradients = {"dW": bytes_of(work.parameters, OPERAND_BITS)}
        cycles = 2 * ceil(elements / lanes(chip, "bp"))
        ports = work.norm_port(elements, 5)
        phases.append(
            work.phase(
                "bp",
                lambda: norm_backward_energy(elements, statistics, chip),
                cycles,
                reads=reads,
                writes=gradients,
                ports=ports,
            )
        )
    return phases


def _elementwise(work: Work) -> list[PhaseCost]:
    """The loss of a training step is an elementwise layer too, with the operations of softmax and cross-entropy."""
    elements, chip = work.elements, work.chip
    operands = max(1, len(work.layer.inputs))
    names: tuple[EngineName, ...] = ("fp", "bp") if work.part.backward else ("fp",)
    phases = []
    for name in names:

        def price(name: str = name) -> Energy:
            if work.layer.op == LOSS:
                return loss_energy(elements, chip, backward=name == "bp")
            return elementwise_energy(elements, operands, chip)

        ports = work.norm_port(elements, operands + 1)
        phases.append(work.phase(name, price, ceil(elements / lanes(chip, name)), ports=ports))
    return phases


def _gather(work: Work) -> list[PhaseCost]:
    """Rows of a table: read in FP; in WG their gradients are added to the touched rows. Bytes, no arithmetic."""
    elements, chip = work.elements, work.chip
    rows = bytes_of(elements, OPERAND_BITS)
    phases = [work.phase("fp", Energy, ceil(elements / lanes(chip, "fp")), reads={"W": (rows, ONCE)})]
    if work.layer.parameters:
        reads, writes = {"du": (rows, ONCE), "dW": (rows, ONCE)}, {"dW": rows}
        phases.append(work.phase("wg", Energy, ceil(elements / lanes(chip, "wg")), reads=reads, writes=writes))
    return phases


def _optimizer(work: Work) -> list[PhaseCost]:
    layer, chip, part = work.layer, work.chip, work.part
    fixed = layer.kind == "gemm_weight" and layer.macs_weight_gradient == 0
    owned = part.of_channels(trained_parameters(layer))
    parameters = owned * (part.shard + 1) // part.shards - owned * part.shard // part.shards
    if parameters == 0:
        return []
    weights = parameters if layer.kind == "gather" else 0
    if layer.kind == "gemm_weight" and not fixed:
        weights = min(work.loops(layer.positions).weights, owned) * parameters // owned
    in_arrays = weights if chip.crossbar and layer.kind == "gemm_weight" else 0
    digital = parameters - in_arrays
    traffic_bits = digital * 7 * STATE_BITS  # reads W, dW and two moments, writes W and the moments
    state = digital * STATE_BITS // 8
    reads = {"W": (state, ONCE), "optimizer": (2 * state, ONCE), "dW": (bytes_of(parameters, OPERAND_BITS), ONCE)}
    port = {"optimizer": traffic_bits / (chip.optimizer_memory.port_bits * chip.optimizer_memory.ports)}

    def adam() -> Energy:
        if chip.crossbar and in_arrays:
            return adam_energy(0, digital, chip) + programming_energy(in_arrays, chip.crossbar)
        return adam_energy(weights, parameters - weights, chip)

    return [work.phase("optimizer", adam, 0, reads=reads, writes={"W": state, "optimizer": 2 * state}, ports=port)]


LOSS = "spikeloom.cross_entropy"


def needs_potential(layer: Layer) -> bool:
    """BP needs u where the reset passes a gradient or the surrogate is more than a window."""
    return layer.neuron is not None and not (layer.neuron.detach_reset and layer.neuron.half_width is not None)


def _saved_bits(layer: Layer, chip: Chip) -> dict[str, int]:
    """Bits per neuron and step that survive from FP to BP besides the spike."""
    assert layer.neuron is not None
    window = {"mask": 1} if layer.neuron.half_width is not None else {}
    if not needs_potential(layer) or chip.mapping.membrane == "recompute":
        return window
    return {**window, "u": OPERAND_BITS}
