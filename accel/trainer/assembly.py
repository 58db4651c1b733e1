"""The pieces of a simulation before any time passes: who takes part in BP, which stages feed which, and what each
fragment costs in total and for one micro-batch. `simulator` puts them on a clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from accel.trainer.chip import Chip
from accel.trainer.cost import OPERAND_BITS, SPIKE_BITS
from accel.trainer.layer_cost import LOSS, Part, needs_potential, part_phases
from accel.trainer.partition import Stage
from accel.trainer.result import PhaseCost
from accel.trainer.schedule import QUEUES, Duty, Edge
from accel.trainer.traffic import bytes_of
from accel.trainer.workload import Layer, Workload


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


def edges_of(stages: tuple[Stage, ...], plan: Plan, batch: int, images: int) -> tuple[list[Edge], list[str]]:
    """What passes between stages for `images` of a batch, and the layer whose output it is.

    Spikes are one bit, whole numbers as many as they need, everything else and all gradients 16. A stage without a
    known producer whose input wants a gradient follows the stage before it.
    """
    home = {layer.path: i for i, stage in enumerate(stages) for layer in stage.layers}
    by_path = {layer.path: layer for stage in stages for layer in stage.layers}
    edges: list[Edge] = []
    names: list[str] = []
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
            edges.append(Edge(home[path], target, bytes_of(elements, bits), gradient))
            names.append(path)
    return edges, names


class Pricer:
    """Phases of parts of layers, each priced once: equal parts of equal size are the same object."""

    def __init__(self, workload: Workload, chip: Chip, plan: Plan) -> None:
        self.workload, self.chip, self.plan = workload, chip, plan
        self.known: dict[tuple[object, ...], list[PhaseCost]] = {}
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
        key = (
            index, part.low, part.high, part.channels, steps, last, part.weights_at_home, part.shard, part.shards,
            part.energy,
        )  # fmt: skip
        found = self.known.get(key)
        if found is None:
            backward = layer.path in self.plan.backward
            found = self.known[key] = part_phases(layer, self.chip, part._replace(backward=backward))
        return found

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

    def fragment_duties(self, layers: list[int], images: list[tuple[int, int]], part: Part) -> list[list[Duty]]:
        """What a fragment asks of each engine, micro-batch by micro-batch; the update has one entry."""
        kinds = self.kinds_of(images)
        made = {}
        for kind in dict.fromkeys(kinds):
            first, last = images[kind]
            made[kind] = self._duties(layers, part._replace(first=first, last=last))
        duties = [[made[kind][i > 0][engine] for i, kind in enumerate(kinds)] for engine in range(len(QUEUES))]
        duties[-1] = duties[-1][:1]
        return duties

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
