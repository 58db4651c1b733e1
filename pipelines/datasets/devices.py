"""`spikeloom data devices file=TRACE.csv out=FILE.yaml`: a memristor fitted to measured pulses, with its residuals.

FILE is what `model.weights=FILE.yaml` trains on.
"""

from dataclasses import asdict
from pathlib import Path

import yaml

from spikeloom.accel.common.files import whole
from spikeloom.accel.learning.stochastic.device_fit import WayFit, fit_device, read_trace
from spikeloom.pipelines.config.data import DataConfig


def run(config: DataConfig) -> None:
    out = Path(config.out)
    if config.file is None:
        raise ValueError("data devices fits measured pulses; give file=TRACE.csv")
    if out.suffix != ".yaml":
        raise ValueError(f"data devices writes a device, got out={out}; use out=FILE.yaml")
    trace = Path(config.file)
    device, fits = fit_device(
        read_trace(trace), out.stem, f"fit of {trace.name}", read_volts=config.read_volts, g_min=config.g_min,
        g_max=config.g_max,
    )  # fmt: skip
    lines = [
        f"{device.name}: {device.writing}, {device.g_min_siemens:.4g} to {device.g_max_siemens:.4g} siemens",
        *(line_of(way, fit) for way, fit in fits.items()),
    ]
    print("\n".join(lines))
    with whole(out) as partial:
        comments = "".join(f"# {line}\n" for line in lines)
        partial.write_text(comments + yaml.safe_dump(asdict(device), sort_keys=False), encoding="utf-8")
    print(f"-> {out}; train on it with model.weights={out}")


def line_of(way: str, fit: WayFit) -> str:
    left = f", {fit.left_out} at a bound left out" if fit.left_out else ""
    return (
        f"{way}: {fit.pulses} pulses, alpha {fit.alpha:.3g}, gamma {fit.gamma:.3g}; {fit.used} pulses used{left}; "
        f"residual {100 * fit.residual:.2g} % of the window, {100 * fit.explained:.0f} % of the variance explained"
    )
