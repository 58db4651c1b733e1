"""From a layer of the workload to its cost on each engine: which loops, how many bytes, what stays on chip.

The energies of single operations are in `accel.trainer.cost`, what holds across layers in `accel.trainer.simulator`,
which also lists the assumptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from accel.trainer.chip import Chip, Engine
from accel.trainer.cost import (
    OPERAND_BITS,
    SPIKE_BITS,
    STATE_BITS,
    ConvLoops,
    Energy,
    adam_energy,
    backward_energy,
    elementwise_energy,
    forward_energy,
    gradient_unit_energy,
    norm_backward_energy,
    norm_forward_energy,
    soma_energy,
    systolic_cycles,
    weight_gradient_energy,
    weights_stay,
)
from accel.trainer.result import EngineName, PhaseCost
from accel.trainer.workload import Layer


def layer_phases(layer: Layer, chip: Chip, backward: bool) -> list[PhaseCost]:
    """Cost of `layer` on each engine that it uses, for a whole iteration; `backward` says whether it passes on a
    gradient. The kinds of layers are those of `accel.trainer.workload`."""
    if layer.kind == "gemm_weight":
        phases = _gemm_weight(layer, chip, backward)
    elif layer.kind == "gemm_activation":
        phases = _gemm_activation(layer, chip, backward)
    elif layer.kind == "neuron":
        phases = _neuron(layer, chip, backward)
    elif layer.kind == "norm":
        phases = _norm(layer, chip, backward)
    elif layer.kind == "elementwise":
        phases = _elementwise(layer, chip, backward)
    elif layer.kind == "gather":
        phases = _gather(layer, chip)
    else:  # a view moves nothing
        phases = []
    return phases + _optimizer(layer, chip)


def _gemm_weight(layer: Layer, chip: Chip, backward: bool) -> list[PhaseCost]:
    steps, loops = layer.image_steps, _loops(layer, layer.positions)
    inserted = chip.mapping.strided_gradient == "zero_inserted" and max(layer.stride) > 1
    wide = _loops(layer, layer.in_height * layer.in_width * layer.tokens) if inserted else loops
    input_bytes = {_input_class(layer): _bytes(_input_elements(layer), _input_bits(layer))}
    weight_bytes = _bytes(loops.weights, layer.weight_bits)
    du_bytes = {"du": _bytes(layer.elements, OPERAND_BITS)}
    has_backward = backward and layer.macs_backward > 0

    stay = weights_stay(loops, chip.fp.memories["weight"])
    active = _active(layer, chip.fp, 1.0)
    first = forward_energy(loops, chip, input_kind=layer.input_kind, active=active)
    later = forward_energy(loops, chip, input_kind=layer.input_kind, load_weights=not stay, active=active)
    phases = [
        _phase(
            chip,
            "fp",
            first + (steps - 1) * later,
            _stream_cycles(loops, chip.fp, loops.group_inputs, loops.group_outputs, steps, stay),
            looped_macs=loops.macs * steps,
            true_macs=layer.macs_forward,
            dram_bytes={**input_bytes, "W": weight_bytes},
        )
    ]
    inserted_share = loops.positions / wide.positions
    if has_backward:
        stay = weights_stay(wide, chip.bp.memories["weight"])
        active = _active(layer, chip.bp, inserted_share)
        first = backward_energy(wide, chip, active=active)
        later = backward_energy(wide, chip, load_weights=not stay, active=active)
        phases.append(
            _phase(
                chip,
                "bp",
                first + (steps - 1) * later,
                _stream_cycles(wide, chip.bp, wide.group_outputs, wide.group_inputs, steps, stay),
                looped_macs=wide.macs * steps,
                true_macs=layer.macs_backward,
                dram_bytes={**du_bytes, "W": weight_bytes},
            )
        )
    if layer.macs_weight_gradient:
        active = _active(layer, chip.wg, inserted_share)
        energy = weight_gradient_energy(wide, chip, input_kind=layer.input_kind, active=active)
        gradient_bytes = _bytes(loops.weights + max(0, layer.parameters - loops.weights), OPERAND_BITS)
        phases.append(
            _phase(
                chip,
                "wg",
                steps * energy,
                _gradient_cycles(wide, chip.wg, steps),
                looped_macs=wide.macs * steps,
                true_macs=layer.macs_weight_gradient,
                dram_bytes={**input_bytes, "dW": gradient_bytes, **({} if has_backward else du_bytes)},
            )
        )
    return phases


def _gemm_activation(layer: Layer, chip: Chip, backward: bool) -> list[PhaseCost]:
    """A product of two activations: both are read in FP and BP, nothing stays in the array between image steps."""
    steps, loops = layer.image_steps, _loops(layer, layer.positions)
    operand_bytes = {"activation": _bytes(loops.weights * steps, OPERAND_BITS)}
    input_class, input_bytes = _input_class(layer), _bytes(_input_elements(layer), _input_bits(layer))
    operand_bytes[input_class] = operand_bytes.get(input_class, 0) + input_bytes
    phases = []
    for name, macs in (("fp", layer.macs_forward), ("bp", layer.macs_backward if backward else 0)):
        if macs == 0:
            continue
        engine = arrays(chip)[name]
        active = _active(layer, engine, 1.0)
        reduction, outputs = loops.group_inputs, loops.group_outputs
        if name == "fp":
            energy = forward_energy(loops, chip, input_kind=layer.input_kind, active=active)
            dram_bytes = operand_bytes
        else:
            energy = backward_energy(loops, chip, active=active)
            reduction, outputs = outputs, reduction
            dram_bytes = {**operand_bytes, "du": _bytes(layer.elements, OPERAND_BITS)}
        products = macs / loops.macs  # matrix products of this size in the iteration
        cycles = ceil(products * _stream_cycles(loops, engine, reduction, outputs, 1, False))
        phases.append(
            _phase(chip, name, products * energy, cycles, looped_macs=macs, true_macs=macs, dram_bytes=dram_bytes)
        )
    return phases


def _neuron(layer: Layer, chip: Chip, backward: bool) -> list[PhaseCost]:
    """Spikes are always written; what BP needs to remember is one mask bit, or 16 bits of potential or derivative."""
    elements = layer.elements
    written = {"s": _bytes(elements, 1)}
    if backward:
        written |= {name: _bytes(elements, bits) for name, bits in _saved_bits(layer, chip).items()}
    phases = [_phase(chip, "fp", soma_energy(elements, chip), ceil(elements / chip.fp.columns), dram_bytes=written)]
    if backward:
        traffic = {**written, "du": _bytes(elements, OPERAND_BITS)}
        energy = gradient_unit_energy(elements, chip)
        phases.append(_phase(chip, "bp", energy, ceil(elements / chip.bp.columns), dram_bytes=traffic))
    return phases


def _norm(layer: Layer, chip: Chip, backward: bool) -> list[PhaseCost]:
    elements = layer.elements
    # Batch statistics are one pair for each channel, those of a layer norm one pair for each normalised row.
    statistics = elements // layer.out_channels if "layer_norm" in layer.op else layer.out_channels
    saved = {"norm": _bytes(elements, OPERAND_BITS)} if backward else {}
    energy = norm_forward_energy(elements, statistics, chip)
    phases = [_phase(chip, "fp", energy, 2 * ceil(elements / chip.fp.columns), dram_bytes=saved)]
    if backward:
        energy = norm_backward_energy(elements, statistics, chip)
        traffic = {**saved, "dW": _bytes(layer.parameters, OPERAND_BITS)}
        phases.append(_phase(chip, "bp", energy, 2 * ceil(elements / chip.bp.columns), dram_bytes=traffic))
    return phases


def _elementwise(layer: Layer, chip: Chip, backward: bool) -> list[PhaseCost]:
    energy = elementwise_energy(layer.elements, max(1, len(layer.inputs)), chip)
    names: tuple[EngineName, ...] = ("fp", "bp") if backward else ("fp",)
    return [_phase(chip, name, energy, ceil(layer.elements / arrays(chip)[name].columns)) for name in names]


def _gather(layer: Layer, chip: Chip) -> list[PhaseCost]:
    """Rows of a table: read in FP; in WG their gradients are added to the touched rows. Bytes, no arithmetic."""
    elements = layer.elements
    row_bytes = _bytes(elements, OPERAND_BITS)
    phases = [_phase(chip, "fp", Energy(), ceil(elements / chip.fp.columns), dram_bytes={"W": row_bytes})]
    if layer.parameters:
        traffic = {"du": row_bytes, "dW": 2 * row_bytes}
        phases.append(_phase(chip, "wg", Energy(), ceil(elements / chip.wg.columns), dram_bytes=traffic))
    return phases


def _optimizer(layer: Layer, chip: Chip) -> list[PhaseCost]:
    frozen = layer.kind == "gemm_weight" and layer.macs_weight_gradient == 0
    if layer.parameters == 0 or frozen:
        return []
    loops = _loops(layer, layer.positions)
    weights = {"gemm_weight": min(loops.weights, layer.parameters), "gather": layer.parameters}.get(layer.kind, 0)
    traffic_bits = layer.parameters * 7 * STATE_BITS  # reads W, dW and two moments, writes W and the moments
    cycles = ceil(traffic_bits / chip.optimizer_memory.port_bits)
    state = layer.parameters * STATE_BITS // 8
    traffic = {"W": 2 * state, "optimizer": 4 * state, "dW": _bytes(layer.parameters, OPERAND_BITS)}
    energy = adam_energy(weights, layer.parameters - weights, chip)
    return [_phase(chip, "optimizer", energy, cycles, dram_bytes=traffic)]


def _phase(
    chip: Chip,
    engine: str,
    energy: Energy,
    cycles: int,
    *,
    looped_macs: int = 0,
    true_macs: int = 0,
    dram_bytes: Mapping[str, int] | None = None,
) -> PhaseCost:
    """Add what depends on bytes and time. A milliwatt for a second is 1e9 pJ."""
    dram_bytes = dram_bytes or {}
    dram_pj = 8 * sum(dram_bytes.values()) * chip.dram.energy_pj_per_bit if chip.energy.include_dram else 0.0
    leak_mw = sum(memory.leak_mw for memory in chip.memories.values()) if chip.energy.include_leakage else 0.0
    energy = energy + Energy(dram_pj=dram_pj, leakage_pj=leak_mw * cycles / chip.clock_hz * 1e9)
    return PhaseCost(
        engine=engine,
        energy=energy,
        cycles=cycles,
        looped_macs=looped_macs,
        true_macs=true_macs,
        dram_bytes_by_tensor=dram_bytes,
    )


def _loops(layer: Layer, positions: int) -> ConvLoops:
    return ConvLoops(
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        positions=positions,
        taps=layer.taps,
        groups=layer.groups,
    )


def _stream_cycles(loops: ConvLoops, engine: Engine, reduction: int, outputs: int, steps: int, stay: bool) -> int:
    """Cycles of FP or BP over `steps` image steps, which follow each other without a new fill if the weights stay."""
    passes, rows = (1, loops.positions * steps) if stay else (steps, loops.positions)
    return passes * loops.groups * _array_cycles(engine, rows, reduction, outputs, k_taps=loops.taps)


def _gradient_cycles(loops: ConvLoops, engine: Engine, steps: int) -> int:
    """Cycles of WG: a (C F) x K result for each group, reduced over positions, images and time."""
    reduction = loops.positions * steps
    return loops.groups * _array_cycles(engine, loops.group_inputs, reduction, loops.group_outputs, m_taps=loops.taps)


def _array_cycles(engine: Engine, m: int, k: int, n: int, *, m_taps: int = 1, k_taps: int = 1) -> int:
    return systolic_cycles(m, k, n, engine.rows, engine.columns, engine.dataflow, m_taps=m_taps, k_taps=k_taps)


def _active(layer: Layer, engine: Engine, inserted_share: float) -> float:
    """Fraction of MACs that are not gated off. Zeros of different operands are taken as independent; the zeros inserted
    for strides are zeros of du."""
    measured = {"input": layer.density_input, "du": layer.density_du, "weight": layer.density_weight}
    active = 1.0
    for operand in engine.zero_gating:
        density = measured[operand]
        active *= 1.0 if density is None else density.mean
        active *= inserted_share if operand == "du" else 1.0
    return active


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


def _input_elements(layer: Layer) -> int:
    return layer.in_channels * layer.in_height * layer.in_width * layer.tokens * layer.image_steps


def _input_class(layer: Layer) -> str:
    return "activation" if layer.input_kind == "real" else "s"


def _input_bits(layer: Layer) -> int:
    return layer.input_bits if layer.input_kind == "real" else SPIKE_BITS[layer.input_kind]


def _bytes(elements: int, bits: int) -> int:
    return ceil(elements * bits / 8)


def arrays(chip: Chip) -> dict[str, Engine]:
    """The engines with a systolic array, by name."""
    return {"fp": chip.fp, "bp": chip.bp, "wg": chip.wg}
