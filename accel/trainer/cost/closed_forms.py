"""What a layer costs on the three engines: closed forms of the NeuroMC cost model (arXiv 2412.05302).

Each core has an engine for the forward pass (FP), one for the back-propagated error (BP) and one for weight gradients
(WG). FP and BP keep weights in a 16 x 16 array and stream inputs; WG keeps dW in the array. With the chip preset
`neuromc` these forms give the authors' layer energies. Here is arithmetic only: no layers, no networks, no files.

Letters: C inputs and K outputs of one group, P output positions, F kernel taps, M = C K P F multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from math import ceil
from typing import Concatenate, ParamSpec

from spikeloom.accel.trainer.chip.chip import Chip, Dataflow, Engine, Memory
from spikeloom.accel.trainer.workload import InputKind

OPERAND_BITS = 16  # FP16 weights, gradients, partial sums and potentials
STATE_BITS = 32  # master weights and Adam moments
SPIKE_BITS = {"binary": 1, "ternary": 2}
P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy in pJ by where it is spent. Sums with `+`, and scales with `number *`.

    `memory_pj_by_tensor` splits `register_pj` + `sram_pj` by the class of the tensor that is moved.
    """

    compute_pj: float = 0.0
    register_pj: float = 0.0
    sram_pj: float = 0.0
    dram_pj: float = 0.0
    noc_pj: float = 0.0
    leakage_pj: float = 0.0
    memory_pj_by_tensor: Mapping[str, float] = field(default_factory=dict)

    @property
    def total_pj(self) -> float:
        return self.compute_pj + self.register_pj + self.sram_pj + self.dram_pj + self.noc_pj + self.leakage_pj

    @classmethod
    def of(cls, compute_pj: float, **moved: tuple[float, float]) -> Energy:
        """Arithmetic, and for each tensor class the (register, SRAM) energy of moving it."""
        return cls(
            compute_pj=compute_pj,
            register_pj=sum([register for register, _ in moved.values()]),
            sram_pj=sum([sram for _, sram in moved.values()]),
            memory_pj_by_tensor={name: register + sram for name, (register, sram) in moved.items()},
        )

    def __add__(self, other: Energy) -> Energy:
        tensors = dict(self.memory_pj_by_tensor)
        for name, value in other.memory_pj_by_tensor.items():
            tensors[name] = tensors.get(name, 0.0) + value
        return Energy(
            compute_pj=self.compute_pj + other.compute_pj,
            register_pj=self.register_pj + other.register_pj,
            sram_pj=self.sram_pj + other.sram_pj,
            dram_pj=self.dram_pj + other.dram_pj,
            noc_pj=self.noc_pj + other.noc_pj,
            leakage_pj=self.leakage_pj + other.leakage_pj,
            memory_pj_by_tensor=tensors,
        )

    def __rmul__(self, times: float) -> Energy:
        return Energy(
            compute_pj=self.compute_pj * times,
            register_pj=self.register_pj * times,
            sram_pj=self.sram_pj * times,
            dram_pj=self.dram_pj * times,
            noc_pj=self.noc_pj * times,
            leakage_pj=self.leakage_pj * times,
            memory_pj_by_tensor={name: value * times for name, value in self.memory_pj_by_tensor.items()},
        )


def _once(price: Callable[Concatenate[Chip, P], Energy]) -> Callable[Concatenate[Chip, P], Energy]:
    """A price of one element depends on the chip alone and is worked out once for each chip."""

    @wraps(price)
    def known(chip: Chip, *args: P.args, **kwargs: P.kwargs) -> Energy:
        key = (price.__name__, *args)
        if key not in chip.prices:
            chip.prices[key] = price(chip, *args, **kwargs)
        return chip.prices[key]

    return known


@dataclass(frozen=True, kw_only=True)
class Operand:
    """What streams into an engine: its kind, and the bits of one value.

    A whole number of b bits (a residual stream of added spikes) is b planes of spikes: the array takes one plane after
    the other, adds what it selects, and doubles the partial sum in between, which for FP16 is a step of the exponent
    and free. It costs b accumulations, b accesses of one bit and b passes.
    """

    kind: InputKind = "binary"
    bits: int = 1

    @property
    def planes(self) -> int:
        return self.bits if self.kind == "integer" else 1

    @property
    def width(self) -> int:
        """Bits that are moved for one value."""
        return OPERAND_BITS if self.kind == "real" else SPIKE_BITS.get(self.kind, self.bits)

    @property
    def tensor(self) -> str:
        """The class under which its traffic is booked."""
        return "activation" if self.kind == "real" else "s"


SPIKE = Operand()
REAL = Operand(kind="real", bits=OPERAND_BITS)


@dataclass(frozen=True, kw_only=True)
class ConvLoops:
    """Loop nest of one convolution, linear layer or matrix product, for one image and one time step.

    `positions` are the spatial positions the engine loops over (times tokens), `taps` is FY * FX. The same nest serves
    the three phases; for BP and WG of a strided layer with zero-inserted gradients, positions are those of its input.
    A grouped layer is `groups` independent nests side by side.
    """

    in_channels: int
    out_channels: int
    positions: int
    taps: int = 1
    groups: int = 1

    @property
    def group_inputs(self) -> int:
        return self.in_channels // self.groups

    @property
    def group_outputs(self) -> int:
        return self.out_channels // self.groups

    @cached_property
    def weights(self) -> int:
        return self.groups * self.group_inputs * self.group_outputs * self.taps

    @property
    def macs(self) -> int:
        return self.weights * self.positions


def mac_pj(chip: Chip, engine: Engine, operand: Operand = SPIKE) -> float:
    """Energy of one multiply-accumulate: mux + add for each plane where an operand is a spike, mul + add where both are
    real."""
    if engine.mac == "mux_add" and operand.kind != "real":
        return operand.planes * (chip.ops.mux_pj + chip.ops.add_pj)
    return chip.ops.mul_pj + chip.ops.add_pj


def weights_stay(loops: ConvLoops, memory: Memory, weight_bits: float = OPERAND_BITS) -> bool:
    """Whether all weights, of so many bits each, fit in `memory` and are loaded once for all images and time steps."""
    return weight_bits * loops.weights <= memory.size_bits


def forward_energy(
    loops: ConvLoops, chip: Chip, *, operand: Operand = SPIKE, load_weights: bool = True, active: float = 1.0,
    weight_bits: float = OPERAND_BITS,
) -> Energy:  # fmt: skip
    """Energy of the FP engine for one image and time step, without the neurons.

    `weight_bits` are those of a stored weight. `active` is the fraction of MACs that are not gated off because an
    operand is zero. Real-valued inputs (pixels, transformers) are an extension of the authors' model: mul + add, and
    16-bit accesses in place of 1-bit ones, from the activation SRAM since the spike SRAM does not hold such values.
    """
    memories = chip.fp.memories
    return _streamed_energy(
        loops, chip, chip.fp, reduction=loops.group_inputs, outputs=loops.group_outputs, operand=operand,
        input_sram=input_sram_pj(memories["input"], memories["output"], operand), tensor=operand.tensor,
        load_weights=load_weights, active=active, weight_bits=weight_bits,
    )  # fmt: skip


def backward_energy(
    loops: ConvLoops, chip: Chip, *, load_weights: bool = True, active: float = 1.0, weight_bits: float = OPERAND_BITS
) -> Energy:
    """Energy of the BP engine for one image and time step, without the neurons: du times W, reduced over outputs."""
    return _streamed_energy(
        loops, chip, chip.bp, reduction=loops.group_outputs, outputs=loops.group_inputs, operand=REAL,
        input_sram=chip.bp.memories["input"].read_element_pj(OPERAND_BITS), tensor="du", load_weights=load_weights,
        active=active, weight_bits=weight_bits,
    )  # fmt: skip


def _streamed_energy(
    loops: ConvLoops,
    chip: Chip,
    engine: Engine,
    *,
    reduction: int,
    outputs: int,
    operand: Operand,
    input_sram: float,
    tensor: str,
    load_weights: bool,
    active: float,
    weight_bits: float,
) -> Energy:
    """FP and BP: weights stay in the array, inputs stream past, partial sums leave through the output SRAM.

    With f = ceil(reduction / rows) F folds and n = outputs * P results, each fold reads its inputs, reloads the n
    partial sums of the fold before, and writes them back.
    """
    register = chip.ops.register_16b_pj
    output = engine.memories["output"]
    macs, groups = loops.macs, loops.groups
    results = groups * outputs * loops.positions
    folds = ceil(reduction / engine.rows) * loops.taps
    loads = loops.weights if load_weights else 0
    reloads = results * (folds - 1)
    moved = {
        tensor: (active * 2 * macs * _input_register_pj(chip, operand), results * folds * input_sram),
        "W": (
            active * macs * register + 2 * loads * register,
            loads * engine.memories["weight"].read_element_pj(weight_bits),
        ),
        "psum": (
            (macs - results) * register + macs * register + reloads * register,
            reloads * output.read_element_pj(OPERAND_BITS) + results * folds * output.write_element_pj(OPERAND_BITS),
        ),
    }
    return Energy.of(active * macs * mac_pj(chip, engine, operand), **moved)


def weight_gradient_energy(loops: ConvLoops, chip: Chip, *, operand: Operand = SPIKE, active: float = 1.0) -> Energy:
    """Energy of the WG engine for one image and time step: dW accumulates in the array and is written out once.

    An input read from SRAM serves up to `columns` outputs, a gradient up to `rows` inputs.
    """
    engine, register = chip.wg, chip.ops.register_16b_pj
    group_macs = loops.macs // loops.groups
    input_reads = loops.groups * ceil(group_macs / min(loops.group_outputs, engine.columns))
    gradient_reads = loops.groups * ceil(group_macs / min(loops.group_inputs, engine.rows))
    input_sram = input_sram_pj(engine.memories["input"], engine.memories["gradient"], operand)
    moved = {
        operand.tensor: (active * 2 * loops.macs * _input_register_pj(chip, operand), input_reads * input_sram),
        "du": (
            active * 2 * loops.macs * register,
            gradient_reads * engine.memories["gradient"].read_element_pj(OPERAND_BITS),
        ),
        "dW": (
            loops.weights * register + (loops.macs - loops.weights) * register + loops.macs * register,
            loops.weights * engine.memories["output"].write_element_pj(OPERAND_BITS),
        ),
    }
    return Energy.of(active * loops.macs * mac_pj(chip, engine, operand), **moved)


def _input_register_pj(chip: Chip, operand: Operand) -> float:
    return chip.ops.register_16b_pj if operand.kind == "real" else operand.width * chip.ops.register_1b_pj


def input_sram_pj(spikes: Memory, activations: Memory, operand: Operand) -> float:
    memory = activations if operand.kind == "real" else spikes
    return memory.read_element_pj(operand.width)


def soma_energy(neurons: int, chip: Chip) -> Energy:
    """Forward energy of `neurons` spiking neurons for one time step."""
    return neurons * _soma(chip)


@_once
def _soma(chip: Chip) -> Energy:
    """One neuron: leak, integrate, fire, surrogate window.

    Current and potential are read and written (16 bits), the spike is read and written and the mask written (1 bit);
    every SRAM access goes with two register accesses, here as in all units below.
    """
    ops, memories = chip.ops, chip.fp.memories
    wide, narrow = ops.register_16b_pj, ops.register_1b_pj

    def read_and_write(role: str, bits: int) -> float:
        return memories[role].read_element_pj(bits) + memories[role].write_element_pj(bits)

    return Energy.of(
        ops.mux_pj + ops.add_pj + ops.mul_pj + 3 * ops.comp_pj,
        x=(4 * wide, read_and_write("output", OPERAND_BITS)),
        u=(4 * wide, read_and_write("potential", OPERAND_BITS)),
        s=(4 * narrow, read_and_write("spike", 1)),
        mask=(2 * narrow, memories["mask"].write_element_pj(1)),
    )


def gradient_unit_energy(neurons: int, chip: Chip) -> Energy:
    """Backward energy of `neurons` spiking neurons for one time step."""
    return neurons * _gradient_unit(chip)


@_once
def _gradient_unit(chip: Chip) -> Energy:
    """One neuron, backwards.

    The error, the potential and the old du are read and the new du written (16 bits); the authors charge one 1-bit
    read for spike and mask together.
    """
    ops, memories = chip.ops, chip.bp.memories
    wide, narrow, gradient = ops.register_16b_pj, ops.register_1b_pj, memories["gradient"]
    return Energy.of(
        ops.mux_pj + 2 * ops.add_pj + 4 * ops.mul_pj,
        ds=(2 * wide, memories["output"].read_element_pj(OPERAND_BITS)),
        u=(2 * wide, memories["potential"].read_element_pj(OPERAND_BITS)),
        du=(4 * wide, gradient.read_element_pj(OPERAND_BITS) + gradient.write_element_pj(OPERAND_BITS)),
        mask=(2 * narrow, memories["mask"].read_element_pj(1)),
    )


def norm_forward_energy(elements: int, statistics: int, chip: Chip) -> Energy:
    """Normalisation of `elements` values with `statistics` means and variances.

    The operation counts are the authors'; the traffic is one pass for the statistics and one that reads and writes.
    """
    ops = chip.ops
    compute = elements * (3 * ops.add_pj + 3 * ops.mul_pj)
    compute += statistics * (2 * ops.add_pj + 4 * ops.mul_pj + ops.sqrt_pj)
    return Energy(compute_pj=compute) + elements * _accesses(chip, "norm", 2, 1, OPERAND_BITS)


def norm_backward_energy(elements: int, statistics: int, chip: Chip) -> Energy:
    """Gradient of the normalisation and its parameters: values and gradients are read twice, one gradient written."""
    ops = chip.ops
    compute = elements * (7 * ops.add_pj + 3 * ops.mul_pj) + statistics * 22 * ops.mul_pj
    return Energy(compute_pj=compute) + elements * _accesses(chip, "norm", 4, 1, OPERAND_BITS)


def elementwise_energy(elements: int, operands: int, chip: Chip) -> Energy:
    """Our extension: one FP16 multiply for each element, `operands` reads and one write in the normalisation SRAM."""
    moved = _accesses(chip, "activation", operands, 1, OPERAND_BITS)
    return Energy(compute_pj=elements * chip.ops.mul_pj) + elements * moved


def loss_energy(elements: int, chip: Chip, *, backward: bool) -> Energy:
    """Our extension, softmax and cross-entropy: shift, exponential (mul + add), sum, divide and pick for each output;
    backward subtracts the target and scales."""
    ops = chip.ops
    compute = ops.add_pj + ops.mul_pj if backward else 3 * ops.add_pj + 2 * ops.mul_pj + ops.comp_pj
    return Energy(compute_pj=elements * compute) + elements * _accesses(chip, "activation", 1, 1, OPERAND_BITS)


def adam_energy(weights: int, others: int, chip: Chip) -> Energy:
    """One Adam step on `weights` weights and `others` biases and normalisation parameters, which take twice the
    operations. Weight, gradient and two moments are read, weight and moments written, 32 bits each."""
    ops = chip.ops
    compute = (weights + 2 * others) * (4 * ops.add_pj + 11 * ops.mul_pj + ops.sqrt_pj)
    moved = _accesses(chip, "optimizer", 4, 3, STATE_BITS)
    return Energy(compute_pj=compute) + (weights + others) * moved


@_once
def _accesses(chip: Chip, tensor: str, reads: int, writes: int, bits: int) -> Energy:
    """Moving one element through the shared memory that holds its class."""
    memory = chip.optimizer_memory if tensor == "optimizer" else chip.norm_memory
    register = {OPERAND_BITS: chip.ops.register_16b_pj, STATE_BITS: chip.ops.register_32b_pj}[bits]
    sram = reads * memory.read_element_pj(bits) + writes * memory.write_element_pj(bits)
    return Energy.of(0.0, **{tensor: (2 * (reads + writes) * register, sram)})


def systolic_cycles(
    m: int, k: int, n: int, rows: int, columns: int, dataflow: Dataflow, *, m_taps: int = 1, k_taps: int = 1
) -> int:
    """Cycles of a dense (m x k) times (k x n) product on a systolic array (the closed forms of SCALE-Sim).

        os  ceil(m/R) ceil(n/C) (k + R + C - 2) - 1
        ws  ceil(k/R) ceil(n/C) (m + 2R + C - 2) - 1
        is  ceil(k/R) ceil(m/C) (n + 2R + C - 2) - 1

    With kernel taps, m or k counts channels, and each tap has folds of its own: the dimension is then m * m_taps or
    k * k_taps long and takes ceil(m/R) * m_taps folds.

    Raises:
        ValueError: for a size below 1 or an unknown dataflow.
    """
    if min(m, k, n, rows, columns, m_taps, k_taps) < 1:
        raise ValueError(f"sizes m, k, n, rows, columns got {m}, {k}, {n}, {rows}, {columns}; use whole numbers >= 1")
    if dataflow == "os":
        return ceil(m / rows) * m_taps * ceil(n / columns) * (k * k_taps + rows + columns - 2) - 1
    if dataflow == "ws":
        return ceil(k / rows) * k_taps * ceil(n / columns) * (m * m_taps + 2 * rows + columns - 2) - 1
    if dataflow == "is":
        return ceil(k / rows) * k_taps * ceil(m / columns) * m_taps * (n + 2 * rows + columns - 2) - 1
    raise ValueError(f"dataflow got {dataflow!r}; use 'os', 'ws' or 'is'")
