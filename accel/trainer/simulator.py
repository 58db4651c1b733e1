"""One training iteration of a workload on one core of the chip: energy, cycles and DRAM traffic, layer by layer.

What is assumed, since the public text leaves it open:

- One core runs the whole network, and its engines work one after the other: time is the sum of all cycles. SRAM ports
  never stall an engine (bank counts are not public).
- Weights that fit in the weight SRAM of an engine are loaded once, others again for each image and time step; the
  systolic fill repeats accordingly. WG accumulates over batch and time before it drains.
- The neuron, elementwise and normalisation units have as many lanes as the array has columns; a normalisation takes
  two passes. Adam is bound by the port of its SRAM.
- DRAM bytes are the compulsory ones: each phase touches each tensor once, nothing stays on chip between phases, and a
  gradient serves BP and WG in one read. Neurons, norms and elementwise operations are fused with what produces their
  input. The optimizer streams 32-bit weights and moments and 16-bit gradients.
- Layers before the first one with parameters pass no gradient on, and that one needs no BP if it is a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isclose

from accel.trainer.chip import Chip
from accel.trainer.layer_cost import arrays, layer_phases, needs_potential
from accel.trainer.result import ENGINES, LayerCost, PhaseCost, SimulationReport, sum_phases
from accel.trainer.workload import Density, Layer, Workload


def simulate(workload: Workload, chip: Chip) -> SimulationReport:
    """Cost of one training iteration (forward, backward, weight gradients, Adam) on a single core of `chip`.

    Energies follow `accel.trainer.cost`; the module docstring lists the assumptions.

    Raises:
        ValueError: for a workload without layers.
    """
    if not workload.layers:
        raise ValueError(f"workload {workload.model_name!r} got no layers; use an export with at least one operation")
    plan = _Plan.of(workload, chip)
    layers = tuple(
        LayerCost(path=layer.path, op=layer.op, kind=layer.kind, phases=tuple(_phases(layer, chip, plan)))
        for layer in workload.layers
    )
    phases = [phase for layer in layers for phase in layer.phases]
    engines = tuple(sum_phases(name, [phase for phase in phases if phase.engine == name]) for name in ENGINES)
    report = SimulationReport(
        model_name=workload.model_name,
        chip_name=chip.name,
        time_steps=workload.time_steps,
        batch_size=workload.batch_size,
        clock_hz=chip.clock_hz,
        array_lanes={name: engine.rows * engine.columns for name, engine in arrays(chip).items()},
        include_dram_energy=chip.energy.include_dram,
        layers=layers,
        engines=engines,
        total=sum_phases("all", engines),
        constants=tuple(constant for constant in chip.constants if _is_used(constant.path, chip)),
        densities={layer.path: means for layer in workload.layers if (means := _density_means(layer))},
        unsupported=workload.unsupported,
        warnings=tuple(_warnings(workload, chip)),
    )
    _check_conservation(report, workload, plan)
    return report


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What depends on more than one layer: who takes part in BP, and whose forward pass runs twice."""

    backward: frozenset[str]
    recomputed: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, workload: Workload, chip: Chip) -> _Plan:
        layers = workload.layers
        trained = [layer.parameters > 0 or layer.kind == "gemm_weight" for layer in layers]
        first = trained.index(True) if any(trained) else len(layers)
        if any(trained) and layers[first].kind == "gemm_weight":
            first += 1  # its input needs no gradient; that of a norm or neuron leads to the gradient of its parameters
        backward = frozenset(layer.path for layer in layers[first:])
        if chip.mapping.membrane == "store":
            return cls(backward=backward)
        by_path = {layer.path: layer for layer in layers}
        pending = [layer for layer in layers if layer.path in backward and needs_potential(layer)]
        recomputed: set[str] = set()
        while pending:  # from each neuron back to the product of saved spikes and weights that feeds it
            layer = pending.pop()
            recomputed.add(layer.path)
            if not layer.kind.startswith("gemm"):
                producers = (by_path[path] for path in layer.inputs if path in by_path and path not in recomputed)
                pending += [producer for producer in producers if producer.kind not in ("neuron", "gather")]
        return cls(backward=backward, recomputed=frozenset(recomputed))


def _phases(layer: Layer, chip: Chip, plan: _Plan) -> list[PhaseCost]:
    phases = layer_phases(layer, chip, layer.path in plan.backward)
    if layer.path in plan.recomputed:
        return [repeated for phase in phases for repeated in _twice(phase, layer)]
    return phases


def _twice(phase: PhaseCost, layer: Layer) -> list[PhaseCost]:
    """A forward phase and its repetition in BP. The repeated product reads its operands again; the repeated neuron
    and norm write nothing, since their results stay on chip this time."""
    if phase.engine != "fp":
        return [phase]
    traffic = phase.dram_bytes_by_tensor if layer.kind.startswith("gemm") else {}
    energy = phase.energy if traffic else replace(phase.energy, dram_pj=0.0)
    # The MACs of the repetition are work of the engine, but not of the network.
    again = replace(phase, energy=energy, true_macs=0, dram_bytes_by_tensor=traffic)
    return [phase, again]


def _is_used(path: str, chip: Chip) -> bool:
    if path.startswith(("noc", "cores", "mapping", "dram.bandwidth")) or path.endswith(".ports"):
        return False
    if path == "dram.energy_pj_per_bit":
        return chip.energy.include_dram
    return chip.energy.include_leakage or not path.endswith("leak_mw")


def _density_means(layer: Layer) -> dict[str, float]:
    measured: dict[str, Density | None] = {
        "input": layer.density_input,
        "spike": layer.density_spike,
        "mask": layer.density_mask,
        "du": layer.density_du,
        "weight": layer.density_weight,
    }
    return {name: density.mean for name, density in measured.items() if density is not None}


def _warnings(workload: Workload, chip: Chip) -> list[str]:
    """What a reader of the figures must know, each with the number of layers it concerns."""
    layers = workload.layers
    gemms = [layer for layer in layers if layer.kind.startswith("gemm")]
    gated = {operand for engine in arrays(chip).values() for operand in engine.zero_gating}
    concerns = (
        (
            sum(layer.input_kind == "real" for layer in gemms),
            "multiply real-valued inputs: priced as mul + add with 16-bit accesses, an extension of the authors' model",
        ),
        (
            sum(layer.kind == "elementwise" for layer in layers),
            "are elementwise: priced as one FP16 multiply per element, an assumption",
        ),
        (
            sum(layer.neuron is not None and layer.neuron.half_width is None for layer in layers),
            "have a surrogate that is not a window: 16 bits per neuron and step survive to BP instead of a mask bit",
        ),
        *(
            (
                sum(operand not in _density_means(layer) for layer in gemms),
                f"have no measured density of {operand}: taken as 1, so zero-gating saves nothing there",
            )
            for operand in sorted(gated)
        ),
        (len(workload.unsupported), "(operations) are unsupported and missing from all figures"),
    )
    return [f"{count} layer(s) {text}" for count, text in concerns if count]


def _check_conservation(report: SimulationReport, workload: Workload, plan: _Plan) -> None:
    """Nothing is lost between layers, engines and total, and every MAC of the workload is there once."""
    by_layer = sum(layer.total.energy.total_pj for layer in report.layers)
    assert isclose(by_layer, report.total.energy.total_pj, rel_tol=1e-12)
    macs = sum(
        layer.macs_forward + layer.macs_weight_gradient + (layer.macs_backward if layer.path in plan.backward else 0)
        for layer in workload.layers
    )
    assert macs == report.total.true_macs
