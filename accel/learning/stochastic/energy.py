"""Energy of binary-stochastic learning, from counts of a run and constants with a source, for three systems.

    E_MAC = E_array + E_rowdriver / columns + E_sense / rows

    digital      every MAC in CMOS, weights from SRAM
    analog       the same arrays with a DAC on every row and an ADC on every column
    stochastic   one-bit row drivers, comparators, a random number for every sampled comparison

All three compute one softmax a sample. The outer products of the weight gradients are MACs in the digital and the
analog system; with one-bit signals they are the read-modify-write of an 8-bit accumulator at each synapse. Programming
pulses are part of the energy of arrays. No ratio is built in: constants come from a file in which each number is
{value, unit, source, node_nm, tier}, and a ratio is only given where all three systems were priced.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import read_yaml
from spikeloom.accel.common.units import counted
from spikeloom.accel.learning.stochastic.policies import BsPolicy, Conv, Layer
from spikeloom.accel.trainer.chip.constants import Bound, Constant, Reader

_PRICE = Bound(unit="pJ", low=0, high=1e6)
SYSTEMS = ("digital", "analog", "stochastic")


@dataclass(frozen=True, kw_only=True)
class EnergyConstants:
    """Prices in pJ: of a digital MAC and the 16-bit SRAM read of its weight; of one cell of an array in one read, a
    DAC, an ADC, a one-bit row driver, a comparator, a random number; of the softmax of one output, of an accumulator's
    read-modify-write, and of a programming pulse."""

    digital_mac_pj: float
    weight_read_pj: float
    array_cell_pj: float
    dac_pj: float
    adc_pj: float
    row_driver_pj: float
    comparator_pj: float
    random_draw_pj: float
    softmax_output_pj: float
    accumulator_pj: float
    program_pulse_pj: float
    constants: tuple[Constant, ...] = ()

    @classmethod
    def from_yaml(cls, path: str | Path) -> "EnergyConstants":
        """Read a file. Raises ValueError with all its faults: a missing constant, no source, a wrong unit."""
        return cls.from_mapping(read_yaml(Path(path), "write a file of constants in YAML"), str(path))

    @classmethod
    def from_mapping(cls, mapping: Any, source: str) -> "EnergyConstants":
        """`from_yaml` of a parsed file; `source` names it in the error."""
        names = tuple(field.name for field in fields(cls) if field.name != "constants")
        reader = Reader()
        section = reader.section(mapping, "", names, optional=("templates",))
        values = reader.numbers(section, "", dict.fromkeys(names, _PRICE))
        if reader.faults:
            faults = "\n  ".join(reader.faults)
            raise ValueError(f"{source}: {counted(len(reader.faults), 'fault')} in these constants:\n  {faults}")
        return cls(**values, constants=tuple(reader.constants))


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Events of a run or of one inference. A read of an array drives its rows and senses its columns once."""

    samples: int = 0
    macs: int = 0  # through weights, forwards and back
    gradient_macs: int = 0  # outer products
    row_drives: int = 0
    column_senses: int = 0
    random_draws: int = 0
    softmax_outputs: int = 0
    accumulations: int = 0
    program_pulses: int = 0

    def times(self, n: int) -> "Counts":
        return Counts(**{name: n * value for name, value in vars(self).items()})

    def plus(self, other: "Counts") -> "Counts":
        return Counts(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def inference_counts(layers: Sequence[Layer], *, stochastic: bool, repeats: int = 1) -> Counts:
    """One sample forwards, `repeats` times. Drawn: the input, hidden signals after pooling, the output bits."""
    counts = Counts(samples=1)
    for layer in layers:
        rows, columns, positions = layer.fan_in, layer.bias_shape[0], layer.positions
        counts = counts.plus(
            Counts(
                macs=rows * columns * positions, row_drives=rows * positions, column_senses=columns * positions,
            )
        )  # fmt: skip
    classes = layers[-1].bias_shape[0]
    draws = (_inputs(layers[0]) + sum(_outputs(layer) for layer in layers)) if stochastic else 0
    return Counts(**{**vars(counts.plus(Counts(random_draws=draws, softmax_outputs=classes)).times(repeats)),
                     "samples": 1})  # fmt: skip


def training_counts(layers: Sequence[Layer], policy: BsPolicy, samples: int, pulses: int,
                    updates: int, *, per_batch: bool = False) -> Counts:  # fmt: skip
    """`samples` presentations: forwards, errors back through all layers but the first, and the outer products.

    Random numbers: as the policy samples. pulses: programming pulses of the run. An accumulator is updated once a
    sample for every synapse (and position), since the sum over a batch is formed in it; with `per_batch` it is updated
    once a step, and the sum is formed elsewhere.
    """
    forward = inference_counts(layers, stochastic=policy.forward == "s")
    output = layers[-1].bias_shape[0]
    draws = forward.random_draws - (output if policy.forward == "s" else 0)
    draws += output if policy.draws_output else 0
    draws += sum(_outputs(layer) for layer in layers[:-1]) if policy.derivative == "s" else 0
    back = Counts()
    for layer in layers[1:]:
        rows, columns, positions = layer.fan_in, layer.bias_shape[0], layer.positions
        back = back.plus(Counts(macs=rows * columns * positions, row_drives=columns * positions,
                                column_senses=rows * positions))  # fmt: skip
    outer = forward.macs
    one = Counts(**{**vars(forward.plus(back)), "samples": 1, "random_draws": draws, "gradient_macs": outer})
    synapses = sum(layer.fan_in * layer.bias_shape[0] for layer in layers)
    met = synapses * updates if per_batch else outer * samples
    return one.times(samples).plus(Counts(accumulations=met, program_pulses=pulses))


def itemise(counts: Counts, constants: EnergyConstants) -> dict[str, dict[str, float]]:
    """pJ by system and item; items that a system lacks or that cost nothing are absent. `total` is their sum."""
    c, k = counts, constants
    shared = {"softmax": c.softmax_outputs * k.softmax_output_pj}
    writing = {
        "accumulators": c.accumulations * k.accumulator_pj, "program pulses": c.program_pulses * k.program_pulse_pj,
    }  # fmt: skip
    array = {"array": c.macs * k.array_cell_pj}
    systems = {
        "digital": {
            "MACs": c.macs * k.digital_mac_pj, "weight reads": c.macs * k.weight_read_pj,
            "gradient MACs": c.gradient_macs * (k.digital_mac_pj + k.weight_read_pj), **shared,
        },
        "analog": {
            **array, "DACs": c.row_drives * k.dac_pj, "ADCs": c.column_senses * k.adc_pj,
            "gradient MACs": c.gradient_macs * k.digital_mac_pj, **shared, **writing,
        },
        "stochastic": {
            **array, "row drivers": c.row_drives * k.row_driver_pj, "comparators": c.column_senses * k.comparator_pj,
            "random draws": c.random_draws * k.random_draw_pj, **shared, **writing,
        },
    }  # fmt: skip
    present = {name: {k: v for k, v in items.items() if v or k == "random draws"} for name, items in systems.items()}
    return {name: {**items, "total": sum(items.values())} for name, items in present.items()}


def ratios(energies: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Energy of the digital and the analog system over the stochastic one. Raises ValueError unless all are there."""
    if missing := [name for name in SYSTEMS if name not in energies]:
        raise ValueError(f"a ratio needs all of {', '.join(SYSTEMS)}; {', '.join(missing)} was not priced")
    own = energies["stochastic"]["total"]
    return {f"{name} / stochastic": energies[name]["total"] / own for name in SYSTEMS[:2]}


def mac_pj(constants: EnergyConstants, rows: int, columns: int) -> float:
    """E_MAC of a stochastic array of rows x columns, without the random numbers."""
    k = constants
    return k.array_cell_pj + k.row_driver_pj / columns + k.comparator_pj / rows


def _inputs(layer: Layer) -> int:
    return layer.n_in * layer.size**2 if isinstance(layer, Conv) else layer.n_in


def _outputs(layer: Layer) -> int:
    """Signals a layer passes on, after pooling."""
    return layer.n_out * (layer.map_size // layer.pool) ** 2 if isinstance(layer, Conv) else layer.n_out
