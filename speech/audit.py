"""The page of an audit of SpikeSCR: what each layer sees, and what a clip costs.

Sections for `accel.report` from what `energy.count_operations` found; nothing is measured here. The verdict is about
layers of synapses: "spike-driven" when all but the first layer (mel frames, event counts) and the classifier saw
nothing but 0 and 1. SpikeSCR adds up the spikes of its branches, so a layer that reads the sum sees 2, 3, …: events to
add, but no spikes. A silent layer proves nothing: the verdict is then "void". Rotation and gate are no layers of
synapses and stand with their multiplications in the table of costs.
"""

from dataclasses import dataclass
from typing import Any, Literal

from accel.report import Section, Table
from accel.spiking.operations import Connections
from speech.energy import OperationCounts
from speech.training import layer_name

Verdict = Literal["spike-driven", "not spike-driven", "void"]
PERMITTED = frozenset({"embedding.conv.conv", "head"})  # see real values or sums by design


@dataclass(frozen=True, kw_only=True)
class Purity:
    """What the layers saw, in the order of use. `exceptions` saw something else than 0 and 1, `silent` only 0."""

    layers: tuple[Connections, ...]

    @property
    def exceptions(self) -> tuple[str, ...]:
        return tuple(seen.path for seen in self.layers if not seen.binary)

    @property
    def silent(self) -> tuple[str, ...]:
        return tuple(seen.path for seen in self.layers if seen.nonzero == 0)

    @property
    def verdict(self) -> Verdict:
        if not PERMITTED.issuperset(self.exceptions):
            return "not spike-driven"
        return "void" if self.silent else "spike-driven"


def purity(found: OperationCounts) -> Purity:
    return Purity(layers=tuple(found.counter.connections.values()))


def verdict_in_words(seen: Purity) -> str:
    n = sum(c.path not in PERMITTED for c in seen.layers)
    extra = [path for path in seen.exceptions if path not in PERMITTED]
    if seen.verdict == "not spike-driven":
        words = (
            f"Not spike-driven: beyond the first layer and the classifier, {len(extra)} of {n} layers saw values other "
            f"than 0 and 1 ({_names(extra)}). SpikeSCR adds up the spikes of its branches, and these read the sum."
        )
    elif seen.verdict == "spike-driven":
        words = f"Spike-driven: beyond the first layer and the classifier, all of {n} layers saw nothing but 0 and 1."
    else:
        words = "Void: no layer saw a forbidden value, but silence proves nothing."
    if seen.silent:
        words += (
            f" {len(seen.silent)} layers saw no spike at all ({_names(seen.silent)}); train longer or watch "
            "more clips to learn about them."
        )
    return words


def facts(found: OperationCounts) -> dict[str, str]:
    """The figures that matter, as tiles."""
    seen = purity(found)
    spikes_only = len(seen.layers) - len(set(seen.exceptions) | set(seen.silent))
    return {
        "verdict": seen.verdict,
        "layers that see spikes, and only spikes": f"{spikes_only} of {len(seen.layers)}",
        "energy of a clip": f"{found.energy_pj / 1e6:,.4g} µJ",
        "dense MACs": f"{found.dense_macs / 1e6:,.1f} M",
        "steps of a clip": f"{found.steps:.0f}",
    }


def as_dict(found: OperationCounts) -> dict[str, Any]:
    """For JSON: the verdict and every layer, then the operations."""
    seen = purity(found)
    layers = [
        {
            "path": c.path, "layer": layer_name(c.path), "binary": c.binary, "integer": c.integer, "largest": c.largest,
            "rate": c.rate, "dense": c.dense / found.n_clips,
        }
        for c in seen.layers
    ]  # fmt: skip
    return {
        "verdict": seen.verdict, "exceptions": list(seen.exceptions), "permitted": sorted(PERMITTED),
        "silent": list(seen.silent), "layers": layers, **found.as_dict(),
    }  # fmt: skip


def sections(found: OperationCounts) -> list[Section]:
    saw = Table(
        ("layer", "saw", "largest", "rate", "permitted"),
        [
            (layer_name(c.path), _saw(c), f"{c.largest:.4g}", f"{100 * c.rate:.1f} %", _permitted(c))
            for c in purity(found).layers
        ],
    )
    costs = Table(
        ("part", "AC", "MAC", "dense MAC"),
        [(row.part, f"{row.ac:,.0f}", f"{row.mac:,.0f}", f"{row.dense:,.0f}") for row in found.rows],
    )
    return [
        Section(
            "What each layer sees",
            "Inputs of every layer over all clips of this audit; the rate is the share that is not 0. The first layer "
            "(mel frames or event counts) and the classifier (head) may see more than spikes.",
            table=saw,
        ),
        Section(
            "What a clip costs",
            f"Operations a clip, mean over {found.n_clips}: {found.constants.ac_pj} pJ an addition (AC), "
            f"{found.constants.mac_pj} pJ a multiplication (MAC), {found.energy_pj / 1e6:,.4g} µJ in all. Whole "
            "numbers count as that many additions. Rotation of positions and the gated value multiply in any SpikeSCR. "
            "Not priced: memory, membranes, residual adds.",
            table=costs,
        ),
    ]


def _saw(c: Connections) -> str:
    if c.nonzero == 0:
        return "nothing"
    return "0 and 1" if c.binary else "whole numbers" if c.integer else "real values"


def _permitted(c: Connections) -> str:
    return "" if c.binary else "yes" if c.path in PERMITTED else "no"


def _names(paths: list[str] | tuple[str, ...]) -> str:
    return "; ".join(layer_name(path) for path in paths)
