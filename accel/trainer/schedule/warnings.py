"""What a reader of a simulation must know beside its figures: warnings, densities used, constants used, refusals."""

from __future__ import annotations

from spikeloom.accel.common.units import counted
from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.cost.closed_forms import ConvLoops, Operand
from spikeloom.accel.trainer.cost.traffic import too_large
from spikeloom.accel.trainer.workload import Density, Layer, Workload


def refuse_oversized(workload: Workload, chip: Chip) -> None:
    """Raise ValueError for the first layer whose smallest tile does not fit in the SRAMs of an engine."""
    for layer in workload.layers:
        if not layer.kind.startswith("gemm"):
            continue
        loops = ConvLoops(
            in_channels=layer.in_channels, out_channels=layer.out_channels, positions=layer.positions,
            taps=layer.taps, groups=layer.groups,
        )  # fmt: skip
        operand = Operand(kind=layer.input_kind, bits=layer.input_bits)
        for fault in too_large(loops, chip, operand.width):
            raise ValueError(
                f"layer {layer.path!r} does not fit on chip {chip.name!r}: {fault}; enlarge that memory or the layer's "
                "tile shrinks with a smaller array"
            )


def is_used(path: str, chip: Chip) -> bool:
    """Whether a constant of the chip enters the figures of a simulation."""
    if path.startswith("fleet"):
        return False
    if path == "dram.energy_pj_per_bit":
        return chip.energy.include_dram
    if path.startswith(("noc.event", "noc.hop_pj")):
        return chip.energy.include_noc
    return chip.energy.include_leakage or not path.endswith("leak_mw")


def density_means(layer: Layer) -> dict[str, float]:
    measured: dict[str, Density | None] = {
        "input": layer.density_input,
        "spike": layer.density_spike,
        "mask": layer.density_mask,
        "du": layer.density_du,
        "weight": layer.density_weight,
    }
    return {name: density.mean for name, density in measured.items() if density is not None}


def warnings_of(workload: Workload, chip: Chip) -> list[str]:
    """Each with the number of layers it concerns."""
    layers = workload.layers
    gemms = [layer for layer in layers if layer.kind.startswith("gemm")]
    engines = chip.arrays.values()
    gated = {operand for engine in engines for operand in (*engine.zero_gating, *engine.zero_skipping)}
    skipped = {operand for engine in engines for operand in engine.zero_skipping}
    fields = {"input": "density_input", "du": "density_du", "weight": "density_weight"}
    drawn = [
        layer
        for layer in gemms
        if any((d := getattr(layer, fields[name])) is not None and d.busiest is None for name in skipped)
    ]
    concerns = (
        (
            sum(layer.input_kind == "real" for layer in gemms),
            "with real-valued inputs: priced as mul + add with 16-bit accesses, an extension of the authors' model",
        ),
        (
            sum(layer.input_kind == "integer" for layer in gemms),
            "with whole numbers (added spikes) as inputs: priced as one pass of accumulations for each bit plane, an "
            "assumption",
        ),
        (
            sum(layer.kind == "elementwise" for layer in layers),
            "of elementwise operations: priced as one FP16 multiply per element, an assumption",
        ),
        (
            sum(layer.neuron is not None and layer.neuron.half_width is None for layer in layers),
            "with a surrogate that is not a window: 16 bits per neuron and step survive to BP instead of a mask bit",
        ),
        *(
            (
                sum(operand not in density_means(layer) for layer in gemms),
                f"without a measured density of {operand}: taken as 1, so zero-gating and zero-skipping save nothing "
                "there",
            )
            for operand in sorted(gated)
        ),
        (len(drawn), "without a measured load imbalance: zero-skipping waits for the fullest lane of drawn masks"),
        (len(workload.unsupported), "(operations) unsupported and missing from all figures"),
    )
    return [f"{counted(count, 'layer')} {text}" for count, text in concerns if count]
