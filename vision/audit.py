"""The page of an audit: is the network spike-driven, where does it fire, and what does an inference cost?

Sections for `accel.report` from what `energy.count_operations` found; nothing is measured here.
"""

from typing import Any

from accel.report import Section, Table, new_figure, palette
from vision.energy import LayerOperations, Operations
from vision.spiking_transformer import SpikingTransformer


def layer_name(path: str) -> str:
    """A path of the model in words: stages.0.blocks.1.attn.q.conv -> stage 1, block 2, attn q."""
    if path == "head":
        return "classifier"
    parts = path.removesuffix(".conv").split(".")
    place, rest = f"stage {int(parts[1]) + 1}", parts[2:]
    if rest[0] == "blocks":
        place += f", block {int(rest[1]) + 1}"
        rest = rest[2:]
    words = " ".join(str(int(p) + 1) if p.isdigit() else p for p in rest)
    return f"{place}, {words.replace('attn mix', 'attention product').replace('attn', 'attention')}"


def verdict_in_words(found: Operations) -> str:
    purity, n = found.purity, len(found.purity.layers)
    extra = purity.exceptions - purity.permitted
    if purity.verdict == "spike-driven":
        return (
            f"Spike-driven: {purity.binary_layers} of {n} convolutions and linear layers saw nothing but 0 and 1; the "
            f"others are {' and '.join(layer_name(p) for p in sorted(purity.exceptions, reverse=True))}, which the "
            "definition permits."
        )
    if purity.verdict == "not spike-driven":
        return (
            f"Not spike-driven: beyond the first convolution and the classifier, {len(extra)} of {n} layers saw values "
            f"other than 0 and 1. They are listed below; hardware must multiply there."
        )
    return (
        f"Void: no layer saw a forbidden value, but {len(purity.silent)} saw no spike at all "
        f"({', '.join(layer_name(p) for p in sorted(purity.silent)[:6])}), and silence proves nothing. Train longer "
        "or show other inputs."
    )


def facts(found: Operations, model: SpikingTransformer) -> dict[str, str]:
    """The figures that matter, as tiles."""
    return {
        "verdict": found.purity.verdict,
        "layers that see only spikes": f"{found.purity.binary_layers} of {len(found.purity.layers)}",
        "energy, counted event by event": f"{found.energy_pj('exact') / 1e9:.4g} mJ",
        "energy, published formula": f"{found.energy_pj('formula') / 1e9:.4g} mJ",
        "dense MACs": f"{found.dense_macs('layer') / 1e6:,.1f} M",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
    }


def sections(found: Operations) -> list[Section]:
    return [
        _purity(found),
        _rates(found),
        _energy(found),
        _layers(found),
        Section(
            "What these figures leave out",
            "",
            text="Arithmetic alone is priced: 45 nm, 32-bit floating point, 0.9 pJ an addition and 4.6 pJ a "
            "multiplication with addition (Horowitz, ISSCC 2014). Reading and writing memory, updates of membranes and "
            "additions on the residual stream are not in it; batch norm is folded into the convolution before it. "
            "Hardware that moves data spends more.",
        ),
    ]


def _purity(found: Operations) -> Section:
    purity = found.purity
    table = None
    if purity.exceptions:
        seen = {s.path: s for s in (*purity.layers, *purity.products)}
        table = Table(
            ("layer", "saw", "largest", "permitted"),
            [
                (
                    layer_name(path),
                    "whole numbers" if seen[path].integer else "real values",
                    f"{seen[path].largest:.4g}",
                    "yes" if path in purity.permitted else "no",
                )
                for path in seen
                if path in purity.exceptions
            ],
        )
    return Section(
        "Which layers see more than spikes",
        "Every layer whose input held anything but 0 and 1, over all samples of this audit.",
        table=table,
        text="A layer is driven by spikes when everything it was given was exactly 0 or 1. The first convolution "
        "(pixels or event counts) and the classifier (averages) are permitted exceptions; there are no others.",
    )


def _rates(found: Operations) -> Section:
    rows = found.layers
    figure = new_figure(9.2, max(2.4, 0.23 * len(rows) + 0.9))
    axes = figure.subplots()
    colours = [palette[0] if row.binary else palette[1] for row in rows]
    axes.barh(range(len(rows)), [100 * row.rate for row in rows], color=colours, height=0.72)
    axes.set_yticks(range(len(rows)), [layer_name(row.path) for row in rows])
    axes.tick_params(axis="y", labelsize=9)
    axes.set(xlim=(0, 100), ylim=(len(rows) - 0.4, -0.6), xlabel="share of inputs that are not 0, %")
    axes.grid(False, axis="y")
    from matplotlib.patches import Patch

    kinds = [(True, palette[0], "only 0 and 1"), (False, palette[1], "other values, too")]
    present = {row.binary for row in rows}
    axes.legend(
        handles=[Patch(color=colour, label=label) for kind, colour, label in kinds if kind in present],
        loc="lower right", frameon=True, fontsize=9,
    )  # fmt: skip
    return Section(
        "Where the network fires",
        "Share of non-zero inputs of every layer in the order of use, mean over samples, steps and positions. "
        "Attention products come last; their bar is for q, k and v together.",
        figure=figure,
    )


def _energy(found: Operations) -> Section:
    once = "once" if found.count_encoder_once else f"{found.T} times"
    rows: list[tuple[str, Any, Any, Any]] = []
    for mode, name in (("exact", "event by event"), ("formula", "published formula")):
        ac, mac = found.total(f"{mode}_ac"), found.total(f"{mode}_mac")
        energy = found.energy_pj(mode)  # type: ignore[arg-type]
        rows.append((name, f"{ac / 1e6:,.3f} M", f"{mac / 1e6:,.6f} M", f"{energy / 1e9:.6f} mJ"))
    dense = found.total("dense")
    rows.append(("nothing skipped", "–", f"{dense / 1e6:,.3f} M", f"{found.constants.mac_pj * dense / 1e9:.6f} mJ"))
    return Section(
        "What an inference costs",
        f"Per sample of {found.T} steps, mean over {found.samples} samples. Event by event: each spike meets the "
        "weights in its reach, borders respected, and each real input is multiplied once. Published formula: "
        "firing rate times dense operations, bias included. The first convolution and the classifier multiply whatever "
        f"they were given; the first convolution is counted {once}.",
        table=Table(("way of counting", "additions (AC)", "multiplications (MAC)", "energy"), rows),
    )


def _layers(found: Operations) -> Section:
    def row(layer: LayerOperations) -> tuple[Any, ...]:
        return (
            layer_name(layer.path),
            "0 and 1" if layer.binary else "other",
            f"{layer.largest:.3g}",
            f"{100 * layer.rate:.1f} %",
            f"{layer.dense / 1e6:.3f}",
            f"{layer.exact_ac / 1e6:.3f}",
            f"{layer.exact_mac / 1e6:.3f}",
        )

    return Section(
        "Layer by layer",
        "Input values, share of non-zero inputs, and operations per sample in millions, counted event by event.",
        table=Table(("layer", "input", "largest", "rate", "dense MAC", "AC", "MAC"), [row(r) for r in found.layers]),
    )
