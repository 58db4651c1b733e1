"""Many simulations side by side: one row each, and those that no other beats in time and energy at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from spikeloom.accel.common.report import Section, Table, new_figure, palette
from spikeloom.accel.trainer.schedule.result import SimulationReport


@dataclass(frozen=True, kw_only=True)
class Point:
    """One simulated design; `label` says what was changed."""

    label: str
    model: str
    chip: str
    mapping: str
    cores: int
    cores_used: int
    time_ms: float
    energy_mj: float
    tflops_per_w_true: float
    dram_mb: float
    noc_mb: float
    bubble_share: float

    @classmethod
    def of(cls, report: SimulationReport, label: str) -> Point:
        return cls(
            label=label, model=report.model_name, chip=report.chip_name, mapping=report.mapping_name,
            cores=report.cores, cores_used=report.cores_used, time_ms=report.time_per_iteration_ms,
            energy_mj=report.energy_per_iteration_pj / 1e9, tflops_per_w_true=report.tflops_per_w_true,
            dram_mb=report.dram_bytes_per_iteration / 1e6, noc_mb=report.network.bytes / 1e6,
            bubble_share=report.bubble_share,
        )  # fmt: skip

    @classmethod
    def from_document(cls, document: Any) -> Point:
        """Read what `asdict` wrote; raises ValueError for anything else."""
        names = {entry.name for entry in fields(cls)}
        if not isinstance(document, dict) or set(document) != names:
            raise ValueError(f"a point of a sweep has the fields {', '.join(sorted(names))}, got {document!r}")
        return cls(**document)


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in time without costing more energy, from fast to frugal."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.time_ms, p.energy_mj)):
        if not front or point.energy_mj < front[-1].energy_mj:
            front.append(point)
    return front


def table(points: Sequence[Point], numbered: bool = False) -> Table:
    """A row for each design; the mapping is named where they differ in it."""
    best = pareto(points)
    several = len({p.mapping for p in points}) > 1
    rows: list[tuple[str | int | float, ...]] = []
    for number, p in enumerate(points, start=1):
        cells = [
            p.label, "yes" if p in best else "", _short(p.time_ms), _short(p.energy_mj), f"{p.tflops_per_w_true:.3f}",
            _short(p.dram_mb), _short(p.noc_mb), f"{100 * p.bubble_share:.0f}\N{NO-BREAK SPACE}%",
            f"{p.cores_used}/{p.cores}",
        ]  # fmt: skip
        rows.append((*([number] if numbered else []), *cells, *([p.mapping] if several else [])))
    columns = ["design", "front", "ms", "mJ", "TFLOPS/W", "DRAM MB", "NoC MB", "idle", "cores"]
    return Table(columns=[*(["no."] if numbered else []), *columns, *(["mapping"] if several else [])], rows=rows)


def sections(points: Sequence[Point]) -> list[Section]:
    """The table and the plot of a sweep."""
    models = sorted({p.model for p in points})
    figure = new_figure(9.4, 5.2)
    axes = figure.subplots()
    front = pareto(points)
    for chosen, colour, label in (
        ([p for p in points if p not in front], palette[0], "another is faster and no less frugal"),
        (front, palette[1], "no other is both faster and more frugal"),
    ):
        if chosen:
            times, energies = [p.time_ms for p in chosen], [p.energy_mj for p in chosen]
            axes.plot(times, energies, "o-" if chosen is front else "o", color=colour, label=label, linewidth=1.2)
    # Points that nearly coincide share a label.
    wide = max((p.time_ms for p in points), default=1.0) - min((p.time_ms for p in points), default=0.0) or 1.0
    high = max((p.energy_mj for p in points), default=1.0) - min((p.energy_mj for p in points), default=0.0) or 1.0
    placed: list[tuple[float, float, list[str]]] = []
    for number, p in enumerate(points, start=1):
        close = (e for e in placed if abs(e[0] - p.time_ms) < 0.04 * wide and abs(e[1] - p.energy_mj) < 0.05 * high)
        near = next(close, None)
        if near is None:
            placed.append((p.time_ms, p.energy_mj, [str(number)]))
        else:
            near[2].append(str(number))
    for time, energy, labels in placed:
        axes.annotate(", ".join(labels), (time, energy), xytext=(6, 5), textcoords="offset points", fontsize=9)
    axes.margins(x=0.08, y=0.12)
    axes.ticklabel_format(useOffset=False)
    axes.set_xlabel("time of a training step (ms)")
    axes.set_ylabel("energy of a training step (mJ)")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    mapped = sorted({p.mapping for p in points})
    return [
        Section(
            title="Time against energy",
            caption="Each point is one design, with its number in the table; left and down is better. A line joins the "
            "designs that no other one beats in both.",
            figure=figure,
        ),
        Section(
            title="All designs",
            caption=f"One training step of {', '.join(models)} on each design, in the order tried"
            + (f"; mapping: {mapped[0]}." if len(mapped) == 1 else "."),
            table=table(points, numbered=True),
        ),
    ]


def documents(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The rows as plain dictionaries, with whether a point is on the front."""
    front = pareto(points)
    return [{**asdict(p), "on_front": p in front} for p in points]


def _short(value: float) -> str:
    return f"{value:.4g}" if value < 1e4 else f"{value:,.0f}"
