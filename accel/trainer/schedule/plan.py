"""The pieces of a simulation before any time passes: who takes part in BP, which stages feed which, and what each
fragment costs in total and for one micro-batch. `simulator` puts them on a clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import gcd

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.cost.closed_forms import OPERAND_BITS, SPIKE_BITS
from spikeloom.accel.trainer.cost.layer_cost import LOSS, Part, needs_potential, part_phases
from spikeloom.accel.trainer.cost.traffic import bytes_of
from spikeloom.accel.trainer.schedule.partition import Stage
from spikeloom.accel.trainer.schedule.result import PhaseCost
from spikeloom.accel.trainer.schedule.tile import shared_counts
from spikeloom.accel.trainer.schedule.timeline import QUEUES, Duty, Edge
from spikeloom.accel.trainer.workload import Layer, Workload


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What depends on more than one layer: who takes part in BP, and whose forward pass runs twice."""

    backward: frozenset[str]
    recomputed: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, workload: Workload, chip: Chip) -> Plan:
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


def with_loss(workload: Workload) -> Workload:
    """The workload with a softmax cross-entropy on the output of its last layer."""
    last = next((layer for layer in reversed(workload.layers) if layer.kind != "view"), workload.layers[-1])
    if last.op == LOSS or any(layer.path == "loss" for layer in workload.layers):
        return workload
    loss = Layer(
        path="loss", op=LOSS, kind="elementwise", in_channels=last.out_channels, out_channels=last.out_channels,
        in_height=last.out_height, in_width=last.out_width, out_height=last.out_height, out_width=last.out_width,
        tokens=last.tokens, time_steps=last.time_steps, batch_size=last.batch_size, inputs=(last.path,),
    )  # fmt: skip
    return replace(workload, layers=(*workload.layers, loss))


def edges_of(stages: tuple[Stage, ...], plan: Plan, batch: int, images: int) -> list[Edge]:
    """What passes between stages for `images` of a batch.

    Spikes are one bit, whole numbers as many as they need, everything else and all gradients 16. A stage without a
    known producer whose input wants a gradient follows the stage before it.
    """
    home = {layer.path: i for i, stage in enumerate(stages) for layer in stage.layers}
    by_path = {layer.path: layer for stage in stages for layer in stage.layers}
    edges: list[Edge] = []
    for target, stage in enumerate(stages):
        known: dict[str, Layer] = {}  # producer -> first consumer in this stage
        for layer in stage.layers:
            for path in layer.inputs:
                if path in home and home[path] != target:
                    known.setdefault(path, layer)
        lead = next((layer for layer in stage.layers if layer.kind.startswith("gemm")), None)
        if not known and target > 0 and (lead is None or lead.macs_backward > 0):
            known[stages[target - 1].layers[-1].path] = stage.layers[0]
        for path, consumer in known.items():
            producer = by_path[path]
            elements = producer.elements * images // batch
            bits = 1 if producer.kind == "neuron" else OPERAND_BITS
            if consumer.kind.startswith("gemm") and consumer.input_kind != "real":
                bits = SPIKE_BITS.get(consumer.input_kind, consumer.input_bits)
            wants = path in plan.backward and not (consumer.kind == "gemm_weight" and consumer.macs_backward == 0)
            gradient = bytes_of(elements, OPERAND_BITS) if wants else 0
            edges.append(Edge(home[path], target, path, bytes_of(elements, bits), gradient))
    return edges


class Pricer:
    """Phases of parts of layers, each priced once: equal parts of equal size are the same object."""

    def __init__(self, workload: Workload, chip: Chip, plan: Plan) -> None:
        self.workload, self.chip, self.plan = workload, chip, plan
        self.known: dict[tuple[object, ...], list[PhaseCost]] = {}
        self.shared: dict[tuple[int, int], int] = {}
        self.duties: dict[tuple[int, Part], tuple[list[Duty], list[Duty]]] = {}
        self.kinds: dict[tuple[tuple[int, int], ...], list[int]] = {}
        # Whether a layer's MACs are not the same for every image step: the rest goes to the last images.
        self.uneven = [
            any(n % layer.image_steps for n in (layer.macs_forward, layer.macs_backward, layer.macs_weight_gradient))
            for layer in workload.layers
        ]

    def phases(self, index: int, part: Part) -> list[PhaseCost]:
        layer = self.workload.layers[index]
        steps = part.of_images(layer.image_steps)
        last = self.uneven[index] and part.last == part.batch
        if part.low and self._shifts(index, steps, part):
            part = part._replace(low=0, high=part.high - part.low)
        key = (
            index, part.low, part.high, part.channels, steps, last, part.weights_at_home, part.shard, part.shards,
            part.energy, part.flows,
        )  # fmt: skip
        found = self.known.get(key)
        if found is None:
            backward = layer.path in self.plan.backward
            found = self.known[key] = part_phases(layer, self.chip, part._replace(backward=backward))
        return found

    def _shifts(self, index: int, steps: int, part: Part) -> bool:
        """Whether a part costs what the first channels of its layer do, as many as it has: no count that is shared out
        among channels leaves a rest."""
        if (index, steps) not in self.shared:
            self.shared[index, steps] = gcd(*shared_counts(self.workload.layers[index], self.chip, steps))
        return self.shared[index, steps] * part.low % part.channels == 0

    def kinds_of(self, images: list[tuple[int, int]]) -> list[int]:
        """For each range of images, the first range that every layer cuts alike."""
        if (found := self.kinds.get(tuple(images))) is not None:
            return found
        batch = self.workload.batch_size
        steps = sorted({layer.image_steps for layer in self.workload.layers})
        known: dict[tuple[int, ...], int] = {}
        uneven = any(self.uneven)
        keys = [
            (*(s * last // batch - s * first // batch for s in steps), uneven and last == batch)
            for first, last in images
        ]
        found = self.kinds[tuple(images)] = [known.setdefault(key, i) for i, key in enumerate(keys)]
        return found

    def cases(self, images: list[tuple[int, int]]) -> tuple[list[tuple[int, int, bool]], list[int]]:
        """Ranges of images that cost different amounts, each with whether it is the first one; which of these each
        range is. The first is a case of its own: weights and their gradients pass with it."""
        known: dict[tuple[int, bool], int] = {}
        which = [known.setdefault((kind, i == 0), len(known)) for i, kind in enumerate(self.kinds_of(images))]
        return [(*images[kind], first) for kind, first in known], which

    def fragment_duties(self, layers: list[int], cases: list[tuple[int, int, bool]], part: Part) -> list[list[Duty]]:
        """What a fragment asks of each engine in each of `cases`."""
        found = []
        for first, last, opening in cases:
            key = layers[0], part._replace(first=first, last=last)
            if key not in self.duties:
                self.duties[key] = self._duties(layers, key[1])
            found.append(self.duties[key][0 if opening else 1])
        return found

    def _duties(self, layers: list[int], part: Part) -> tuple[list[Duty], list[Duty]]:
        """Duties of the engines for the first micro-batch and for one that comes later: weights and their gradients
        pass once for the batch, with its first micro-batch, and so does the update."""
        cycles, dram, once = [0] * len(QUEUES), [0] * len(QUEUES), [0] * len(QUEUES)
        ports: list[dict[str, float]] = [{} for _ in QUEUES]
        for index in layers:
            again = self.workload.layers[index].path in self.plan.recomputed
            for phase in self.phases(index, part):
                engine = QUEUES.index(phase.engine)
                times = 2 if again and engine == 0 else 1
                cycles[engine] += times * phase.cycles
                for tensor, size in phase.dram_bytes_by_tensor.items():
                    (once if tensor in ("W", "dW") else dram)[engine] += size
                for port, used in phase.port_cycles.items():
                    ports[engine][port] = ports[engine].get(port, 0.0) + times * used
        shared = [tuple(used.items()) for used in ports]
        first = [Duty(c, d + w, p) for c, d, w, p in zip(cycles, dram, once, shared, strict=True)]
        later = [Duty(c, d, p) for c, d, p in zip(cycles, dram, shared, strict=True)]
        return first, later


def repeated(phase: PhaseCost, product: bool) -> PhaseCost:
    """The repetition of a forward phase in BP. A repeated product reads its operands again; a repeated neuron or norm
    writes nothing, since its results stay on chip this time. Its MACs are work of the engine, not of the network."""
    nothing: dict[str, int] = {}
    energy = replace(phase.energy, noc_pj=0.0, leakage_pj=0.0, dram_pj=phase.energy.dram_pj if product else 0.0)
    return replace(
        phase, energy=energy, true_macs=0, noc_bytes_by_tensor=nothing, noc_pj_by_tensor=nothing,
        dram_bytes_by_tensor=phase.dram_bytes_by_tensor if product else nothing,
        compulsory_bytes_by_tensor=phase.compulsory_bytes_by_tensor if product else nothing,
        refill_bytes_by_tensor=phase.refill_bytes_by_tensor if product else nothing,
    )  # fmt: skip
