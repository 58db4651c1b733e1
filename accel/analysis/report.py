"""The page of an audit: is the network spike-driven, where does it fire, where do multiplications remain, what does an
inference cost? Sections for `spikeloom.accel.common.report` from `energy.Operations`; nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spikeloom.accel.analysis.energy import LEFT_OUT, LayerOperations, Operations
from spikeloom.accel.analysis.operations import Values
from spikeloom.accel.common.report import INK, Section, Table, new_figure, palette
from spikeloom.accel.common.units import amount_text, energy_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BARS = 60


def facts(found: Operations) -> dict[str, str]:
    """The figures that matter, as tiles."""
    judged = found.spike_driven
    tiles = {
        "verdict": judged.verdict,
        "layers that receive spikes, and only spikes": f"{judged.spikes_only} of {len(judged.layers)}",
        f"energy of a {found.what}, layers and products": energy_text(found.energy_pj),
    }
    if found.membrane_updates:
        tiles["with membrane updates"] = energy_text(found.energy_pj + found.membrane_energy_pj)
    if found.formula:
        tiles["energy, published formula"] = energy_text(found.formula_energy_pj)
    return tiles | {
        "dense MACs": amount_text(found.dense_macs()),
        f"steps of a {found.what}": f"{found.steps:.0f}",
    }


def summary_lines(found: Operations) -> list[str]:
    """The verdict, the tiles and the counts, for a console."""
    lines = [found.spike_driven.sentence(), *(f"  {label}: {value}" for label, value in facts(found).items())]
    lines.append(f"  AC {found.ac:,.0f}, MAC {found.mac:,.0f} (event by event); memory is left out")
    if found.formula:
        lines.append(f"  AC {found.formula_ac:,.0f}, MAC {found.formula_mac:,.0f} (published formula)")
    return lines


def sections(found: Operations) -> list[Section]:
    parts = [_rates(found), _multiplications(found), _cost(found), _layers(found)]
    if found.spike_driven.exceptions and found.spike_driven.neurons:
        parts.insert(0, _exceptions(found))
    c = found.constants
    prices = f"{c.ac_pj} pJ an addition (AC), {c.mac_pj} pJ a multiplication with addition (MAC)"
    text = (
        f"Priced is arithmetic alone: {prices}, {c.arithmetic} ({c.source}). {LEFT_OUT} Counted but not priced, per "
        f"{found.what}: {_additions(found)}."
    )
    parts.append(Section("What these figures leave out", "", text=text))
    return parts


def _additions(found: Operations) -> str:
    return ", ".join(f"{n:,.0f} {name.replace('_', ' ')}" for name, n in found.additions.items())


def _exceptions(found: Operations) -> Section:
    judged = found.spike_driven
    rows = [
        (
            judged.name(given.path),
            received(given),
            f"{given.largest:.4g}",
            "yes" if given.path in judged.permitted else "no",
        )
        for given in (*judged.layers, *judged.products)
        if not given.binary
    ]
    return Section(
        "Which layers receive more than spikes",
        "Every layer whose input held anything but 0 and 1, over all samples of this audit.",
        table=Table(("layer", "received", "largest", "permitted"), rows),
        text="A layer is driven by spikes when everything it was given was exactly 0 or 1. "
        + ("The first layer (pixels, mel frames, event counts) and the classifier (sums, averages) may receive more."
           if judged.permitted else ""),
    )  # fmt: skip


def received(given: Values | LayerOperations) -> str:
    if given.rate == 0:
        return "nothing"
    return "0 and 1" if given.binary else "whole numbers" if given.integer else "real values"


def _bars(rows: Sequence[LayerOperations], label: str) -> tuple[Figure, Any]:
    figure = new_figure(9.2, max(2.4, 0.23 * len(rows) + 0.9))
    axes = figure.subplots()
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.tick_params(axis="y", labelsize=9)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=label)
    axes.grid(False, axis="y")
    return figure, axes


def _legend(figure: Figure, handles: list[Any]) -> None:
    """Above the bars, on none of them."""
    figure.legend(handles=handles, loc="outside upper left", ncols=2, edgecolor="none", fontsize=10, labelcolor=INK)


def _shown(rows: list[LayerOperations]) -> tuple[list[LayerOperations], str]:
    some = rows[:MOST_BARS]
    return some, "" if len(some) == len(rows) else f" The first {len(some)} of {len(rows)} are drawn."


def _rates(found: Operations) -> Section:
    from matplotlib.patches import Patch

    rows, cut = _shown(list(found.layers))
    figure, axes = _bars(rows, "inputs that are not 0 (%)")
    axes.barh(
        range(len(rows)), [100 * row.rate for row in rows], color=[palette[not row.binary] for row in rows], height=0.72
    )
    axes.set_xlim(0, 100)
    kinds = [(True, "only 0 and 1"), (False, "other values, too")]
    present = {row.binary for row in rows}
    _legend(figure, [Patch(color=palette[not kind], label=label) for kind, label in kinds if kind in present])
    return Section(
        "Where the network fires",
        "Fraction of non-zero inputs of every layer in the order of use, mean over samples, steps and positions. "
        f"Products of activations (attention, gates) come last; their bar is for all operands together.{cut}",
        figure=figure,
    )


def _multiplications(found: Operations) -> Section:
    ranked = sorted(found.layers, key=lambda row: -(found.constants.energy_pj(row.ac, row.mac)))
    rows = [row for row in ranked if row.ac or row.mac][:24] or ranked[:1]
    figure, axes = _bars(rows, f"energy of a {found.what} (µJ)")
    additions = [found.constants.energy_pj(row.ac, 0) / 1e6 for row in rows]
    products = [found.constants.energy_pj(0, row.mac) / 1e6 for row in rows]
    axes.barh(range(len(rows)), additions, color=palette[0], height=0.72, label="additions")
    axes.barh(range(len(rows)), products, left=additions, color=palette[1], height=0.72, label="multiplications")
    _legend(figure, axes.get_legend_handles_labels()[0])
    share = found.constants.energy_pj(0, found.mac) / max(found.energy_pj, 1e-30)
    return Section(
        "Where multiplications remain",
        f"Energy by layer and product, the largest first. {100 * share:.0f} % of it goes to multiplications, which a "
        "spike-driven layer does not need.",
        figure=figure,
    )


def _cost(found: Operations) -> Section:
    c, dense = found.constants, found.dense_macs()

    def row(name: str, ac: float | None, mac: float, pj: float) -> tuple[str, str, str, str]:
        return name, "–" if ac is None else f"{ac:,.0f}", f"{mac:,.0f}", energy_text(pj)

    rows = [row("event by event", found.ac, found.mac, found.energy_pj)]
    if found.membrane_updates:
        rows.append(row("… membrane updates beside it", 0, found.membrane_updates, found.membrane_energy_pj))
    if found.formula:
        rows.append(row("published formula", found.formula_ac, found.formula_mac, found.formula_energy_pj))
    rows.append(row("nothing skipped", None, dense, c.energy_pj(0, dense)))
    once = "" if "count_encoder_once" not in found.details else (
        " The first layer is counted once." if found.details["count_encoder_once"] else
        " The first layer is counted in every step."
    )  # fmt: skip
    formula = " Published formula: firing rate times dense operations, bias included." if found.formula else ""
    return Section(
        f"What a {found.what} costs",
        f"Mean over {found.samples} samples of {found.steps:.0f} steps. Event by event: each spike meets the weights "
        f"in its reach, borders respected, and each real input is multiplied once.{formula} A membrane update is one "
        f"multiplication with addition for each neuron and step.{once}",
        table=Table(("way of counting", "additions (AC)", "multiplications (MAC)", "energy"), rows),
    )


def _layers(found: Operations) -> Section:
    rows = [
        (row.name, received(row), f"{row.largest:.3g}", f"{100 * row.rate:.1f} %",
         *(f"{n:,.0f}" for n in (row.dense, row.ac, row.mac)))
        for row in found.layers
    ]  # fmt: skip
    return Section(
        "Layer by layer",
        f"Input values, fraction of non-zero inputs, and operations per {found.what}, counted event by event.",
        table=Table(("layer", "received", "largest", "rate", "dense MAC", "AC", "MAC"), rows),
    )
