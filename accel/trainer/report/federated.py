"""A federated training as sections of a report: accuracy by round, who holds what, and what a round costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from spikeloom.accel.common.report import Section, Table, new_figure, palette
from spikeloom.accel.common.units import duration_text, energy_text

Rows = Sequence[Mapping[str, Any]]
LISTED = 20  # rounds in the table: of more, the first and last


def federated_sections(result: Mapping[str, Any], rounds: Rows, iid: Rows) -> list[Section]:
    """`iid` are rounds of the same training with equal shares of a shuffle, or none."""
    return [
        _accuracy(result, rounds, iid),
        _holders(result),
        _cost(result, rounds),
        _table(rounds, result["test_split"]),
    ]


def _accuracy(result: Mapping[str, Any], rounds: Rows, iid: Rows) -> Section:
    figure = new_figure(9.4, 3.2)
    axes = figure.subplots()
    style: dict[str, Any] = {"marker": "o", "ms": 4}
    label = str(result["split"])
    for rows, colour, name in ((rounds, palette[0], label), (iid, palette[6], "evenly spread")):
        if rows:
            percent = [100 * r["accuracy"] for r in rows]
            axes.plot([r["round"] for r in rows], percent, color=colour, label=name, **style)
    missing = [r for r in rounds if r["missing"]]
    if missing:
        points = [100 * r["accuracy"] for r in missing]
        axes.plot([r["round"] for r in missing], points, "x", color=palette[1], ms=9, label="a worker is missing")
    axes.set_xlabel("round")
    axes.set_ylabel("test accuracy (%)")
    axes.set_xticks([r["round"] for r in rounds][:: max(1, len(rounds) // 12)])
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
    gap = ""
    if "non_iid_gap" in result:
        gap = f" Uneven data cost {100 * result['non_iid_gap']:.1f} points after the last round."
    return Section(
        title="Accuracy by round",
        caption=f"The averaged model on test samples that no worker holds ({result['test_split']}), after each round "
        f"({result['strategy']}).{gap}",
        figure=figure,
    )


def _holders(result: Mapping[str, Any]) -> Section:
    holders = result["holders"]
    figure = new_figure(9.4, 0.9 + 0.4 * len(holders))
    axes = figure.subplots()
    left = [0] * len(holders)
    for label in range(len(holders[0]["labels"])):
        counts = [h["labels"][label] for h in holders]
        shade = 0.35 + 0.65 * (label % 2)
        axes.barh(range(len(holders)), counts, left=left, height=0.7, color=palette[label // 2 % 7], alpha=shade)
        left = [a + b for a, b in zip(left, counts, strict=True)]
    axes.set_yticks(range(len(holders)), [f"worker {h['worker']}" for h in holders])
    axes.invert_yaxis()
    axes.set_xlabel("samples, one colour a class")
    voices = [f"worker {h['worker']}: {', '.join(h['speakers'])}" for h in holders if h["speakers"]]
    return Section(
        title="Who holds what",
        caption="Samples of each worker by class. They never leave it."
        + (f" Voices: {'; '.join(voices)}." if voices and len(voices) <= 8 else ""),
        figure=figure,
    )


def _cost(result: Mapping[str, Any], rounds: Rows) -> Section:
    step_ms, step_mj = 1e3 * result["iteration_time_s"], 1e3 * result["iteration_energy_j"]
    link_ms = 8e3 * result["model_bytes"] / result["link_bits_per_s"]
    link_mj = 8e-9 * result["model_bytes"] * result["link_pj_per_bit"]
    rows = [
        ("one training step of a worker", duration_text(step_ms), energy_text(1e9 * step_mj)),
        ("weights, one way", duration_text(link_ms), energy_text(1e9 * link_mj)),
        ("all rounds", duration_text(1e3 * result["total_time_s"]), energy_text(1e12 * result["total_energy_j"])),
        ("… of which computing", "–", energy_text(1e12 * sum(r["compute_j"] for r in rounds))),
    ]
    return Section(
        title="What it costs",
        caption=f"Steps are priced on {result['chip']}, one chip a worker, all working side by side: a round takes as "
        f"long as its slowest worker. The link of {result['link_bits_per_s'] / 1e9:g} Gb/s and "
        f"{result['link_pj_per_bit']:g} pJ a bit is assumed.",
        table=Table(columns=("what", "time", "energy"), rows=rows),
    )


def _table(rounds: Rows, split: str) -> Section:
    shown = rounds if len(rounds) <= LISTED else [*rounds[: LISTED // 2], *rounds[-LISTED // 2 :]]
    return Section(
        title="Round by round",
        caption=f"Test samples: {split}."
        + ("" if len(rounds) <= LISTED else f" The first and last of {len(rounds)} rounds; all are in rounds.csv."),
        table=Table(
            columns=("round", "accuracy", "answered", "MB", "time", "energy", "missing"),
            rows=[
                (
                    r["round"], f"{100 * r['accuracy']:.2f} %", r["answered"], r["bytes"] / 1e6,
                    duration_text(1e3 * r["time_s"]), energy_text(1e12 * r["energy_j"]), r["missing"] or "–",
                )
                for r in shown
            ],
        ),
    )  # fmt: skip
