"""What one inference computes and what that costs: counts of `operations` per sample, times one price list.

    E_pj = ac_pj * AC + mac_pj * MAC

Arithmetic of layers and products is priced; membrane updates are counted and priced beside it (one multiplication and
addition each), so that both figures can be quoted. Memory is left out everywhere: hardware, which also moves data,
spends more. Where a literature compares models by a formula instead, the formula is given as well:

    formula     AC = rate of the inputs * dense operations of the layer, bias included; layers that are always counted
                as MACs, and those that were given something else than 0 and 1: all their operations, as MACs
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spikeloom.accel.analysis.operations import Connections, OperationCounter, Product
from spikeloom.accel.analysis.spike_driven import SpikeDriven, first_and_last, unique_names

LEFT_OUT = (
    "Reading and writing memory is left out, and so are softmax, layer norms and elementwise products; batch "
    "norms are folded into the layers before them. Hardware, which also moves data, spends more."
)


@dataclass(frozen=True, kw_only=True)
class EnergyConstants:
    """Energy of an addition (AC) and of a multiplication with addition (MAC), in pJ, at 45 nm."""

    ac_pj: float = 0.9
    mac_pj: float = 4.6
    arithmetic: str = "32-bit float"
    source: str = "M. Horowitz, ISSCC 2014, 45 nm"

    def energy_pj(self, ac: float, mac: float) -> float:
        return self.ac_pj * ac + self.mac_pj * mac


FLOAT32 = EnergyConstants()
FLOAT16 = EnergyConstants(ac_pj=0.4, mac_pj=1.5, arithmetic="16-bit float")


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How a family of models is counted where publications differ.

    permitted: paths of the layers of a spike-driven network that may be given more than 0 and 1; None: the first and
    the last. always_mac: paths that are counted as MACs whatever they are given. whole_numbers_add: n counts as n
    additions; else only 0 and 1 accumulate. padded: dense operations include taps on padding.
    """

    permitted: frozenset[str] | None = None
    always_mac: frozenset[str] = frozenset()
    whole_numbers_add: bool = True
    padded: bool = False


@dataclass(frozen=True, kw_only=True)
class LayerOperations:
    """One layer of synapses, or one product of activations, per sample. `dense`: MACs when nothing is skipped."""

    path: str
    name: str
    kind: Literal["layer", "product"]
    binary: bool
    integer: bool
    largest: float
    rate: float  # of its inputs; of a product: of all its operands together
    dense: float
    ac: float
    mac: float
    formula_ac: float
    formula_mac: float


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Operations of one inference, mean over `samples` samples of `steps` steps in the mean.

    `membrane_updates` and `additions` (of biases, of residual branches) are not part of ac, mac and energy_pj.
    `formula`: whether the published formula covers this model. `details` are facts of the model's family, for JSON.
    """

    layers: tuple[LayerOperations, ...]
    spike_driven: SpikeDriven
    samples: int
    steps: float
    what: str  # a sample, as people call it: clip, picture
    membrane_updates: float
    firing_rates: Mapping[str, float]  # population -> fraction of neurons that fire in a step
    additions: Mapping[str, float]
    formula: bool
    constants: EnergyConstants
    counter: OperationCounter  # totals over all samples, for other readers
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ac(self) -> float:
        return sum(layer.ac for layer in self.layers)

    @property
    def mac(self) -> float:
        return sum(layer.mac for layer in self.layers)

    @property
    def formula_ac(self) -> float:
        return sum(layer.formula_ac for layer in self.layers)

    @property
    def formula_mac(self) -> float:
        return sum(layer.formula_mac for layer in self.layers)

    def dense_macs(self, kind: Literal["layer", "product"] | None = None) -> float:
        return sum(layer.dense for layer in self.layers if kind in (None, layer.kind))

    @property
    def energy_pj(self) -> float:
        return self.constants.energy_pj(self.ac, self.mac)

    @property
    def formula_energy_pj(self) -> float:
        return self.constants.energy_pj(self.formula_ac, self.formula_mac)

    @property
    def membrane_energy_pj(self) -> float:
        """Of v * decay + x, once for each neuron and step."""
        return self.constants.energy_pj(0, self.membrane_updates)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the figures above, without the counter."""
        judged, formula = self.spike_driven, None
        if self.formula:
            formula = {"ac": self.formula_ac, "mac": self.formula_mac, "energy_pj": self.formula_energy_pj}
        return {
            "verdict": judged.verdict, "exceptions": list(judged.exceptions), "permitted": sorted(judged.permitted),
            "silent": list(judged.silent), "unused": list(self.counter.unused),
            "samples": self.samples, "steps": self.steps, **self.details,
            "ac": self.ac, "mac": self.mac, "energy_pj": self.energy_pj,
            "ac_pj": self.constants.ac_pj, "mac_pj": self.constants.mac_pj, "prices": self.constants.source,
            "dense_macs": self.dense_macs(), "dense_macs_of_layers": self.dense_macs("layer"),
            "membrane_updates": self.membrane_updates, "membrane_energy_pj": self.membrane_energy_pj,
            "additions_not_priced": dict(self.additions), "left_out": LEFT_OUT, "formula": formula,
            "firing_rates": dict(self.firing_rates), "layers": [vars(layer) for layer in self.layers],
        }  # fmt: skip


def per_inference(
    counter: OperationCounter, *, samples: int, steps: float, what: str, convention: Convention,
    name: Callable[[str], str] = str, times: Mapping[str, float] | None = None,
    constants: EnergyConstants | None = None,
    formula: bool = False, residual_adds: float | None = None, bias_adds: float | None = None,
    details: Mapping[str, Any] | None = None, network: str = "the network", membranes: bool = True,
) -> Operations:  # fmt: skip
    """Totals of a counter that has watched `samples` samples, as operations of one of them.

    Args:
        name: path of a layer, product or population -> how people call it.
        times: path of a layer -> how often it counts, where it is computed once for several steps.
        bias_adds, residual_adds: in all samples together; None: those of layers with a bias, and not known.
        membranes: whether the spiking neurons have a membrane to update in every step.

    Raises ValueError without a sample, or where no layer ran.
    """
    if samples < 1 or not counter.connections:
        raise ValueError(f"operations are counted on real inputs, got {samples} samples; give at least one")

    def of_layer(found: Connections) -> LayerOperations:
        share = (times or {}).get(found.path, 1.0) / samples
        whole = found.integer if convention.whole_numbers_add else found.binary
        adds = whole and found.path not in convention.always_mac
        operations = found.padded + (found.outputs if found.biased else 0)
        spikes = found.binary and found.path not in convention.always_mac
        return LayerOperations(
            path=found.path, name=name(found.path), kind="layer", binary=found.binary, integer=found.integer,
            largest=found.largest, rate=found.rate,
            dense=share * (found.padded if convention.padded else found.dense),
            ac=share * found.events if adds else 0.0, mac=0.0 if adds else share * found.synapses,
            formula_ac=share * found.rate * operations if spikes else 0.0,
            formula_mac=0.0 if spikes else share * operations,
        )  # fmt: skip

    def of_product(found: Product) -> LayerOperations:
        return LayerOperations(
            path=found.path, name=name(found.path), kind="product", binary=found.binary, integer=found.integer,
            largest=found.largest, rate=found.rate, dense=found.dense / samples, ac=found.ac / samples,
            mac=found.mac / samples, formula_ac=found.formula_ac / samples, formula_mac=found.mac / samples,
        )  # fmt: skip

    biases = sum(c.outputs for c in counter.connections.values() if c.biased) if bias_adds is None else bias_adds
    additions = {"bias_adds": biases / samples}
    if residual_adds is not None:
        additions["residual_adds"] = residual_adds / samples
    names = unique_names(name, counter.activations)
    return Operations(
        layers=(*map(of_layer, counter.connections.values()), *map(of_product, counter.products.values())),
        spike_driven=SpikeDriven(
            layers=tuple(counter.connections.values()),
            products=tuple(product for product in counter.products.values() if product.judged),
            permitted=first_and_last(counter) if convention.permitted is None else convention.permitted,
            neurons=any(a.spiking for a in counter.activations.values()), name=name, network=network,
        ),
        samples=samples, steps=steps, what=what,
        membrane_updates=membranes * sum(a.places for a in counter.activations.values() if a.spiking) / samples,
        firing_rates={names[path]: a.rate for path, a in counter.activations.items()},
        additions=additions, formula=formula, constants=constants or FLOAT32, counter=counter, details=details or {},
    )  # fmt: skip
