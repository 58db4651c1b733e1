"""The timeline of a simulation as a Chrome/Perfetto trace: open trace.json at ui.perfetto.dev or chrome://tracing.

A process is a core (numbered from 1, since process 0 is the idle one), a thread is an engine, a slice is one layer part
for one micro-batch. Times are microseconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import whole
from spikeloom.accel.trainer.schedule.result import ENGINES, SimulationReport

THREADS = {name: number for number, name in enumerate(ENGINES, start=1)}  # 0 is the idle thread to a trace viewer


def trace(report: SimulationReport) -> dict[str, Any]:
    """The trace as plain dictionaries and lists."""
    per_us = report.clock_hz / 1e6
    used = sorted({span[0] for span in report.timeline})
    events: list[dict[str, Any]] = []
    for core in used:
        events.append({"ph": "M", "name": "process_name", "pid": core + 1, "args": {"name": f"core {core}"}})
        for name, number in THREADS.items():
            named = {"ph": "M", "name": "thread_name", "pid": core + 1, "tid": number, "args": {"name": name.upper()}}
            events.append(named)
    for core, engine, layer, micro, start, end, busy in report.timeline:
        length = max(0.0, end - start)
        events.append({
            "ph": "X", "name": layer, "cat": engine, "pid": core + 1, "tid": THREADS[engine],  # type: ignore[index]
            "ts": start / per_us, "dur": length / per_us,
            "args": {"micro_batch": micro, "busy_cycles": busy, "stall_cycles": max(0.0, length - busy)},
        })  # fmt: skip
    described = {"model": report.model_name, "chip": report.chip_name, "mapping": report.mapping_name}
    return {"displayTimeUnit": "ms", "otherData": described, "traceEvents": events}


def write_trace(report: SimulationReport, path: Path) -> None:
    """Write the trace; equal reports give equal bytes."""
    with whole(path) as partial:
        text = json.dumps(trace(report), allow_nan=False, separators=(",", ":"))
        partial.write_text(text + "\n", encoding="utf-8", newline="\n")
