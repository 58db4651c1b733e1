"""Data flows of attention: the product of two activations C = A B and its gradients, each on an engine that suits it.

Per group (head) and image step, A is m x k and B is k x n. The forward product runs on FP; the gradients

    dA = dC B^T   (m x n times n x k)        dB = A^T dC   (k x m times m x n)

run on BP or on WG, which has nothing else to do for a product without weights. On each engine one of the three operands
stays in the array: the right one (ws), the left one (is, the same with roles exchanged) or the result (os). The prices
are those of `closed_forms`: ws as in FP and BP, os as in WG. The authors' engines have one flow each; arrays that can
take any are an assumption, which only a mapping with a search makes.

Without a search, FP and BP hold the right operand of every product, and BP takes dB for another dA.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from spikeloom.accel.trainer.chip.chip import Chip, Dataflow, Engine
from spikeloom.accel.trainer.cost.closed_forms import OPERAND_BITS, REAL, ConvLoops, Energy, Operand, mac_pj
from spikeloom.accel.trainer.cost.cycles import densities, product_cycles, skipped_shares
from spikeloom.accel.trainer.workload import Layer

FLOWS: tuple[Dataflow, ...] = ("ws", "is", "os")
Objective = Literal["time", "energy", "energy-delay"]
OBJECTIVES: tuple[Objective, ...] = ("time", "energy", "energy-delay")
Name = Literal["C", "dA", "dB"]


@dataclass(frozen=True, kw_only=True)
class Product:
    """`groups` matrix products of m x k and k x n; the names of both operands are those of their densities."""

    name: Name
    m: int
    k: int
    n: int
    groups: int
    left: Operand
    right: Operand
    operands: tuple[str, str]
    times: float  # in the iteration

    @property
    def macs(self) -> int:
        return self.m * self.k * self.n * self.groups


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A product on an engine with a flow, for the whole iteration."""

    product: Product
    engine: str
    flow: Dataflow
    energy: Energy
    cycles: int


def products_of(layer: Layer, loops: ConvLoops, operand: Operand, forward: int, backward: int) -> list[Product]:
    """The products of a part of a `gemm_activation` with so many MACs forward and backward; the second operand counts
    as what its bits say. Where only one operand wants a gradient, it is taken for the first."""
    m, k, n = loops.positions, loops.group_inputs, loops.group_outputs
    second = REAL if layer.weight_bits >= OPERAND_BITS else Operand(kind="integer", bits=layer.weight_bits)
    common = {"groups": loops.groups}
    found = [
        Product(name="C", m=m, k=k, n=n, left=operand, right=second, operands=("input", "weight"),
                times=forward / loops.macs, **common)
    ]  # fmt: skip
    both = backward > forward
    share = backward / loops.macs / (2 if both else 1)
    if backward:
        found.append(
            Product(name="dA", m=m, k=n, n=k, left=REAL, right=second, operands=("du", "weight"), times=share, **common)
        )
    if both:
        found.append(
            Product(name="dB", m=k, k=m, n=n, left=operand, right=REAL, operands=("input", "du"), times=share, **common)
        )
    return found


def options(product: Product, layer: Layer, chip: Chip) -> Iterator[Choice]:
    """Every engine and flow for a product."""
    for name in ("fp",) if product.name == "C" else ("bp", "wg"):
        for flow in FLOWS:
            engine = replace(chip.arrays[name], dataflow=flow)
            active = 1.0
            for operand in product.operands:
                density = densities(layer)[operand]
                if density is not None and operand in (*engine.zero_gating, *engine.zero_skipping):
                    active *= density.mean
            shares = skipped_shares(layer, engine, product.operands, product.m)
            planes = product.left.planes
            one = product_cycles(engine, product.m * planes, product.k, product.n, shares=shares)
            yield Choice(
                product=product, engine=name, flow=flow, cycles=ceil(product.times * product.groups * one),
                energy=product.times * product_energy(product, chip, engine, active),
            )  # fmt: skip


def choices(products: list[Product], layer: Layer, chip: Chip, objective: Objective) -> list[Choice]:
    """The choice for each product that makes `objective` of the layer smallest: BP and WG work side by side."""
    forward = min(options(products[0], layer, chip), key=lambda c: _measure([c], objective))
    if len(products) == 1:
        return [forward]
    first = list(options(products[1], layer, chip))
    pairs = (
        [[a, b] for a in first for b in options(products[2], layer, chip)]
        if len(products) > 2
        else [[a] for a in first]
    )
    return [forward, *min(pairs, key=lambda pair: _measure(pair, objective))]


def _measure(chosen: list[Choice], objective: Objective) -> tuple[float, float]:
    by_engine: dict[str, int] = {}
    for choice in chosen:
        by_engine[choice.engine] = by_engine.get(choice.engine, 0) + choice.cycles
    cycles, energy = float(max(by_engine.values())), sum(choice.energy.total_pj for choice in chosen)
    return {"time": (cycles, energy), "energy": (energy, cycles), "energy-delay": (cycles * energy, cycles)}[objective]


def product_energy(product: Product, chip: Chip, engine: Engine, active: float) -> Energy:
    """Energy of a product once, in the flow of `engine`; `active` MACs are not gated off."""
    if engine.dataflow == "is":
        turned = replace(product, m=product.n, n=product.m, left=product.right, right=product.left)
        return product_energy(turned, chip, replace(engine, dataflow="ws"), active)
    register, macs = chip.ops.register_16b_pj, product.macs
    output = engine.memories["output"]
    spikes = product.left if product.left.kind != "real" else product.right
    compute = active * macs * mac_pj(chip, engine, spikes)
    left, right = (_register_pj(chip, operand) for operand in (product.left, product.right))
    moved: dict[str, tuple[float, float]] = {}
    if engine.dataflow == "ws":
        results, folds = product.groups * product.m * product.n, ceil(product.k / engine.rows)
        stationary, reloads = product.groups * product.k * product.n, results * (folds - 1)
        weight = engine.memories.get("weight", output)
        _add(moved, product.left, active * 2 * macs * left, results * folds * _sram_pj(engine, product.left))
        _add(moved, product.right, active * macs * right + 2 * stationary * right,
             stationary * weight.read_element_pj(product.right.width))  # fmt: skip
        moved["psum"] = (
            (2 * macs - results + reloads) * register,
            reloads * output.read_element_pj(OPERAND_BITS) + results * folds * output.write_element_pj(OPERAND_BITS),
        )
        return Energy.of(compute, **moved)
    results = product.groups * product.m * product.n
    each = macs // product.groups
    left_reads = product.groups * ceil(each / min(product.n, engine.columns))
    right_reads = product.groups * ceil(each / min(product.m, engine.rows))
    _add(moved, product.left, active * 2 * macs * left, left_reads * _sram_pj(engine, product.left))
    _add(moved, product.right, active * 2 * macs * right, right_reads * _sram_pj(engine, product.right))
    _add(moved, REAL, 2 * macs * register, results * output.write_element_pj(OPERAND_BITS))
    return Energy.of(compute, **moved)


def _add(moved: dict[str, tuple[float, float]], operand: Operand, registers: float, sram: float) -> None:
    before = moved.get(operand.tensor, (0.0, 0.0))
    moved[operand.tensor] = before[0] + registers, before[1] + sram


def _register_pj(chip: Chip, operand: Operand) -> float:
    return chip.ops.register_16b_pj if operand.kind == "real" else operand.width * chip.ops.register_1b_pj


def _sram_pj(engine: Engine, operand: Operand) -> float:
    """Reading a streamed value: spikes from the input SRAM, real values from the one for such values."""
    memories = engine.memories
    if operand.kind != "real":
        return memories["input"].read_element_pj(operand.width)
    role = "gradient" if "weight" not in memories else "input" if "gradient" in memories else "output"  # WG, BP, FP
    return memories[role].read_element_pj(OPERAND_BITS)
