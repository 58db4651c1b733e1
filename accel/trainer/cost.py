"""What a layer costs on the three engines: closed forms of the NeuroMC cost model (arXiv 2412.05302).

Each core has an engine for the forward pass (FP), one for the back-propagated error (BP) and one for weight gradients
(WG). FP and BP keep weights in a 16 x 16 array and stream inputs; WG keeps dW in the array. With the chip preset
`neuromc` these forms give the authors' layer energies. Here is arithmetic only: no layers, no networks, no files.

Letters: C inputs and K outputs of one group, P output positions, F kernel taps, M = C K P F multiply-accumulates.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from accel.trainer.chip import Chip, Dataflow, Engine, Memory
from accel.trainer.workload import InputKind

OPERAND_BITS = 16  # FP16 weights, gradients, partial sums and potentials
STATE_BITS = 32  # master weights and Adam moments
SPIKE_BITS = {"binary": 1, "ternary": 2}


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy in pJ by where it is spent. Sums with `+`, and scales with `number *`."""

    compute_pj: float = 0.0
    register_pj: float = 0.0
    sram_pj: float = 0.0
    dram_pj: float = 0.0
    noc_pj: float = 0.0
    leakage_pj: float = 0.0

    @property
    def total_pj(self) -> float:
        return self.compute_pj + self.register_pj + self.sram_pj + self.dram_pj + self.noc_pj + self.leakage_pj

    def __add__(self, other: Energy) -> Energy:
        return Energy(
            compute_pj=self.compute_pj + other.compute_pj,
            register_pj=self.register_pj + other.register_pj,
            sram_pj=self.sram_pj + other.sram_pj,
            dram_pj=self.dram_pj + other.dram_pj,
            noc_pj=self.noc_pj + other.noc_pj,
            leakage_pj=self.leakage_pj + other.leakage_pj,
        )

    def __rmul__(self, times: float) -> Energy:
        return Energy(
            compute_pj=self.compute_pj * times,
            register_pj=self.register_pj * times,
            sram_pj=self.sram_pj * times,
            dram_pj=self.dram_pj * times,
            noc_pj=self.noc_pj * times,
            leakage_pj=self.leakage_pj * times,
        )


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

    @property
    def weights(self) -> int:
        return self.groups * self.group_inputs * self.group_outputs * self.taps

    @property
    def macs(self) -> int:
        return self.weights * self.positions


def mac_pj(chip: Chip, engine: Engine, input_kind: InputKind = "binary") -> float:
    """Energy of one multiply-accumulate: mux + add where an operand is a spike, mul + add where both are real."""
    if engine.mac == "mux_add" and input_kind != "real":
        return chip.ops.mux_pj + chip.ops.add_pj
    return chip.ops.mul_pj + chip.ops.add_pj


def weights_stay(loops: ConvLoops, memory: Memory) -> bool:
    """Whether all weights fit in `memory` and are loaded once for all images and time steps."""
    return OPERAND_BITS * loops.weights <= memory.size_bits


def forward_energy(
    loops: ConvLoops, chip: Chip, *, input_kind: InputKind = "binary", load_weights: bool = True, active: float = 1.0
) -> Energy:
    """Energy of the FP engine for one image and time step, without the neurons.

    `active` is the fraction of MACs that are not gated off because an operand is zero. Real-valued inputs (pixels,
    transformers) are an extension of the authors' model: mul + add, and 16-bit accesses in place of 1-bit ones, from
    the activation SRAM since the spike SRAM does not hold such values.
    """
    memories = chip.fp.memories
    return _streamed_energy(
        loops,
        chip,
        chip.fp,
        reduction=loops.group_inputs,
        outputs=loops.group_outputs,
        mac=mac_pj(chip, chip.fp, input_kind),
        input_register=_input_register_pj(chip, input_kind),
        input_sram=_input_sram_pj(memories["input"], memories["output"], input_kind),
        load_weights=load_weights,
        active=active,
    )


def backward_energy(loops: ConvLoops, chip: Chip, *, load_weights: bool = True, active: float = 1.0) -> Energy:
    """Energy of the BP engine for one image and time step, without the neurons: du times W, reduced over outputs."""
    return _streamed_energy(
        loops,
        chip,
        chip.bp,
        reduction=loops.group_outputs,
        outputs=loops.group_inputs,
        mac=mac_pj(chip, chip.bp, "real"),
        input_register=chip.ops.register_16b_pj,
        input_sram=chip.bp.memories["input"].read_element_pj(OPERAND_BITS),
        load_weights=load_weights,
        active=active,
    )


def _streamed_energy(
    loops: ConvLoops,
    chip: Chip,
    engine: Engine,
    *,
    reduction: int,
    outputs: int,
    mac: float,
    input_register: float,
    input_sram: float,
    load_weights: bool,
    active: float,
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
    operand_registers = 2 * macs * input_register + macs * register
    sum_registers = (macs - results) * register + macs * register
    return Energy(
        compute_pj=active * macs * mac,
        register_pj=active * operand_registers + sum_registers + 2 * loads * register + reloads * register,
        sram_pj=loads * engine.memories["weight"].read_element_pj(OPERAND_BITS)
        + results * folds * input_sram
        + reloads * output.read_element_pj(OPERAND_BITS)
        + results * folds * output.write_element_pj(OPERAND_BITS),
    )


def weight_gradient_energy(
    loops: ConvLoops, chip: Chip, *, input_kind: InputKind = "binary", active: float = 1.0
) -> Energy:
    """Energy of the WG engine for one image and time step: dW accumulates in the array and is written out once.

    An input read from SRAM serves up to `columns` outputs, a gradient up to `rows` inputs.
    """
    engine, register = chip.wg, chip.ops.register_16b_pj
    group_macs = loops.macs // loops.groups
    input_reads = loops.groups * ceil(group_macs / min(loops.group_outputs, engine.columns))
    gradient_reads = loops.groups * ceil(group_macs / min(loops.group_inputs, engine.rows))
    input_sram = _input_sram_pj(engine.memories["input"], engine.memories["gradient"], input_kind)
    operand_registers = 2 * loops.macs * (_input_register_pj(chip, input_kind) + register)
    sum_registers = loops.weights * register + (loops.macs - loops.weights) * register + loops.macs * register
    return Energy(
        compute_pj=active * loops.macs * mac_pj(chip, engine, input_kind),
        register_pj=active * operand_registers + sum_registers,
        sram_pj=input_reads * input_sram
        + gradient_reads * engine.memories["gradient"].read_element_pj(OPERAND_BITS)
        + loops.weights * engine.memories["output"].write_element_pj(OPERAND_BITS),
    )


def _input_register_pj(chip: Chip, input_kind: InputKind) -> float:
    if input_kind == "real":
        return chip.ops.register_16b_pj
    return SPIKE_BITS[input_kind] * chip.ops.register_1b_pj


def _input_sram_pj(spikes: Memory, activations: Memory, input_kind: InputKind) -> float:
    if input_kind == "real":
        return activations.read_element_pj(OPERAND_BITS)
    return spikes.read_element_pj(SPIKE_BITS[input_kind])


def soma_energy(neurons: int, chip: Chip) -> Energy:
    """Forward energy of `neurons` spiking neurons for one time step: leak, integrate, fire, surrogate window.

    Current and potential are read and written (16 bits), the spike is read and written and the mask written (1 bit);
    every SRAM access goes with two register accesses, here as in all units below.
    """
    ops, memories = chip.ops, chip.fp.memories
    state = [memories["output"], memories["potential"]]
    sram = (
        sum(memory.read_element_pj(OPERAND_BITS) + memory.write_element_pj(OPERAND_BITS) for memory in state)
        + memories["spike"].read_element_pj(1)
        + memories["spike"].write_element_pj(1)
        + memories["mask"].write_element_pj(1)
    )
    return neurons * Energy(
        compute_pj=ops.mux_pj + ops.add_pj + ops.mul_pj + 3 * ops.comp_pj,
        register_pj=8 * ops.register_16b_pj + 6 * ops.register_1b_pj,
        sram_pj=sram,
    )


def gradient_unit_energy(neurons: int, chip: Chip) -> Energy:
    """Backward energy of `neurons` spiking neurons for one time step.

    The error, the potential and the old du are read and the new du written (16 bits); the authors charge one 1-bit
    read for spike and mask together.
    """
    ops, memories = chip.ops, chip.bp.memories
    sram = (
        memories["output"].read_element_pj(OPERAND_BITS)
        + memories["potential"].read_element_pj(OPERAND_BITS)
        + memories["gradient"].read_element_pj(OPERAND_BITS)
        + memories["gradient"].write_element_pj(OPERAND_BITS)
        + memories["mask"].read_element_pj(1)
    )
    return neurons * Energy(
        compute_pj=ops.mux_pj + 2 * ops.add_pj + 4 * ops.mul_pj,
        register_pj=8 * ops.register_16b_pj + 2 * ops.register_1b_pj,
        sram_pj=sram,
    )


def norm_forward_energy(elements: int, statistics: int, chip: Chip) -> Energy:
    """Normalisation of `elements` values with `statistics` means and variances.

    The operation counts are the authors'; the traffic is one pass for the statistics and one that reads and writes.
    """
    ops = chip.ops
    compute = elements * (3 * ops.add_pj + 3 * ops.mul_pj)
    compute += statistics * (2 * ops.add_pj + 4 * ops.mul_pj + ops.sqrt_pj)
    return Energy(compute_pj=compute) + elements * _accesses(chip.norm_memory, chip, 2, 1, OPERAND_BITS)


def norm_backward_energy(elements: int, statistics: int, chip: Chip) -> Energy:
    """Gradient of the normalisation and its parameters: values and gradients are read twice, one gradient written."""
    ops = chip.ops
    compute = elements * (7 * ops.add_pj + 3 * ops.mul_pj) + statistics * 22 * ops.mul_pj
    return Energy(compute_pj=compute) + elements * _accesses(chip.norm_memory, chip, 4, 1, OPERAND_BITS)


def elementwise_energy(elements: int, operands: int, chip: Chip) -> Energy:
    """Our extension: one FP16 multiply for each element, `operands` reads and one write in the normalisation SRAM."""
    return Energy(compute_pj=elements * chip.ops.mul_pj) + elements * _accesses(
        chip.norm_memory, chip, operands, 1, OPERAND_BITS
    )


def adam_energy(weights: int, others: int, chip: Chip) -> Energy:
    """One Adam step on `weights` weights and `others` biases and normalisation parameters, which take twice the
    operations. Weight, gradient and two moments are read, weight and moments written, 32 bits each."""
    ops = chip.ops
    compute = (weights + 2 * others) * (4 * ops.add_pj + 11 * ops.mul_pj + ops.sqrt_pj)
    return Energy(compute_pj=compute) + (weights + others) * _accesses(chip.optimizer_memory, chip, 4, 3, STATE_BITS)


def _accesses(memory: Memory, chip: Chip, reads: int, writes: int, bits: int) -> Energy:
    register = {OPERAND_BITS: chip.ops.register_16b_pj, STATE_BITS: chip.ops.register_32b_pj}[bits]
    return Energy(
        register_pj=2 * (reads + writes) * register,
        sram_pj=reads * memory.read_element_pj(bits) + writes * memory.write_element_pj(bits),
    )


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
